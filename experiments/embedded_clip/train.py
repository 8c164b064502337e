"""Train the embedded CLIP from a seed, on one CPU core, and write it into the package.

    python experiments/embedded_clip/train.py            # the shipped model

Renders the frames of every world, then trains in two stages.

1. The text tower learns to read, together with a `StateReader`: a small network that is told the states of the worlds
   as numbers. The loss is CLIP's with soft targets: instead of one right caption per state, every caption has a
   likelihood, computed from the state (meaning.py).
2. The image tower learns to see: to embed each frame where the reader embeds its state. No sentence is read any more,
   so all of the time goes into pictures.

The budget is counted in steps, not minutes: the same seed gives the same weights on the same machine.

Ctrl-C and SIGTERM leave the package as it was and write what has been learnt beside it, as `*.partial.safetensors`.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from captions import reading_shares, write_captions
from meaning import CaptionBatch, attribute_columns, log_likelihood, speaks_of_another
from training_frames import Frames, recoloured
from training_model import EMBED_DIM, StateReader, TinyCLIP, Vocabulary, export
from worlds import FAMILIES

ASSET = Path(__file__).parents[2] / "vlmrm_wrap/encoders/assets/embedded_clip.safetensors"
STATES_PER_STEP, CAPTIONS_PER_STEP, IMAGES_PER_STEP = 200, 160, 120
READING = 0.74  # of all steps; in the rest it learns to see
LEARNING_RATE, WARM_UP_STEPS = 2e-3, 60
READING_DECAY, SEEING_DECAY = 0.5, 0.05  # of weights: there are fewer sentences than pictures to learn by heart
WORD_DROPOUT, MEANING_WEIGHT = 0.04, 0.5

# The loss reads the likelihoods at two temperatures. At 1 only captions that nearly fit count,
# which makes the reward steep near the goal. At 4 the far ones count too, and the reward stays
# monotone; this part compares only within one family, whose captions it has to order.
FAR_TEMPERATURE, FAR_WEIGHT = 4.0, 3.0
NEVER = -1e4  # a finite logit of probability 0: infinities would make the divergence NaN

# The second stage: how far the embedding is off, and how differently it fits sentences of its family.
SENTENCES, SENTENCES_PER_STEP = 6000, 400
OFF_WEIGHT = 20.0


class Meanings(nn.Module):
    """A head that is thrown away after training: what a sentence aims at, read linearly from its embedding.

    CLIP's loss alone tells the text tower little until the reader of states has learnt something.
    """

    def __init__(self) -> None:
        super().__init__()
        self._attributes = len(attribute_columns())
        self._head = nn.Linear(EMBED_DIM, 3 * self._attributes + len(FAMILIES) + 2)

    def loss(self, embeddings: Tensor, captions: CaptionBatch) -> Tensor:
        k = self._attributes
        values, weights, senses, families, denied = self._head(10 * embeddings).split(
            [k, k, k, len(FAMILIES) + 1, 1], dim=1
        )
        wanted = [torch.from_numpy(array) for array in (captions.values, captions.weights, captions.senses)]
        spoken_of = wanted[1] > 0
        gaps = [
            (functional.smooth_l1_loss(values, wanted[0], reduction="none") * spoken_of).sum() / spoken_of.sum(),
            functional.smooth_l1_loss(weights, wanted[1], reduction="none").sum(1).mean(),
            functional.smooth_l1_loss(senses, wanted[2], reduction="none").sum(1).mean(),
        ]
        gaps.append(functional.cross_entropy(families, torch.from_numpy(captions.family + 1)))
        is_denied = torch.from_numpy(captions.denied).float()
        return sum(gaps, functional.binary_cross_entropy_with_logits(denied[:, 0], is_denied))


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
    model, reader = TinyCLIP(len(vocabulary)).float(), StateReader(len(attribute_columns()), len(FAMILIES))
    model.centre_on(frames.first_of_each(400))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(vocabulary)} rows of vocabulary, {parameters} parameters")

    rng, reading = np.random.default_rng([args.seed, 1]), max(1, round(READING * args.steps))
    done = learn_to_read(model, reader, vocabulary, frames, rng, reading)
    if done == reading:
        done += learn_to_see(model, reader, vocabulary, frames, rng, args.steps - reading)
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
    parser.add_argument("--steps", type=int, default=10600)
    parser.add_argument("--out", type=Path, default=ASSET, help="the safetensors file to write")
    parser.add_argument("--frames", type=float, default=1.0, help="fraction of the frames to render")
    return parser.parse_args()


def learn_to_read(
    model: TinyCLIP, reader: StateReader, vocabulary: Vocabulary, frames: Frames, rng: np.random.Generator, steps: int
) -> int:
    """Trains the text tower and the reader of states; returns the steps done."""
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    meanings = Meanings()

    def loss() -> tuple[float, Tensor]:
        _, _, attributes, family = frames.draw(rng, STATES_PER_STEP, reading_shares())
        captions = write_captions(rng, CAPTIONS_PER_STEP)
        tokens = vocabulary.drop(vocabulary.encode(captions.texts), WORD_DROPOUT, noise)
        known = reader(torch.from_numpy(attributes), torch.from_numpy(family))
        read = model.embed_tokens(tokens)
        target, foreign = log_likelihood(attributes, family, captions), speaks_of_another(family, captions)
        near, divergences = contrast(
            model.scale() * known @ read.T, torch.from_numpy(target), torch.from_numpy(foreign)
        )
        return near, divergences + MEANING_WEIGHT * meanings.loss(read, captions)

    text_tower = {name: p for name, p in model.named_parameters() if not name.startswith("visual.")}
    helpers = nn.ModuleDict({"reader": reader, "meanings": meanings})
    return train("read", loss, text_tower | dict(helpers.named_parameters()), READING_DECAY, steps)


def learn_to_see(
    model: TinyCLIP, reader: StateReader, vocabulary: Vocabulary, frames: Frames, rng: np.random.Generator, steps: int
) -> int:
    """Trains the image tower towards the reader's embeddings; returns the steps done."""
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    shares = np.array([family.share for family in FAMILIES])
    with torch.no_grad():
        captions = write_captions(rng, SENTENCES)
        sentences = torch.cat([model.embed_tokens(part) for part in vocabulary.encode(captions.texts).split(500)])
        scale = model.scale()

    def loss() -> tuple[float, Tensor]:
        rows, mirrored, attributes, family = frames.draw(rng, IMAGES_PER_STEP, shares / shares.sum())
        with torch.no_grad():
            wanted = reader(torch.from_numpy(attributes), torch.from_numpy(family))
        seen = model.embed_images(recoloured(frames.show(rows, mirrored), noise))
        chosen = rng.choice(SENTENCES, SENTENCES_PER_STEP, replace=False)
        some = sentences[torch.from_numpy(chosen)]
        foreign = torch.from_numpy((family[:, None] != captions.family[None, chosen]) & (captions.family[chosen] >= 0))
        off = (1 - (seen * wanted).sum(1)).mean()
        _, divergences = contrast(scale * seen @ some.T, scale * wanted @ some.T, foreign)
        return off.item(), OFF_WEIGHT * off + divergences

    return train("see", loss, dict(model.visual.named_parameters()), SEEING_DECAY, steps)


