"""A finished run's rewards under other alphas and other prompts, from what the run stored: nothing is rendered.

Another alpha needs s.g, s.b and three constants. Other prompts need the embeddings of the frames as well, and only
the sentences are encoded; so does another alpha of WeightedGoals, whose s.g and s.b are sums. A run that stored less
has to be played and encoded again, and is told so.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.policies import RunFolder
from vlmrm_wrap.insight.recording import Recording
from vlmrm_wrap.insight.tables import prompts_of, rank_correlation, table, write_csv
from vlmrm_wrap.options import options_around, recipe_inside
from vlmrm_wrap.protocols import FrameScores
from vlmrm_wrap.reward import reward_from_similarities

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["SCORES", "Sweep", "sweep"]

SCORES = "scores.npz"
"""The name of the recording in a run folder."""

Prompts = str | Sequence[str]

_TOLERANCE = 1e-3  # of similarities: devices differ by less, and the weights of two trainings by more
_AGAIN = "the frames have to be rendered and encoded again, once:"
_SCORED_SO = "score_embeddings(Recording.load(path).embeddings) of such an option gives the rewards"
# Options whose reward under another alpha is not known from a recording, and what to do.
_NOT_SWEPT = {
    "StandardizedReward": (
        "whose rewards depend on all before them, which are not in the recording. Record with the model inside it, "
        "which pays R"
    ),
    "SoftmaxReward": f"which pays a probability and knows no alpha. Of other prompts, {_SCORED_SO}",
    "PerEnvPrompts": "whose prompts are those of several envs. Record each env with the model that has its prompt",
}


@dataclass(frozen=True)
class Sweep:
    """``rewards``: alpha -> float32 ``(n,)`` for the steps of ``recording``, which holds the rewards as they were.

    ``encoded``: what had to be encoded for it. ``prompts``: in words.
    """

    recording: Recording
    rewards: dict[float, NDArray[np.float32]]
    encoded: str
    prompts: str

    def __str__(self) -> str:
        old, own = self.recording.rewards, self.recording.env_reward
        rows = [["as run", *self._row(old)]] + [
            [f"{alpha:g}", *self._row(each)] for alpha, each in self.rewards.items()
        ]
        header = ["alpha", "CLIP return", "mean R", "std R", "~ as run", "~ env reward"]
        episodes = self._episodes()
        return "\n".join(
            [
                f"{len(own)} steps of {episodes} episode{'s' * (episodes > 1)}; encoded now: {self.encoded}; "
                "~ is the rank correlation of R",
                table(header, rows),
            ]
        )

    def _episodes(self) -> int:
        return len(np.unique(self.recording.episode))

    def _row(self, rewards: NDArray[np.float32]) -> list[float]:
        total = float(rewards.sum(dtype=np.float64)) / self._episodes()
        correlations = [
            rank_correlation(rewards, other) for other in (self.recording.rewards, self.recording.env_reward)
        ]
        return [total, float(rewards.mean()), float(rewards.std()), *correlations]

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """A row a step: episode, the reward as it was, for each alpha, and the env's own."""
        columns: dict[str, NDArray[Any]] = {"episode": self.recording.episode, "reward_as_run": self.recording.rewards}
        columns |= {f"reward_alpha_{alpha:g}": each for alpha, each in self.rewards.items()}
        write_csv(path, {**columns, "env_reward": self.recording.env_reward})

    def plot(self, path: str | os.PathLike[str]) -> None:
        """The curves over the steps, PNG or by suffix."""
        from vlmrm_wrap.insight.plotting import save_curves

        curves: dict[str, NDArray[Any]] = {"as run": self.recording.rewards}
        curves |= {f"alpha = {alpha:g}": each for alpha, each in self.rewards.items()}
        starts = np.flatnonzero(np.diff(self.recording.episode)) + 1
        steps = np.arange(len(self.recording.rewards))
        save_curves(
            path, f"a run's rewards, computed anew\n{self.prompts}", "step", steps, curves, breaks=starts.tolist()
        )


