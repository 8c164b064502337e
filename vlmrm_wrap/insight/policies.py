"""What acts, and where: a random policy, the env by its id, and what a run folder says of both.

Policies that were saved are in :mod:`vlmrm_wrap.insight.saved_policies`.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

from vlmrm_wrap.rendering import FrameRenderer
from vlmrm_wrap.wrappers.horizon import FixedHorizon
from vlmrm_wrap.wrappers.mujoco import FastMuJoCoRender

__all__ = [
    "Act",
    "RunFolder",
    "begin_episode",
    "closing",
    "make_env",
    "random_policy",
    "rescaled",
]

Act = Callable[[Any], Any]
"""From an observation to an action. One with a memory has a ``reset()``; one with a ``name`` is called so in titles."""

_CONFIG, _REWARD_MODEL = "config.yaml", "reward_model.json"


@dataclass(frozen=True)
class RunFolder:
    """What a run of experiments/train_ppo.py says about itself.

    ``recipe`` is None for a control, whose reward was not CLIP's. ``policy``: the checkpoint with the best CLIP return.
    """

    path: Path
    env_id: str
    env_kwargs: dict[str, Any]
    rescale_obs: bool
    recipe: dict[str, Any] | None

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether ``path`` is a run folder."""
        return all((path / name).is_file() for name in (_CONFIG, _REWARD_MODEL))

    @classmethod
    def read(cls, path: Path) -> "RunFolder":
        """ValueError for a folder that is no run folder."""
        try:
            import yaml
        except ImportError as error:
            raise DependencyNotInstalled('run folders are in YAML: pip install "vlmrm-wrap[train]"') from error
        for name in (_CONFIG, _REWARD_MODEL):
            if not (path / name).is_file():
                raise ValueError(f"{path} is no run folder: it holds no {name}")
        try:
            env = yaml.safe_load((path / _CONFIG).read_text())["env"]
            recipe = json.loads((path / _REWARD_MODEL).read_text()).get("recipe")
            return cls(path, env["id"], env.get("kwargs") or {}, bool(env.get("rescale_obs")), recipe)
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no run folder that this version reads: {error!r}") from error

    @property
    def policy(self) -> Path:
        return self.path / "policy.zip"


def make_env(
    env_id: str,
    env_kwargs: dict[str, Any] | None = None,
    *,
    horizon: int | None = None,
    fast_mujoco: bool = False,
) -> gym.Env[Any, Any]:
    """``gym.make`` with ``render_mode="rgb_array"``; ValueError for an env that can't be made so.

    ``horizon``: of the FixedHorizon around it. ``fast_mujoco``: draw with FastMuJoCoRender; TypeError for other envs.
    """
    if "render_mode" in (env_kwargs or {}):
        raise ValueError("render_mode is among the arguments of the env, and is set for you: leave it out")
    try:
        with warnings.catch_warnings():  # of Gymnasium, about what is an error here, and told below or by the frames
            warnings.filterwarnings("ignore", ".*not in the possible render_modes")
            env = gym.make(env_id, **(env_kwargs or {}), render_mode="rgb_array")
    except TypeError as error:
        if "argument 'render_mode'" in str(error) or "takes no arguments" in str(error):
            raise ValueError(
                f"{env_id} takes no render_mode, so there are no frames to score; required: an env that can be made "
                "with render_mode='rgb_array' and whose render() returns a uint8 array (height, width, 3)"
            ) from error
        if "unexpected keyword argument" in str(error):
            raise ValueError(f"{env_id} does not take the arguments {env_kwargs}: {error}") from error
        raise
    modes = env.metadata.get("render_modes")
    if modes and "rgb_array" not in modes:
        env.close()
        raise ValueError(f"{env_id} renders {', '.join(map(repr, modes))}; required: 'rgb_array', frames to score")
    if fast_mujoco:
        env = FastMuJoCoRender(env)
    return env if horizon is None else FixedHorizon(env, horizon)


@contextmanager
def closing(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Closes ``env`` in the end, as CLIPRewardWrapper would: MuJoCo's drawing context in its own OpenGL context."""
    try:
        yield env
    finally:
        FrameRenderer(env).close()
        env.close()


def rescaled(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Bounded observations mapped to [-1, 1]."""
    return gym.wrappers.RescaleObservation(env, np.float32(-1), np.float32(1))


def random_policy(env: gym.Env[Any, Any], seed: int | None) -> Act:
    """Samples of the action space, seeded."""
    env.action_space.seed(seed)
    return _RandomPolicy(env)


@dataclass(frozen=True)
class _RandomPolicy:
    env: gym.Env[Any, Any]
    name = "random policy"

    def __call__(self, obs: Any) -> Any:
        return self.env.action_space.sample()


def begin_episode(act: Act) -> None:
    """To be called before an episode's first action: a policy with a memory forgets the episode before."""
    reset = getattr(act, "reset", None)
    if reset is not None:
        reset()
