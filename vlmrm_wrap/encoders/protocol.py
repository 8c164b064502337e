"""What an encoder is, and the checks that all of them share.

An encoder puts normalised images and sentences on one unit sphere. Its attributes say how its
images are to be made (:mod:`vlmrm_wrap.preprocess` obeys them), so that nothing else needs to know
which CLIP it is.
"""

import difflib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import torch
from gymnasium.error import DependencyNotInstalled
from torch import Tensor

__all__ = ["Encoder", "TwoTowers", "available_devices", "check_backend", "resolve_device", "resolve_dtype"]

_BACKENDS = ("torch", "openvino")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@runtime_checkable
class Encoder(Protocol):
    """Images and texts -> unit vectors; ``n`` may be 0 and results don't depend on the batch."""

    name: str
    """What :func:`vlmrm_wrap.load_encoder` takes to load it again: a name or a path."""
    embed_dim: int
    image_size: int
    """Side of the square images, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Per RGB channel, for pixels scaled to [0, 1]."""
    interpolation: str
    """"bicubic" or "bilinear": how frames are resized to ``image_size``."""
    resize_mode: str
    """"squash", "crop" or "pad": see :class:`vlmrm_wrap.preprocess.FramePreprocessor`."""
    context_length: int
    """Tokens a prompt may have, the two that mark start and end included."""
    device: torch.device

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images -> unit float32 ``(n, embed_dim)``.

        ``images``: float, shape ``(n, 3, image_size, image_size)``. TypeError if they are not
        floats, ValueError for another shape.
        """
        ...

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences -> unit float32 ``(n, embed_dim)``.

        Computed in float32 whatever the dtype of the image side. ValueError for a sentence longer
        than ``context_length``, naming both lengths.
        """
        ...


class TwoTowers:
    """What all our encoders share: checks before, and unit float32 vectors after, one pass of a tower.

    A subclass sets the attributes of :class:`Encoder`, ``dtype`` and ``_model``, whose ``visual`` is the image
    tower, and embeds images and texts.
    """

    _model: Any

    name: str
    device: torch.device
    dtype: torch.dtype
    embed_dim: int
    image_size: int
    logit_scale: float = 100.0  # what a cosine is multiplied by before a softmax over texts; CLIP's training ends there
    loaded_from: dict[str, str | None] | None = None  # load_encoder's arguments, where it made this

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({self.name!r}, device={str(self.device)!r}, dtype={dtype!r})"

    def use_openvino(self) -> None:
        """Run the image tower there from now on; see :func:`check_backend`. ValueError if it is no plain ViT."""
        from vlmrm_wrap.encoders.openvino_vit import OpenVINOTower

        check_backend("openvino", self.device, self.dtype)
        self._model.visual = OpenVINOTower(self._model.visual, self.name)

    @torch.inference_mode()
    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images, float ``(n, 3, S, S)`` -> unit float32 ``(n, embed_dim)``."""
        images = check_images(images, self.image_size)
        if len(images) == 0:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return unit_rows(self._embed_images(images.to(self.device, self.dtype)))

    @torch.inference_mode()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences -> unit float32 ``(n, embed_dim)``; ValueError for one too long."""
        texts = check_texts(texts)
        if not texts:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return unit_rows(self._embed_texts(texts))

    def _embed_images(self, images: Tensor) -> Tensor:
        """At least one image, in ``dtype`` on ``device`` -> ``(n, embed_dim)``, any length."""
        raise NotImplementedError

    def _embed_texts(self, texts: list[str]) -> Tensor:
        """At least one sentence -> ``(n, embed_dim)``, any length."""
        raise NotImplementedError


def available_devices() -> list[str]:
    """The names of the devices that this torch can use here, the fastest first."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{index}" for index in range(count)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` -> cuda, else mps, else cpu. ValueError for a device that isn't here."""
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a string or a torch.device, got {device!r}")
    if device == "auto":
        return torch.device(available_devices()[0].removesuffix(":0"))
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()  # the only question that every backend answers honestly
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        here = ", ".join(available_devices())
        raise ValueError(f"device {str(device)!r} can't be used here ({reason}); there is: {here}") from error
    return found


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """``"auto"`` -> float16 on CUDA, float32 elsewhere (a CPU computes float16 slowly)."""
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in _DTYPES.values():
        raise ValueError(f"dtype must be 'auto', 'float32', 'float16' or 'bfloat16', got {dtype!r}")
    return found


def check_backend(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """``backend`` unchanged, if it can compute that; loads nothing.

    ValueError for an unknown one, and for "openvino" with another device than a CPU or another dtype than
    float32; DependencyNotInstalled, with the line that mends it, where OpenVINO is missing.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be 'torch' or 'openvino', got {backend!r}")
    if backend == "openvino" and (device.type != "cpu" or dtype != torch.float32):
        raise ValueError(
            f"backend 'openvino' computes on a CPU in float32, got device {str(device)!r} and dtype "
            f"{str(dtype).removeprefix('torch.')!r}; pass device='cpu', dtype='float32', or backend='torch'"
        )
    if backend == "openvino" and find_spec("openvino") is None:
        raise DependencyNotInstalled('backend "openvino" needs OpenVINO: pip install "vlmrm-wrap[openvino]"')
    return backend


def check_images(images: Tensor, size: int) -> Tensor:
    """``images`` unchanged, if they are floats of shape ``(n, 3, size, size)``."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        what = f"a {images.dtype} tensor" if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float tensor, normalised as FramePreprocessor does it, got {what}")
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        shape = tuple(images.shape)
        raise ValueError(f"images must have shape (n, 3, {size}, {size}), got {shape}")
    return images


def check_texts(texts: Sequence[str]) -> list[str]:
    """``texts`` as a list; TypeError unless it is a list or tuple of strings."""
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts must be a list of strings, got {texts!r}")
    return list(texts)


def quoted(text: str) -> str:
    """``text`` in quotes for a message, its beginning if it is long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def unit_rows(features: Tensor) -> Tensor:
    """float32 rows of norm 1; divided in float32, where half precision would round the result."""
    return torch.nn.functional.normalize(features.float(), dim=-1)


def nearest(text: str, known: list[str]) -> str:
    """ "did you mean ...?", or the first few of what there is if nothing is near."""
    lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(text.lower(), lower, n=3, cutoff=0.5)
    if not found:
        return f"there is {', '.join(map(repr, known[:10]))}"
    return f"did you mean {' or '.join(repr(lower[name]) for name in found)}?"
