"""From frames to their similarities with prompts: micro-batches, a device whose memory runs out, the cache.

    FrameEncoder        frames (n, H, W, 3) uint8 -> micro-batches -> device -> unit embeddings (n, D)
    FrameSimilarities   ... -> products with k prompts, float32 (n, k), now or later; known frames are not encoded

A reward model has one of each. What compares the same frames with more prompts takes its encoder, and
similarities of its own.
"""

import sys
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmrm_wrap.cache import FrameCache
from vlmrm_wrap.encoders.protocol import Encoder
from vlmrm_wrap.preprocess import FramePreprocessor, check_frames
from vlmrm_wrap.streams import FramePipe

__all__ = ["FrameEncoder", "FrameSimilarities", "levels_to_the_caller"]

Frames = NDArray[np.uint8]
Rows = NDArray[np.float32]
Result = TypeVar("Result")


class FrameEncoder:
    """An encoder with its preprocessing. ``micro_batch``: most frames on the device at once, as asked or halved since.

    ``resize_mode``: None for the encoder's own.
    """

    def __init__(self, encoder: Encoder, resize_mode: str | None, micro_batch: int) -> None:
        self.encoder, self.micro_batch, self._asked = encoder, micro_batch, micro_batch
        self.device = torch.device(getattr(encoder, "device", "cpu"))
        mode = resize_mode or encoder.resize_mode
        self.preprocess = FramePreprocessor(
            encoder.image_size, encoder.mean, encoder.std, encoder.interpolation, mode, self.device
        )
        self.users: weakref.WeakSet[FrameSimilarities] = weakref.WeakSet()  # who hold memory of the device

    @torch.inference_mode()
    def embeddings(self, frames: Frames | Tensor) -> Tensor:
        """The unit embeddings ``(n, D)`` of one micro-batch, on the device."""
        return self.encoder.encode_image(self.preprocess(frames))

    def embed(self, frames: Frames) -> Tensor:
        """The same of any number of frames, float32 on the CPU."""
        parts = self.in_micro_batches(frames, lambda batch: self.embeddings(batch).float().cpu())
        return torch.cat([torch.empty(0, self.encoder.embed_dim), *parts])

    def in_micro_batches(self, frames: Frames, run: Callable[[Frames], Result]) -> list[Result]:
        """``run`` of each micro-batch, smaller ones if they don't fit."""
        results: list[Result] = []
        start = 0
        while start < len(frames):
            batch = frames[start : start + self.micro_batch]
            try:
                results.append(run(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) <= 1:
                    raise torch.OutOfMemoryError(
                        f"not even one frame fits on {self.device} beside {self.encoder!r}: free its memory, or choose "
                        "a smaller encoder or dtype"
                    ) from error
            else:
                start += len(batch)
                continue
            # out of the except clause, whose traceback would keep the batch's tensors alive
            self._halve(len(batch))
        return results

    def _halve(self, failed: int) -> None:
        if self.micro_batch == self._asked:  # the first time
            warnings.warn(
                f"{failed} frames at once don't fit on {self.device}; going on with half, "
                "and half again if need be. A smaller micro_batch_size avoids this.",
                UserWarning,
                stacklevel=levels_to_the_caller(),
            )
        self.micro_batch = failed // 2
        for user in self.users:
            if user.pipe is not None:
                user.pipe.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class FrameSimilarities:
    """s.p of each frame with the columns p of ``prompts``, a float64 tensor ``(D, k)`` on the CPU.

    ``cache``: what remembers the similarities of frames, ``FrameCache(width=k)``, or None.
    """

    def __init__(self, frames: FrameEncoder, prompts: Tensor, cache: FrameCache | None = None) -> None:
        self._frames, self.cache = frames, cache
        # float64 where there is any: the products are exact to the last digit of the embeddings, and
        # no setting of TF32 reaches them
        precise = torch.float32 if frames.device.type == "mps" else torch.float64
        self._prompts = prompts.to(precise).to(frames.device)
        self.pipe = FramePipe(self.compute, frames.device) if frames.device.type == "cuda" else None
        frames.users.add(self)

    @torch.inference_mode()
    def compute(self, frames: Frames | Tensor) -> Tensor:
        """Those of one micro-batch, float32 ``(n, k)`` on the device."""
        return (self._frames.embeddings(frames).to(self._prompts.dtype) @ self._prompts).float()

    def later(self, frames: Frames) -> Callable[[], Rows]:
        """Starts, and returns what waits for the similarities, float32 ``(n, k)``; ``frames`` may be overwritten.

        On a GPU nothing here waits; elsewhere the frames are encoded before this returns. TypeError or ValueError for
        what are no frames; what is returned raises ValueError for embeddings that are not finite.
        """
        if not isinstance(frames, np.ndarray):
            raise TypeError(f"frames must be a numpy array, got {type(frames).__name__}")
        check_frames(frames)
        cache = self.cache
        if cache is None:
            return self._encode(frames)
        lookup = cache.look_up(frames)
        whole = len(lookup.missing) == len(frames)  # then nothing is copied
        similarities = self._encode(frames if whole else frames[lookup.missing])
        return lambda: cache.complete(lookup, similarities())

    def state_dict(self) -> dict[str, Any]:
        """What the frames so far have left behind: the cache's scores and counts, and the micro-batch size."""
        return {"micro_batch_size": self._frames.micro_batch, "cache": self.cache and self.cache.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict`; ValueError for anything else."""
        if set(state) != {"micro_batch_size", "cache"} or (state["cache"] is None) != (self.cache is None):
            raise ValueError(
                "a state has micro_batch_size and cache, which is None only with cache=False like the model's; got "
                f"{dict(state)!r:.200}"
            )
        if self.cache is not None:
            self.cache.load_state_dict(state["cache"])
        self._frames.micro_batch = int(state["micro_batch_size"])

    def _encode(self, frames: Frames) -> Callable[[], Rows]:
        start = self._at_once if self.pipe is None else self.pipe.submit
        parts = self._frames.in_micro_batches(frames, lambda batch: start(batch, self._frames.micro_batch))

        def similarities() -> Rows:
            products = np.concatenate([np.empty((0, self._prompts.shape[1]), np.float32), *(part() for part in parts)])
            if not np.isfinite(products).all():
                raise ValueError(
                    f"{self._frames.encoder!r} gave embeddings that are not finite; if its dtype is float16, "
                    "'bfloat16' and 'float32' have more range"
                )
            return products

        return similarities

    def _at_once(self, frames: Frames, limit: int) -> Callable[[], Rows]:
        """:meth:`FramePipe.submit` where there is nothing to wait for."""
        products = self.compute(frames).cpu().numpy()
        return lambda: products


def levels_to_the_caller() -> int:
    """``stacklevel`` of the first line outside this package, for a warning raised where this is called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("vlmrm_wrap."):
        level, frame = level + 1, frame.f_back
    return level
