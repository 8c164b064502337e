"""A figure on a meadow with a cliff along its lower edge: CliffWalking-v1.

Gymnasium draws a robot and a red flag from 1.4 on, an elf and a cookie before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .world import Aim, Array, Family, Region, World, above, below, near, sentences_beside

ROWS, COLUMNS = 4, 12
START, GOAL = (ROWS - 1) * COLUMNS, ROWS * COLUMNS - 1
CELLS = np.array([*range(START), START, GOAL])  # nobody stands in the cliff: it leads back to the start
QUARTER = 0.25  # of a side: clearly another place


def _warp(steps: Any) -> Array:
    steps = np.asarray(steps, dtype=float)
    warped: Array = np.arcsinh(steps) + steps / 6
    return warped


def _row(row: int, weight: float = 1.5) -> Aim:
    return near("cliff_row", row / (ROWS - 1) / QUARTER, weight)


def _column(place: float, weight: float = 1.5) -> Aim:
    """0 is the left edge, 1 the right."""
    return near("cliff_column", place / QUARTER, weight)


FAMILY = Family(
    name="cliff_walking",
    share=0.04,
    regions=(
        Region("names", (), offset=-2),
        Region("goal", (near("cliff_goal", 0, 2),)),
        Region("near goal", (near("cliff_goal", float(_warp(1.5)), 1.5),)),
        Region("start", (_row(ROWS - 1), _column(0))),
        Region("left", (below("cliff_column", 0.35 / QUARTER),), offset=-0.3, topic="column"),
        Region("right", (above("cliff_column", 0.65 / QUARTER),), offset=-0.3, topic="column"),
        Region("top row", (_row(0),), topic="row"),
        Region("cliff edge", (_row(ROWS - 2), _column(0.5, 0.15)), topic="row"),
        Region("not at goal", (above("cliff_goal", float(_warp(1)), 1.5),), offset=-0.5),
    ),
    sentences=sentences_beside(__file__),
    presets=("the player at the goal to the right of the cliff", "a player on a grid with a cliff"),
    truth_name="-walking distance",
)  # fmt: skip


def walking_distance(cells: Array) -> Array:
    """Steps to the goal around the cliff, which lies between start and goal."""
    row, column = cells // COLUMNS, cells % COLUMNS
    direct = (ROWS - 1 - row) + (COLUMNS - 1 - column)
    steps: Array = np.where(cells == START, direct + 2, direct)
    return steps


def _sample(rng: np.random.Generator, n: int) -> Array:
    """(cell, last action or -1): all cells, the goal more often.

    Before Gymnasium 1.4, the figure looked to where it went.
    """
    weights = np.ones(len(CELLS))
    weights[[-2, -1]] = 2, 5
    cells = rng.choice(CELLS, size=n, p=weights / weights.sum())
    return np.stack([cells, rng.integers(-1, 4, n)], axis=1).astype(float)


def _place(env: Any, state: Array) -> None:
    cell, action = map(int, state)
    env.s = cell
    env.lastaction = None if action < 0 else action


def _measure(states: Array) -> dict[str, Array]:
    cells = states[:, 0]
    return {
        "cliff_goal": _warp(walking_distance(cells)),
        "cliff_row": cells // COLUMNS / (ROWS - 1) / QUARTER,
        "cliff_column": cells % COLUMNS / (COLUMNS - 1) / QUARTER,
    }


def _truth(states: Array) -> Array:
    return -walking_distance(states[:, 0])


WORLDS = (World("CliffWalking-v1", FAMILY, 600, _sample, _place, _measure, _truth),)
