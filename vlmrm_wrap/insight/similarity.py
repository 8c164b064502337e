"""Pictures against sentences, as CLIP sees them: the first look at a prompt."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.tables import table
from vlmrm_wrap.protocols import unknown_words

if TYPE_CHECKING:
    from vlmrm_wrap.encoders import Encoder

__all__ = ["Similarity", "read_image", "similarity"]

_LATER_CALLS = 3


@dataclass(frozen=True)
class Similarity:
    """``cosines`` and ``probabilities``, float32 ``(images, texts)``; a row of the latter sums to 1.

    ``probabilities``: the softmax over the texts of ``logit_scale`` times the cosine, as in CLIP's notebook. Only the
    order of one row means anything: they say which of *these* sentences fits best, however badly. ``first_ms`` and
    ``later_ms``: of encoding one picture, wall time; the first call of a process also warms up.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    cosines: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    logit_scale: float
    first_ms: float
    later_ms: float
    unknown_words: tuple[str, ...] = ()
    """Words of the texts that the encoder says it has not learnt; only the embedded model can say."""

    def __str__(self) -> str:
        numbers = [f"[{index}]" for index in range(1, len(self.texts) + 1)]
        legend = [f"{number} {text}" for number, text in zip(numbers, self.texts, strict=True)]
        parts = [
            table([title, *numbers], [[name, *row] for name, row in zip(self.names, values, strict=True)])
            for title, values in (
                ("cosine", self.cosines),
                (f"softmax({self.logit_scale:.1f} cosine)", self.probabilities),
            )
        ]
        timing = f"encoding a picture: {self.first_ms:.1f} ms at first, {self.later_ms:.1f} ms later"
        unknown = [f"words that the encoder has not learnt: {', '.join(self.unknown_words)}"] * bool(self.unknown_words)
        return "\n\n".join(["\n".join(legend), *parts, *unknown, timing])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Both matrices as a heat map, PNG or what the suffix says."""
        from vlmrm_wrap.insight.plotting import save_heat_maps

        save_heat_maps(path, self.names, self.texts, {"cosine": self.cosines, "probability": self.probabilities})


def similarity(
    images: Sequence[NDArray[np.uint8] | str | os.PathLike[str]],
    texts: Sequence[str],
    encoder: "Encoder | str" = "embedded",
    *,
    resize_mode: str | None = None,
) -> Similarity:
    """How near each picture is to each sentence.

    ``images``: paths, or uint8 RGB arrays ``(height, width, 3)`` of any sizes. ``encoder``: an encoder or its name.
    ``resize_mode``: None for the encoder's own. ValueError for an empty sentence or one that is too long, and for a
    file that is no picture; OSError for one that isn't there.
    """
    from vlmrm_wrap.encoders import load_encoder
    from vlmrm_wrap.similarities import FrameEncoder

    if not images or not texts or not all(text.strip() for text in texts):
        raise ValueError(f"{len(images)} images and the texts {list(texts)}; required: one at least, and none empty")
    frames = [image if isinstance(image, np.ndarray) else read_image(image) for image in images]
    clip = load_encoder(encoder) if isinstance(encoder, str) else encoder
    one_by_one = FrameEncoder(clip, resize_mode, micro_batch=1)

    def encode(frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        start = time.perf_counter()
        row = one_by_one.embed(frame[None]).numpy()[0]
        return row, 1000 * (time.perf_counter() - start)

    rows, times = zip(*[encode(frame) for frame in [*frames, *frames[:1] * _LATER_CALLS]], strict=True)
    cosines = np.stack(rows[: len(frames)]) @ clip.encode_text(list(texts)).cpu().numpy().T
    logit_scale = float(getattr(clip, "logit_scale", 100.0))
    return Similarity(
        names=_names(images),
        texts=tuple(texts),
        cosines=cosines,
        probabilities=_softmax(logit_scale * cosines),
        logit_scale=logit_scale,
        first_ms=times[0],
        later_ms=float(np.median(times[len(frames) :])),
        unknown_words=tuple(unknown_words(clip, texts)),
    )


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """uint8 RGB ``(height, width, 3)`` of a picture file, converted as CLIP's own notebook does.

    Grey of 16 bits, which PIL would cut off at 255, is scaled. ValueError for pixels of other kinds.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # by PIL's age
                grey = np.asarray(image).astype(np.float64) / 257  # 65535 is 255
                return grey.round().astype(np.uint8)[..., None].repeat(3, axis=2)
            if image.mode in ("I", "F"):
                raise ValueError(f"{path} has pixels of 32 bits, and nobody knows their range; required: 8 or 16 bits")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture in a format that PIL reads") from error
    except (OSError, SyntaxError) as error:  # PIL's words for damage are many
        raise OSError(f"{path} can't be read as a picture: {getattr(error, 'strerror', None) or error}") from error


def _names(images: Sequence[NDArray[np.uint8] | str | os.PathLike[str]]) -> tuple[str, ...]:
    """File names, or as they were given where two have the same name; arrays by number."""
    short = [f"image {i}" if isinstance(each, np.ndarray) else Path(each).name for i, each in enumerate(images, 1)]
    return tuple(
        name if short.count(name) == 1 or isinstance(each, np.ndarray) else str(each)
        for name, each in zip(short, images, strict=True)
    )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
