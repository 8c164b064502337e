"""Scores of frames on disk: one file per model in a folder, replaced as a whole, believed only if intact.

    <digest of the model, 32 hex digits>.scores = entries of 24 bytes | checksum

An entry is a frame's key (16 bytes) and s.g and s.b (float32, little-endian). The checksum is keyed by the
model's digest: a file that was cut off, changed or renamed to another model's is not read.
"""

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["ScoreFile", "model_digest"]

_FORMAT = 1  # of the file and of the keys in it
_KEY, _ENTRY, _CHECKSUM = 16, 24, 16  # bytes

Entries = Mapping[bytes, bytes]


class ScoreFile:
    """The file of one model's scores in ``folder``, which is made if need be; ``digest``: the model's."""

    def __init__(self, folder: str | os.PathLike[str], digest: bytes) -> None:
        self._folder, self._digest = Path(folder).expanduser().resolve(), digest
        self.path = self._folder / f"{digest.hex()[:32]}.scores"
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[bytes, bytes]:
        """The entries; none if there is no file, and with a warning none of a damaged one."""
        entries = self._read()
        if entries is None:
            warnings.warn(
                f"{self.path} is damaged and is not used; it will be replaced when scores are saved", stacklevel=2
            )
        return entries or {}

    def write(self, entries: Entries, most: int) -> None:
        """Replace the file by its entries and these, the last ``most`` of them; OSError if that fails.

        Of two processes that write at once the last one wins; a reader sees one file or the other, whole.
        """
        merged = {key: scores for key, scores in (self._read() or {}).items() if key not in entries}
        merged.update(entries)
        data = b"".join(key + scores for key, scores in list(merged.items())[-most:])
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=self.path.stem, suffix=".tmp")
        try:
            with open(handle, "wb") as file:
                file.write(data + self._checksum(data))
                file.flush()
                os.fsync(handle)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _read(self) -> dict[bytes, bytes] | None:
        """The entries; None of a damaged file."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        entries = data[:-_CHECKSUM]
        if data[-_CHECKSUM:] != self._checksum(entries):
            return None
        starts = range(0, len(entries), _ENTRY)
        return {entries[at : at + _KEY]: entries[at + _KEY : at + _ENTRY] for at in starts}

    def _checksum(self, entries: bytes) -> bytes:
        return blake2b(entries, key=self._digest, digest_size=_CHECKSUM).digest()


def model_digest(encoder: Any, settings: Mapping[str, Any]) -> bytes:
    """32 bytes for all that s.g and s.b depend on: ``encoder``, its weights and dtype, and ``settings``.

    ``settings``: JSON-able; prompts, resize mode. ValueError for an encoder that holds no torch module, for its
    weights can't be told apart.
    """
    from vlmrm_wrap import __version__

    modules = {name: value for name, value in vars(encoder).items() if isinstance(value, nn.Module)}
    if not modules:
        raise ValueError(
            f"scores are kept on disk by the weights of their encoder, and {encoder!r} has no torch module among "
            "its attributes; cache=True keeps them in memory"
        )
    names = ("image_size", "mean", "std", "interpolation", "context_length", "device", "dtype", "backend")
    about = {name: str(getattr(encoder, name, None)) for name in names}
    about |= {"format": str(_FORMAT), "version": __version__, "torch": torch.__version__}
    about["encoder"] = type(encoder).__qualname__
    digest = blake2b(json.dumps([about, settings], sort_keys=True).encode(), digest_size=32)
    for name, module in modules.items():
        for key, tensor in module.state_dict(prefix=f"{name}.").items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.digest()
