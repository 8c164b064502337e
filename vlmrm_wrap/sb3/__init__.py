"""The Stable-Baselines3 side: ``pip install "vlmrm-wrap[train]"``.

venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", n_envs=8), model)
PPO("MlpPolicy", venv).learn(100_000, callback=CLIPRewardLogger())

Or deferred, the same training with the frames of several steps scored at once:

venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", n_envs=8), model, deferred=True)
PPO("MlpPolicy", venv, **deferred_kwargs(PPO, venv)).learn(100_000, callback=CLIPRewardLogger())
"""

try:
    import stable_baselines3 as _stable_baselines3  # noqa: F401
except ImportError as error:
    from gymnasium.error import DependencyNotInstalled

    raise DependencyNotInstalled('vlmrm_wrap.sb3 needs Stable-Baselines3: pip install "vlmrm-wrap[train]"') from error

from vlmrm_wrap.sb3.alignment import RewardAlignment, RewardsPartWarning
from vlmrm_wrap.sb3.buffers import CLIPReplayBuffer, CLIPRolloutBuffer, deferred_kwargs, use_deferred_buffer
from vlmrm_wrap.sb3.callbacks import CLIPRewardLogger
from vlmrm_wrap.sb3.normalize import DeferredVecNormalize
from vlmrm_wrap.sb3.vec_env import CLIPRewardVecEnv, make_vec_env

__all__ = [
    "CLIPReplayBuffer",
    "CLIPRewardLogger",
    "CLIPRewardVecEnv",
    "CLIPRolloutBuffer",
    "DeferredVecNormalize",
    "RewardAlignment",
    "RewardsPartWarning",
    "deferred_kwargs",
    "make_vec_env",
    "use_deferred_buffer",
]
