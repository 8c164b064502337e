"""Encoders by name, one file each behind one protocol.

"embedded" is the project's own small CLIP; "ViT-B/32", "RN50", ... are OpenAI's, as are checkpoints in
their layout, by path; "open_clip:ViT-H-14/laion2b_s32b_b79k" is a model and a tag of open_clip.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import torch

from vlmrm_wrap.encoders import openclip
from vlmrm_wrap.encoders.openai_clip import OpenAICLIPEncoder, import_clip, load_openai
from vlmrm_wrap.encoders.protocol import Encoder, check_backend, nearest, resolve_device, resolve_dtype

__all__ = ["Encoder", "available_encoders", "check_encoder_name", "load_encoder"]

EncoderName = str | os.PathLike[str]

_WEIGHT_FILES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


def available_encoders() -> list[str]:
    """Every name that :func:`load_encoder` takes here; open_clip's only where it is installed."""
    names = ["embedded", *import_clip().available_models()]
    return names + openclip.names() if find_spec("open_clip") else names


def load_encoder(
    name: EncoderName,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    download_root: EncoderName | None = None,
    backend: str = "torch",
) -> Encoder:
    """The encoder of that name, or of the checkpoint at that path, with its weights, ready to use.

    ``device``: "auto" (cuda, mps, cpu in this order) or any that torch has. ``dtype``: of the image
    tower, "auto" (float16 on CUDA, else float32), "float32", "float16" or "bfloat16"; texts are always
    encoded in float32. ``download_root``: where downloads are kept, by default "~/.cache/clip" for
    OpenAI's models and the Hugging Face cache for open_clip's. ``backend``: what runs the image tower,
    "torch", or "openvino" (an extra) for ViTs on a CPU in float32: the same to 1e-5, and faster.

    ValueError for an unknown name, device, dtype or backend before any weights load, and for a checkpoint
    that is not what it says; DependencyNotInstalled for a backend that isn't installed; FileNotFoundError
    for a path without a file; OSError if a download fails.
    """
    check_encoder_name(name)
    root = None if download_root is None else os.fspath(download_root)
    text = os.fspath(name)
    # workers and later runs may stand in another folder
    source = str(Path(text).expanduser().resolve()) if _is_file(text) else text
    recipe = {"encoder": source, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    check_backend(backend, device, dtype)
    encoder: OpenAICLIPEncoder | openclip.OpenCLIPEncoder
    if text == "embedded":
        from vlmrm_wrap.encoders.embedded import load_embedded

        encoder = load_embedded(device, dtype)
    elif text.startswith(openclip.PREFIX):
        encoder = openclip.load_openclip(text, device=device, dtype=dtype, download_root=root)
    else:
        encoder = load_openai(text, device=device, dtype=dtype, download_root=root)
    if backend == "openvino":
        encoder.use_openvino()
    encoder.loaded_from = {**recipe, "download_root": root, "backend": backend}
    return encoder


def check_encoder_name(name: EncoderName) -> None:
    """Refuse what :func:`load_encoder` can't load, naming the nearest that it can; loads no weights."""
    if not isinstance(name, str | os.PathLike):
        raise TypeError(
            f"an encoder is chosen by a name or a path, got {type(name).__name__}; "
            "CLIPRewardModel(encoder, ...) takes an encoder object"
        )
    text = os.fspath(name)
    if text.startswith(openclip.PREFIX):
        openclip.check_name(text)
        return
    if text in ("embedded", *import_clip().available_models()):
        return
    if _is_file(text):
        return
    path = Path(text).expanduser()
    if isinstance(name, os.PathLike) or text.endswith(_WEIGHT_FILES) or text[:1] in (".", "/", "~"):
        raise FileNotFoundError(f"no weights file at {path}")
    known = available_encoders()
    raise ValueError(
        f"unknown encoder {text!r}, and no file of that name; {nearest(text, known)} "
        "(vlmrm_wrap.available_encoders() lists all)"
    )


def _is_file(name: str) -> bool:
    """Whether it stands for what lies on the disk: the names of models win."""
    if name.startswith(openclip.PREFIX) or name in ("embedded", *import_clip().available_models()):
        return False
    return bool(name) and Path(name).expanduser().exists()
