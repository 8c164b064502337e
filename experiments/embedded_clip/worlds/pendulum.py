"""A red rod that turns about a pivot: Pendulum-v1."""

from __future__ import annotations

from typing import Any

import numpy as np

from .world import Aim, Array, Family, Region, World, above, below, near, sentences_beside, warp_degrees, wrap_angle

FINE = 10  # degrees


def _warp(degrees: float) -> float:
    return float(warp_degrees(degrees, FINE))


def _tilt(degrees: float) -> tuple[Aim, ...]:
    return (near("pendulum_tilt", _warp(degrees), 1.5),)


def _left(degrees: float) -> tuple[Aim, ...]:
    return *_tilt(degrees), near("pendulum_side", -2 * float(np.sin(np.deg2rad(degrees))), 1.0)


FAMILY = Family(
    name="pendulum",
    share=0.07,
    regions=(
        Region("names", (), offset=-2),
        Region("upright", _tilt(0)),
        Region("nearly upright", _tilt(20)),
        Region("nearly upright left", _left(20), mirrored=True),
        Region("diagonally up", _tilt(50)),
        Region("diagonally up left", _left(50), mirrored=True),
        Region("horizontal", _tilt(90)),
        Region("horizontal left", _left(90), mirrored=True),
        Region("diagonally down", _tilt(130)),
        Region("diagonally down left", _left(130), mirrored=True),
        Region("hanging", _tilt(178)),
        Region("above pivot", (below("pendulum_tilt", _warp(90), 1.5),), offset=-0.5),
        Region("below pivot", (above("pendulum_tilt", _warp(90), 1.5),), offset=-0.5),
        Region("left side", (below("pendulum_side", 0.0, 1.5),), offset=-0.5, mirrored=True),
        Region("not upright", (above("pendulum_tilt", _warp(30), 1.5),), offset=-0.5),
        Region("not hanging", (below("pendulum_tilt", _warp(120), 1.5),), offset=-0.5),
    ),
    sentences=sentences_beside(__file__),
    presets=("the pendulum pointing straight up", "a pendulum"),
    truth_name="-abs(angle), degrees",
    signed=frozenset({"pendulum_side"}),
)


def _sample(rng: np.random.Generator, n: int) -> Array:
    """(theta, torque): the torque is drawn as an arrow, of which no sentence speaks; NaN is none."""
    spread = rng.choice([30.0, 180.0], size=n, p=[0.25, 0.75])
    torque = np.where(rng.random(n) < 0.1, np.nan, rng.uniform(-2, 2, n))
    return np.stack([np.deg2rad(rng.uniform(-1, 1, n) * spread), torque], axis=1)


def _place(env: Any, state: Array) -> None:
    env.state = np.array([state[0], 0.0])
    env.last_u = None if np.isnan(state[1]) else float(state[1])


def _measure(states: Array) -> dict[str, Array]:
    theta = wrap_angle(states[:, 0])
    return {
        "pendulum_tilt": warp_degrees(np.abs(np.rad2deg(theta)), FINE),
        "pendulum_side": -2 * np.sin(theta),  # theta > 0 is counter-clockwise, to the left
    }


def _truth(states: Array) -> Array:
    degrees: Array = -np.abs(np.rad2deg(wrap_angle(states[:, 0])))
    return degrees


WORLDS = (World("Pendulum-v1", FAMILY, 4500, _sample, _place, _measure, _truth),)
