"""The frames of a world, and what a user may do to them before the model sees them.

`View` is one way of showing a frame: another render size, interpolation, crop, line width, or JPEG's artefacts. Colour
and noise are varied afresh in every training step instead (see train.py).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

# Must be set before pygame and MuJoCo start: there may be no display, and none is needed.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import gymnasium as gym
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmrm_wrap.encoders.openai_clip import OPENAI_MEAN, OPENAI_STD
from vlmrm_wrap.preprocess import FramePreprocessor
from vlmrm_wrap.rendering import FrameRenderer
from worlds import Array, World

IMAGE_SIZE = 64
INTERPOLATION, RESIZE_MODE = "bilinear", "squash"
# The library's own, so that the model is trained on exactly what it will be shown.
PREPROCESSOR = FramePreprocessor(IMAGE_SIZE, OPENAI_MEAN, OPENAI_STD, INTERPOLATION, RESIZE_MODE)
CROPPER = FramePreprocessor(IMAGE_SIZE, OPENAI_MEAN, OPENAI_STD, INTERPOLATION, "crop")


@dataclass(frozen=True)
class View:
    """The default view changes nothing."""

    scale: float = 1.0  # of both sides
    interpolation: Image.Resampling = Image.Resampling.BILINEAR  # of that scaling
    lines: int = 0  # pixels that dark lines gain on each side; below 0: lose
    jpeg: int = 0  # quality, 0 for none
    crop: bool = False  # the central square instead of a squashed whole

    def show(self, frame: Array) -> Tensor:
        """uint8 (height, width, 3) -> uint8 (3, 64, 64)."""
        frame = _line_width(np.asarray(frame), self.lines)
        if self.scale != 1.0 or self.jpeg:
            image = Image.fromarray(np.ascontiguousarray(frame))
            if self.scale != 1.0:
                size = [max(32, round(self.scale * side)) for side in image.size]
                image = image.resize((size[0], size[1]), self.interpolation)
            frame = np.asarray(_through_jpeg(image, self.jpeg))
        pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]
        return (CROPPER if self.crop else PREPROCESSOR).resize(pixels)[0]


def random_view(rng: np.random.Generator, *, may_crop: bool) -> View:
    """A third of the views change nothing: what the envs draw by themselves matters most."""
    if rng.random() < 0.33:
        return View()
    chance = rng.random(4)
    return View(
        scale=float(rng.uniform(0.25, 1.2)) if chance[0] < 0.6 else 1.0,
        interpolation=tuple(Image.Resampling)[rng.integers(len(Image.Resampling))],
        lines=int(rng.choice([-1, 1, 2])) if chance[1] < 0.25 else 0,
        jpeg=int(rng.integers(25, 90)) if chance[2] < 0.2 else 0,
        crop=may_crop and bool(chance[3] < 0.3),
    )


def _line_width(frame: Array, pixels: int) -> Array:
    """The darkest (or, below 0, the brightest) of the neighbours: lines on a bright ground grow (or shrink)."""
    choose = np.minimum if pixels > 0 else np.maximum
    for _ in range(abs(pixels)):
        frame = choose(frame[1:], frame[:-1])
        frame = choose(frame[:, 1:], frame[:, :-1])
    return frame


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    if not quality:
        return image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def draw(world: World, states: Array, **kwargs: object) -> Iterator[Array]:
    """The frames of these states as the env renders them, uint8 (height, width, 3)."""
    env = gym.make(world.env_id, render_mode="rgb_array", **{**world.kwargs, **kwargs})  # type: ignore[arg-type]
    try:
        env.reset(seed=0)
        renderer = FrameRenderer(env)
        for state in states:
            world.place(env.unwrapped, state)
            yield renderer()
    finally:
        env.close()


def draw_views(world: World, states: Array, rng: np.random.Generator) -> Tensor:
    """uint8 (n, 3, 64, 64), each frame in a view of its own."""
    images = torch.empty((len(states), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    inside = np.zeros(len(states), bool) if world.crop is None else world.crop(states)
    for index, frame in enumerate(draw(world, states)):
        images[index] = random_view(rng, may_crop=bool(inside[index])).show(frame)
    return images
