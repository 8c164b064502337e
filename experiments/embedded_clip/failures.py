"""The held-out wordings that a model gets wrong, what it takes them for, and how well their words were taught."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np

from bank import phrases, words_of
from captions import Writer
from heldout import SILENT, Known, Sample, family_rows, name_of
from meaning import Caption, as_batch, log_likelihood
from measures import spearman, wording_scores
from worlds import Array, Family


def weak_wordings(model: Known, samples: list[Sample], below: float = 0.5) -> str:
    """A Markdown table of the wordings whose Spearman correlation at alpha 0.5 is below `below`.

    "Taken for": the region, of all that the family has, whose truth the sentence's cosine follows best. "Rarest word":
    the word that the fewest training wordings of the family hold, and how many these are.
    """
    lines = []
    for sample in samples:
        family = sample.world.family
        names, truths = region_truths(sample)
        for goal, scores in wording_scores(model, sample):
            if scores[1] >= below:
                continue
            cosine = (model.images[name_of(sample)] @ model.texts[goal.text]).numpy()
            follows = [spearman(truth, cosine) for truth in truths]
            best = int(np.argmax(follows))
            counts = {word: taught(family)[word] for word in words_of(goal.text)}
            rarest = min(counts, key=lambda word: counts[word])
            lines.append(
                f"| {name_of(sample)} | {goal.text} | {scores[1]:.2f} | {names[best]} ({follows[best]:.2f}) "
                f"| {rarest} ({counts[rarest]}) |"
            )
    header = ["| env | wording | Spearman | taken for | rarest word |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(header + lines) if lines else "None."


def region_truths(sample: Sample) -> tuple[list[str], list[Array]]:
    """Each region of the family that orders the sample's states, both sides of a mirrored one: name and truth."""
    writer, family = Writer(np.random.default_rng(0), held_out=True), sample.world.family
    names: list[str] = []
    captions: list[Caption] = []
    for region in family.regions:
        if region.name in SILENT or len(region.numbers):
            continue
        for right in (False, True) if region.mirrored else (False,):
            names.append(region.name.replace("left", "right") if right else region.name)
            captions.append(writer.of_wording(family, region, "", right=right))
    truths = log_likelihood(sample.attributes, family_rows(sample), as_batch(captions)).T
    orders = [row for row, truth in enumerate(truths) if np.ptp(truth) > 0.1]
    return [names[row] for row in orders], [truths[row] for row in orders]


@cache
def taught(family: Family) -> Counter[str]:
    """Word -> the number of training wordings that hold it, words of slots counted with each wording of the slot."""
    read = phrases(family)
    counts: Counter[str] = Counter()
    for section in read.trained.values():
        for wording in section:
            slots = (option for slot in re.findall(r"{(\w+)}", wording) for option in read.words.get(slot, ()))
            counts.update({word for text in (wording, *slots) for word in words_of(text)})
    for first, second in (("left", "right"), ("leftwards", "rightwards"), ("leftward", "rightward")):
        both = counts[first] + counts[second]  # mirrored wordings hold either
        counts[first] = counts[second] = both
    return counts
