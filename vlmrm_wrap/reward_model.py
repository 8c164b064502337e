"""CLIPRewardModel: preprocessor + encoder + reward, from frames as environments render them to R(s).

    frames (n, H, W, 3) uint8 -> micro-batches -> device -> unit embeddings -> s.g, s.b -> numpy -> R

Prompts are encoded once, at construction. What a frame costs afterwards is one pass of the image tower
and two dot products; both come back in a single copy.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmrm_wrap.cache import CacheInfo, CacheOption, FrameCache, check_cache
from vlmrm_wrap.cache_files import ScoreFile, model_digest
from vlmrm_wrap.encoders import check_encoder_name, load_encoder
from vlmrm_wrap.encoders.protocol import Encoder, check_backend, resolve_device, resolve_dtype
from vlmrm_wrap.preprocess import check_frames
from vlmrm_wrap.protocols import FrameScores, UnknownPromptWarning, unknown_words
from vlmrm_wrap.reward import reward_from_similarities
from vlmrm_wrap.settings import Settings, check_recipe
from vlmrm_wrap.similarities import FrameEncoder, FrameSimilarities, levels_to_the_caller

__all__ = ["CLIPRewardModel"]

Frames = NDArray[np.uint8]
Goal = str | Sequence[str] | Frames

_MICRO_BATCH = 64  # fills a GPU with ViT-B/32 at 224; a CPU gains nothing beyond 8
_PATIENCE = 256  # encodes that the cache may cost before the first frame comes again: 0.1 s of the embedded model
_SAME = 1e-6  # of two embeddings, as of goal and baseline in reward.py
_WARM_UP = (1, 400, 600, 3)  # a frame of the classic-control size


class CLIPRewardModel:
    """The reward of eq. 3 (:mod:`vlmrm_wrap.reward`) for frames, from sentences or goal pictures.

    >>> model = CLIPRewardModel.from_pretrained(
    ...     "embedded",
    ...     goal_prompts="pole vertically upright on top of the cart",
    ...     baseline_prompts="pole and cart",
    ...     alpha=0.5,
    ... )
    >>> model(np.full((2, 400, 600, 3), 255, np.uint8)).shape
    (2,)

    ``goal_prompts``: a sentence, several, or uint8 RGB frames ``(k, height, width, 3)``.
    ``baseline_prompts``: one or several sentences; None only at ``alpha`` 0, where R does not depend
    on it: the cosine with the goal, or for a mean g of several goals s.g + (1 - |g|^2) / 2.
    Several prompts: the mean of their unit embeddings, as in the paper's code, made a unit vector only
    if ``normalize_prompt_mean``. ``resize_mode``: None for the encoder's own, or "squash", "crop",
    "pad". ``micro_batch_size``: most frames on the device at once; halved for good, with a warning, if
    they don't fit. ``cache``: whether frames that were scored before are encoded again. "auto" remembers
    scores (:mod:`vlmrm_wrap.cache`) but steps aside where frames don't repeat, True always looks, False
    never, and a folder also keeps them on disk, for later models with the same encoder and prompts. The
    cache knows nothing of weights that are changed in place: cache=False then.

    Attributes: ``encoder``, ``alpha``, ``constants`` (|g|, |b|, g.b as floats: with the similarities they
    give R for any alpha), ``recipe``, ``cache_info``. ValueError or TypeError for what can't be meant.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        goal_prompts: Goal,
        baseline_prompts: str | Sequence[str] | None = None,
        alpha: float = 0.5,
        resize_mode: str | None = None,
        normalize_prompt_mean: bool = False,
        micro_batch_size: int = _MICRO_BATCH,
        cache: CacheOption = "auto",
    ) -> None:
        check_cache(cache)
        settings = Settings.checked(
            goal_prompts,
            baseline_prompts,
            alpha,
            resize_mode,
            normalize_prompt_mean,
            micro_batch_size,
        )
        self.encoder, self.alpha = encoder, settings.alpha
        self._settings, self._cache_option = settings, cache
        self._frames = FrameEncoder(encoder, settings.resize_mode, settings.micro_batch_size)
        goal, baseline = self._embed_prompts()
        self.constants = {
            "goal_norm": float(goal.norm()),
            "baseline_norm": float(baseline.norm()),
            "goal_dot_baseline": float(goal @ baseline),
        }
        self._prompts = torch.stack([goal, baseline], dim=1)  # (D, 2), float64
        self._similarities = FrameSimilarities(self._frames, self._prompts)
        # so that goal == baseline shows now, and the first step of an episode is no slower than others
        self.score(np.zeros(_WARM_UP, np.uint8))
        self._similarities.cache = self._make_cache()

    @classmethod
    def from_pretrained(
        cls,
        encoder: str | os.PathLike[str],
        *,
        goal_prompts: Goal,
        baseline_prompts: str | Sequence[str] | None = None,
        alpha: float = 0.5,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        resize_mode: str | None = None,
        normalize_prompt_mean: bool = False,
        micro_batch_size: int = _MICRO_BATCH,
        download_root: str | os.PathLike[str] | None = None,
        backend: str = "torch",
        cache: CacheOption = "auto",
    ) -> "CLIPRewardModel":
        """A model on the encoder of that name or path (see :func:`vlmrm_wrap.load_encoder`).

        Everything that is wrong with the arguments alone is refused before any weights load.
        """
        settings: dict[str, Any] = {
            "goal_prompts": goal_prompts,
            "baseline_prompts": baseline_prompts,
            "alpha": alpha,
            "resize_mode": resize_mode,
            "normalize_prompt_mean": normalize_prompt_mean,
            "micro_batch_size": micro_batch_size,
        }
        Settings.checked(**settings)
        check_cache(cache)
        check_encoder_name(encoder)
        found = resolve_device(device)
        check_backend(backend, found, resolve_dtype(dtype, found))
        return cls(load_encoder(encoder, device, dtype, download_root, backend), **settings, cache=cache)

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "CLIPRewardModel":
        """The model that ``recipe`` describes; ValueError for a recipe with other keys."""
        return cls.from_pretrained(**check_recipe(recipe))

    @property
    def recipe(self) -> dict[str, Any] | None:
        """A JSON-able dict for :meth:`from_recipe`; None if the encoder was not loaded by name or path.

        The cache stays behind: what the recipe rebuilds has one of its own, ``cache="auto"``.
        """
        source = getattr(self.encoder, "loaded_from", None)
        return None if source is None else {**source, **self._settings.as_json()}

    @property
    def micro_batch_size(self) -> int:
        """Most frames on the device at once: as asked for, or as halved since."""
        return self._frames.micro_batch

    def __reduce__(self) -> tuple[Any, ...]:
        recipe = self.recipe
        if recipe is None:
            raise TypeError(
                f"a {type(self).__name__} pickles as its recipe, and there is none for the encoder "
                f"{self.encoder!r}, which was not loaded by name; use from_pretrained"
            )
        return type(self).from_recipe, (recipe,)

    def __repr__(self) -> str:
        goal = self._settings.goal_prompts
        shown = f"<{len(goal)} frames>" if isinstance(goal, np.ndarray) else list(goal)
        baseline = self._settings.baseline_prompts
        return (
            f"{type(self).__name__}({self.encoder!r}, goal_prompts={shown}, "
            f"baseline_prompts={None if baseline is None else list(baseline)}, alpha={self.alpha})"
        )

    def __call__(self, frames: Frames) -> NDArray[np.float32]:
        """``score(frames).rewards``: float32 ``(n,)``."""
        return self.score(frames).rewards

    def score(self, frames: Frames) -> FrameScores:
        """uint8 RGB frames, 0 to 255, ``(n, height, width, 3)`` -> three float32 arrays ``(n,)``.

        ``frames`` are neither kept nor written to; n may be 0. TypeError or ValueError, with the
        mend, for frames of another kind; ValueError if the encoder gives numbers that are not finite.
        """
        return self.score_later(frames)()

    def score_later(self, frames: Frames) -> Callable[[], FrameScores]:
        """Starts :meth:`score` and returns what waits for its result; ``frames`` may be overwritten at once.

        On a GPU the frames are copied and their scoring queued, and nothing here waits for the GPU (but for
        the copy of the batch before the last). Elsewhere the frames are encoded before this returns.
        """
        similarities = self._similarities.later(frames)
        return lambda: self.scores_of(similarities())

    def scores_of(self, similarities: NDArray[np.float32]) -> FrameScores:
        """The scores of ``n`` frames with these s.g and s.b, ``(n, 2)``; encodes nothing."""
        goal, baseline = np.ascontiguousarray(similarities.T)
        found = FrameScores(goal, goal, baseline)
        return found._replace(rewards=self.rewards_at(self.alpha, found))

    def similarities_with(self, models: Sequence["CLIPRewardModel"]) -> FrameSimilarities:
        """s.g and s.b with the prompts of all ``models``, from one encoding of a frame: float32 ``(n, 2 k)``.

        ``models``: of this one's encoder, from :meth:`with_settings`. What they cost is this model's: its resize mode,
        its micro-batches, and, unless it has ``cache=False``, a cache, in memory, of their own.
        """
        cache = None
        if self.cache_info is not None:
            cache = FrameCache(width=2 * len(models), steps_aside=self._cache_option == "auto", patience=_PATIENCE)
        return FrameSimilarities(self._frames, torch.cat([model._prompts for model in models], dim=1), cache)

    def has_goal_of(self, other: "CLIPRewardModel") -> bool:
        """Whether the goals of both are the same embedding, of one encoder, as far as float32 tells."""
        return float((self._prompts[:, 0] - other._prompts[:, 0]).norm()) <= _SAME * self.constants["goal_norm"]

    def embed(self, frames: Frames) -> NDArray[np.float32]:
        """uint8 RGB frames ``(n, height, width, 3)`` -> their unit embeddings, float32 ``(n, embed_dim)``.

        They are all that any reward needs to know of a frame: see :meth:`score_embeddings`. Errors as of :meth:`score`.
        """
        embeddings: NDArray[np.float32] = self._frames.embed(check_frames(frames)).numpy()
        return embeddings

    def score_embeddings(self, embeddings: NDArray[np.float32]) -> FrameScores:
        """What :meth:`score` gives for the frames of these embeddings; encodes nothing.

        ``embeddings``: ``(n, embed_dim)``, of any model with this encoder and resize mode; ValueError for other shapes.
        """
        unit = np.asarray(embeddings)
        if unit.ndim != 2 or unit.shape[1] != len(self._prompts):
            raise ValueError(
                f"embeddings must have shape (n, {len(self._prompts)}), those of {self.encoder!r}, got {unit.shape}"
            )
        return self.scores_of((unit.astype(np.float64) @ self._prompts.numpy()).astype(np.float32))

    def with_settings(self, **changes: Any) -> "CLIPRewardModel":
        """A model on the same encoder, with other ``goal_prompts``, ``baseline_prompts``, ``alpha``, ...

        >>> other = model.with_settings(goal_prompts="pole hanging down")
        """
        return type(self)(self.encoder, **{**vars(self._settings), **changes})

    def preview(self, frames: Frames) -> NDArray[np.uint8]:
        """What the encoder is shown of each frame, before normalisation: uint8 ``(n, image_size, image_size, 3)``."""
        pixels = torch.from_numpy(np.array(check_frames(frames))).to(self._frames.device).permute(0, 3, 1, 2)
        shown: NDArray[np.uint8] = self._frames.preprocess.resize(pixels).permute(0, 2, 3, 1).cpu().numpy()
        return shown

    def rewards_at(self, alpha: float, scores: FrameScores) -> NDArray[np.float32]:
        """R for another ``alpha``, float32 ``(n,)``, from ``scores`` of this model; encodes nothing.

        ``rewards_at(model.alpha, scores)`` is ``scores.rewards`` to the bit. ValueError for alpha above
        0 without a baseline.
        """
        rewards = reward_from_similarities(
            np.asarray(scores.goal_similarity, np.float64),
            np.asarray(scores.baseline_similarity, np.float64),
            **self.constants,
            alpha=alpha,
        )
        return rewards.astype(np.float32)

    @property
    def cache_info(self) -> CacheInfo | None:
        """Hits and misses so far, as of ``functools.lru_cache``, and more; None with ``cache=False``."""
        cache = self._similarities.cache
        return None if cache is None else cache.info

    def save_cache(self) -> None:
        """Write the scores to ``cache``'s folder now; otherwise it happens when the model or the process ends.

        OSError if that fails, ValueError if ``cache`` is no folder.
        """
        cache = self._similarities.cache
        if cache is None:
            raise ValueError("there is no cache to save: cache is False; a folder keeps scores on disk")
        cache.save()

    def state_dict(self) -> dict[str, Any]:
        """What the frames so far have left behind: the cache's scores and counts, and the micro-batch size.

        With it a rebuilt model goes on to the bit: which frames are known decides which are encoded together, and
        that is in the last digits of a reward. Numbers and bytes; prompts and weights are the recipe's.
        """
        return self._similarities.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict` of a model with this recipe; ValueError for anything else."""
        self._similarities.load_state_dict(state)

    def _make_cache(self) -> FrameCache | None:
        cache = self._cache_option
        if isinstance(cache, bool | np.bool_) or cache == "auto":
            return FrameCache(steps_aside=cache == "auto", patience=_PATIENCE) if cache else None
        settings = self._settings.as_json()
        about = {name: settings[name] for name in ("goal_prompts", "baseline_prompts", "normalize_prompt_mean")}
        digest = model_digest(self.encoder, {**about, "resize_mode": self._frames.preprocess.resize_mode})
        return FrameCache(steps_aside=False, file=ScoreFile(cache, digest))

    def _embed_prompts(self) -> tuple[Tensor, Tensor]:
        """g and b, float64 ``(D,)`` on the CPU; b is 0 without a baseline."""
        goal, baseline = self._settings.goal_prompts, self._settings.baseline_prompts
        self._warn_of_unknown_words()
        goals = self._frames.embed(goal) if isinstance(goal, np.ndarray) else self.encoder.encode_text(list(goal))
        mean_goal = self._mean(goals)
        if baseline is None:
            return mean_goal, torch.zeros_like(mean_goal)
        return mean_goal, self._mean(self.encoder.encode_text(list(baseline)))

    def _mean(self, embeddings: Tensor) -> Tensor:
        mean = embeddings.cpu().double().mean(dim=0)
        return mean / mean.norm() if self._settings.normalize_prompt_mean else mean

    def _warn_of_unknown_words(self) -> None:
        unknown = unknown_words(self.encoder, self._settings.goal_sentences + (self._settings.baseline_prompts or ()))
        if unknown:
            warnings.warn(
                f"{self.encoder.name!r} has not learnt: {', '.join(map(repr, unknown))}. Prompts with "
                "such words are scored all the same, by their other words.",
                UnknownPromptWarning,
                stacklevel=levels_to_the_caller(),
            )
