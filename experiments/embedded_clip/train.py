"""Train the embedded CLIP from a seed, on one CPU core, and write it into the package.

    python experiments/embedded_clip/train.py            # the shipped model

Renders the frames of every world, then trains on 120 frames and 152 freshly written captions a step. The loss is
CLIP's with soft targets: instead of one right caption per image, every caption has a likelihood, computed from the
simulator's state (captions.py). The budget is counted in steps, not minutes: the same seed gives the same weights on
the same machine.

Ctrl-C and SIGTERM leave the package as it was and write what has been learnt beside it, as `*.partial.safetensors`.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch
from captions import (
    CaptionBatch,
    attribute_columns,
    attributes_of,
    log_likelihood,
    speaks_of_another,
    write_captions,
)
from pictures import draw_views
from torch import Tensor, nn
from torch.nn import functional
from training_model import EMBED_DIM, TinyCLIP, Vocabulary, export, normalise
from worlds import FAMILIES, WORLDS, Array, Family

ASSET = Path(__file__).parents[2] / "vlmrm_wrap/encoders/assets/embedded_clip.safetensors"
IMAGES_PER_STEP, CAPTIONS_PER_STEP = 120, 152
LEARNING_RATE, WARM_UP_STEPS, WEIGHT_DECAY = 1e-3, 60, 0.05
WORD_DROPOUT = 0.12
# Of the normalised image, where 1 is about 70 of 255 levels: an image's own noise and change of colours are drawn from
# half normal and normal distributions of these widths.
PIXEL_NOISE, BRIGHTNESS, TINT = 0.05, 0.06, 0.03

HINT_WEIGHT = 0.5

# The loss reads the likelihoods at two temperatures. At 1 only captions that nearly fit count,
# which makes the reward steep near the goal. At 4 the far ones count too, and the reward stays
# monotone; this part compares only within one family, whose captions it has to order.
FAR_TEMPERATURE, FAR_WEIGHT = 4.0, 3.0
NEVER = -1e4  # a finite logit of probability 0: infinities would make the divergence NaN

# (families, attributes): 1 where a family's worlds have the attribute.
OWN_ATTRIBUTES = np.array([
    [any(name in world.measure(world.sample(np.random.default_rng(0), 2)) for world in WORLDS if world.family is family)
     for name in attribute_columns()]
    for family in FAMILIES
], np.float32)  # fmt: skip


class Frames:
    """The rendered training frames, by family, and batches of them."""

    def __init__(self, seed: int, fraction: float) -> None:
        images: dict[Family, list[Tensor]] = {family: [] for family in FAMILIES}
        attributes: dict[Family, list[Array]] = {family: [] for family in FAMILIES}
        for index, world in enumerate(WORLDS):
            rng = np.random.default_rng([seed, 0, index])
            start, n = time.monotonic(), max(64, round(fraction * world.frames))
            states = world.sample(rng, n)
            images[world.family].append(draw_views(world, states, rng))
            attributes[world.family].append(attributes_of(world.measure(states), n))
            seconds = time.monotonic() - start
            print(f"rendered {n:6d} {world.env_id:26s} {seconds:5.0f} s", flush=True)
        self.images = [torch.cat(images[family]) for family in FAMILIES]
        self.attributes = [np.concatenate(attributes[family]) for family in FAMILIES]
        self.signs = [_signs(family) for family in FAMILIES]
        share = np.array([family.share for family in FAMILIES])
        self.share = share / share.sum()

    def batch(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Array, Array]:
        """Normalised images (n, 3, 64, 64), attributes (n, k), family indices (n,)."""
        family = np.sort(rng.choice(len(FAMILIES), size=n, p=self.share))
        images, attributes = [], []
        for index in range(len(FAMILIES)):
            rows = rng.integers(len(self.images[index]), size=int((family == index).sum()))
            chosen, values = self.images[index][torch.from_numpy(rows)], self.attributes[index][rows]
            if self.signs[index] is not None:  # left and right are alike: half of the pictures are mirrored
                flip = rng.random(len(rows)) < 0.5
                chosen = torch.where(torch.from_numpy(flip)[:, None, None, None], chosen.flip(-1), chosen)
                values = np.where(flip[:, None], values * self.signs[index], values)
            images.append(chosen)
            attributes.append(values)
        return normalise(torch.cat(images)), np.concatenate(attributes), family

    def first_of_each(self, n: int) -> Tensor:
        """Normalised images, n of each family."""
        return normalise(torch.cat([images[:n] for images in self.images]))


def _signs(family: Family) -> Array | None:
    """What a mirrored picture multiplies the attributes by; None where pictures must not be mirrored."""
    if not family.signed:
        return None
    return np.array([-1.0 if name in family.signed else 1.0 for name in attribute_columns()], np.float32)


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image a little brighter or darker, tinted, and noisy."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n = len(images)
    images = images * (1 + BRIGHTNESS * normal(n, 1, 1, 1)) + TINT * normal(n, 3, 1, 1)
    return images + PIXEL_NOISE * normal(n, 1, 1, 1).abs() * normal(*images.shape)


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(1)  # the results don't depend on how many cores there are
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    cpu_start, wall_start = time.process_time(), time.monotonic()
    frames = Frames(args.seed, args.frames)
    rendered = time.process_time() - cpu_start
    vocabulary = Vocabulary()
    model = TinyCLIP(len(vocabulary)).float()
    model.centre_on(frames.first_of_each(400))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(vocabulary)} rows of vocabulary, {parameters} parameters")

    done = train(model, vocabulary, frames, np.random.default_rng([args.seed, 1]), args.steps)
    finished = done == args.steps
    path = args.out if finished else args.out.with_suffix(".partial.safetensors")
    export(model, vocabulary, path, seed=args.seed, steps=done)
    cpu, wall = time.process_time() - cpu_start, time.monotonic() - wall_start
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    print(
        f"seed {args.seed}, {done} steps, {cpu / 60:.1f} CPU-minutes "
        f"(of which rendering {rendered / 60:.1f}), {wall / 60:.1f} minutes of wall time"
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--out", type=Path, default=ASSET, help="the safetensors file to write")
    parser.add_argument("--frames", type=float, default=1.0, help="fraction of the frames to render")
    return parser.parse_args()


class Hints(nn.Module):
    """Heads that are thrown away after training: what an image shows and what a sentence aims at, read linearly.

    CLIP's loss alone tells each tower little until the other has learnt something.
    """

    def __init__(self, attributes: int) -> None:
        super().__init__()
        self.image = nn.Linear(EMBED_DIM, attributes + len(FAMILIES))
        self.text = nn.Linear(EMBED_DIM, 3 * attributes + len(FAMILIES) + 1)

    def of_images(self, embeddings: Tensor, attributes: Array, family: Array) -> Tensor:
        k = attributes.shape[1]
        read, families = self.image(10 * embeddings).split([k, len(FAMILIES)], dim=1)
        own = torch.from_numpy(OWN_ATTRIBUTES[family])
        gap = functional.smooth_l1_loss(read, torch.from_numpy(attributes), reduction="none")
        return (gap * own).sum() / own.sum() + functional.cross_entropy(families, torch.from_numpy(family))

    def of_texts(self, embeddings: Tensor, captions: CaptionBatch) -> Tensor:
        k = captions.values.shape[1]
        values, weights, senses, families = self.text(10 * embeddings).split([k, k, k, len(FAMILIES) + 1], dim=1)
        wanted = [torch.from_numpy(array) for array in (captions.values, captions.weights, captions.senses)]
        spoken_of = wanted[1] > 0
        gaps = [
            (functional.smooth_l1_loss(values, wanted[0], reduction="none") * spoken_of).sum() / spoken_of.sum(),
            functional.smooth_l1_loss(weights, wanted[1], reduction="none").sum(1).mean(),
            functional.smooth_l1_loss(senses, wanted[2], reduction="none").sum(1).mean(),
        ]
        return sum(gaps, functional.cross_entropy(families, torch.from_numpy(captions.family + 1)))


def train(model: TinyCLIP, vocabulary: Vocabulary, frames: Frames, rng: np.random.Generator, steps: int) -> int:
    """Trains in place; returns the steps done, fewer than `steps` after Ctrl-C."""
    hints = Hints(len(attribute_columns()))
    optimizer = make_optimizer(model, hints)
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    progress = Progress(steps)
    step = 0
    try:
        while step < steps:
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * learning_rate(step, steps)
            images, attributes, family = frames.batch(rng, IMAGES_PER_STEP)
            captions = write_captions(rng, CAPTIONS_PER_STEP)
            tokens = vocabulary.drop(vocabulary.encode(captions.texts), WORD_DROPOUT, noise)
            seen, read = model.embed_images(recoloured(images, noise)), model.embed_tokens(tokens)
            near, loss = losses(model.scale() * seen @ read.T, attributes, family, captions)
            loss += HINT_WEIGHT * (hints.of_images(seen, attributes, family) + hints.of_texts(read, captions))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            progress.report(step, near, model.scale().item())
    except KeyboardInterrupt:
        print(f"\nstopped after {step} of {steps} steps")
    return step


def losses(logits: Tensor, attributes: Array, family: Array, captions: CaptionBatch) -> tuple[float, Tensor]:
    """(divergence from the targets at temperature 1, the loss), images to captions and back."""
    target = torch.from_numpy(log_likelihood(attributes, family, captions))
    near = (divergence(logits, target) + divergence(logits.T, target.T)) / 2
    foreign = torch.from_numpy(speaks_of_another(family, captions))
    far_logits, far_target = ((values / FAR_TEMPERATURE).masked_fill(foreign, NEVER) for values in (logits, target))
    far = (divergence(far_logits, far_target) + divergence(far_logits.T, far_target.T)) / 2
    return near.item(), near + FAR_WEIGHT * far


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), mean over rows: 0 if the model says what is true."""
    wanted = target.log_softmax(dim=1)
    return (wanted.exp() * (wanted - logits.log_softmax(dim=1))).sum(dim=1).mean()


