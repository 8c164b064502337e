"""A figure on a frozen lake with holes: FrozenLake-v1, on both of its default maps.

Gymnasium draws a robot and a red flag from 1.4 on, an elf and a present before. Over a hole it draws nobody.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from gymnasium.envs.toy_text.frozen_lake import MAPS

from .world import Aim, Array, Family, Region, World, above, below, near, sentences_beside

LOST = 20.0  # steps: the distance of those in a hole, who never arrive
QUARTER = 0.25  # of a side: clearly another place


def _warp(steps: Any) -> Array:
    steps = np.asarray(steps, dtype=float)
    warped: Array = np.arcsinh(steps) + steps / 6
    return warped


DRY = near("lake_hole", 0, 2.5)


def _row(place: float, weight: float = 1.2) -> Aim:
    """0 is the top row, 1 the bottom."""
    return near("lake_row", place / QUARTER, weight)


def _column(place: float, weight: float = 1.2) -> Aim:
    return near("lake_column", place / QUARTER, weight)


FAMILY = Family(
    name="frozen_lake",
    share=0.04,
    regions=(
        Region("names", (), offset=-2),
        Region("goal", (DRY, near("lake_goal", 0, 2))),
        Region("near goal", (DRY, near("lake_goal", float(_warp(1.5)), 1.5))),
        Region("start", (DRY, _row(0), _column(0))),
        Region("in a hole", (near("lake_hole", 1, 3),)),
        Region("not in a hole", (near("lake_hole", 0, 3),), offset=-0.7),
        Region("top", (DRY, _row(0)), topic="row"),
        Region("bottom", (DRY, _row(1)), topic="row"),
        Region("left half", (DRY, below("lake_column", 0.5 / QUARTER)), offset=-0.3, topic="column"),
        Region("right half", (DRY, above("lake_column", 0.5 / QUARTER)), offset=-0.3, topic="column"),
        Region("not at goal", (above("lake_goal", float(_warp(1)), 1.5),), offset=-0.5),
    ),
    sentences=sentences_beside(__file__),
    presets=(
        "the robot standing at the red flag at the bottom right of the frozen lake",
        "a robot on a frozen lake",
    ),
    truth_name="-walking distance",
)  # fmt: skip


@cache
def _map(size: int) -> Array:
    return np.array([list(row) for row in MAPS[f"{size}x{size}"]])


@cache
def walking_distances(size: int) -> Array:
    """(size * size,) steps from each cell to the goal, around the holes; NaN in a hole."""
    holes = _map(size) == "H"
    distances = np.full((size, size), np.nan)
    border = {(size - 1, size - 1)}
    for steps in range(size * size):
        for cell in border:
            distances[cell] = steps
        around = {(r + dr, c + dc) for r, c in border for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        inside = {(r, c) for r, c in around if 0 <= r < size and 0 <= c < size}
        border = {cell for cell in inside if not holes[cell] and np.isnan(distances[cell])}
    return distances.ravel()


def _sample(rng: np.random.Generator, n: int, size: int) -> Array:
    """(size of the map, cell, last action or -1): all cells, the goal more often; one hole looks like another.

    Before Gymnasium 1.4, the figure looked to where it went.
    """
    weights = np.where(np.isnan(walking_distances(size)), 0.5, 1.0)
    weights[[0, 1, size, -1, -2, -1 - size]] *= (2.0, 1.0, 1.0, 0.13 * size**2, 1.5, 1.5)
    cells = rng.choice(size * size, size=n, p=weights / weights.sum())
    return np.stack([np.full(n, size), cells, rng.integers(-1, 4, n)], axis=1).astype(float)


def _sample_small(rng: np.random.Generator, n: int) -> Array:
    return _sample(rng, n, 4)


def _sample_large(rng: np.random.Generator, n: int) -> Array:
    return _sample(rng, n, 8)


def _place(env: Any, state: Array) -> None:
    _, cell, action = map(int, state)
    env.s = cell
    env.lastaction = None if action < 0 else action


def _distance(states: Array) -> Array:
    return np.array([walking_distances(int(size))[int(cell)] for size, cell, _ in states])


def _measure(states: Array) -> dict[str, Array]:
    """Those in a hole aren't drawn, so their row and column can't be seen: they count as the middle."""
    size, cell = states[:, 0], states[:, 1]
    distance = _distance(states)
    in_hole = np.isnan(distance)
    return {
        "lake_goal": _warp(np.where(in_hole, LOST, distance)),
        "lake_row": np.where(in_hole, 0.5, cell // size / (size - 1)) / QUARTER,
        "lake_column": np.where(in_hole, 0.5, cell % size / (size - 1)) / QUARTER,
        "lake_hole": in_hole.astype(float),
    }


def _truth(states: Array) -> Array:
    """NaN in a hole."""
    return -_distance(states)


WORLDS = (
    World("FrozenLake-v1", FAMILY, 600, _sample_small, _place, _measure, _truth, kwargs={"map_name": "4x4"}),
    World("FrozenLake-v1", FAMILY, 900, _sample_large, _place, _measure, _truth, kwargs={"map_name": "8x8"}),
)
