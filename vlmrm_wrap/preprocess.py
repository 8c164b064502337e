"""Frames as environments render them -> images as an encoder wants them, in one path for any batch.

The frames cross to the device once, as bytes, are resized there still as bytes, and become floats in a
single multiply-add. The resize agrees with PIL's, which CLIP was trained with, to 1 level of 255: bytes
are rounded and clamped as PIL rounds and clamps them, where a resize of floats overshoots by up to 24
levels, and one without antialiasing differs by more than 100 (measured on CartPole renders).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

__all__ = ["RESIZE_MODES", "FramePreprocessor"]

RESIZE_MODES = ("squash", "crop", "pad")
_INTERPOLATION = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
}


class FramePreprocessor:
    """uint8 RGB frames, 0 to 255, ``(n, height, width, 3)`` -> ``(n, 3, image_size, image_size)``.

    ``resize_mode``: "squash" keeps the whole frame and not its aspect ratio; "crop" is OpenAI's, the
    shortest side to ``image_size``, then the centre square, which loses a third of a 400 x 600 render;
    "pad" fits the longest side and fills the rest with black (open_clip's "longest").
    ``mean``, ``std``: per channel, for pixels scaled to [0, 1]. ``interpolation``: "bicubic" or
    "bilinear", both antialiased. Output values: ``(pixel / 255 - mean) / std`` in ``dtype``.

    >>> prepare = FramePreprocessor(224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> images = prepare(np.full((2, 400, 600, 3), 255, np.uint8))
    >>> images.shape, round(float(images.min()), 6)
    (torch.Size([2, 3, 224, 224]), 1.0)

    TypeError for frames that are not uint8, ValueError for another shape; n may be 0.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bicubic",
        resize_mode: str = "squash",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_resize_mode(resize_mode)
        if interpolation not in _INTERPOLATION:
            known = ", ".join(map(repr, _INTERPOLATION))
            raise ValueError(f"interpolation must be one of {known}, got {interpolation!r}")
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std need 3 channels, std above 0, got {mean}, {std}")
        self.image_size, self.resize_mode = int(image_size), resize_mode
        self.device, self.dtype = torch.device(device), dtype
        self._interpolation = _INTERPOLATION[interpolation]
        # (p / 255 - mean) / std = p * scale + offset, folded in float64
        scale = [1 / (255 * channel) for channel in std]
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        self._scale = torch.tensor(scale, dtype=dtype, device=self.device).view(1, 3, 1, 1)
        self._offset = torch.tensor(offset, dtype=dtype, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """``frames``, any strides, a numpy array or a tensor on any device, are not written to."""
        pixels = as_tensor(check_frames(frames)).to(self.device)
        images = self.resize(pixels.permute(0, 3, 1, 2))  # a view: NCHW stored channels last
        return torch.addcmul(self._offset, images.to(self.dtype), self._scale)

    def resize(self, images: Tensor) -> Tensor:
        """uint8 ``(n, 3, height, width)`` -> uint8 ``(n, 3, image_size, image_size)``."""
        size, (height, width) = self.image_size, images.shape[-2:]
        if len(images) == 0:
            return images.new_empty(0, 3, size, size)
        if self.resize_mode == "squash":
            return self._resize(images, [size, size])
        if self.resize_mode == "crop":
            resized = self._resize(images, [size])  # torchvision's reading: the shortest side
        else:
            ratio = max(height / size, width / size)
            resized = self._resize(images, [max(1, round(side / ratio)) for side in (height, width)])
        square: Tensor = F.center_crop(resized, [size, size])  # pads with 0 where it is too small
        return square

    def _resize(self, images: Tensor, size: list[int]) -> Tensor:
        resized: Tensor = F.resize(images, size, self._interpolation, antialias=True)
        return resized


def check_resize_mode(resize_mode: str) -> None:
    """ValueError unless it is one of :data:`RESIZE_MODES`."""
    if resize_mode not in RESIZE_MODES:
        known = ", ".join(map(repr, RESIZE_MODES))
        raise ValueError(f"resize_mode must be one of {known}, got {resize_mode!r}")


def check_frames(frames: Any, what: str = "frames") -> Any:
    """``frames`` unchanged, if they are uint8 ``(n, height, width, 3)``; otherwise says how to mend it."""
    if not isinstance(frames, np.ndarray | Tensor):
        raise TypeError(f"{what} must be a uint8 array (n, height, width, 3), got {_describe(frames)}")
    if frames.dtype not in (np.uint8, torch.uint8):
        mend = "multiply values in [0, 1] by 255, then convert: .astype(np.uint8)"
        raise TypeError(f"{what} must be uint8, 0 to 255, got dtype {frames.dtype}; {mend}")
    shape = tuple(frames.shape)
    if len(shape) == 4 and shape[3] == 3 and shape[1] > 0 and shape[2] > 0:
        return frames
    if len(shape) == 3 and shape[2] == 3:
        mend = "for one frame, pass frames[None]"
    elif len(shape) == 4 and shape[3] == 4:
        mend = "drop the alpha channel: frames[..., :3]"
    elif len(shape) == 4 and shape[3] == 1:
        mend = "repeat the grey channel: np.repeat(frames, 3, axis=-1)"
    elif len(shape) == 4 and shape[1] == 3:
        mend = "move the channels last: frames.transpose(0, 2, 3, 1)"
    else:
        mend = "RGB channels come last"
    raise ValueError(f"{what} must have shape (n, height, width, 3), got {shape}; {mend}")


def _describe(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}; np.stack makes one array of frames"
    return type(value).__name__


def as_tensor(frames: NDArray[np.uint8] | Tensor) -> Tensor:
    """A view of the same memory where torch allows one."""
    if isinstance(frames, Tensor):
        return frames
    if not frames.flags.writeable or any(stride < 0 for stride in frames.strides):
        frames = frames.copy()  # torch warns of the former and refuses the latter
    return torch.from_numpy(frames)
