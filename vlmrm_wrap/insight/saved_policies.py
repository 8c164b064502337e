"""Policies that Stable-Baselines3 or sb3-contrib saved: what their files say, and what they do.

A saved policy is opened by Stable-Baselines3, which unpickles what the file holds: open only files that you trust.
"""

import importlib
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from vlmrm_wrap.insight.policies import RunFolder, rescaled

__all__ = ["SavedPolicy", "load_policy"]


class SavedPolicy:
    """The deterministic actions of ``algo``, an algorithm of Stable-Baselines3 with the weights of ``path``.

    >>> policy = load_policy(Path("runs/CartPole-v1-seed0/policy.zip"))   # doctest: +SKIP
    >>> env = policy.fitted(gym.make("CartPole-v1"))                      # doctest: +SKIP
    >>> action = policy(env.reset()[0])                                   # doctest: +SKIP

    Observations are normalised with the mean and variance of ``NAME.obs.json`` beside the weights, if there is one. A
    recurrent policy remembers the episode; :meth:`reset` begins a new one.
    """

    def __init__(self, algo: Any, path: Path) -> None:
        self.name = f"policy {path}"
        self._algo, self._path = algo, path
        stats = path.with_suffix(".obs.json")
        self._stats = json.loads(stats.read_text()) if stats.exists() else None
        self.reset()

    def reset(self) -> None:
        self._memory, self._begins = None, True

    def __call__(self, obs: Any) -> Any:
        if self._stats is not None:
            scale = np.sqrt(np.array(self._stats["var"]) + self._stats["epsilon"])
            centred, clip = (obs - np.array(self._stats["mean"])) / scale, self._stats["clip"]
            obs = np.clip(centred, -clip, clip).astype(np.float32)
        begins = np.array([self._begins])
        action, self._memory = self._algo.predict(obs, state=self._memory, episode_start=begins, deterministic=True)
        self._begins = False
        return action.item() if action.ndim == 0 else action  # toy_text envs look a discrete action up in a dict

    def fitted(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """``env`` with observations in the units that the policy knows: rescaled, if those of its training run were.

        ValueError for an env of other observations or actions; a warning if they have other bounds.
        """
        known, given = self._algo.observation_space, env.observation_space
        for what, ours, theirs in (
            ("observations", known, given),
            ("actions", self._algo.action_space, env.action_space),
        ):
            if not _alike(ours, theirs):
                raise ValueError(
                    f"{self._path} was trained with the {what} {ours}, and {env} has {theirs}; required: the env that "
                    "it was trained in, or one with the same observations and actions"
                )
        if RunFolder.is_at(self._path.parent) and RunFolder.read(self._path.parent).rescale_obs:
            return rescaled(env)
        if self._stats is None and known.shape == given.shape and known != given:
            warnings.warn(
                f"{self._path} was trained with the observations {known}, and {env} has {given}. If they were "
                "rescaled, leave the policy in its run folder, whose config.yaml says so",
                stacklevel=2,
            )
        return env


def load_policy(path: Path) -> SavedPolicy:
    """The policy of a file that an algorithm of Stable-Baselines3 or sb3-contrib saved.

    OSError for a file that isn't there, ValueError for one that is no such file. Unpickles what the file holds.
    """
    module, kind = _algorithm(path)
    try:
        algorithms = importlib.import_module(module)
    except ImportError as error:
        mend = '"vlmrm-wrap[train]"' if module == "stable_baselines3" else "sb3-contrib"
        raise DependencyNotInstalled(f"{path} was saved by {module}: pip install {mend}") from error
    # schedules belong to the training, and their pickles to the Python that wrote them
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero, "exploration_schedule": _zero}
    return SavedPolicy(getattr(algorithms, kind).load(path, device="cpu", custom_objects=unused), path)


def _zero(_: float) -> float:
    return 0.0


# Where a policy comes from -> what reads it, if not the capitals of that. To act, A2C's and TRPO's are PPO's.
_READERS = {"common": "PPO", "recurrent": "RecurrentPPO", "crossq": "CrossQ"}


def _algorithm(path: Path) -> tuple[str, str]:
    """Package and name of an algorithm that reads the file, by the policy in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            module = json.loads(archive.read("data"))["policy_class"]["__module__"]  # stable_baselines3.dqn.policies
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no policy that Stable-Baselines3 saved ({error!r})") from error
    package, family = module.split(".")[0], module.split(".")[-2]
    if package not in ("stable_baselines3", "sb3_contrib"):
        raise ValueError(
            f"{path} holds a policy of {module}; required: one of Stable-Baselines3's or sb3-contrib's own"
        )
    if family == "maskable":
        raise ValueError(
            f"{path} is MaskablePPO's, which must be told the allowed actions of each step; that isn't done"
        )
    return package, _READERS.get(family, family.upper())


def _alike(known: spaces.Space[Any], given: spaces.Space[Any]) -> bool:
    """Whether a policy of the one space goes with the other, bounds aside."""
    if isinstance(known, spaces.Box) and isinstance(given, spaces.Box):
        return sorted(known.shape) == sorted(given.shape)  # Stable-Baselines3 puts the channels of images first
    if isinstance(known, spaces.Dict) and isinstance(given, spaces.Dict):
        return known.spaces.keys() == given.spaces.keys()
    return known == given
