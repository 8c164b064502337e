"""Measure the embedded CLIP on fresh frames and print its tables as Markdown.

    python experiments/embedded_clip/evaluate.py                # the shipped model, about 1 minute
    python experiments/embedded_clip/evaluate.py --write-card   # and put the tables into its card

States are drawn from the distribution of the training states with another seed, so no frame was
trained on. Rewards use the preset prompts, which no training caption repeats. Spearman is the rank
correlation of the reward with the quantity that the prompt speaks of: 1 is the same order.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from captions import PRESETS, log_likelihood, write_captions
from numpy.typing import NDArray
from torch import Tensor
from worlds import FAMILIES, VALLEY_X, WORLDS, World, draw, tip_height, wrap_angle

from vlmrm_wrap import goal_baseline_reward
from vlmrm_wrap.encoders.embedded import EmbeddedCLIPEncoder, load_embedded
from vlmrm_wrap.preprocess import FramePreprocessor

Array = NDArray[Any]

ASSETS = Path(__file__).parents[2] / "vlmrm_wrap/encoders/assets"
ALPHAS = (0.0, 0.5, 1.0)
EVALUATION_SEED = 10_000  # far from the seeds of training runs
MAX_SPECIFIC_OFFSET = -1.0  # captions below it only name a world; they have no truest frame


class Truth(NamedTuple):
    """What a world's preset prompt speaks of, and where its reward is tabled."""

    name: str
    value: Callable[[Array], Array]  # states -> the quantity the reward should grow with
    ranges: tuple[tuple[str, float, float], ...]  # (label, from, below) for Spearman
    bins: tuple[float, ...]


def _pole_angle(states: Array) -> Array:
    degrees: Array = -np.abs(np.rad2deg(wrap_angle(states[:, 1])))
    return degrees


def _pendulum_angle(states: Array) -> Array:
    degrees: Array = -np.abs(np.rad2deg(wrap_angle(states[:, 0])))
    return degrees


def _car_x(states: Array) -> Array:
    return states[:, 0]


TRUTHS = {
    "cartpole": Truth(
        "-abs(angle), degrees", _pole_angle,
        (("all", -181, 1), ("within 15", -15, 1), ("within 5", -5, 1), ("beyond 90", -181, -90)),
        (-181, -150, -120, -90, -60, -45, -30, -20, -15, -12, -10, -8, -6, -4, -3, -2, -1, 0.1),
    ),
    "mountain_car": Truth(
        "car x", _car_x,
        (("valley to 0.5", float(VALLEY_X), 0.5), ("all", -1.3, 0.7)),
        (-1.2, -1, -0.8, -0.6, -0.4, -0.2, 0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.61),
    ),
    "pendulum": Truth(
        "-abs(angle), degrees", _pendulum_angle,
        (("all", -181, 1), ("within 30", -30, 1), ("beyond 90", -181, -90)),
        (-181, -150, -120, -90, -60, -40, -20, -10, -5, 0.1),
    ),
    "acrobot": Truth(
        "tip height, links", tip_height,
        (("all", -2.1, 2.1), ("above the line", 1, 2.1)),
        (-2.01, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2.01),
    ),
}  # fmt: skip

# Wordings outside the grammar, made of words it teaches; each with what it should follow.
OTHER_PROMPTS: tuple[tuple[str, str, Callable[[Array], Array]], ...] = (
    ("cartpole", "the stick is standing perfectly upright on its cart", _pole_angle),
    ("cartpole", "keep it balanced: the pole straight up", _pole_angle),
    ("cartpole", "a pole lying flat", lambda s: -np.abs(np.abs(_pole_angle(s)) - 85)),
    ("cartpole", "the cart at the far left of the screen", lambda s: -s[:, 0]),
    ("cartpole", "a cart on the right of the track", lambda s: -np.abs(s[:, 0] - 1.6)),
    ("mountain_car", "the car reached the goal on top of the mountain", _car_x),
    ("mountain_car", "the car down in the valley", lambda s: -np.abs(_car_x(s) - VALLEY_X)),
    ("pendulum", "the red rod is balanced upright", _pendulum_angle),
    ("pendulum", "the red pendulum hanging straight down at the bottom", lambda s: -_pendulum_angle(s)),
    ("acrobot", "the tip of the robot arm is high above the line", tip_height),
    ("acrobot", "both links of the arm hanging down", lambda s: -tip_height(s)),
)  # fmt: skip


class Sample(NamedTuple):
    """Held-out frames of one world."""

    world: World
    states: Array
    embeddings: Tensor  # unit, (n, D)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    encoder = load_embedded("cpu", "float32", path=args.model)
    rng = np.random.default_rng(EVALUATION_SEED)
    samples = [held_out(encoder, world, args.frames, rng) for world in WORLDS]
    report = "\n\n".join([
        "Spearman correlation with the preset prompts:\n\n" + spearman_table(encoder, samples),
        "Mean reward (± standard deviation) by state, preset prompts:\n\n"
        + "\n\n".join(curve_table(encoder, sample) for sample in samples),
        "Other wordings, cosine only (alpha 0):\n\n" + wording_table(encoder, samples),
        "Retrieval, all worlds together:\n\n" + retrieval_table(encoder, samples),
        f"Encoding cost, batch of 8, one thread: {encoding_cost(encoder):.2f} CPU-ms a frame.",
    ])  # fmt: skip
    print(report)
    if args.write_card:
        write_section(ASSETS / "MODEL_CARD.md", "evaluation", report)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, default=None, help="another file than the shipped one")
    parser.add_argument("--frames", type=int, default=2000, help="frames per env")
    parser.add_argument("--write-card", action="store_true", help="put the tables into MODEL_CARD.md")
    return parser.parse_args()


