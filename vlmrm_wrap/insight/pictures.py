"""Frames drawn on with PIL, which the package needs anyway: what CLIP sees, and the curve of the reward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.tables import rounded

__all__ = ["Picture", "beside", "draw_reward"]

Picture = NDArray[np.uint8]

_MIN_WIDTH = 320  # pixels, for the text to fit
_STRIP = 92  # height of text and curve
_LABEL = 44  # width of the numbers at the curve's left
_FEW_STEPS = 100
_SMALLEST_RANGE = 0.02  # of rewards, over the strip's height: below it noise would look like a landscape


def beside(frame: Picture, shown: Picture | None, captions: tuple[str, str] = ("", "")) -> Picture:
    """``frame`` at the left and ``shown``, what the encoder is given, at the right, as high, in its own pixels."""
    from PIL import Image, ImageDraw, ImageFont

    frame = _enlarged(frame)
    height, width = frame.shape[:2]
    top = 20 if any(captions) else 0
    side = 0 if shown is None else height
    canvas = Image.new("RGB", (width + side, height + top), "white")
    canvas.paste(Image.fromarray(frame), (0, top))
    draw = ImageDraw.Draw(canvas)
    if shown is not None:
        canvas.paste(Image.fromarray(shown).resize((side, side), Image.Resampling.NEAREST), (width, top))
        draw.line([(width, 0), (width, height + top)], fill="black")
    font = ImageFont.load_default(13)
    for x, caption in zip((6, width + 6), captions, strict=True):
        draw.text((x, 2), caption, fill="black", font=font)
    return np.asarray(canvas)


def draw_reward(picture: Picture, rewards: Sequence[float], text: str) -> Picture:
    """uint8 (h, w, 3) -> the picture over a strip with ``text`` and the curve of ``rewards`` so far.

    The curve spans the strip from 100 steps on, and its height between the lowest and the highest reward, which stand
    at its left. Sides are even, as films in yuv420p need them.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = _enlarged(picture)
    height, width = picture.shape[0] - picture.shape[0] % 2, picture.shape[1] - picture.shape[1] % 2
    canvas = Image.new("RGB", (width, height + _STRIP), "white")
    canvas.paste(Image.fromarray(picture[:height, :width]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.line([(0, height), (width, height)], fill="black")
    draw.text((8, height + 4), text, fill="black", font=ImageFont.load_default(13))
    top, bottom, left, right = height + 26, height + _STRIP - 8, _LABEL, width - 8
    draw.rectangle([(left, top), (right, bottom)], outline="lightgrey")

    low = min(rewards)
    high = max(max(rewards), low + _SMALLEST_RANGE)
    small = ImageFont.load_default(10)
    draw.text((4, top - 5), rounded(high, 3), fill="grey", font=small)
    draw.text((4, bottom - 8), rounded(low, 3), fill="grey", font=small)
    across, up = (right - left - 4) / max(len(rewards) - 1, _FEW_STEPS), (bottom - top - 6) / (high - low)
    points = [(left + across * i, bottom - 3 - up * (reward - low)) for i, reward in enumerate(rewards)]
    draw.line(points, fill="royalblue", width=2)
    x, y = points[-1]
    draw.ellipse([(x - 3, y - 3), (x + 3, y + 3)], fill="crimson")
    return np.asarray(canvas)


def _enlarged(picture: Any) -> Picture:
    """At least ``_MIN_WIDTH`` pixels wide, each pixel repeated as often as that takes."""
    factor = -(-_MIN_WIDTH // picture.shape[1])
    enlarged: Picture = picture.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else picture
    return enlarged
