"""OpenAI's CLIP through its own `clip` package: a released name, or a checkpoint in that layout.

The package builds the network, downloads and checks the released weights and cuts text into tokens.
This module reads the files (safely: :mod:`vlmrm_wrap.encoders.checkpoints`), casts the image tower
to the wanted dtype, and keeps the text tower in float32, where the package would follow the image
tower's dtype.
"""

import http.client
import os
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from gymnasium.error import DependencyNotInstalled
from torch import Tensor, nn

from vlmrm_wrap.encoders.checkpoints import read_state_dict
from vlmrm_wrap.encoders.fast_vit import FastViT, fast_vit
from vlmrm_wrap.encoders.protocol import TwoTowers, quoted, resolve_device, resolve_dtype

__all__ = ["OPENAI_MEAN", "OPENAI_STD", "OpenAICLIPEncoder", "import_clip", "load_openai"]

Triple = tuple[float, float, float]
OPENAI_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Triple = (0.26862954, 0.26130258, 0.27577711)

VOCABULARY = 49408  # of the tokenizer inside `clip`; a smaller table would be indexed past its end
_REQUIRED = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight")
_TOWERS = ("visual.proj", "visual.attnpool.positional_embedding")  # a ViT, a ResNet


@cache
def import_clip() -> Any:
    """OpenAI's ``clip``, with ``clip.model``; DependencyNotInstalled for another `clip`."""
    with warnings.catch_warnings():
        # openai-clip 1.0.1 imports pkg_resources only to compare versions
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        try:
            import clip
            import clip.model
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing == "pkg_resources":
                mend = 'pip install "setuptools>=77.0.3,<82" (or the git version of `clip`)'
            elif missing.split(".")[0] == "clip":
                mend = "pip uninstall clip, then pip install openai-clip"
            else:
                mend = f"pip install {missing}"
            raise DependencyNotInstalled(f"OpenAI's `clip` does not import: {error}; {mend}") from error
    for name in ("available_models", "load", "tokenize"):
        if not hasattr(clip, name):
            raise DependencyNotInstalled(
                f"the module `clip` at {clip.__file__} is not OpenAI's (it has no {name!r}); "
                "run: pip uninstall clip, then pip install openai-clip"
            )
    return clip


