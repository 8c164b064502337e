"""What can be said about the worlds, and how true it is of a state.

Every sentence comes with its meaning in numbers: the family of worlds it speaks of and its aims (see worlds/world.py).
`log_likelihood` turns a caption and a state into "how true is this": 0 is perfectly true, each unit a factor e less so.

The sentences were written by hand, by region, and split *by wording*: a fifth of the wordings, with all their slots and
both their sides, is never trained on. What stays held out uses only words that other wordings teach.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from synonyms import exchanged, synonyms
from worlds import FAMILIES, WORLDS, Aim, Array, Family, Region

PRESETS = {family.name: family.presets for family in FAMILIES}

WRONG_FAMILY = -12.0  # log-likelihood of a caption about another family's worlds
PREFIX_CHANCE, JOIN_CHANCE, ANY_PICTURE_CHANCE, SYNONYM_CHANCE = 0.2, 0.15, 0.02, 0.4
PREFIXES = ("a photo of", "an image of", "a picture of", "a frame showing", "we can see", "this is", "here we see")
ANY_PICTURE = (
    "an image", "a picture", "a screenshot", "a frame of a video game", "a simple drawing", "something",
    "a scene on a white background", "a rendering of a simulation", "a photo", "a still frame", "this is a picture",
)  # fmt: skip


class Caption(NamedTuple):
    """`family` None: it could be said of any picture."""

    text: str
    family: Family | None
    aims: tuple[Aim, ...] = ()
    offset: float = 0.0
    harder: bool = False


@dataclass(frozen=True)
class CaptionBatch:
    """n captions as arrays; k attributes, of all worlds together."""

    texts: list[str]
    family: Array  # (n,) int: index into FAMILIES, -1 for any
    values: Array  # (n, k) float32
    weights: Array  # (n, k) float32, 0 where the caption says nothing
    senses: Array  # (n, k) float32: -1, 0, 1 as in Aim
    offsets: Array  # (n,) float32


class Phrases(NamedTuple):
    """A family's text, read: slots, and for each region its trained and its held-out wordings."""

    words: Mapping[str, Sequence[str]]
    trained: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[str]]
    harder: frozenset[str]  # of all these, the wordings that were written to be harder


@cache
def phrases(family: Family) -> Phrases:
    """The family's text, checked: every region has wordings, every slot has words, no wording stands twice."""
    sections, harder = _sections(family.sentences), _sections(family.harder)
    for name, section in harder.items():
        sections.setdefault(name, []).extend(section)
    slots = [line.partition(":") for line in sections.pop("words", [])]
    words = {slot.strip(): [word.strip() for word in options.split("|")] for slot, _, options in slots}
    _check(family, sections, words)
    trained, held_out = _split(sections, words)
    return Phrases(words, trained, held_out, frozenset().union(*harder.values()))


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        else:
            section.append(line)
    return sections


def _check(family: Family, sections: Mapping[str, list[str]], words: Mapping[str, list[str]]) -> None:
    regions = {region.name for region in family.regions}
    if regions != sections.keys():
        raise ValueError(f"{family.name}: regions and headings differ: {sorted(regions ^ sections.keys())}")
    count = Counter(wording for section in sections.values() for wording in section)
    if twice := [wording for wording, n in count.items() if n > 1]:
        raise ValueError(f"{family.name}: wordings that stand twice: {twice}")
    used = {slot for wording in count for slot in re.findall(r"{(\w+)}", wording)} - {"n"}
    if unknown := used - words.keys():
        raise ValueError(f"{family.name}: slots without words: {sorted(unknown)}")
    if presets := set(family.presets) & count.keys():
        raise ValueError(f"{family.name}: presets stand among the sentences: {sorted(presets)}")


def _split(sections: Mapping[str, list[str]], words: Mapping[str, Sequence[str]]) -> tuple[dict, dict]:
    """A wording is held out by its checksum, if all its words are taught by three others."""
    chosen = {wording for section in sections.values() for wording in section if zlib.crc32(wording.encode()) % 5 == 0}
    rest = [wording for section in sections.values() for wording in section if wording not in chosen]
    counts = Counter(word for wording in rest for word in set(words_of(wording)))
    held_out = {wording for wording in chosen if all(counts[word] >= 3 for word in words_of(wording))}
    return (
        {name: [wording for wording in section if wording not in held_out] for name, section in sections.items()},
        {name: [wording for wording in section if wording in held_out] for name, section in sections.items()},
    )


def words_of(text: str) -> list[str]:
    """Lower-case words, without slots and numbers, as EmbeddedCLIPEncoder.unknown_words takes them."""
    return re.findall(r"\b[a-z]\w*", re.sub(r"{\w+}", " ", text.lower()))


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
        partners = [other for other in regions if region.topic and other.topic not in ("", region.topic)]
        if partners and not self._held_out and self._chance(JOIN_CHANCE):
            caption = _join(caption, self.of_region(family, self._pick(partners)))
        if caption.text in family.presets:  # a slot may spell one by chance
            return self.caption(family)
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
        return Caption(text, family, aims, region.offset, wording in phrases(family).harder)

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


def mirror(text: str) -> str:
    """Left and right swapped, in every form of the words (not in "upright")."""
    return re.sub(r"\b(?:left|right)", lambda match: "left" if match[0] == "right" else "right", text)


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


# --- attributes and likelihoods ------------------------------------------------------------------------------


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
    )


def log_likelihood(attributes: Array, family: Array, captions: CaptionBatch) -> Array:
    """How true each caption is of each state, (m, n), for states with `attributes` (m, k) of families (m,).

    Distances are rounded off within about 0.14 of their target, where states look the same. "Above" and "below" fall
    about linearly on the wrong side and flatten on the right one, but go on rising: -log(1 + exp(-gap)).
    """
    gap = attributes[:, None] - captions.values[None]
    senses = captions.senses[None]
    distance = np.where(senses == 0, np.sqrt(gap**2 + 0.02) - np.sqrt(0.02), np.logaddexp(0, -senses * gap))
    likelihood = captions.offsets[None] - (distance * captions.weights[None]).sum(-1)
    return np.where(speaks_of_another(family, captions), WRONG_FAMILY, likelihood).astype(np.float32)


def speaks_of_another(family: Array, captions: CaptionBatch) -> Array:
    """(m, n) bool: the caption is about another family than the state's."""
    foreign: Array = (family[:, None] != captions.family[None]) & (captions.family[None] >= 0)
    return foreign


# --- the words -----------------------------------------------------------------------------------------------


def all_texts() -> list[str]:
    """Every wording with every option of its slots at least once, both sides, all numbers, prefixes, presets."""
    texts = [*ANY_PICTURE, *PREFIXES, *synonyms(), "and , left right leftwards rightwards"]
    texts += [f"{n}" for n in range(100)]
    for family in FAMILIES:
        read = phrases(family)
        texts += [*family.presets, *(word for options in read.words.values() for word in options)]
        for section in (*read.trained.values(), *read.held_out.values()):
            for wording in section:
                text = re.sub(r"{\w+}", "pole", wording)
                texts += [text, mirror(text)]
    return texts


def taught_words() -> list[str]:
    """The words that training reads, sorted, without numbers."""
    texts = [*ANY_PICTURE, *PREFIXES, *synonyms(), "and"]
    for family in FAMILIES:
        read = phrases(family)
        texts += [word for options in read.words.values() for word in options]
        for region in family.regions:
            texts += read.trained[region.name]
            texts += [mirror(wording) for wording in read.trained[region.name] if region.mirrored]
    return sorted({word for text in texts for word in words_of(text)})
