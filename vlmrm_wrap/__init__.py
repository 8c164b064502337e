"""vlmrm_wrap: a reward in plain language for any Gymnasium environment that renders.

Every public name below loads on first use: ``import vlmrm_wrap`` imports no torch, so an environment worker
that needs only ``FrameCapture`` starts in a fraction of a second and stays small. The Stable-Baselines3 side
lives in :mod:`vlmrm_wrap.sb3`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CLIPRewardModel": "vlmrm_wrap.reward_model",
    "CLIPRewardWrapper": "vlmrm_wrap.wrappers.single",
    "CLIPRewardVectorWrapper": "vlmrm_wrap.wrappers.vector",
    "FastMuJoCoRender": "vlmrm_wrap.wrappers.mujoco",
    "FixedHorizon": "vlmrm_wrap.wrappers.horizon",
    "FrameCapture": "vlmrm_wrap.frames",
    "FrameScores": "vlmrm_wrap.protocols",
    "MixEnvReward": "vlmrm_wrap.wrappers.transform",
    "PerEnvPrompts": "vlmrm_wrap.prompts",
    "PotentialDifference": "vlmrm_wrap.wrappers.transform",
    "RenderEvery": "vlmrm_wrap.wrappers.render_every",
    "RewardModel": "vlmrm_wrap.protocols",
    "ScaledReward": "vlmrm_wrap.options",
    "SoftmaxReward": "vlmrm_wrap.prompts",
    "Standardize": "vlmrm_wrap.wrappers.transform",
    "StandardizedReward": "vlmrm_wrap.options",
    "UnknownPromptWarning": "vlmrm_wrap.protocols",
    "WeightedGoals": "vlmrm_wrap.prompts",
    "available_encoders": "vlmrm_wrap.encoders",
    "goal_baseline_reward": "vlmrm_wrap.reward",
    "load_encoder": "vlmrm_wrap.encoders",
    "make_vec": "vlmrm_wrap.wrappers.vector",
    "reward_from_similarities": "vlmrm_wrap.reward",
    "transform_reward": "vlmrm_wrap.wrappers.transform",
}

__all__ = [  # noqa: RUF022 - the order of a first use, not of the alphabet
    "CLIPRewardModel",
    "CLIPRewardWrapper",
    "CLIPRewardVectorWrapper",
    "make_vec",
    "FrameCapture",
    "FixedHorizon",
    "FastMuJoCoRender",
    "goal_baseline_reward",
    "reward_from_similarities",
    "load_encoder",
    "available_encoders",
    "FrameScores",
    "RewardModel",
    "UnknownPromptWarning",
    "ScaledReward",
    "StandardizedReward",
    "WeightedGoals",
    "PerEnvPrompts",
    "SoftmaxReward",
    "RenderEvery",
    "transform_reward",
    "MixEnvReward",
    "PotentialDifference",
    "Standardize",
]

if TYPE_CHECKING:
    from vlmrm_wrap.encoders import available_encoders, load_encoder
    from vlmrm_wrap.frames import FrameCapture
    from vlmrm_wrap.options import ScaledReward, StandardizedReward
    from vlmrm_wrap.prompts import PerEnvPrompts, SoftmaxReward, WeightedGoals
    from vlmrm_wrap.protocols import FrameScores, RewardModel, UnknownPromptWarning
    from vlmrm_wrap.reward import goal_baseline_reward, reward_from_similarities
    from vlmrm_wrap.reward_model import CLIPRewardModel
    from vlmrm_wrap.wrappers.horizon import FixedHorizon
    from vlmrm_wrap.wrappers.mujoco import FastMuJoCoRender
    from vlmrm_wrap.wrappers.render_every import RenderEvery
    from vlmrm_wrap.wrappers.single import CLIPRewardWrapper
    from vlmrm_wrap.wrappers.transform import MixEnvReward, PotentialDifference, Standardize, transform_reward
    from vlmrm_wrap.wrappers.vector import CLIPRewardVectorWrapper, make_vec


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