class OpenAICLIPEncoder(TwoTowers):
    """A CLIP in OpenAI's state-dict layout, ViT or ResNet; every size is derived from the weights.

    >>> weights = read_state_dict("ViT-B-32.safetensors")       # doctest: +SKIP
    >>> encoder = OpenAICLIPEncoder(weights, name="my CLIP")    # doctest: +SKIP
    >>> encoder.encode_text(["a car", "a pole on a cart"]).shape  # doctest: +SKIP
    torch.Size([2, 512])

    ``state_dict`` is not written to. ``clip.model.build_model`` rounds weights to float16 on the
    way: that changes nothing in OpenAI's files, and a float32 checkpoint comes out as ``clip.load``
    would give it. ValueError if the weights are not such a CLIP.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        name: str,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        mean: Triple = OPENAI_MEAN,
        std: Triple = OPENAI_STD,
        interpolation: str = "bicubic",
        resize_mode: str = "squash",
    ) -> None:
        self.name = name
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.mean, self.std = mean, std
        self.interpolation, self.resize_mode = interpolation, resize_mode
        self._clip = import_clip()
        self._model = _build(state_dict, name)
        self.image_size = int(self._model.visual.input_resolution)
        self.context_length = int(self._model.context_length)
        self.embed_dim = int(self._model.text_projection.shape[1])
        self.logit_scale = float(self._model.logit_scale.exp())
        self._model.visual = fast_vit(self._model.visual)
        _cast(self._model.visual, self.dtype)
        self._model.to(self.device)

    def _embed_images(self, images: Tensor) -> Tensor:
        features: Tensor = self._model.visual(images)
        return features

    def _embed_texts(self, texts: list[str]) -> Tensor:
        """The same computation as clip's ``CLIP.encode_text``, which would cast to the image tower's dtype.

        Prompts are encoded once, so float32 costs nothing.
        """
        tokens = self._tokenize(texts).to(self.device)
        model = self._model
        hidden = model.token_embedding(tokens) + model.positional_embedding
        hidden = model.transformer(hidden.transpose(0, 1)).transpose(0, 1)  # wants (length, n, width)
        ends = tokens.argmax(dim=-1)  # the end-of-text token has the highest number
        hidden = model.ln_final(hidden[torch.arange(len(texts), device=self.device), ends])
        features: Tensor = hidden @ model.text_projection
        return features

    def _tokenize(self, texts: list[str]) -> Tensor:
        """Token numbers, int ``(n, context_length)``."""
        for text in texts:
            # 16 tokens a character is more than any text has, so this call can't fail for length
            tokens = self._clip.tokenize([text], context_length=16 * len(text) + 16)
            length = int(tokens.argmax()) + 1
            if length > self.context_length:
                raise ValueError(
                    f"prompt {quoted(text)} has {length} tokens, start and end included; "
                    f"{self.name!r} takes at most {self.context_length}"
                )
        tokens = self._clip.tokenize(texts, context_length=self.context_length)
        assert isinstance(tokens, Tensor)
        return tokens


def _build(state_dict: Mapping[str, Tensor], name: str) -> Any:
    """clip's model in float32 on the CPU, in eval mode; ValueError if the weights don't fit one."""
    missing = [key for key in _REQUIRED if key not in state_dict]
    if not any(key in state_dict for key in _TOWERS):
        missing.append(" or ".join(_TOWERS))
    if missing:
        raise ValueError(f"{name!r} is not a checkpoint in OpenAI's CLIP layout; missing: {', '.join(missing)}")
    rows = len(state_dict["token_embedding.weight"])
    if rows != VOCABULARY:
        raise ValueError(f"{name!r} has {rows} token embeddings; OpenAI's tokenizer needs {VOCABULARY}")
    # build_model deletes keys from what it is given, and draws random numbers, later overwritten
    with torch.random.fork_rng(devices=[]):
        try:
            model = import_clip().model.build_model(dict(state_dict)).float()
        except (KeyError, IndexError, RuntimeError, ArithmeticError, AssertionError) as error:
            reason = " ".join(str(error).split())[:400]
            raise ValueError(
                f"{name!r} does not fit OpenAI's CLIP layout ({type(error).__name__}: {reason})"
            ) from error
    broken = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{name!r} has weights that are not finite in float16, e.g. {broken[0]!r}")
    return model.eval().requires_grad_(False)


def _cast(tower: nn.Module, dtype: torch.dtype) -> None:
    """All of our ViT; of clip's towers what multiplies: their norms stay float32 and cast inside."""
    if isinstance(tower, FastViT):
        tower.to(dtype)
        return
    for module in tower.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.MultiheadAttention):
            module.to(dtype)
    projection = getattr(tower, "proj", None)
    if projection is not None:
        projection.data = projection.data.to(dtype)


def load_openai(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    download_root: str | os.PathLike[str] | None = None,
) -> OpenAICLIPEncoder:
    """A name of ``clip.available_models()``, downloaded if need be, or a checkpoint's path."""
    device = resolve_device(device)  # both before a download of hundreds of megabytes
    dtype = resolve_dtype(dtype, device)
    urls: dict[str, str] = import_clip().clip._MODELS
    name = os.fspath(name_or_path)
    path = _download(name, urls[name], download_root) if name in urls else Path(name).expanduser()
    trusted = {url.split("/")[-2] for url in urls.values()}
    weights = read_state_dict(path, trusted_sha256=trusted)
    return OpenAICLIPEncoder(weights, name=name, device=device, dtype=dtype)


def _download(name: str, url: str, root: str | os.PathLike[str] | None) -> Path:
    """Where the released file lies, fetched and checked by `clip`; OSError if that fails."""
    folder = Path(root if root is not None else "~/.cache/clip").expanduser()
    try:
        return Path(import_clip().clip._download(url, str(folder)))
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        target = folder / url.rsplit("/", 1)[-1]
        raise OSError(
            f"no weights for {name!r}: they are not at {target} and can't be fetched from {url} "
            f"({error}). Without a network, fetch that file elsewhere and put it at {target}, or "
            "name its folder as download_root, or give a checkpoint's path as the encoder; "
            "'embedded' needs no download."
        ) from error
