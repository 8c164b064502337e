"""open_clip's models (an extra): "open_clip:ViT-H-14/laion2b_s32b_b79k", or a checkpoint of one.

"open_clip:NAME/TAG" is an architecture and a set of weights. Each tag brings its own tokenizer, image
size, mean, std, interpolation and resize mode, and they differ. After the slash may also stand the path
of a checkpoint of that architecture: "open_clip:ViT-B-32/runs/mine.pt", "open_clip:ViT-B-32//abs/x.pt".
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gymnasium.error import DependencyNotInstalled
from torch import Tensor

from vlmrm_wrap.encoders.fast_vit import fast_vit
from vlmrm_wrap.encoders.protocol import TwoTowers, nearest, quoted, resolve_device, resolve_dtype

__all__ = ["PREFIX", "OpenCLIPEncoder", "load_openclip"]

PREFIX = "open_clip:"

_RESIZE_MODES = {"squash": "squash", "shortest": "crop", "longest": "pad"}


@cache
def import_open_clip() -> Any:
    """The module; DependencyNotInstalled with the line that installs it."""
    if find_spec("open_clip") is None:
        raise DependencyNotInstalled(
            'encoders named "open_clip:..." need open_clip: pip install "vlmrm-wrap[open-clip]"'
        )
    import open_clip

    return open_clip


def names() -> list[str]:
    """Every "open_clip:NAME/TAG" whose weights open_clip knows where to find."""
    return [f"{PREFIX}{name}/{tag}" for name, tag in import_open_clip().list_pretrained()]


def check_name(name: str) -> tuple[str, str]:
    """NAME and TAG (or path); ValueError or FileNotFoundError for what isn't there."""
    open_clip = import_open_clip()
    model, _, tag = name.removeprefix(PREFIX).partition("/")
    if model not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {model!r}; {nearest(name, names())}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    # open_clip would build a model without weights if it were given no tag
    if not tag:
        raise ValueError(f'{name!r} lacks its weights: "{PREFIX}{model}/TAG", TAG one of {tags}')
    if open_clip.get_pretrained_cfg(model, tag) or Path(tag).expanduser().is_file():
        return model, tag
    if Path(tag).suffix or "/" in tag:
        raise FileNotFoundError(f"no weights file at {tag} (from {name!r})")
    raise ValueError(f"open_clip has no weights {tag!r} for {model!r}; it has {', '.join(tags)}")


class OpenCLIPEncoder(TwoTowers):
    """A model that open_clip made, with weights, behind our protocol; image settings are its own.

    ``model``: as ``open_clip.create_model`` returns it, in float32 on the CPU. It is taken over: its image
    tower is cast to ``dtype`` as a whole, and a plain ViT is replaced by a faster one that equals it
    (:mod:`vlmrm_wrap.encoders.fast_vit`). ``tokenizer``: ``open_clip.get_tokenizer`` of the same name.
    ValueError for a model whose images are not square.

    >>> load_openclip("open_clip:ViT-B-16-SigLIP/webli").mean  # doctest: +SKIP
    (0.5, 0.5, 0.5)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        self.name = name
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        settings = dict(model.visual.preprocess_cfg)
        self.mean, self.std = tuple(settings["mean"]), tuple(settings["std"])
        self.interpolation = str(settings["interpolation"])
        self.resize_mode = _RESIZE_MODES[settings["resize_mode"]]
        if self.resize_mode == "pad" and settings.get("fill_color", 0) != 0:
            raise ValueError(f"{name!r} pads with colour {settings['fill_color']}; only black is done")
        self.image_size = _side(settings["size"], name)
        self.context_length = int(getattr(model, "context_length", tokenizer.context_length))
        model.eval().requires_grad_(False).visual = fast_vit(model.visual).to(self.dtype)
        self._model = model.to(self.device)
        self._tokenizer = tokenizer
        if (logit_scale := getattr(model, "logit_scale", None)) is not None:
            self.logit_scale = float(logit_scale.exp())
        self.embed_dim = int(self.encode_text(["a"]).shape[1])

    def _embed_images(self, images: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(images)
        return features

    def _embed_texts(self, texts: list[str]) -> Tensor:
        tokens = torch.cat([self._tokenize(text) for text in texts])
        features: Tensor = self._model.encode_text(tokens.to(self.device))
        return features

    def _tokenize(self, text: str) -> Tensor:
        """Token numbers ``(1, context_length)``. open_clip's tokenizers cut off in silence; we refuse."""
        limit = self.context_length
        tokens: Tensor = self._tokenizer([text], context_length=limit)
        # 16 tokens a character is more than any text has: here nothing was cut and the rest is padding
        whole: Tensor = self._tokenizer([text], context_length=16 * len(text) + 16 + limit)
        if not torch.equal(whole[:, :limit], tokens):
            length = int((whole[0] != whole[0, -1]).nonzero().max()) + 1
            raise ValueError(
                f"prompt {quoted(text)} has {length} tokens, start and end included; "
                f"{self.name!r} takes at most {limit}"
            )
        return tokens


def load_openclip(
    name: str,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    download_root: str | None = None,
) -> OpenCLIPEncoder:
    """ "open_clip:NAME/TAG", downloaded by open_clip if need be, or "open_clip:NAME/path"."""
    model_name, tag = check_name(name)
    device = resolve_device(device)  # both before a download of gigabytes
    dtype = resolve_dtype(dtype, device)
    open_clip = import_open_clip()
    settings = open_clip.get_pretrained_cfg(model_name, tag)
    weights = tag if settings else str(Path(tag).expanduser())
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights that it then overwrites
            model = open_clip.create_model(
                model_name,
                pretrained=weights,
                precision="fp32",
                device="cpu",
                require_pretrained=True,  # or it might warn and go on with random weights
                # tags trained with QuickGELU stand under names without it as well
                force_quick_gelu=bool(settings.get("quick_gelu", False)),
                cache_dir=download_root,
            )
        tokenizer = open_clip.get_tokenizer(model_name, cache_dir=download_root)
    except Exception as error:  # whatever the hub, the network or a damaged file make it raise
        reason = " ".join(str(error).split())[:400]
        if settings:
            raise OSError(
                f"no weights for {name!r}: open_clip could not fetch or read them ({reason}). Without "
                "a network, fetch them elsewhere and name their folder as download_root, or give "
                f'"{PREFIX}{model_name}/PATH"; "embedded" needs no download.'
            ) from error
        raise ValueError(f"{weights} is not a checkpoint of {model_name!r} ({reason})") from error
    return OpenCLIPEncoder(model, tokenizer, name=name, device=device, dtype=dtype)


def _side(size: int | tuple[int, int], name: str) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"{name!r} wants {height} x {width} images; only square ones are made here")
    return int(height)