def train(
    what: str,
    loss: Callable[[], tuple[float, Tensor]],
    parameters: dict[str, nn.Parameter],
    decay: float,
    steps: int,
) -> int:
    """`steps` steps of `loss()`, a pair (to report, to minimise). Returns the steps done, fewer after Ctrl-C."""
    optimizers = make_optimizers(parameters, decay)
    progress = Progress(what, steps)
    step = 0
    try:
        while step < steps:
            report, minimised = loss()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["factor"] * learning_rate(step, steps)
                optimizer.zero_grad(set_to_none=True)
            minimised.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            progress.report(step, report)
    except KeyboardInterrupt:
        print(f"\nstopped after {step} of {steps} steps of learning to {what}")
    return step


def contrast(logits: Tensor, target: Tensor, foreign: Tensor) -> tuple[float, Tensor]:
    """(divergence from the targets at temperature 1, the loss), rows to columns and back.

    logits, target: (m, n), of m states or images and n captions; foreign: bool (m, n), the two are of two families.
    """
    near = (divergence(logits, target) + divergence(logits.T, target.T)) / 2
    far_logits, far_target = ((values / FAR_TEMPERATURE).masked_fill(foreign, NEVER) for values in (logits, target))
    far = (divergence(far_logits, far_target) + divergence(far_logits.T, far_target.T)) / 2
    return near.item(), near + FAR_WEIGHT * far


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), mean over rows: 0 if the model says what is true."""
    wanted = target.log_softmax(dim=1)
    return (wanted.exp() * (wanted - logits.log_softmax(dim=1))).sum(dim=1).mean()


def make_optimizers(parameters: dict[str, nn.Parameter], decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformers, which learn twice as fast with it; AdamW for the rest.

    Weight decay pulls on matrices only, not on biases, norms, the logit scale and the words.
    """
    kinds: dict[str, list[nn.Parameter]] = {"blocks": [], "matrices": [], "vectors": [], "words": []}
    for name, parameter in parameters.items():
        words, matrix, block = name == "token_embedding.weight", parameter.ndim >= 2, "resblocks" in name
        kinds["words" if words else "vectors" if not matrix else "blocks" if block else "matrices"].append(parameter)
    muon = [{"params": kinds["blocks"], "factor": 1.0}]
    adam = [
        {"params": kinds["matrices"], "weight_decay": decay, "factor": 1.0},
        {"params": kinds["vectors"], "weight_decay": 0.0, "factor": 1.0},
        {"params": kinds["words"], "weight_decay": 0.0, "factor": 3.0},  # most words are rare: few steps move them
    ]
    return [
        torch.optim.Muon(muon, lr=LEARNING_RATE, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [group for group in adam if group["params"]], lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True
        ),
    ]


def learning_rate(step: int, steps: int) -> float:
    """A short linear warm-up, then a cosine from the full rate to 2 % of it."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * cosine)


class Progress:
    """A line every 50 steps: the loss averaged over them, minutes left."""

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps, self._start, self._recent = what, steps, time.monotonic(), list[float]()

    def report(self, step: int, loss: float) -> None:
        self._recent.append(loss)
        if step % 50 and step != self._steps:
            return
        left = (time.monotonic() - self._start) / step * (self._steps - step) / 60
        mean = sum(self._recent) / len(self._recent)
        print(f"{self._what} {step:5d}/{self._steps}  divergence {mean:.4f}  {left:5.1f} min left", flush=True)
        self._recent.clear()


if __name__ == "__main__":
    main()