def held_out(encoder: EmbeddedCLIPEncoder, world: World, n: int, rng: np.random.Generator) -> Sample:
    states = world.sample(rng, n)
    if world.family == "cartpole":
        states = states[np.abs(states[:, 0]) < 2.4]  # where the whole cart is in the picture
    prepare = FramePreprocessor(
        encoder.image_size,
        encoder.mean,
        encoder.std,
        interpolation=encoder.interpolation,
        resize_mode=encoder.resize_mode,
    )
    embeddings = [encoder.encode_image(prepare(np.stack(frames))) for frames in batched(draw(world, states), 32)]
    return Sample(world, states, torch.cat(embeddings))


def batched(items: Iterable[Array], size: int) -> Iterator[list[Array]]:
    """Lists of `size` items, the last one shorter (itertools has it from Python 3.12 on)."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def rewards(encoder: EmbeddedCLIPEncoder, sample: Sample, alpha: float) -> Array:
    goal, baseline = encoder.encode_text(list(PRESETS[sample.world.family]))
    reward: Array = goal_baseline_reward(sample.embeddings, goal, baseline, alpha).numpy()
    return reward


def spearman_table(encoder: EmbeddedCLIPEncoder, samples: list[Sample]) -> str:
    lines = []
    for sample in samples:
        truth = TRUTHS[sample.world.family]
        value = truth.value(sample.states)
        by_alpha = [rewards(encoder, sample, alpha) for alpha in ALPHAS]
        for label, low, high in truth.ranges:
            chosen = (value >= low) & (value < high)
            cells = [f"{spearman(reward[chosen], value[chosen]):.3f}" for reward in by_alpha]
            lines.append([sample.world.env_id, truth.name, label, str(chosen.sum()), *cells])
    return table(["env", "reward against", "range", "frames", *map("alpha {}".format, ALPHAS)], lines)


def curve_table(encoder: EmbeddedCLIPEncoder, sample: Sample) -> str:
    truth = TRUTHS[sample.world.family]
    value = truth.value(sample.states)
    by_alpha = [rewards(encoder, sample, alpha) for alpha in ALPHAS]
    lines = []
    for low, high in zip(truth.bins[:-1], truth.bins[1:], strict=True):
        chosen = (value >= low) & (value < high)
        if not chosen.any():  # few frames were asked for
            continue
        cells = [f"{reward[chosen].mean():.3f} ± {reward[chosen].std():.3f}" for reward in by_alpha]
        lines.append([f"{low:g} to {high:g}", *cells])
    header = [f"{sample.world.env_id}: {truth.name}", *map("alpha {}".format, ALPHAS)]
    return table(header, lines)


def wording_table(encoder: EmbeddedCLIPEncoder, samples: list[Sample]) -> str:
    lines = []
    for family, prompt, value in OTHER_PROMPTS:
        sample = next(sample for sample in samples if sample.world.family == family)
        cosine = sample.embeddings @ encoder.encode_text([prompt])[0]
        unknown = ", ".join(encoder.unknown_words(prompt)) or "none"
        rank = spearman(cosine.numpy(), value(sample.states))
        lines.append([sample.world.env_id, prompt, unknown, f"{rank:.3f}"])
    return table(["env", "prompt", "unknown words", "Spearman"], lines)


def retrieval_table(encoder: EmbeddedCLIPEncoder, samples: list[Sample]) -> str:
    """200 frames of each env against 400 captions. A choice's loss: how much less likely the chosen
    partner is than the best one, as log-likelihood from the simulator's state."""
    frames = torch.cat([sample.embeddings[:200] for sample in samples])
    attributes = np.concatenate([s.world.attributes(s.states[:200]) for s in samples])
    counts = [len(s.states[:200]) for s in samples]
    family = np.repeat([FAMILIES.index(s.world.family) for s in samples], counts)
    lines = []
    for seen, held_out_captions in (("of the kind trained on", False), ("held out", True)):
        rng = np.random.default_rng(EVALUATION_SEED)
        captions = write_captions(rng, 400, held_out=held_out_captions)
        specific = captions.offsets > MAX_SPECIFIC_OFFSET
        cosine = (frames @ encoder.encode_text(captions.texts).T).numpy()[:, specific]
        likelihood = log_likelihood(attributes, family, captions)[:, specific]
        caption_of = cosine.argmax(axis=1)
        right_world = (captions.family[specific][caption_of] == family).mean()
        lost = likelihood.max(1) - likelihood[np.arange(len(cosine)), caption_of]
        frame_lost = likelihood.max(0) - likelihood[cosine.argmax(0), np.arange(cosine.shape[1])]
        shares = [(loss <= limit).mean() for loss in (lost, frame_lost) for limit in (0.5, 1)]
        lines.append([seen, *(f"{share:.3f}" for share in (right_world, *shares))])
    best = [f"best {what}: loss <= {n}" for what in ("caption", "frame") for n in (0.5, 1)]
    return table(["captions", "right world", *best], lines)


def encoding_cost(encoder: EmbeddedCLIPEncoder) -> float:
    """CPU milliseconds a frame at batch 8: the median of 50 calls after 10 for warming up."""
    images = torch.randn(8, 3, encoder.image_size, encoder.image_size)
    times = []
    for _ in range(60):
        start = time.process_time()
        encoder.encode_image(images)
        times.append(time.process_time() - start)
    return float(np.median(times[10:])) / 8 * 1e3


def spearman(first: Array, second: Array) -> float:
    """Pearson's correlation of the ranks (without ties, which these values hardly have)."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write_section(card: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`."""
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    old = card.read_text()
    if not pattern.search(old):
        raise ValueError(f"{card} has no section {name!r}")
    card.write_text(pattern.sub(lambda match: match[1] + text + "\n" + match[2], old))


if __name__ == "__main__":
    main()