def sweep(
    run: str | os.PathLike[str],
    alphas: Sequence[float] | None = None,
    *,
    goal_prompts: Prompts | None = None,
    baseline_prompts: Prompts | None = None,
) -> Sweep:
    """R for each of ``alphas``, over the steps that ``run``, a run folder or its scores.npz, has recorded.

    ``alphas``: None for the run's own when prompts are given, else five from 0 to 1. ``goal_prompts``,
    ``baseline_prompts``: other sentences; a side that is None stays as it was. ScaledReward is applied as in the run,
    and of WeightedGoals alpha can be another, where embeddings are stored. ValueError for other options, or where what
    is stored does not suffice, saying what has to be encoded again and how.
    """
    path = Path(run)
    path = path / SCORES if path.is_dir() else path
    if not path.exists():
        if Path(run).is_dir():
            RunFolder.read(Path(run))  # ValueError for any other folder
        again = f": {_AGAIN} vlmrm-wrap video {run} --scores {path} --embeddings" if path != Path(run) else ""
        raise FileNotFoundError(f"no recorded scores at {path}{again}")
    recording = Recording.load(path)
    changed = {
        name: [prompts] if isinstance(prompts, str) else list(prompts)
        for name, prompts in (("goal_prompts", goal_prompts), ("baseline_prompts", baseline_prompts))
        if prompts is not None
    }
    weighted = _weighted_goals(recording.recipe, path)
    if recording.recipe is None or (recording.constants is None and weighted is None):
        raise ValueError(f"{path} was recorded with a reward model that has no prompts, so there is nothing to change")
    if weighted is not None and changed:
        raise ValueError(
            f"{path} was recorded with WeightedGoals, of which sweep changes alpha, and no prompts. Of others, "
            f"{_SCORED_SO}"
        )
    inside = recipe_inside(recording.recipe)
    if alphas is None and changed:
        alphas = [inside["alpha"]]
    elif alphas is None:
        alphas = [0.0] if inside["baseline_prompts"] is None else [0.0, 0.25, 0.5, 0.75, 1.0]
    if weighted is None and not changed:
        return Sweep(recording, _from_similarities(recording, alphas), "nothing", prompts_of(inside))
    wanted = "other prompts" if weighted is None else "another alpha of WeightedGoals"
    again = f"for {wanted} {_AGAIN} vlmrm-wrap video ... --scores {path} --embeddings"
    again += ". Other alphas need nothing" if weighted is None else ""
    if recording.embeddings is None:
        raise ValueError(f"{path} stores no embeddings, and {again}")
    model = _model_of(recording, inside)
    if model is None:
        raise ValueError(
            f"{path} was recorded with other weights of {inside['encoder']!r} than this version has, so {again}"
        )
    rewards = _from_embeddings(recording, model, changed, alphas)
    shown = {} if weighted is None else {"goal_prompts": _sentences(weighted)}
    return Sweep(recording, rewards, "sentences", prompts_of({**inside, **changed, **shown}))


def _model_of(recording: Recording, recipe: dict[str, Any]) -> "CLIPRewardModel | None":
    """The CLIP of ``recipe`` that the recording was made with; None if its weights are other ones by now."""
    from vlmrm_wrap.reward_model import CLIPRewardModel

    assert recording.recipe is not None
    # where the run had its image tower need not exist here, and sentences are encoded in float32 anyway
    here = {"device": "auto", "dtype": "auto", "backend": "torch"}
    model = CLIPRewardModel.from_recipe({**recipe, **here})
    paid: Any = options_around(recording.recipe, model)
    again = paid.score_embeddings(recording.embeddings).goal_similarity
    return None if np.abs(again - recording.goal_similarity).max(initial=0.0) > _TOLERANCE else model


@dataclass(frozen=True)
class _Scored:
    """A reward model that knows the scores of the frames already, whatever they show."""

    scores: FrameScores

    def score(self, frames: NDArray[np.uint8]) -> FrameScores:
        return self.scores


def _from_similarities(recording: Recording, alphas: Sequence[float]) -> dict[float, NDArray[np.float32]]:
    """R for each alpha, and what the run's options around its model make of it."""
    assert recording.recipe is not None
    assert recording.constants is not None
    scores = FrameScores(recording.rewards, recording.goal_similarity, recording.baseline_similarity)
    goal, baseline = (np.asarray(each, np.float64) for each in scores[1:])
    paid: dict[float, NDArray[np.float32]] = {}
    for alpha in alphas:
        plain = reward_from_similarities(goal, baseline, **recording.constants, alpha=alpha).astype(np.float32)
        model = options_around(recording.recipe, _Scored(scores._replace(rewards=plain)))
        paid[float(alpha)] = model.score(np.zeros((len(plain), 1, 1, 3), np.uint8)).rewards
    return paid


def _from_embeddings(
    recording: Recording, model: "CLIPRewardModel", changed: dict[str, Any], alphas: Sequence[float]
) -> dict[float, NDArray[np.float32]]:
    """The same with ``changed`` prompts."""
    assert recording.recipe is not None
    paid: dict[float, NDArray[np.float32]] = {}
    for alpha in alphas:
        option: Any = options_around(recording.recipe, model.with_settings(**changed, alpha=alpha))
        paid[float(alpha)] = option.score_embeddings(recording.embeddings).rewards
    return paid


def _weighted_goals(recipe: dict[str, Any] | None, path: Path) -> dict[str, Any] | None:
    """The WeightedGoals in ``recipe``, if any; ValueError for an option whose reward isn't known for other alphas."""
    while recipe is not None and "option" in recipe:
        if recipe["option"] in _NOT_SWEPT:
            raise ValueError(f"{path} was recorded with {recipe['option']}, {_NOT_SWEPT[recipe['option']]}")
        if recipe["option"] == "WeightedGoals":
            return recipe
        recipe = recipe["model"]
    return None


def _sentences(weighted: dict[str, Any]) -> list[str]:
    """The goals of a WeightedGoals with their weights, for a title."""
    each = [goal if isinstance(goal, str) else " / ".join(goal) for goal in weighted["goals"]]
    return [f"{weight:g} x {goal}" for weight, goal in zip(weighted["weights"], each, strict=True)]
