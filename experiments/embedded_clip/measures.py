"""What evaluate.py measures of a model, each as a table: row labels -> numbers.

Every measure takes what one model knows (`Known`), the held-out frames (`Sample`) and gives the same rows for every
model, so that tables of several models can be merged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import torch
from torch import Tensor

from heldout import (
    DENIALS,
    EVALUATION_SEED,
    SILENT,
    VIEWED,
    VIEWS,
    Known,
    Sample,
    denied,
    family_rows,
    name_of,
    of_regions,
    speaking,
)
from meaning import Caption, as_batch, log_likelihood
from training_model import normalise
from vlmrm_wrap import goal_baseline_reward
from vlmrm_wrap.encoders.embedded import EmbeddedCLIPEncoder
from worlds import FAMILIES, KINDS, Array, Family

ALPHAS = (0.0, 0.5, 1.0)

Table = dict[tuple[str, ...], list[float]]


def spearman(truth: Array, reward: Array) -> float:
    """Divided by what the ranks of a tie-free quantity can reach at most, so that 1 is perfect with ties too."""
    ranks = average_ranks(truth)
    best = np.corrcoef(ranks, np.argsort(np.argsort(ranks, kind="stable"), kind="stable"))[0, 1]
    return float(np.clip(np.corrcoef(ranks, average_ranks(reward))[0, 1] / best, -1, 1))  # rewards can be tied as well


def average_ranks(values: Array) -> Array:
    """Ranks in which equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks


def rewards(embeddings: Tensor, goal: Tensor, baseline: Tensor, alpha: float) -> Array:
    reward: Array = goal_baseline_reward(embeddings, goal, baseline, alpha).numpy()
    return reward


def presets(model: Known, family: Family) -> tuple[Tensor, Tensor]:
    goal, baseline = family.presets
    return model.texts[goal], model.texts[baseline]


def preset_table(model: Known, samples: list[Sample]) -> Table:
    table: Table = {}
    for sample in samples:
        truth = sample.world.truth(sample.states)
        known = np.isfinite(truth)
        values, embeddings = truth[known], model.images[name_of(sample)][torch.from_numpy(known)]
        by_alpha = [rewards(embeddings, *presets(model, sample.world.family), alpha) for alpha in ALPHAS]
        best = values >= np.quantile(values, 0.75)
        for label, chosen in (("all", values == values), ("best quarter", best)):
            row = (name_of(sample), sample.world.family.truth_name, label, f"{chosen.sum()}")
            table[row] = [spearman(values[chosen], reward[chosen]) for reward in by_alpha]
    return table


def decile_table(model: Known, samples: list[Sample]) -> Table:
    table: Table = {}
    for sample in samples:
        truth = sample.world.truth(sample.states)
        reward = rewards(model.images[name_of(sample)], *presets(model, sample.world.family), 0.5)
        order = [row for row in np.argsort(truth, kind="stable") if np.isfinite(truth[row])]
        table[name_of(sample),] = [float(reward[part].mean()) for part in np.array_split(order, 10)]
    return table


def wording_scores(model: Known, sample: Sample) -> list[tuple[Caption, list[float]]]:
    """Each held-out wording of the sample's family as a goal, the held-out names in turn as baselines."""
    family = sample.world.family
    names = of_regions(family, SILENT)
    goals = speaking(family)
    truths = log_likelihood(sample.attributes, family_rows(sample), as_batch(goals))
    scores = []
    for column, goal in enumerate(goals):
        baseline = model.texts[names[column % len(names)].text]
        by_alpha = [rewards(model.images[name_of(sample)], model.texts[goal.text], baseline, a) for a in ALPHAS]
        if np.ptp(truths[:, column]) > 0.1:  # what all frames have in common can't be ranked
            scores.append((goal, [spearman(truths[:, column], reward) for reward in by_alpha]))
    return scores


def wording_table(model: Known, samples: list[Sample]) -> Table:
    table: Table = {}
    for sample in samples:
        scored = wording_scores(model, sample)
        for kind in KINDS:
            values = np.array([scores for goal, scores in scored if goal.kind == kind])
            if len(values):
                row = [*values.mean(0), values[:, 1].min(), float((values[:, 1] < 0.5).sum())]
                table[name_of(sample), kind, f"{len(values)}"] = row
    return table


def denial_table(model: Known, samples: list[Sample]) -> Table:
    """Of regions that deny each other, and of any sentence against its own denial in so many words."""
    table: Table = {}
    for sample in samples:
        family = sample.world.family
        for first, second in DENIALS.get(family.name, []):
            pairs = product(*(of_regions(family, {name}) for name in (first, second)))
            table[name_of(sample), first, second] = [told_apart(model, sample, pairs)]
        pairs = ((caption, denied(caption)) for caption in speaking(family))
        table[name_of(sample), "any sentence", '"it is not true that ..."'] = [told_apart(model, sample, pairs)]
    return table


