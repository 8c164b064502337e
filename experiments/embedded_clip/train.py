"""Train the embedded CLIP from a seed, on one CPU core, and write it into the package.

    python experiments/embedded_clip/train.py            # the shipped model; 16 CPU-minutes

Renders 34 000 frames (1.3 CPU-minutes), then trains 2400 steps on 128 frames and 96 freshly
written captions each. The loss is CLIP's with soft targets: instead of one right caption per image,
every caption has a likelihood, computed from the simulator's state (captions.py). The budget is
counted in steps, not minutes: the same seed gives the same weights on the same machine.

Ctrl-C leaves the package as it was and writes what has been learnt beside it, as
`*.partial.safetensors`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captions import (
    PRESETS,
    CaptionBatch,
    log_likelihood,
    speaks_of_another,
    write_captions,
)
from numpy.typing import NDArray
from torch import Tensor
from training_model import TinyCLIP, Vocabulary, export, normalise
from worlds import FAMILIES, FAMILY_SHARE, WORLDS, draw_small

Array = NDArray[Any]

ASSET = Path(__file__).parents[2] / "vlmrm_wrap/encoders/assets/embedded_clip.safetensors"
IMAGES_PER_STEP, CAPTIONS_PER_STEP = 128, 96
LEARNING_RATE, WARM_UP_STEPS, WEIGHT_DECAY = 1e-3, 60, 0.05
WORD_DROPOUT = 0.03
PIXEL_NOISE = 0.01  # in units of the normalised image: about 0.7 of 255 levels

# The loss reads the likelihoods at two temperatures. At 1 only captions that nearly fit count,
# which makes the reward steep near the goal. At 4 the far ones count too, and the reward stays
# monotone; this part compares only within one family, whose captions it has to order.
FAR_TEMPERATURE, FAR_WEIGHT = 4.0, 3.0
NEVER = -1e4  # a finite logit of probability 0: infinities would make the divergence NaN


class Frames:
    """The rendered training frames, by family, and batches of them."""

    def __init__(self, rng: np.random.Generator, fraction: float) -> None:
        images: dict[str, list[Tensor]] = {family: [] for family in FAMILIES}
        attributes: dict[str, list[Array]] = {family: [] for family in FAMILIES}
        for world in WORLDS:
            start, n = time.monotonic(), max(64, round(fraction * world.frames))
            states = world.sample(rng, n)
            images[world.family].append(draw_small(world, states, rng))
            attributes[world.family].append(world.attributes(states))
            seconds = time.monotonic() - start
            print(f"rendered {n:6d} {world.env_id:26s} {seconds:5.0f} s", flush=True)
        self.images = {family: torch.cat(parts) for family, parts in images.items()}
        self.attributes = {family: np.concatenate(parts) for family, parts in attributes.items()}

    def batch(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Array, Array]:
        """Normalised images (n, 3, 64, 64), attributes (n, k), family indices (n,)."""
        family = np.sort(rng.choice(len(FAMILIES), size=n, p=list(FAMILY_SHARE.values())))
        images, attributes = [], []
        for index, name in enumerate(FAMILIES):
            rows = rng.integers(len(self.images[name]), size=int((family == index).sum()))
            images.append(self.images[name][torch.from_numpy(rows)])
            attributes.append(self.attributes[name][rows])
        return normalise(torch.cat(images)), np.concatenate(attributes), family

    def first_of_each(self, n: int) -> Tensor:
        """Normalised images, n of each family."""
        return normalise(torch.cat([images[:n] for images in self.images.values()]))


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)  # the results don't depend on how many cores there are
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    cpu_start, wall_start = time.process_time(), time.monotonic()
    frames = Frames(np.random.default_rng([args.seed, 0]), args.frames)
    rendered = time.process_time() - cpu_start
    texts = grammar_texts()
    vocabulary = Vocabulary(texts)
    model = TinyCLIP(len(vocabulary)).float()
    model.centre_on(frames.first_of_each(400))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(vocabulary)} rows of vocabulary, {parameters} parameters")

    done = train(model, vocabulary, frames, np.random.default_rng([args.seed, 1]), args.steps)
    finished = done == args.steps
    path = args.out if finished else args.out.with_suffix(".partial.safetensors")
    export(model, vocabulary, texts, path, seed=args.seed, steps=done)
    cpu, wall = time.process_time() - cpu_start, time.monotonic() - wall_start
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    print(
        f"seed {args.seed}, {done} steps, {cpu / 60:.1f} CPU-minutes "
        f"(of which rendering {rendered / 60:.1f}), {wall / 60:.1f} minutes of wall time"
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2400, help="0.37 CPU-seconds each")
    parser.add_argument("--out", type=Path, default=ASSET, help="the safetensors file to write")
    parser.add_argument("--frames", type=float, default=1.0, help="fraction of the frames to render")
    return parser.parse_args()


def grammar_texts() -> list[str]:
    """What the grammar says, held-out sentences included (their words are all taught elsewhere)."""
    rng = np.random.default_rng(0)
    trained = write_captions(rng, 15_000).texts
    held_out = write_captions(rng, 1_500, held_out=True).texts
    return trained + held_out + [prompt for pair in PRESETS.values() for prompt in pair]


def train(model: TinyCLIP, vocabulary: Vocabulary, frames: Frames, rng: np.random.Generator, steps: int) -> int:
    """Trains in place; returns the steps done, fewer than `steps` after Ctrl-C."""
    optimizer = make_optimizer(model)
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    progress = Progress(steps)
    step = 0
    try:
        while step < steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            images, attributes, family = frames.batch(rng, IMAGES_PER_STEP)
            captions = write_captions(rng, CAPTIONS_PER_STEP)
            tokens = vocabulary.drop(vocabulary.encode(captions.texts), WORD_DROPOUT, noise)
            images += PIXEL_NOISE * torch.randn(images.shape, generator=noise)
            logits = model.scale() * model.embed_images(images) @ model.embed_tokens(tokens).T
            near, loss = losses(logits, attributes, family, captions)
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


def make_optimizer(model: TinyCLIP) -> torch.optim.Optimizer:
    """Weight decay pulls on matrices only, not on biases, norms and the logit scale."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
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
