"""Options that compare one encoding of a frame with more sentences than a goal and a baseline.

    frames -> s.g and s.b for the prompts of each of k models, from one encoding -> k scores -> one reward

``model`` is a :class:`~vlmrm_wrap.CLIPRewardModel`, or its recipe. A frame is encoded once, whatever the number of
sentences, and not again where the model would remember it: the option has a cache like the model's, in memory.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.options import RewardOption, check_number
from vlmrm_wrap.protocols import FrameScores, RewardModel, recipe_of

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["PerEnvPrompts", "SoftmaxReward", "WeightedGoals"]

Frames = NDArray[np.uint8]
Sentences = str | Sequence[str]

_LOGIT_SCALE = 100.0  # of an encoder that doesn't say: what the training of released CLIPs ends with
_INSTEAD = "required: something else that the picture might show"


class _PromptOption(RewardOption):
    """Of a CLIPRewardModel. Pickles as its arguments: with the models of all prompts, weights would load for each."""

    model: "CLIPRewardModel"
    _inside = RewardOption._inside - {"constants"}  # of the model's own goal, which is not what is paid here

    def __init__(self, model: RewardModel | Mapping[str, Any], **arguments: Any) -> None:
        super().__init__(model, **arguments)
        if not hasattr(self.model, "similarities_with"):
            raise TypeError(
                f"{type(self).__name__} needs the CLIPRewardModel itself, whose encoder its sentences share, got "
                f"{self.model!r}. ScaledReward and StandardizedReward go outside, ScaledReward({type(self).__name__}"
                "(model, ...)), and of WeightedGoals, SoftmaxReward and PerEnvPrompts there is one."
            )

    def _compare_with(self, models: list["CLIPRewardModel"]) -> None:
        """From now on frames are scored with all of ``models``; one that stands twice is asked once."""
        self._distinct = list(dict.fromkeys(models))
        self._similarities = self.model.similarities_with(self._distinct)

    @abstractmethod
    def _combine(self, scores: "dict[CLIPRewardModel, FrameScores]", envs: NDArray[np.intp]) -> FrameScores:
        """One score for each frame, of the sub-envs ``envs``, from those of all models."""

    @property
    def cache_info(self) -> Any:
        """Hits and misses of the option's own cache; None with ``cache=False``."""
        cache = self._similarities.cache
        return None if cache is None else cache.info

    def score(self, frames: Frames) -> FrameScores:
        return self._later(frames, self._all(frames))()

    def score_envs(self, frames: Frames, envs: NDArray[np.intp]) -> FrameScores:
        return self._later(frames, envs)()

    @property
    def score_later(self) -> Callable[[Frames], Callable[[], FrameScores]]:
        return lambda frames: self._later(frames, self._all(frames))

    def score_embeddings(self, embeddings: NDArray[np.float32]) -> FrameScores:
        each = {model: model.score_embeddings(embeddings) for model in self._distinct}
        return self._combine(each, self._all(embeddings))

    def state_dict(self) -> dict[str, Any]:
        """As of :meth:`vlmrm_wrap.CLIPRewardModel.state_dict`, with the option's own cache."""
        return self._similarities.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict` of the same option; ValueError for anything else."""
        self._similarities.load_state_dict(state)

    def _all(self, frames: NDArray[Any]) -> NDArray[np.intp]:
        """Whose frames they are if nobody says."""
        return np.arange(len(frames))

    def _later(self, frames: Frames, envs: NDArray[np.intp]) -> Callable[[], FrameScores]:
        similarities = self._similarities.later(frames)

        def scores() -> FrameScores:
            pairs = np.split(similarities(), len(self._distinct), axis=1)
            return self._combine({m: m.scores_of(pair) for m, pair in zip(self._distinct, pairs, strict=True)}, envs)

        return scores

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.model, self._arguments)

    def _models(self, goals: Sequence[Sentences], baselines: Sequence[Sentences] | None) -> list["CLIPRewardModel"]:
        """One model a goal, all on one encoder; goals that stand twice share theirs."""
        if baselines is not None and len(baselines) != len(goals):
            raise ValueError(f"there are {len(goals)} goals and {len(baselines)} baselines; required: as many, or None")
        made: dict[str, CLIPRewardModel] = {}
        models = []
        for goal, baseline in zip(goals, baselines or (None for _ in goals), strict=True):
            key = repr((goal, baseline))
            if key not in made:
                own = {} if baseline is None else {"baseline_prompts": baseline}
                made[key] = self.model.with_settings(goal_prompts=goal, **own)
            models.append(made[key])
        return models


class WeightedGoals(_PromptOption):
    """R = sum of w_k R_k: several goals at once, each with its own reward of eq. 3, from one encoding of the frame.

    Several ``goal_prompts`` of one model are other ways to say *one* goal: their embeddings are averaged before the
    reward. These here are different things to want, or, with a negative weight, to avoid.

    ``goals``: for each, a sentence or several that say the same. ``weights``: one a goal, not normalised.
    ``baselines``: one a goal, or None for the model's own for all. alpha is the model's; its own goal is not used.
    The similarities are weighted sums likewise.

    >>> model = WeightedGoals(model, ["pole upright", "cart in the middle"], [0.7, 0.3])

    ValueError unless weights are finite, not all of them 0, and as many as the goals.
    """

    def __init__(
        self,
        model: "CLIPRewardModel | Mapping[str, Any]",
        goals: Sequence[Sentences],
        weights: Sequence[float],
        baselines: Sequence[Sentences] | None = None,
    ) -> None:
        goals, baselines = _plain("goals", goals), baselines and _plain("baselines", baselines)
        weights = [check_number("a weight", weight) for weight in weights]
        if len(weights) != len(goals):
            raise ValueError(f"there are {len(goals)} goals and {len(weights)} weights; required: as many")
        if not any(weights):
            raise ValueError(f"weights are {weights}, and every reward would be 0; required: one that is not 0")
        super().__init__(model, goals=goals, weights=weights, baselines=baselines)
        self._goals, self._weights = self._models(goals, baselines), np.array(weights)
        self._compare_with(self._goals)

    def _combine(self, scores: "dict[CLIPRewardModel, FrameScores]", envs: NDArray[np.intp]) -> FrameScores:
        each = np.array([scores[goal] for goal in self._goals], np.float64)  # (k, 3, n)
        return FrameScores(*np.tensordot(self._weights, each, axes=1).astype(np.float32))


class PerEnvPrompts(_PromptOption):
    """Sub-env i has goal i: several tasks in one vector env, in one batch of frames.

    ``goals``: one for each sub-env, in their order: a sentence, or several that say the same. ``baselines``: one
    for each, or None for the model's own for all. alpha is the model's; its own goal is not used.

    >>> model = PerEnvPrompts(model, ["pole upright", "pole hanging down"])
    >>> envs = CLIPRewardVectorWrapper(make_vec("CartPole-v1", num_envs=2), model)

    ``score(frames)`` takes one frame of each sub-env; ValueError for any other number.
    """

    def __init__(
        self,
        model: "CLIPRewardModel | Mapping[str, Any]",
        goals: Sequence[Sentences],
        baselines: Sequence[Sentences] | None = None,
    ) -> None:
        goals, baselines = _plain("goals", goals), baselines and _plain("baselines", baselines)
        super().__init__(model, goals=goals, baselines=baselines)
        self._goals = self._models(goals, baselines)
        self._compare_with(self._goals)

    @property
    def num_envs(self) -> int:
        return len(self._goals)

    @property
    def micro_batch_size(self) -> int:
        """Who gathers frames of several steps should hand them on by steps."""
        return len(self._goals)

    def _all(self, frames: NDArray[Any]) -> NDArray[np.intp]:
        if len(frames) != len(self._goals):
            raise ValueError(
                f"PerEnvPrompts has {len(self._goals)} goals and got {len(frames)} frames; required: one frame of each "
                "sub-env. score_envs(frames, envs) takes those of some."
            )
        return super()._all(frames)

    def _combine(self, scores: "dict[CLIPRewardModel, FrameScores]", envs: NDArray[np.intp]) -> FrameScores:
        each = np.array([scores[goal] for goal in self._distinct])  # (k, 3, n)
        own = [self._distinct.index(self._goals[env]) for env in envs]
        return FrameScores(*each[own, :, np.arange(len(own))].T)


class SoftmaxReward(_PromptOption):
    """R = exp(s.g / T) / (exp(s.g / T) + sum of exp(s.n_j / T)): how probably it is the goal, among the negatives.

    In [0, 1]. Baumli et al. 2023, arXiv 2312.09187, and MineCLIP (Fan et al. 2022, arXiv 2206.08853) reward so. g is
    the model's goal; its alpha and baseline don't matter here. ``negatives``: sentences n_j, each for itself, of what
    else the picture might show. ``temperature`` T: None is the encoder's own, 1 / ``logit_scale``, which its training
    ended with: 0.01 for released CLIPs (Radford et al. 2021, arXiv 2103.00020) and for an encoder that doesn't say,
    about 0.06 for the embedded one. Smaller ones pay 0 and 1 and little between, larger ones more evenly.

    >>> model = SoftmaxReward(model, ["pole hanging down", "pole lying flat"])

    The similarities are the model's own. ValueError for no negatives, one that is the goal or one of its sentences,
    or a temperature that is not positive.
    """

    def __init__(
        self,
        model: "CLIPRewardModel | Mapping[str, Any]",
        negatives: Sequence[str],
        temperature: float | None = None,
    ) -> None:
        negatives = _plain("negatives", negatives)
        if temperature is not None and check_number("temperature", temperature) <= 0:
            raise ValueError(f"temperature is {temperature}; required: a positive number, or None for the encoder's")
        _refuse_goal_sentences(negatives, model if isinstance(model, Mapping) else recipe_of(model))
        super().__init__(model, negatives=negatives)
        if temperature is None:
            temperature = 1 / getattr(self.model.encoder, "logit_scale", _LOGIT_SCALE)
        self.temperature = self._arguments["temperature"] = float(temperature)
        # without a baseline: "pole and cart" may be a negative and the model's baseline
        self._negatives = [
            self.model.with_settings(goal_prompts=each, baseline_prompts=None, alpha=0.0) for each in negatives
        ]
        for each, negative in zip(negatives, self._negatives, strict=True):
            if negative.has_goal_of(self.model):
                raise ValueError(f"the negative {each!r} is the goal, as an embedding; {_INSTEAD}")
        self._compare_with([self.model, *self._negatives])

    def _combine(self, scores: "dict[CLIPRewardModel, FrameScores]", envs: NDArray[np.intp]) -> FrameScores:
        goal = scores[self.model]
        others = [scores[negative].goal_similarity for negative in self._negatives]
        logits = np.array([goal.goal_similarity, *others], np.float64) / self.temperature
        weights = np.exp(logits - logits.max(axis=0))
        return goal._replace(rewards=(weights[0] / weights.sum(axis=0)).astype(np.float32))


def _refuse_goal_sentences(negatives: list[Any], recipe: Mapping[str, Any] | None) -> None:
    """ValueError for a negative in the words of a goal of ``recipe``, for which no weights need to load."""
    from vlmrm_wrap.settings import bare  # which loads torch

    goals = (recipe or {}).get("goal_prompts", ())
    sentences = {bare(goal) for goal in ([goals] if isinstance(goals, str) else goals) if isinstance(goal, str)}
    for each in negatives:
        if isinstance(each, str) and bare(each) in sentences:
            raise ValueError(f"the negative {each!r} is a goal of the model; {_INSTEAD}")


def _rebuilt(option: type[_PromptOption], model: Any, arguments: dict[str, Any]) -> _PromptOption:
    return option(model, **arguments)


def _plain(name: str, prompts: Any) -> list[Any]:
    """A list of sentences, or of lists of sentences, as JSON has it; TypeError or ValueError for anything else."""
    listed = isinstance(prompts, list | tuple)
    if not listed or not all(isinstance(each, str | list | tuple) for each in prompts):
        raise TypeError(f"{name} must be a list of sentences, or of lists of sentences, got {prompts!r:.100}")
    if not prompts:
        raise ValueError(f"{name} is empty: give at least one sentence")
    return [each if isinstance(each, str) else list(each) for each in prompts]
