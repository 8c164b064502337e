"""Two links under a line: Acrobot-v1."""

from __future__ import annotations

from typing import Any

import numpy as np

from .world import Aim, Array, Family, Region, World, above, below, near, sentences_beside, wrap_angle

LINKS = 0.5  # a difference of height, in links, that is clearly different to the eye


def _tip(links: float) -> tuple[Aim, ...]:
    return (near("tip_height", links / LINKS, 1.3),)


FAMILY = Family(
    name="acrobot",
    share=0.12,
    regions=(
        Region("names", (), offset=-2),
        Region("high", _tip(2)),
        Region("at the line", _tip(1)),
        Region("middle", _tip(0)),
        Region("low", _tip(-1)),
        Region("hanging", _tip(-2)),
        Region("above line", (above("tip_height", 1 / LINKS, 1.3),), offset=-0.5),
        Region("below line", (below("tip_height", 1 / LINKS, 1.3),), offset=-0.5),
        Region("folded", (near("arm_fold", np.pi / 0.6, 1.0),)),
        Region("stretched", (near("arm_fold", 0, 1.0),)),
        Region("tip left", (below("arm_side", 0, 1.0),), offset=-0.5, mirrored=True),
        Region("not hanging", (above("tip_height", -1 / LINKS, 1.3),), offset=-0.5),
        Region("not folded", (below("arm_fold", 1.5 / 0.6, 1.0),), offset=-0.5),
    ),
    sentences=sentences_beside(__file__),
    presets=("the two-link arm swung up high above the line", "a two-link arm"),
    truth_name="tip height, links",
    signed=frozenset({"arm_side"}),
)


def _sample(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-np.pi, np.pi, (n, 2))


def _place(env: Any, state: Array) -> None:
    env.state = np.array([state[0], state[1], 0.0, 0.0])


def tip_height(states: Array) -> Array:
    """Height of the free end over the pivot, in links: -2 hanging, 2 upright, the line at 1."""
    return -np.cos(states[:, 0]) - np.cos(states[:, 0] + states[:, 1])


def _measure(states: Array) -> dict[str, Array]:
    first, second = states[:, 0], states[:, 1]
    return {
        "tip_height": tip_height(states) / LINKS,
        "arm_fold": np.abs(wrap_angle(second)) / 0.6,
        "arm_side": (np.sin(first) + np.sin(first + second)) / 0.6,
    }


WORLDS = (World("Acrobot-v1", FAMILY, 9500, _sample, _place, _measure, tip_height),)
