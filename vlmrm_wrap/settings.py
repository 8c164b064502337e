"""What a reward model is made of besides its encoder: checked before weights load, and as JSON.

The JSON form is the ``recipe`` of :class:`vlmrm_wrap.CLIPRewardModel`: it stands in run folders, in
``env.spec`` and in pickles, in place of hundreds of megabytes of weights.
"""

import base64
import io
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.preprocess import check_frames, check_resize_mode
from vlmrm_wrap.reward import check_alpha

__all__ = ["Settings", "bare", "check_recipe"]

Frames = NDArray[np.uint8]

_PNG = "frames_png_base64"
_LOADING = ("encoder", "device", "dtype", "download_root", "backend")  # load_encoder's arguments


@dataclass(frozen=True)
class Settings:
    """The keyword arguments of a reward model, by their own names; build it with :meth:`checked`."""

    goal_prompts: tuple[str, ...] | Frames
    baseline_prompts: tuple[str, ...] | None
    alpha: float
    resize_mode: str | None
    normalize_prompt_mean: bool
    micro_batch_size: int

    @classmethod
    def checked(
        cls,
        goal_prompts: Any,
        baseline_prompts: Any,
        alpha: Any,
        resize_mode: Any,
        normalize_prompt_mean: Any,
        micro_batch_size: Any,
    ) -> "Settings":
        """TypeError or ValueError for anything that can be seen to be wrong without an encoder."""
        alpha = check_alpha(alpha)
        if isinstance(goal_prompts, np.ndarray):
            goal = check_frames(goal_prompts, "image goals").copy()
            if len(goal) == 0:
                raise ValueError("goal_prompts holds no frames")
        else:
            goal = _check_prompts("goal_prompts", goal_prompts)
        baseline = None
        if baseline_prompts is not None:
            baseline = _check_prompts("baseline_prompts", baseline_prompts)
            if isinstance(goal, tuple) and _all_bare(goal) == _all_bare(baseline):
                raise ValueError(
                    f"goal and baseline are the same, {list(goal)}: describe the scene without the "
                    "goal in baseline_prompts"
                )
        elif alpha > 0:
            raise ValueError(
                f"alpha is {alpha}, which needs a baseline: give baseline_prompts (the scene without "
                "the goal), or alpha=0 for the plain cosine"
            )
        if resize_mode is not None:
            check_resize_mode(resize_mode)
        if not isinstance(normalize_prompt_mean, bool | np.bool_):
            raise TypeError(f"normalize_prompt_mean must be a bool, got {normalize_prompt_mean!r}")
        if isinstance(micro_batch_size, bool) or not isinstance(micro_batch_size, numbers.Integral):
            raise TypeError(f"micro_batch_size must be an integer, got {micro_batch_size!r}")
        if micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be at least 1, got {micro_batch_size}")
        return cls(goal, baseline, alpha, resize_mode, bool(normalize_prompt_mean), int(micro_batch_size))

    @property
    def goal_sentences(self) -> tuple[str, ...]:
        """The goal prompts that are sentences: none where the goals are pictures."""
        return () if isinstance(self.goal_prompts, np.ndarray) else self.goal_prompts

    def as_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; pictures as base64 PNG, which loses nothing."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("goal_prompts", "baseline_prompts"):
            if isinstance(plain[name], np.ndarray):
                plain[name] = {_PNG: [_to_png(frame) for frame in plain[name]]}
            elif plain[name] is not None:
                plain[name] = list(plain[name])
        return plain


def check_recipe(recipe: Any) -> dict[str, Any]:
    """A recipe as keyword arguments of ``from_pretrained``; ValueError for other keys."""
    if not isinstance(recipe, Mapping) or not {"encoder", "goal_prompts"} <= set(recipe):
        raise ValueError(f"a recipe is a dict with 'encoder', 'goal_prompts', ..., got {recipe!r}")
    known = {*_LOADING, *(field.name for field in fields(Settings))}
    if unknown := set(recipe) - known:
        raise ValueError(f"unknown keys in the recipe: {sorted(unknown)}; known: {sorted(known)}")
    arguments = dict(recipe)
    if isinstance(goal := arguments["goal_prompts"], Mapping):
        if set(goal) != {_PNG}:
            raise ValueError(f"goal pictures in a recipe are {{{_PNG!r}: [...]}}, got the keys {sorted(goal)}")
        try:
            arguments["goal_prompts"] = np.stack([_from_png(text) for text in goal[_PNG]])
        except (TypeError, ValueError, OSError) as error:
            raise ValueError(f"the recipe's {_PNG!r} holds no PNG pictures of one size: {error}") from error
    return arguments


def _check_prompts(name: str, prompts: Any) -> tuple[str, ...]:
    listed = (prompts,) if isinstance(prompts, str) else prompts
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        also = " or a uint8 array of frames (k, height, width, 3)" if name == "goal_prompts" else ""
        got = repr(prompts) if len(repr(prompts)) < 100 else f"a {type(prompts).__name__}"
        if isinstance(prompts, list | tuple) and any(isinstance(each, np.ndarray) for each in prompts):
            got = f"a {type(prompts).__name__} of arrays; np.stack makes one array of them"
        raise TypeError(f"{name} must be a sentence or a list of sentences{also}, got {got}")
    if not listed:
        raise ValueError(f"{name} is empty: give at least one sentence")
    if not all(each.strip() for each in listed):
        raise ValueError(f"{name} has an empty sentence: {list(listed)}")
    return tuple(listed)


def bare(prompt: str) -> str:
    """The prompt as the tokenizers see it: lower case, single spaces."""
    return " ".join(prompt.lower().split())


def _all_bare(prompts: tuple[str, ...]) -> list[str]:
    """The bare prompts in any order; one for its own repeats."""
    each = sorted(map(bare, prompts))
    return each[:1] if len(set(each)) == 1 else each


def _to_png(frame: Frames) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _from_png(text: str) -> Frames:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))
