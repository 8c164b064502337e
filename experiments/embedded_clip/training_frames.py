"""The frames that are trained on: rendered once, then drawn in batches, mirrored and recoloured anew each time."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from meaning import attribute_columns, attributes_of
from pictures import draw_views
from training_model import normalise
from worlds import FAMILIES, WORLDS, Array, Family

# Of the normalised image, where 1 is about 70 of 255 levels: an image's own noise and change of colours are drawn from
# half normal and normal distributions of these widths.
PIXEL_NOISE, BRIGHTNESS, TINT = 0.05, 0.06, 0.03


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

    def draw(self, rng: np.random.Generator, n: int, shares: Array) -> tuple[list[Array], list[Array], Array, Array]:
        """(rows, mirrored) of each family, attributes (n, k), family indices (n,)."""
        family = np.sort(rng.choice(len(FAMILIES), size=n, p=shares))
        rows, mirrored, attributes = [], [], []
        for index, own in enumerate(FAMILIES):
            chosen = rng.integers(len(self.images[index]), size=int((family == index).sum()))
            flip = (rng.random(len(chosen)) < 0.5) & bool(own.signed)  # where left and right are alike: half
            signs = np.array([-1.0 if name in own.signed else 1.0 for name in attribute_columns()], np.float32)
            values = self.attributes[index][chosen]
            rows.append(chosen)
            mirrored.append(flip)
            attributes.append(np.where(flip[:, None], values * signs, values))
        return rows, mirrored, np.concatenate(attributes), family

    def show(self, rows: list[Array], mirrored: list[Array]) -> Tensor:
        """Normalised images (n, 3, 64, 64) of what was drawn."""
        shown = []
        for images, chosen, flip in zip(self.images, map(torch.from_numpy, rows), mirrored, strict=True):
            picked = images[chosen]
            shown.append(torch.where(torch.from_numpy(flip)[:, None, None, None], picked.flip(-1), picked))
        return normalise(torch.cat(shown))

    def first_of_each(self, n: int) -> Tensor:
        """Normalised images, n of each family."""
        return normalise(torch.cat([images[:n] for images in self.images]))


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image a little brighter or darker, tinted, and noisy."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    n = len(images)
    images = images * (1 + BRIGHTNESS * normal(n, 1, 1, 1)) + TINT * normal(n, 3, 1, 1)
    return images + PIXEL_NOISE * normal(n, 1, 1, 1).abs() * normal(*images.shape)
