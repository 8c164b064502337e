"""A car in a valley: MountainCar-v0 and MountainCarContinuous-v0, whose flags stand at x = 0.5 and x = 0.45."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .world import Array, Family, Region, World, above, below, near, sentences_beside

VALLEY_X = -np.pi / 6  # the lowest point of the track sin(3x)
EYE = 0.25  # a distance in x that is clearly different to the eye


def _x(x: float) -> tuple[Any, ...]:
    return (near("car_x", x / EYE, 1.3),)


FAMILY = Family(
    name="mountain_car",
    share=0.06,
    regions=(
        Region("names", (), offset=-2),
        Region("at flag", (near("car_progress", 0, 1.3),)),
        Region("near top", _x(0.2)),
        Region("right slope", _x(-0.05)),
        Region("low right", _x(-0.3)),
        Region("valley", _x(VALLEY_X)),
        Region("low left", _x(-0.75)),
        Region("left slope", _x(-0.95)),
        Region("top left", _x(-1.15)),
        Region("high", (above("car_height", 0.5 / 0.4, 1.3),), offset=-0.5),
        Region("low", (below("car_height", -0.5 / 0.4, 1.3),), offset=-0.5),
        Region("past flag", (near("car_past", 0.1 / 0.05, 1.0), near("car_progress", 0, 1.3))),
        Region("not at flag", (below("car_progress", -1.2, 1.0),), offset=-0.5),
        Region("not in valley", (above("car_height", -0.6 / 0.4, 1.3),), offset=-0.5),
        Region("right half", (above("car_x", 0.0, 1.0),), offset=-0.5),
        Region("left half", (below("car_x", VALLEY_X / EYE, 1.0),), offset=-0.5),
    ),
    sentences=sentences_beside(__file__),
    presets=("a car at the peak of the mountain, next to the yellow flag", "a car in the mountain"),
    truth_name="car x",
)


def _sample(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-1.2, 0.6, (n, 1))


def _place(env: Any, state: Array) -> None:
    env.state = np.array([state[0], 0.0])


def _measure(states: Array, flag_x: float) -> dict[str, Array]:
    """`car_progress` is nearly flat left of the valley, where the car must go to gain speed, and flat past the flag;
    sentences about the flag aim at it, those about other places at `car_x`."""
    x = states[:, 0]
    return {
        "car_x": x / EYE,
        "car_progress": (np.clip(x, VALLEY_X, flag_x) - flag_x + 0.08 * np.minimum(x - VALLEY_X, 0)) / EYE,
        "car_past": np.clip(x - flag_x, -0.1, 0.1) / 0.05,
        "car_height": np.sin(3 * x) / 0.4,
    }


def _truth(states: Array) -> Array:
    """x, from the valley to the flag."""
    x = states[:, 0]
    return np.where((x >= VALLEY_X) & (x <= 0.5), x, np.nan)


def _in_crop(states: Array) -> Array:
    """The central square shows -0.9 < x < 0.3; half a car is 0.06."""
    inside: Array = np.abs(states[:, 0] + 0.3) < 0.5
    return inside


def _world(env_id: str, flag_x: float) -> World:
    measure = partial(_measure, flag_x=flag_x)
    return World(env_id, FAMILY, 3000, _sample, _place, measure, _truth, crop=_in_crop)


WORLDS = (_world("MountainCar-v0", flag_x=0.5), _world("MountainCarContinuous-v0", flag_x=0.45))
