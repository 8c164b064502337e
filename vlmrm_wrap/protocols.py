"""The narrow waist: what a wrapper may know about a reward model, and nothing more.

Wrappers call ``score`` with uint8 frames and get :class:`FrameScores` back, numpy at both ends. A local
GPU model, a remote one and a four-line fake are interchangeable. This module imports numpy only, so that
environment workers, which import it, stay small.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["FrameScores", "RewardModel", "UnknownPromptWarning"]


class FrameScores(NamedTuple):
    """What a reward model says about ``n`` frames; three float32 arrays of shape ``(n,)``.

    ``rewards``: R(s) of the paper's eq. 3, in [-1, 1] for unit embeddings.
    ``goal_similarity``: s.g, the frame's unit embedding dot the goal's embedding.
    ``baseline_similarity``: s.b likewise; all zeros for a model without a baseline.
    """

    rewards: NDArray[np.float32]
    goal_similarity: NDArray[np.float32]
    baseline_similarity: NDArray[np.float32]


@runtime_checkable
class RewardModel(Protocol):
    """Anything with ``score``. Every other attribute (``recipe``, ``constants``, ...) is optional."""

    def score(self, frames: NDArray[np.uint8]) -> FrameScores:
        """Score uint8 RGB frames, 0 to 255, shape ``(n, height, width, 3)``.

        The array may be reused by the caller as soon as this returns, so implementations must not keep it.
        """
        ...


class UnknownPromptWarning(UserWarning):
    """The embedded model was given a prompt with content words it has not learnt; the text names them."""


def unknown_words(encoder: Any, texts: Iterable[str]) -> list[str]:
    """The words of ``texts`` that ``encoder`` says it has not learnt, each once; only the embedded one can say."""
    of_one = getattr(encoder, "unknown_words", None)
    return [] if of_one is None else list(dict.fromkeys(word for text in texts for word in of_one(text)))


def recipe_of(reward_model: Any) -> dict[str, Any] | None:
    """The plain dict that rebuilds ``reward_model``, or None for a model (a fake, say) without one."""
    recipe = getattr(reward_model, "recipe", None)
    return dict(recipe) if isinstance(recipe, Mapping) else None


def as_reward_model(reward_model: Any) -> RewardModel:
    """A reward model as it is, or the one that a recipe describes; TypeError for anything else."""
    if isinstance(reward_model, Mapping):
        if "option" in reward_model:
            from vlmrm_wrap.options import option_from_recipe

            return option_from_recipe(reward_model)
        from vlmrm_wrap.reward_model import CLIPRewardModel  # torch and the weights, only now

        return CLIPRewardModel.from_recipe(dict(reward_model))
    if not callable(getattr(reward_model, "score", None)):
        raise TypeError(
            f"reward_model is {reward_model!r}; required: an object with score(frames) -> FrameScores, or a "
            "recipe. CLIPRewardModel.from_pretrained('embedded', goal_prompts='...') makes one."
        )
    model: RewardModel = reward_model
    return model


def score_frames(
    reward_model: RewardModel, frames: NDArray[np.uint8], envs: NDArray[np.intp] | None = None
) -> FrameScores:
    """``reward_model.score(frames)``, checked by :func:`check_scores`.

    ``envs``: the indices of the sub-envs that the frames are of, None for all in their order; a model that treats
    sub-envs differently (:class:`~vlmrm_wrap.PerEnvPrompts`) has ``score_envs(frames, envs)`` for that.
    """
    score_envs = None if envs is None else getattr(reward_model, "score_envs", None)
    scores = reward_model.score(frames) if score_envs is None else score_envs(frames, envs)
    return check_scores(reward_model, scores, len(frames))


def check_scores(reward_model: RewardModel, scores: Any, n: int) -> FrameScores:
    """The ``scores`` that a reward model gave for ``n`` frames, refused unless each array holds one number a frame.

    A reward of shape (n, 1), or of one frame for all envs, would otherwise be broadcast in silence.
    """
    try:
        checked = FrameScores(*(np.asarray(part, dtype=np.float32) for part in scores))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{type(reward_model).__name__}.score returned {type(scores).__name__}; required: "
            "FrameScores(rewards, goal_similarity, baseline_similarity), arrays of one number a frame"
        ) from error
    shapes = {part.shape for part in checked}
    if shapes != {(n,)}:
        raise ValueError(
            f"{type(reward_model).__name__}.score returned arrays of shape {sorted(shapes)} for "
            f"{n} frames; required: three of shape ({n},)"
        )
    return checked


def check_num_envs(reward_model: RewardModel, num_envs: int) -> None:
    """ValueError if the reward model's prompts (:class:`~vlmrm_wrap.PerEnvPrompts`) are for another number of envs."""
    goals = getattr(reward_model, "num_envs", None)
    if goals not in (None, num_envs):
        raise ValueError(f"PerEnvPrompts has {goals} goals, and there are {num_envs} sub-envs; required: one goal each")


def warn_of_held_frames(reward_model: RewardModel, held: bool) -> None:
    """UserWarning, for the caller of a wrapper's constructor, if frames that RenderEvery shows again cost as much."""
    if held and getattr(reward_model, "cache_info", held) is None:
        warnings.warn(
            "RenderEvery shows frames again, and with cache=False the reward model encodes them again. With a cache, "
            "the default, a frame that is held costs no encoding.",
            stacklevel=3,
        )
