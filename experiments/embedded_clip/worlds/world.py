"""What a world is: how to sample states of an env, draw them, measure them, and speak of them.

A `World` is one Gymnasium env. Its states are sampled directly (no policy is run), put into the env and rendered.
`measure` turns them into *attributes*: warped coordinates in which a distance of 1 is "clearly different to the eye".

Worlds that people describe with the same words share a `Family`, which owns the sentences. Each sentence belongs to a
`Region`, which says what it means: *aims*, each an attribute, the value it should have, and how much it matters.

A new world is one file beside this one, and one line in `__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What a sentence is like, and of how many wordings one is held out. "harder": relations turned round, comparisons,
# thresholds, unusual denials. "contrasts": sentences that hold the words of one region and are true of another, often
# in pairs; most of them are needed for teaching.
KINDS = {"plain": 5, "harder": 5, "contrasts": 20}


class Aim(NamedTuple):
    """`sense` 0: the closer to `value`, the truer. 1: the truer the further above it, -1: below."""

    attribute: str
    value: float
    weight: float
    sense: Literal[-1, 0, 1] = 0


def near(attribute: str, value: float, weight: float = 1.5) -> Aim:
    return Aim(attribute, float(value), weight, 0)


def above(attribute: str, value: float, weight: float = 1.5) -> Aim:
    return Aim(attribute, float(value), weight, 1)


def below(attribute: str, value: float, weight: float = 1.5) -> Aim:
    return Aim(attribute, float(value), weight, -1)


@dataclass(frozen=True)
class Region:
    """States that people would describe alike, and how they say it.

    Its sentences stand in the family's text, one wording per line, under the line `[name]`. A `{slot}` is filled from
    the line `slot: a | b | c` under `[words]`; `{n}` with one of `numbers`, for which `aims` is then a function.
    Sentences of a `mirrored` region are written for the left; for the right, the two words and the sign of `signed`
    attributes are swapped.
    """

    name: str
    aims: tuple[Aim, ...] | Callable[[float], tuple[Aim, ...]]
    share: float = 1.0  # how often each of its sentences is read, against those of the other regions
    offset: float = 0.0  # log-likelihood of a perfect fit: below 0 where a vaguer sentence should lose to a precise one
    mirrored: bool = False
    numbers: Sequence[float] = ()
    topic: str = ""  # sentences of two topics can be joined by "and"; "" joins nothing


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: the sentences are long
class Family:
    """The sentences about one kind of picture, and the share of such pictures in a training batch."""

    name: str
    share: float
    regions: tuple[Region, ...]
    sentences: Mapping[str, str]  # one of KINDS -> text; README.md beside this folder shows the format
    presets: tuple[str, str]  # (goal, baseline) of the evaluation: never trained on
    truth_name: str  # what the goal speaks of, for the tables
    signed: frozenset[str] = field(default_factory=frozenset)  # attributes that change sign between left and right


@dataclass(frozen=True)
class World:
    """One env: `frames` training frames of it are drawn by one training run."""

    env_id: str
    family: Family
    frames: int
    sample: Callable[[np.random.Generator, int], Array]  # -> states (n, k)
    place: Callable[[Any, Array], None]  # (unwrapped env, one state): put the state into the env
    measure: Callable[[Array], dict[str, Array]]  # states (n, k) -> attribute name -> (n,)
    truth: Callable[
        [Array], Array
    ]  # states (n, k) -> (n,): what the preset goal's reward should grow with; NaN: nothing
    kwargs: Mapping[str, Any] = field(default_factory=dict)  # of gymnasium.make
    crop: Callable[[Array], Array] | None = None  # states -> bool (n,): what matters is in the central square


def sentences_beside(module: str) -> dict[str, str]:
    """Kind -> text, of NAME.txt and NAME_KIND.txt beside a world's NAME.py, which calls this with its `__file__`."""
    name = Path(module).stem
    files = {kind: Path(module).with_name(f"{name}_{kind}.txt" if kind != "plain" else f"{name}.txt") for kind in KINDS}
    return {kind: file.read_text() for kind, file in files.items() if kind == "plain" or file.exists()}


def wrap_angle(radians: Array) -> Array:
    """The same angle in [-pi, pi)."""
    return (np.asarray(radians) + np.pi) % (2 * np.pi) - np.pi


def warp_degrees(degrees: Any, fine: float) -> Array:
    """Signed, monotone: about `degrees / fine` near 0, compressive further out, never flat.

    asinh alone is nearly flat beyond 90 degrees (3.6 at 90, 4.3 at 180, with fine = 5), and the
    reward then rises again towards a hanging pole; the linear term keeps it falling.
    """
    degrees = np.asarray(degrees, dtype=float)
    return np.arcsinh(degrees / fine) + degrees / 90
