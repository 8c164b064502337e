"""What captions mean, in numbers: how true each is of a state.

A caption has aims (see worlds/world.py). `log_likelihood` turns captions and states into "how true is this": 0 is
perfectly true, each unit a factor e less so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from worlds import FAMILIES, WORLDS, Aim, Array, Family

WRONG_FAMILY = -12.0  # log-likelihood of a caption about another family's worlds
CLEARLY_FALSE = -2.0  # log-likelihood


class Caption(NamedTuple):
    """`family` None: it could be said of any picture."""

    text: str
    family: Family | None
    aims: tuple[Aim, ...] = ()
    offset: float = 0.0
    kind: str = "plain"
    denied: bool = False  # true where the aims are missed


@dataclass(frozen=True)
class CaptionBatch:
    """n captions as arrays; k attributes, of all worlds together."""

    texts: list[str]
    family: Array  # (n,) int: index into FAMILIES, -1 for any
    values: Array  # (n, k) float32
    weights: Array  # (n, k) float32, 0 where the caption says nothing
    senses: Array  # (n, k) float32: -1, 0, 1 as in Aim
    offsets: Array  # (n,) float32
    denied: Array  # (n,) bool


@cache
def attribute_columns() -> dict[str, int]:
    """Name -> column, over all worlds."""
    names: list[str] = []
    for world in WORLDS:
        names += world.measure(world.sample(np.random.default_rng(0), 2)).keys()
    return {name: column for column, name in enumerate(dict.fromkeys(names))}


def attributes_of(measured: Mapping[str, Array], n: int) -> Array:
    """float32 (n, k); zero where another world's attribute stands."""
    columns = attribute_columns()
    values = np.zeros((n, len(columns)), np.float32)
    for name, column in measured.items():
        values[:, columns[name]] = column
    return values


def as_batch(captions: Sequence[Caption]) -> CaptionBatch:
    columns = attribute_columns()
    values, weights, senses = (np.zeros((len(captions), len(columns)), np.float32) for _ in range(3))
    for row, caption in enumerate(captions):
        for attribute, value, weight, sense in caption.aims:
            column = columns[attribute]
            values[row, column], weights[row, column], senses[row, column] = value, weight, sense
    return CaptionBatch(
        texts=[caption.text for caption in captions],
        family=np.array([-1 if c.family is None else FAMILIES.index(c.family) for c in captions]),
        values=values,
        weights=weights,
        senses=senses,
        offsets=np.array([caption.offset for caption in captions], np.float32),
        denied=np.array([caption.denied for caption in captions], bool),
    )


def log_likelihood(attributes: Array, family: Array, captions: CaptionBatch) -> Array:
    """How true each caption is of each state, (m, n), for states with `attributes` (m, k) of families (m,).

    Distances are rounded off within about 0.14 of their target, where states look the same. "Above" and "below" fall
    about linearly on the wrong side and flatten on the right one, but go on rising: -log(1 + exp(-gap)). A denial is
    the truer the less likely the sentence, log(1 - sqrt(likelihood)), where -3.5 is as false as it gets.
    """
    distance = _distance(attributes[:, None] - captions.values[None], captions.senses[None])
    said = -(distance * captions.weights[None]).sum(-1)
    likelihood = captions.offsets[None] + np.where(captions.denied[None], np.log(1.03 - np.exp(said / 2)), said)
    return np.where(speaks_of_another(family, captions), WRONG_FAMILY, likelihood).astype(np.float32)


def _distance(gap: Any, senses: Any) -> Any:
    return np.where(senses == 0, np.sqrt(gap**2 + 0.02) - np.sqrt(0.02), np.logaddexp(0, -senses * gap))


def speaks_of_another(family: Array, captions: CaptionBatch) -> Array:
    """(m, n) bool: the caption is about another family than the state's."""
    foreign: Array = (family[:, None] != captions.family[None]) & (captions.family[None] >= 0)
    return foreign


def contradict(first: Caption, second: Caption) -> bool:
    """Where one is as true as can be, the other is clearly false, by what both speak of."""
    wanted = {aim.attribute: aim.value + 2.0 * aim.sense for aim in first.aims}
    shared = [aim for aim in second.aims if aim.attribute in wanted]
    misses = (_distance(wanted[aim.attribute] - aim.value, aim.sense) * aim.weight for aim in shared)
    return -sum(misses) < CLEARLY_FALSE
