"""Safe reading of weight files: tensors come out, or an error; no code from the file ever runs.

safetensors holds tensors and nothing else. A pickled state dict is read by torch's restricted
unpickler. A TorchScript archive (the form of OpenAI's releases) is a program that runs when it is
loaded, so it is opened only if its sha256 is on the caller's list.
"""

import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_state_dict", "sha256_of"]


def read_state_dict(path: str | os.PathLike[str], *, trusted_sha256: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name, on the CPU and in the dtypes of the file.

    Reads .safetensors; ``torch.save``'d state dicts, bare or under the key "state_dict", with or
    without the prefix "module." of data-parallel training; TorchScript archives whose sha256 is in
    ``trusted_sha256``. FileNotFoundError if there is no such file; ValueError for anything else.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the path of one weights file in it")
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    with path.open("rb") as file:
        head = file.read(9)
    # a safetensors file starts with the length of its header (8 bytes) and the header's brace
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:4] == b"PK\x03\x04" and _is_torchscript(path):
        return _read_torchscript(path, trusted_sha256)
    return _read_pickled(path)


def sha256_of(path: Path) -> str:
    """The file's sha256 as 64 hexadecimal digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            # both kinds are zips; only TorchScript keeps a table of constants for its code
            return any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); fetch it again") from error


def _read_torchscript(path: Path, trusted_sha256: Collection[str]) -> dict[str, Tensor]:
    digest = sha256_of(path)
    if digest not in trusted_sha256:
        raise ValueError(
            f"{path} is a TorchScript archive, which can run code when loaded, and none of OpenAI's"
            f" releases (sha256 {digest}). If you trust it, convert it once: "
            "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), 'weights.pt')"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit")  # deprecated, but OpenAI's form
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return dict(module.state_dict())


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a state dict: it is damaged, of another format, or holds objects other "
            "than tensors, which could run code. Save model.state_dict() alone, or as .safetensors."
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is truncated or damaged ({reason})") from error
    return _tensors_of(loaded, path)


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(f"{path} holds {type(loaded).__name__!r}, not a dict of named tensors")
    others = [key for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} is not a state dict: {others[0]!r} is not a tensor")
    if all(key.startswith("module.") for key in loaded):
        return {key.removeprefix("module."): value for key, value in loaded.items()}
    return dict(loaded)
