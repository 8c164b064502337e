"""Options around a reward model: reward models themselves, so they nest, and go wherever a reward model goes.

    ScaledReward(StandardizedReward(model), scale=0.1)

Here are those that change the numbers of any reward model, :mod:`vlmrm_wrap.prompts` has those that ask more of
a CLIP. The similarities in FrameScores stay as they are. A recipe names the option and holds the recipe of the
model inside, so env.spec rebuilds the whole nest. Imports numpy only.
"""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.protocols import FrameScores, RewardModel, as_reward_model, check_scores, recipe_of, score_frames

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


# What an option has where the model inside has it: for those who batch, save, log and show what is encoded.
_INSIDE = {
    "micro_batch_size",
    "num_envs",
    "cache_info",
    "constants",
    "embed",
    "preview",
    "state_dict",
    "load_state_dict",
}


class RewardOption:
    """What the options share: ``model`` inside, and a ``recipe`` made of its recipe and the ``arguments``."""

    def __init__(self, model: RewardModel | Mapping[str, Any], **arguments: Any) -> None:
        self.model: Any = as_reward_model(model)
        self._arguments = arguments

    @property
    def recipe(self) -> dict[str, Any] | None:
        """A JSON-able dict that rebuilds this option and the model inside; None if that has no recipe."""
        inner = recipe_of(self.model)
        return None if inner is None else {"option": type(self).__name__, "model": inner, **self._arguments}

    def __getattr__(self, name: str) -> Any:
        if name in _INSIDE:
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
    """R' = (R - mean) / std of all rewards so far, this one among them; 0 as long as they are all the same.

    Mean and standard deviation are updated reward by reward (Welford 1962, Technometrics 4:419), so results depend
    on the order of the frames and not on how they are cut into batches. Early rewards are measured by few, and the
    same frame is paid differently later on. ``training = False`` stops the updates, for evaluation.

    What was learnt goes with pickles, and with ``state_dict()``, a JSON-able dict to save beside the policy:

    >>> model = StandardizedReward(model)
    >>> model.load_state_dict({"count": 4, "mean": 0.8, "squares": 0.04})  # std = sqrt(squares / count) = 0.1

    The recipe has none of it: a rebuilt option starts anew.
    """

    def __init__(self, model: RewardModel | Mapping[str, Any]) -> None:
        super().__init__(model)
        self.training = True
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """``count`` of rewards, their ``mean``, and ``squares``: the sum of their squared distances from it."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict`; ValueError for anything else."""
        if set(state) != {"count", "mean", "squares"} or not all(map(math.isfinite, state.values())):
            raise ValueError(f"a state has finite numbers count, mean and squares, got {dict(state)!r}")
        self._count, self._mean, self._squares = int(state["count"]), float(state["mean"]), float(state["squares"])

    def _change(self, scores: FrameScores) -> FrameScores:
        return scores._replace(rewards=np.array([self._standardized(float(r)) for r in scores.rewards], np.float32))

    def _standardized(self, reward: float) -> float:
        if self.training:
            distance = reward - self._mean
            self._count += 1
            self._mean += distance / self._count
            self._squares += distance * (reward - self._mean)
        return (reward - self._mean) / math.sqrt(self._squares / self._count) if self._squares > 0 else 0.0


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
