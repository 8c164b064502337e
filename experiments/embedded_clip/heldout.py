"""What a model is measured on: frames that no training has drawn, sentences that no training has read."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bank import mirror, phrases
from captions import Writer
from meaning import Caption, attributes_of
from pictures import View, draw
from training_model import normalise
from vlmrm_wrap.encoders.embedded import EmbeddedCLIPEncoder
from worlds import FAMILIES, WORLDS, Array, Family, World

EVALUATION_SEED = 10_000  # far from the seeds of training runs
SLOW = {"InvertedPendulum-v5": 0.25}  # the fraction of the frames of envs that render slowly

# Wordings that only name the picture have no truest state.
SILENT = {"names"}
# Pairs of regions that deny each other.
DENIALS = {
    "cartpole": [("upright", "not upright"), ("fallen", "not fallen")],
    "mountain_car": [("at flag", "not at flag"), ("valley", "not in valley")],
    "pendulum": [("upright", "not upright"), ("hanging", "not hanging")],
    "acrobot": [("hanging", "not hanging"), ("folded", "not folded")],
    "lunar_lander": [("landed", "not landed"), ("upside down", "level")],
    "frozen_lake": [("goal", "not at goal"), ("in a hole", "not in a hole")],
    "cliff_walking": [("goal", "not at goal")],
}
VIEWS: dict[str, View] = {
    "0.4 x size": View(scale=0.4),
    "1.3 x size": View(scale=1.3),
    "half size, nearest": View(scale=0.5, interpolation=Image.Resampling.NEAREST),
    "half size, bicubic": View(scale=0.5, interpolation=Image.Resampling.BICUBIC),
    "lines +2 pixels": View(lines=1),
    "lines -1 pixel": View(lines=-1),
    "JPEG of quality 30": View(jpeg=30),
    "cropped": View(crop=True),
}
VIEWED = 300  # frames of each view


class Sample(NamedTuple):
    """Held-out frames of one world."""

    world: World
    states: Array
    attributes: Array
    images: Tensor  # uint8 (n, 3, 64, 64), in the default view
    varied: dict[str, tuple[Array, Tensor]]  # view -> (rows, images)


class Known(NamedTuple):
    """One model: its embeddings of everything."""

    encoder: EmbeddedCLIPEncoder
    images: dict[str, Tensor]  # env id -> unit (n, D)
    texts: dict[str, Tensor]  # text -> unit (D,)


def held_out(world: World, frames: int) -> Sample:
    rng = np.random.default_rng([EVALUATION_SEED, WORLDS.index(world)])
    states = world.sample(rng, max(20, round(frames * SLOW.get(world.env_id, 1.0))))
    inside = np.zeros(len(states), bool) if world.crop is None else world.crop(states)
    images, varied = [], {name: (list[int](), list[Tensor]()) for name in VIEWS}
    for row, frame in enumerate(draw(world, states)):
        images.append(View().show(frame))
        for name, view in VIEWS.items():
            rows, shown = varied[name]
            if len(rows) < VIEWED and (inside[row] or not view.crop):
                rows.append(row)
                shown.append(view.show(frame))
    attributes = attributes_of(world.measure(states), len(states))
    stacked = {name: (np.array(rows, int), torch.stack(shown)) for name, (rows, shown) in varied.items() if rows}
    return Sample(world, states, attributes, torch.stack(images), stacked)


def of_regions(family: Family, names: set[str], *, right: bool | None = None) -> list[Caption]:
    """Each held-out wording of these regions once, with one side, one number, one choice of its slots."""
    return [
        # a seed of its own, so that a wording reads the same in every table
        Writer(np.random.default_rng(zlib.crc32(wording.encode())), held_out=True).of_wording(
            family, region, wording, right=right
        )
        for region in family.regions
        if region.name in names
        for wording in phrases(family).held_out[region.name]
    ]


def speaking(family: Family) -> list[Caption]:
    return of_regions(family, {region.name for region in family.regions} - SILENT)


def denied(caption: Caption) -> Caption:
    return caption._replace(text=f"it is not true that {caption.text.rstrip('?')}", denied=True)


def embed(encoder: EmbeddedCLIPEncoder, samples: list[Sample]) -> Known:
    images = {sample.world.env_id + size_of(sample.world): encode(encoder, sample.images) for sample in samples}
    texts: list[str] = []
    denials: list[str] = []
    for family in FAMILIES:
        sided = {region.name for region in family.regions if region.mirrored}
        for right in (False, True):
            texts += [caption.text for caption in of_regions(family, sided, right=right)]
        texts += [caption.text for caption in of_regions(family, {region.name for region in family.regions})]
        denials += [denied(caption).text for caption in speaking(family)]
        for pair in DENIALS.get(family.name, []):
            texts += [caption.text for name in pair for caption in of_regions(family, {name})]
        texts += family.presets
    texts = list(dict.fromkeys([*texts, *map(mirror, texts), *denials]))
    parts = [encoder.encode_text(texts[start : start + 500]) for start in range(0, len(texts), 500)]
    return Known(encoder, images, dict(zip(texts, torch.cat(parts), strict=True)))


def size_of(world: World) -> str:
    """Two worlds of one env differ in their arguments."""
    return f" {world.kwargs['map_name']}" if "map_name" in world.kwargs else ""


def name_of(sample: Sample) -> str:
    return sample.world.env_id + size_of(sample.world)


def encode(encoder: EmbeddedCLIPEncoder, images: Tensor) -> Tensor:
    return torch.cat([encoder.encode_image(normalise(part)) for part in images.split(64)])


def family_rows(sample: Sample) -> Array:
    return np.full(len(sample.states), FAMILIES.index(sample.world.family))
