"""The sentences that were written by hand, read: by family, region and kind; and the words in them.

They are split *by wording*: some wordings (a fifth of most kinds), with all their slots and both their sides, are never
trained on. What stays held out uses only words that other wordings teach.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from speech import phrases_around
from synonyms import synonyms
from worlds import FAMILIES, KINDS, Family

PRESETS = {family.name: family.presets for family in FAMILIES}
ANY_PICTURE = (
    "an image", "a picture", "a screenshot", "a frame of a video game", "a simple drawing", "something",
    "a scene on a white background", "a rendering of a simulation", "a photo", "a still frame", "this is a picture",
)  # fmt: skip


class Phrases(NamedTuple):
    """A family's text, read: slots, and for each region its trained and its held-out wordings."""

    words: Mapping[str, Sequence[str]]
    trained: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[str]]
    kinds: Mapping[str, str]  # of each of these wordings, one of KINDS


@cache
def phrases(family: Family) -> Phrases:
    """The family's text, checked: every region has wordings, every slot has words, no wording stands twice."""
    sections: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for kind, text in family.sentences.items():
        for name, section in _sections(text).items():
            sections.setdefault(name, []).extend(section)
            kinds |= dict.fromkeys(section, kind)
    slots = [line.partition(":") for line in sections.pop("words", [])]
    words = {slot.strip(): [word.strip() for word in options.split("|")] for slot, _, options in slots}
    _check(family, sections, words)
    trained, held_out = _split(sections, kinds)
    return Phrases(words, trained, held_out, kinds)


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


def _split(sections: Mapping[str, list[str]], kinds: Mapping[str, str]) -> tuple[dict, dict]:
    """A wording is held out by its checksum, if all its words are taught by three others."""
    chosen = {
        wording
        for section in sections.values()
        for wording in section
        if zlib.crc32(wording.encode()) % KINDS[kinds[wording]] == 0
    }
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


def mirror(text: str) -> str:
    """Left and right swapped, in every form of the words (not in "upright")."""
    return re.sub(r"\b(?:left|right)", lambda match: "left" if match[0] == "right" else "right", text)


def all_texts() -> list[str]:
    """Every wording with every option of its slots at least once, both sides, all numbers, prefixes, presets."""
    texts = [*ANY_PICTURE, *phrases_around(), *synonyms(), "and , left right leftwards rightwards"]
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
    texts = [*ANY_PICTURE, *phrases_around(), *synonyms(), "and"]
    for family in FAMILIES:
        read = phrases(family)
        texts += [word for options in read.words.values() for word in options]
        for region in family.regions:
            texts += read.trained[region.name]
            texts += [mirror(wording) for wording in read.trained[region.name] if region.mirrored]
    return sorted({word for text in texts for word in words_of(text)})
