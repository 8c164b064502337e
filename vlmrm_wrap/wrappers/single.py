"""CLIPRewardWrapper: one env, one frame a step."""

import multiprocessing
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from vlmrm_wrap.protocols import (
    RewardModel,
    as_reward_model,
    check_num_envs,
    recipe_of,
    score_frames,
    warn_of_held_frames,
)
from vlmrm_wrap.rendering import FrameRenderer, check_renders

__all__ = ["CLIPRewardWrapper"]


class CLIPRewardWrapper(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Replaces the reward by that of CLIP, the vision-language *model* (this clips no rewards).

    After each step the env is rendered once, and the step's reward becomes R(s) of the frame that shows the
    state reached (Rocamonde et al. 2023, eq. 3): a Python float, in [-1, 1], near 1 where the frame looks like
    the goal prompt. Time limits and terminations pass through; termination can leak the task, see
    :class:`vlmrm_wrap.FixedHorizon`.

    ``env``: any env made with ``render_mode="rgb_array"``. ``reward_model``: a
    :class:`~vlmrm_wrap.CLIPRewardModel`, anything else with ``score(frames)``, or a model's ``recipe``.

    The info of each step gains ``env_reward`` (what the env paid), ``goal_similarity`` (s.g) and
    ``baseline_similarity`` (s.b), Python floats.

    Example:
        >>> model = CLIPRewardModel.from_pretrained(
        ...     "embedded",
        ...     goal_prompts="pole vertically upright on top of the cart",
        ...     baseline_prompts="pole and cart",
        ... )
        >>> env = CLIPRewardWrapper(gym.make("CartPole-v1", render_mode="rgb_array"), model)
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(0)
        >>> 0.8 < reward < 1.0, info["env_reward"]
        (True, 1.0)

    Raises, at construction: ValueError for another render mode, or an Autoreset wrapper inside; TypeError for
    something that is no reward model. At the first step: ValueError or TypeError for a frame that is not uint8
    of shape (height, width, 3).
    """

    def __init__(self, env: gym.Env[Any, Any], reward_model: RewardModel | Mapping[str, Any]) -> None:
        check_renders(env, "CLIPRewardWrapper")
        model = as_reward_model(reward_model)
        check_num_envs(model, 1)
        warn_of_held_frames(model, env.has_wrapper_attr("holds_frames"))
        recipe = recipe_of(model)
        # The recipe, not the model: env.spec is copied and printed, and a model weighs hundreds of MB. Without one
        # gym.make(env.spec) misses its reward_model and says so.
        recorded = {} if recipe is None else {"reward_model": recipe}
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **recorded)
        if recipe is not None:
            _warn_in_worker()
        gym.Wrapper.__init__(self, env)
        # check_env makes the env anew in each listed mode; in all but this one there is no frame to score.
        self.metadata = {**env.metadata, "render_modes": ["rgb_array"]}
        self.reward_model = model
        self._renderer = FrameRenderer(env)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        scores = score_frames(self.reward_model, self._renderer()[None])
        info = {
            **info,
            "env_reward": float(env_reward),
            "goal_similarity": float(scores.goal_similarity[0]),
            "baseline_similarity": float(scores.baseline_similarity[0]),
        }
        return obs, float(scores.rewards[0]), terminated, truncated, info

    def close(self) -> None:
        self._renderer.close()
        super().close()


def _warn_in_worker() -> None:
    if multiprocessing.parent_process() is not None:
        warnings.warn(
            "CLIPRewardWrapper loads a CLIP of its own in this env worker, as it does in every other. One CLIP "
            "for all is faster and smaller: CLIPRewardVectorWrapper(make_vec(...), model), or for "
            "Stable-Baselines3 CLIPRewardVecEnv(make_vec_env(...), model).",
            stacklevel=3,
        )