def side_table(model: Known, samples: list[Sample]) -> Table:
    table: Table = {}
    for sample in samples:
        family = sample.world.family
        sided = {region.name for region in family.regions if region.mirrored}
        if not sided:
            continue
        pairs = list(zip(*(of_regions(family, sided, right=right) for right in (False, True)), strict=True))
        for kind in KINDS:
            if chosen := [pair for pair in pairs if pair[0].kind == kind]:
                table[name_of(sample), kind, f"{len(chosen)}"] = [told_apart(model, sample, iter(chosen))]
    return table


def told_apart(model: Known, sample: Sample, pairs: Iterator[tuple[Caption, Caption]]) -> float:
    """Mean over pairs: on the frames of which one is clearly truer (by 1.5), how often its cosine is higher."""
    right = []
    embeddings = model.images[name_of(sample)]
    for first, second in pairs:
        likelihood = log_likelihood(sample.attributes, family_rows(sample), as_batch([first, second]))
        gap = likelihood[:, 0] - likelihood[:, 1]
        cosine = (embeddings @ (model.texts[first.text] - model.texts[second.text])).numpy()
        clear = np.abs(gap) > 1.5
        if clear.any():
            right.append(float((np.sign(gap[clear]) == np.sign(cosine[clear])).mean()))
    return float(np.mean(right))


def retrieval_table(model: Known, samples: list[Sample]) -> Table:
    everything = [caption for family in FAMILIES for caption in speaking(family)]
    batch, texts = as_batch(everything), torch.stack([model.texts[caption.text] for caption in everything])
    table: Table = {}
    for sample in samples:
        index = FAMILIES.index(sample.world.family)
        truth = log_likelihood(sample.attributes, family_rows(sample), batch)
        cosine = (model.images[name_of(sample)] @ texts.T).numpy()
        choice = cosine.argmax(1)
        caption_loss = truth.max(1) - truth[np.arange(len(truth)), choice]
        own = np.flatnonzero(batch.family == index)
        frame_loss = truth[:, own].max(0) - truth[cosine[:, own].argmax(0), own]
        table[name_of(sample),] = [
            float((batch.family[choice] == index).mean()),
            *(float((loss <= limit).mean()) for loss in (caption_loss, frame_loss) for limit in (0.5, 1.0)),
        ]
    return table


def picture_table(model: Known, samples: list[Sample]) -> Table:
    rng = torch.Generator().manual_seed(EVALUATION_SEED)
    table: Table = {}
    for sample in samples:
        truth = sample.world.truth(sample.states)

        def score(rows: Array, images: Tensor, sample: Sample = sample, truth: Array = truth) -> float:
            embeddings = torch.cat([model.encoder.encode_image(part) for part in images.split(64)])
            reward, known = rewards(embeddings, *presets(model, sample.world.family), 0.5), np.isfinite(truth[rows])
            return spearman(truth[rows][known], reward[known])

        first = np.arange(min(VIEWED, len(truth)))
        plain = normalise(sample.images[: len(first)])
        noise = 10 / 255 / 0.27 * torch.randn(plain.shape, generator=rng)
        darker = normalise((0.8 * sample.images[: len(first)].float()).to(torch.uint8))
        views = [
            score(sample.varied[view][0], normalise(sample.varied[view][1])) if view in sample.varied else np.nan
            for view in VIEWS
        ]
        table[name_of(sample),] = [score(first, plain), *views, score(first, plain + noise), score(first, darker)]
    return table


def calibration_table(model: Known, samples: list[Sample]) -> Table:
    """Eight captions of one family at a time, whose likelihoods differ from the best by 0.5 at least."""
    rng = np.random.default_rng(EVALUATION_SEED)
    scale = model.encoder.logit_scale
    probabilities, rights = [], []
    for sample in samples:
        goals = speaking(sample.world.family)
        truth = log_likelihood(sample.attributes, family_rows(sample), as_batch(goals))
        texts = torch.stack([model.texts[goal.text] for goal in goals])
        logits = (scale * model.images[name_of(sample)] @ texts.T).numpy()
        for row in range(len(truth)):
            eight = rng.choice(len(goals), 8, replace=False)
            weights = np.exp(logits[row, eight] - logits[row, eight].max())
            probabilities.append(weights.max() / weights.sum())
            rights.append(truth[row, eight[weights.argmax()]] >= truth[row, eight].max() - 0.1)
    values, right = np.array(probabilities), np.array(rights)
    table: Table = {}
    edges = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
    for low, high in pairwise(edges):
        inside = (values >= low) & (values < high)
        mean = [float(values[inside].mean()), float(right[inside].mean())] if inside.any() else [np.nan, np.nan]
        table[f"{low:g} to {min(high, 1):g}",] = [float(inside.sum()), *mean]
    return table


def encoding_cost(encoder: EmbeddedCLIPEncoder) -> float:
    """CPU-milliseconds a frame in batches of 8, the median of 20 rounds."""
    images = torch.randn(8, 3, encoder.image_size, encoder.image_size)
    encoder.encode_image(images)
    rounds = []
    for _ in range(20):
        start = time.process_time()
        for _ in range(10):
            encoder.encode_image(images)
        rounds.append((time.process_time() - start) / 80 * 1e3)
    return float(np.median(rounds))
