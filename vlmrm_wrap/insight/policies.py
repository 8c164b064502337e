"""What acts: a random policy, a policy that Stable-Baselines3 saved, or the one in a run folder.

A saved policy is opened by Stable-Baselines3, which unpickles what the file holds: open only files that you trust.
"""

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

from vlmrm_wrap.rendering import FrameRenderer

__all__ = [
    "Act",
    "RunFolder",
    "closing",
    "deterministic",
    "load_policy",
    "make_env",
    "random_policy",
    "rescaled",
]

Act = Callable[[Any], Any]
"""From an observation to an action."""

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

    def make_env(self) -> gym.Env[Any, Any]:
        """The unmodified env that renders, with observations in the units that the policy knows."""
        env = make_env(self.env_id, self.env_kwargs)
        return rescaled(env) if self.rescale_obs else env


def make_env(env_id: str, env_kwargs: dict[str, Any] | None = None) -> gym.Env[Any, Any]:
    """``gym.make`` with ``render_mode="rgb_array"``; ValueError for an env that can't be made so."""
    if "render_mode" in (env_kwargs or {}):
        raise ValueError("render_mode is among the arguments of the env, and is set for you: leave it out")
    try:
        with warnings.catch_warnings():  # of Gymnasium, about what is an error here, and told below or by the frames
            warnings.filterwarnings("ignore", ".*not in the possible render_modes")
            env = gym.make(env_id, **(env_kwargs or {}), render_mode="rgb_array")
    except TypeError as error:
        if "argument 'render_mode'" not in str(error) and "takes no arguments" not in str(error):
            raise
        raise ValueError(
            f"{env_id} takes no render_mode, so there are no frames to score; required: an env that can be made with "
            "render_mode='rgb_array' and whose render() returns a uint8 array (height, width, 3)"
        ) from error
    modes = env.metadata.get("render_modes")
    if modes and "rgb_array" not in modes:
        env.close()
        raise ValueError(f"{env_id} renders {', '.join(map(repr, modes))}; required: 'rgb_array', frames to score")
    return env


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


def random_policy(env: gym.Env[Any, Any], seed: int) -> Act:
    """Samples of the action space, seeded."""
    env.action_space.seed(seed)
    return lambda obs: env.action_space.sample()


def load_policy(path: Path) -> Act:
    """The deterministic policy of a file that any algorithm of Stable-Baselines3 saved.

    ``NAME.obs.json`` beside it, which experiments/train_ppo.py writes where observations were normalised, is applied.
    OSError for a file that isn't there, ValueError for one that is no such file. Unpickles what the file holds.
    """
    try:
        import stable_baselines3
    except ImportError as error:
        raise DependencyNotInstalled(
            'saved policies need Stable-Baselines3: pip install "vlmrm-wrap[train]"'
        ) from error
    kind = _algorithm(path)
    # schedules belong to the training, and their pickles to the Python that wrote them
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero, "exploration_schedule": _zero}
    return deterministic(getattr(stable_baselines3, kind).load(path, device="cpu", custom_objects=unused), path)


def deterministic(algo: Any, path: Path) -> Act:
    """The deterministic actions of ``algo``, an algorithm of Stable-Baselines3 with the weights of ``path``.

    Observations are normalised with the mean and variance of ``NAME.obs.json`` beside the weights, if there is one.
    """
    stats_file = path.with_suffix(".obs.json")
    stats = json.loads(stats_file.read_text()) if stats_file.exists() else None

    def act(obs: Any) -> Any:
        if stats is not None:
            scale = np.sqrt(np.array(stats["var"]) + stats["epsilon"])
            obs = np.clip((obs - np.array(stats["mean"])) / scale, -stats["clip"], stats["clip"]).astype(np.float32)
        action = algo.predict(obs, deterministic=True)[0]
        return action.item() if action.ndim == 0 else action  # toy_text envs look a discrete action up in a dict

    return act


def _zero(_: float) -> float:
    return 0.0


def _algorithm(path: Path) -> str:
    """The name of an algorithm that reads the file, by the policy in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            module = json.loads(archive.read("data"))["policy_class"]["__module__"]  # stable_baselines3.dqn.policies
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no policy that Stable-Baselines3 saved ({error!r})") from error
    family: str = module.split(".")[-2]
    if not module.startswith("stable_baselines3."):
        raise ValueError(f"{path} holds a policy of {module}; required: one of Stable-Baselines3's own")
    return "PPO" if family == "common" else family.upper()  # A2C's as well: to act, they are the same
