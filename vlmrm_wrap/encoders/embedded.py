"""The project's own CLIP, a few MB inside the package: "embedded".

It has OpenAI's architecture and layout and is served by the same class; three things are special.
The file's table of token embeddings holds only the tokens it was taught (the full table would be 20
times the rest of the model) and is expanded here. It knows which words it was taught, so a prompt
made of others can be warned about. And its image settings come from the file.

What it knows and how it was made: ``assets/MODEL_CARD.md``.
"""

import json
import re
import string
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor

from vlmrm_wrap.encoders.openai_clip import VOCABULARY, OpenAICLIPEncoder, Triple

__all__ = ["EmbeddedCLIPEncoder", "load_embedded"]

_FORMAT_VERSION = "1"
_END_OF_TEXT = VOCABULARY - 1  # the tokenizer's last

# Words that carry no content of their own: unknown or not, they are no reason to warn. Negations are not among
# them: a model that was not taught "not" must say so.
_STOP_WORDS = (
    "a an the this that these those it its is are be being been was were has have of in on at to"
    " from by for with as and or while which who there here 's"
)


class EmbeddedCLIPEncoder(OpenAICLIPEncoder):
    """OpenAICLIPEncoder of the shipped weights, which also knows its own vocabulary.

    >>> encoder = load_embedded(torch.device("cpu"), torch.float32)
    >>> encoder.encode_text(["pole upright on the cart"]).shape
    torch.Size([1, 128])
    >>> encoder.unknown_words("a humanoid robot kneeling on the cart")
    ['humanoid', 'kneeling']
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        """``tensors`` and ``metadata`` as in the file; ValueError for another format version."""
        version = metadata.get("format_version")
        if version != _FORMAT_VERSION:
            raise ValueError(
                f"the embedded model's file has format_version {version!r}, this package reads "
                f"{_FORMAT_VERSION!r}; reinstall the package"
            )
        super().__init__(
            _expanded(tensors),
            name="embedded",
            device=device,
            dtype=dtype,
            mean=_triple(metadata["mean"]),
            std=_triple(metadata["std"]),
            interpolation=metadata["interpolation"],
            resize_mode=metadata["resize_mode"],
        )
        self.metadata = dict(metadata)
        self._known = frozenset(json.loads(metadata["taught_words"])) | frozenset(_STOP_WORDS.split())

    def unknown_words(self, text: str) -> list[str]:
        """The content words of ``text`` that were never taught: lower case, in order, each once.

        Numbers count as known (the captions name angles in degrees), articles and the like are not
        content, and a hyphenated word is read in its parts. Such words still score, as one and the
        same unknown word.
        """
        words = re.findall(r"'s\b|\w+|[^\w\s]", text.lower().replace("\u2019", "'"))
        unknown = (word for word in words if not self._is_known(word))
        return list(dict.fromkeys(unknown))

    def _is_known(self, word: str) -> bool:
        return word in self._known or word in string.punctuation or word.isdecimal()


def load_embedded(
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    path: Path | None = None,
) -> EmbeddedCLIPEncoder:
    """The model that is shipped in the package, or one of the same format at ``path``.

    Reads one file; needs no network.
    """
    asset = files("vlmrm_wrap.encoders") / "assets" / "embedded_clip.safetensors"
    with nullcontext(path) if path else as_file(asset) as file:
        tensors, metadata = _read(file)
    return EmbeddedCLIPEncoder(tensors, metadata, device=device, dtype=dtype)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _expanded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's state dict: every token that was not taught gets row 0 of the compact table."""
    weights = {name: tensor for name, tensor in tensors.items() if name != "token_ids"}
    compact, token_ids = tensors["token_embedding.weight"], tensors["token_ids"].long()
    if len(compact) != len(token_ids) + 1 or int(token_ids[-1]) != _END_OF_TEXT:
        raise ValueError(
            f"the embedded model's file is damaged: {len(compact)} embeddings for {len(token_ids)} "
            "tokens and the unknown one; reinstall the package"
        )
    table = compact[0].expand(VOCABULARY, -1).clone()
    table[token_ids] = compact[1:]
    weights["token_embedding.weight"] = table
    return weights


def _triple(text: str) -> Triple:
    red, green, blue = json.loads(text)
    return float(red), float(green), float(blue)
