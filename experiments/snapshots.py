"""What an object remembers, as plain data; and of a whole sub-env, where its state is plain data: classic control."""

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd

_ATOMS = (type(None), bool, int, float, str, np.generic, np.random.Generator, RunningMeanStd)
_CLASSIC = "gymnasium.envs.classic_control."
# Whose wrappers keep all that they remember in plain data.
_KNOWN = ("gymnasium", "vlmrm_wrap", "envs", __name__)


def data_of(thing: object) -> dict[str, Any]:
    """The attributes of ``thing`` that are numbers, strings, arrays, random generators, or made of such.

    Screens, clocks, functions, envs and models are left out. Nothing is copied: pickle it at once.
    """
    return {name: value for name, value in vars(thing).items() if _is_data(value)}


def put_back(thing: object, data: dict[str, Any]) -> None:
    """Makes ``thing`` remember what :func:`data_of` said of another object of its class."""
    vars(thing).update(data)


def _is_data(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_data, value.keys())) and all(map(_is_data, value.values()))
    if isinstance(value, list | tuple | deque | set):
        return all(map(_is_data, value))
    return isinstance(value, _ATOMS) or (isinstance(value, np.ndarray) and value.dtype != object)


class Snapshots(gym.Wrapper):
    """Goes around all wrappers of a sub-env but Monitor and FrameCapture, which SB3's vector envs call it through."""

    def snapshot(self) -> list[dict[str, Any]] | None:
        """What each layer remembers, random generators included; None if that may not be all."""
        layers = self._layers()
        if not type(layers[-1]).__module__.startswith(_CLASSIC):
            return None
        if any(type(layer).__module__.partition(".")[0] not in _KNOWN for layer in layers):
            return None
        return [data_of(layer) for layer in layers]

    def put_back(self, snapshot: list[dict[str, Any]]) -> None:
        for layer, data in zip(self._layers(), snapshot, strict=True):
            put_back(layer, data)

    def _layers(self) -> list[Any]:
        """From this wrapper to the env itself."""
        layers: list[Any] = [self]
        while isinstance(layers[-1], gym.Wrapper):
            layers.append(layers[-1].env)
        return layers
