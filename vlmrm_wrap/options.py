"""Options around a reward model: reward models themselves, which go wherever a reward model goes.

    ScaledReward(StandardizedReward(WeightedGoals(model, ...)), scale=0.1)

Here are those that change the numbers of any reward model, other options included; the similarities in FrameScores
stay as they are. :mod:`vlmrm_wrap.prompts` has those that ask more of a CLIP: one of them goes around the
CLIPRewardModel itself, innermost. A recipe names the option and holds the recipe of the model inside, so env.spec
rebuilds the whole nest. Imports numpy only.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from copy import copy
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.protocols import FrameScores, RewardModel, as_reward_model, check_scores, recipe_of, score_frames
from vlmrm_wrap.standardizing import RunningStatistics

__all__ = [
    "RewardOption",
    "ScaledReward",
    "StandardizedReward",
    "option_from_recipe",
    "options_around",
    "recipe_inside",
]

Frames = NDArray[np.uint8]

_HOME = {
    "ScaledReward": "vlmrm_wrap.options",
    "StandardizedReward": "vlmrm_wrap.options",
    "WeightedGoals": "vlmrm_wrap.prompts",
    "PerEnvPrompts": "vlmrm_wrap.prompts",
    "SoftmaxReward": "vlmrm_wrap.prompts",
}


class RewardOption:
    """What the options share: ``model`` inside, and a ``recipe`` made of its recipe and the ``arguments``."""

    # What an option has where the model inside has it: for those who batch, save, log and show what is encoded.
    _inside = frozenset(
        {
            "micro_batch_size",
            "num_envs",
            "cache_info",
            "constants",
            "embed",
            "preview",
            "state_dict",
            "load_state_dict",
        }
    )

    def __init__(self, model: RewardModel | Mapping[str, Any], **arguments: Any) -> None:
        self.model: Any = as_reward_model(model)
        self._arguments = arguments

    @property
    def recipe(self) -> dict[str, Any] | None:
        """A JSON-able dict that rebuilds this option and the model inside; None if that has no recipe."""
        inner = recipe_of(self.model)
        return None if inner is None else {"option": type(self).__name__, "model": inner, **self._arguments}

    @property
    def training(self) -> bool:
        """Whether a :class:`StandardizedReward` inside goes on to learn; True where there is none."""
        return self.model.training if isinstance(self.model, RewardOption) else True

    @training.setter
    def training(self, training: bool) -> None:
        self._set_training_inside(training)

    def _set_training_inside(self, training: bool) -> None:
        if isinstance(self.model, RewardOption):
            self.model.training = training

    def __getattr__(self, name: str) -> Any:
        if name in self._inside:
            return getattr(self.model, name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @property
    def score_later(self) -> Callable[[Frames], Callable[[], FrameScores]]:
        """:meth:`score` in the background, as of the model inside; AttributeError for one that can't.

        What it returns is to be called once, in the order of the batches, for an option may remember rewards.
        """
        start = self.model.score_later

        def later(frames: Frames) -> Callable[[], FrameScores]:
            n, scores = len(frames), start(frames)
            return lambda: self._change(check_scores(self.model, scores(), n))

        return later

    def __repr__(self) -> str:
        arguments = "".join(f", {name}={value!r}" for name, value in self._arguments.items())
        return f"{type(self).__name__}({self.model!r}{arguments})"

    def score(self, frames: Frames) -> FrameScores:
        """As :meth:`vlmrm_wrap.RewardModel.score`."""
        return self._change(score_frames(self.model, frames))

    def score_envs(self, frames: Frames, envs: NDArray[np.intp]) -> FrameScores:
        """:meth:`score`, for frames of the sub-envs with the indices ``envs``."""
        return self._change(score_frames(self.model, frames, envs))

    def score_embeddings(self, embeddings: NDArray[np.float32]) -> FrameScores:
        """:meth:`score` of the frames of these embeddings: :meth:`vlmrm_wrap.CLIPRewardModel.score_embeddings`."""
        return self._change(self.model.score_embeddings(embeddings))

    def _change(self, scores: FrameScores) -> FrameScores:
        raise NotImplementedError


class ScaledReward(RewardOption):
    """R' = scale * R + shift: for learners that want rewards around 0, or of another size.

    CLIP's rewards differ by a few hundredths between frames. A shift changes what surviving is worth, so it can
    change what is learnt where episodes end by termination.

    >>> model = ScaledReward(model, scale=10.0, shift=-8.0)  # 0.8 becomes 0, 0.9 becomes 1

    ValueError for a scale of 0, or numbers that are not finite.
    """

    def __init__(self, model: RewardModel | Mapping[str, Any], scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift = check_number("scale", scale), check_number("shift", shift)
        if self.scale == 0:
            raise ValueError("scale is 0, and every reward would be the same; required: any other number")
        super().__init__(model, scale=self.scale, shift=self.shift)

    def _change(self, scores: FrameScores) -> FrameScores:
        rewards = self.scale * scores.rewards.astype(np.float64) + self.shift
        return scores._replace(rewards=rewards.astype(np.float32))


class StandardizedReward(RewardOption):
    """R' = (R - mean) / (std + 0.00001) of all rewards so far, this one among them; 0 as long as they are all the same.

    :class:`~vlmrm_wrap.standardizing.RunningStatistics` says how. Early rewards are measured by few, and the same
    frame is paid differently later on, so returns of two times can't be compared: where they are, by
    :class:`~vlmrm_wrap.sb3.RewardAlignment` or to choose a checkpoint, put :class:`~vlmrm_wrap.Standardize` around
    the wrapper instead. ``training = False`` stops the updates, for evaluation, through options outside as well.

    What was learnt goes with pickles, and with ``state_dict()``: ``count``, ``mean`` and ``squares``, three numbers,
    and, where the model inside has a state, that as ``model``. A state without it leaves the model as it is:

    >>> model = StandardizedReward(model)
    >>> model.load_state_dict({"count": 4, "mean": 0.8, "squares": 0.04})  # std = sqrt(squares / count) = 0.1

    The recipe has none of it: a rebuilt option starts anew.
    """

    def __init__(self, model: RewardModel | Mapping[str, Any]) -> None:
        super().__init__(model)
        self._statistics = RunningStatistics()

    @property
    def training(self) -> bool:
        return self._statistics.training

    @training.setter
    def training(self, training: bool) -> None:
        self._statistics.training = training
        self._set_training_inside(training)

    def state_dict(self) -> dict[str, Any]:
        """That of the statistics (:class:`~vlmrm_wrap.standardizing.RunningStatistics`) and of the ``model`` inside."""
        inside = {"model": self.model.state_dict()} if hasattr(self.model, "state_dict") else {}
        return {**self._statistics.state_dict(), **inside}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict`, with or without the model's; ValueError for anything else."""
        own = {name: part for name, part in state.items() if name != "model"} if isinstance(state, Mapping) else state
        statistics = copy(self._statistics)
        statistics.load_state_dict(own)
        if own != state:
            if not hasattr(self.model, "load_state_dict"):
                raise ValueError(f"the state has one of the model inside, and {self.model!r} takes none")
            self.model.load_state_dict(state["model"])
        self._statistics = statistics

    def _change(self, scores: FrameScores) -> FrameScores:
        return scores._replace(rewards=self._statistics.standardized(scores.rewards).astype(np.float32))


def option_from_recipe(recipe: Mapping[str, Any]) -> RewardModel:
    """The option that ``recipe`` describes; ValueError for unknown names or arguments."""
    arguments = dict(recipe)
    name = arguments.pop("option")
    if name not in _HOME:
        raise ValueError(f"unknown reward option {name!r} in the recipe; known: {', '.join(_HOME)}")
    option = getattr(import_module(_HOME[name]), name)
    try:
        inspect.signature(option).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"the recipe of {name} doesn't fit its arguments: {error}") from error
    rebuilt: RewardModel = option(**arguments)
    return rebuilt


def recipe_inside(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of the model inside all options of ``recipe``."""
    return recipe_inside(recipe["model"]) if "option" in recipe else dict(recipe)


def options_around(recipe: Mapping[str, Any], model: RewardModel) -> RewardModel:
    """The options of ``recipe``, anew, around another ``model`` than the one inside it."""
    if "option" not in recipe:
        return model
    return option_from_recipe({**recipe, "model": options_around(recipe["model"], model)})


def check_number(name: str, value: float) -> float:
    """``value`` as a float; TypeError or ValueError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value)