def make_optimizer(model: TinyCLIP, hints: Hints) -> torch.optim.Optimizer:
    """Weight decay pulls on matrices only, not on biases, norms and the logit scale."""
    words = model.token_embedding.weight
    parameters = [p for p in (*model.parameters(), *hints.parameters()) if p is not words]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY, "factor": 1.0},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "factor": 1.0},
        {"params": [words], "weight_decay": 0.0, "factor": 3.0},  # most words are rare: few steps move them
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, steps: int) -> float:
    """A short linear warm-up, then a cosine from the full rate to 2 % of it."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * cosine)


class Progress:
    """A line every 50 steps: divergence averaged over them, logit scale, minutes left."""

    def __init__(self, steps: int) -> None:
        self._steps, self._start, self._recent = steps, time.monotonic(), list[float]()

    def report(self, step: int, loss: float, scale: float) -> None:
        self._recent.append(loss)
        if step % 50 and step != self._steps:
            return
        left = (time.monotonic() - self._start) / step * (self._steps - step) / 60
        mean = sum(self._recent) / len(self._recent)
        print(f"step {step:5d}/{self._steps}  divergence {mean:.3f}  scale {scale:4.1f}"
              f"  {left:5.1f} min left", flush=True)  # fmt: skip
        self._recent.clear()


if __name__ == "__main__":
    main()
