"""Writes captions: a family's wordings with words in their slots, mirrored, joined, and as people speak around them.

Every caption comes with its meaning (meaning.py); the wordings are read by bank.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from bank import ANY_PICTURE, mirror, phrases
from meaning import Caption, CaptionBatch, as_batch, contradict
from speech import AFFIRMED, CONTRASTED, DENIED, PREFIXES
from synonyms import exchanged
from worlds import FAMILIES, Aim, Array, Family, Region

PREFIX_CHANCE, JOIN_CHANCE, ANY_PICTURE_CHANCE, SYNONYM_CHANCE = 0.2, 0.15, 0.02, 0.4
AFFIRM_CHANCE, DENY_CHANCE, CONTRAST_CHANCE = 0.03, 0.05, 0.08


@cache
def reading_shares() -> Array:
    """(families,): how often each is spoken of, so that each wording is read about equally often."""
    counts = np.array([sum(map(len, phrases(family).trained.values())) for family in FAMILIES], float)
    shares: Array = counts / counts.sum()
    return shares


class Writer:
    """Draws captions: a family, one of its wordings, words for its slots."""

    def __init__(self, rng: np.random.Generator, *, held_out: bool = False) -> None:
        self._rng, self._held_out = rng, held_out

    def any_caption(self) -> Caption:
        if not self._held_out and self._chance(ANY_PICTURE_CHANCE):
            return Caption(self._pick(ANY_PICTURE), None, (), -4)
        return self.caption(FAMILIES[self._weighted(reading_shares())])

    def caption(self, family: Family) -> Caption:
        regions = [region for region in family.regions if self._wordings(family, region)]
        region = regions[self._weighted([self._weight(family, region) for region in regions])]
        caption = self.of_region(family, region)
        if not self._held_out:
            partners = [other for other in regions if region.topic and other.topic not in ("", region.topic)]
            if partners and self._chance(JOIN_CHANCE):
                caption = _join(caption, self.of_region(family, self._pick(partners)))
            elif caption.aims and region.name != "names":
                caption = self._with_speech(caption, lambda: self.of_region(family, self._pick(regions)))
        if caption.text in family.presets:  # a slot may spell one by chance
            return self.caption(family)
        return caption

    def _with_speech(self, caption: Caption, another: Callable[[], Caption]) -> Caption:
        """Now and then affirmed, denied, or set against `another` sentence that can't be true at the same time."""
        text, chance = caption.text.rstrip("?"), self._rng.random()
        if chance < AFFIRM_CHANCE:
            return caption._replace(text=self._pick(AFFIRMED).format(text))
        if chance < AFFIRM_CHANCE + DENY_CHANCE:
            return caption._replace(text=self._pick(DENIED).format(text), denied=True, offset=-0.5)
        if chance < AFFIRM_CHANCE + DENY_CHANCE + CONTRAST_CHANCE:
            other = another()
            if contradict(caption, other):
                frame = self._pick(CONTRASTED)
                return caption._replace(text=frame.format(this=text, other=other.text.rstrip("?")))
        return caption

    def of_region(self, family: Family, region: Region) -> Caption:
        return self.of_wording(family, region, self._pick(self._wordings(family, region)))

    def of_wording(self, family: Family, region: Region, wording: str, *, right: bool | None = None) -> Caption:
        """`right`: which side of a mirrored region; None draws it."""
        n = self._pick(region.numbers) if len(region.numbers) else 0
        aims = region.aims(n) if callable(region.aims) else region.aims
        words = {slot: self._pick(options) for slot, options in phrases(family).words.items()}
        text = wording.format(n=n, **words)
        if not self._held_out:
            text = exchanged(text, self._rng, SYNONYM_CHANCE)
        if not self._held_out and self._chance(PREFIX_CHANCE) and not text.endswith("?"):
            text = f"{self._pick(PREFIXES)} {text}"
        if region.mirrored and (self._chance(0.5) if right is None else right):
            text, aims = mirror(text), tuple(_mirrored(aim, family) for aim in aims)
        return Caption(text, family, aims, region.offset, phrases(family).kinds.get(wording, "plain"))

    def _weight(self, family: Family, region: Region) -> float:
        """A wording of a mirrored region is two sentences."""
        return region.share * len(self._wordings(family, region)) * (2 if region.mirrored else 1)

    def _wordings(self, family: Family, region: Region) -> Sequence[str]:
        return (phrases(family).held_out if self._held_out else phrases(family).trained)[region.name]

    def _pick(self, options: Sequence[Any]) -> Any:
        return options[self._rng.integers(len(options))]

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _weighted(self, shares: Sequence[float]) -> int:
        return int(self._rng.choice(len(shares), p=np.array(shares) / sum(shares)))


def _mirrored(aim: Aim, family: Family) -> Aim:
    return aim._replace(value=-aim.value, sense=-aim.sense) if aim.attribute in family.signed else aim  # type: ignore[arg-type]


def _join(first: Caption, second: Caption) -> Caption:
    """Two things said of one picture; what both say (that the cart is there) counts once."""
    own = {aim.attribute for aim in first.aims}
    aims = (*first.aims, *(aim for aim in second.aims if aim.attribute not in own))
    return Caption(f"{first.text}, and {second.text}", first.family, aims, first.offset + second.offset)


def write_captions(rng: np.random.Generator, n: int, *, held_out: bool = False) -> CaptionBatch:
    writer = Writer(rng, held_out=held_out)
    return as_batch([writer.any_caption() for _ in range(n)])
