"""A finished run's rewards under other alphas and other prompts, from what the run stored: nothing is rendered.

Another alpha needs s.g, s.b and three constants. Other prompts need the embeddings of the frames as well, and only
the sentences are encoded. A run that stored less has to be played and encoded again, and is told so.
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
    ``baseline_prompts``: other sentences; a side that is None stays as it was. ValueError where what is stored does
    not suffice, saying what has to be encoded again and how.
    """
    path = Path(run)
    path = path / SCORES if path.is_dir() else path
    if not path.exists():
        if Path(run).is_dir():
            RunFolder.read(Path(run))  # ValueError for any other folder
        again = f": {_AGAIN} vlmrm-wrap video {run} --scores {path} --embeddings" if path != Path(run) else ""
        raise FileNotFoundError(f"no recorded scores at {path}{again}")
    recording = Recording.load(path)
    if recording.recipe is None or recording.constants is None:
        raise ValueError(f"{path} was recorded with a reward model that has no prompts, so there is nothing to change")
    changed = {
        name: [prompts] if isinstance(prompts, str) else list(prompts)
        for name, prompts in (("goal_prompts", goal_prompts), ("baseline_prompts", baseline_prompts))
        if prompts is not None
    }
    _refuse_other_prompts(recording.recipe, path)
    inside = recipe_inside(recording.recipe)
    if alphas is None and changed:
        alphas = [inside["alpha"]]
    elif alphas is None:
        alphas = [0.0] if inside["baseline_prompts"] is None else [0.0, 0.25, 0.5, 0.75, 1.0]
    if not changed:
        scores = FrameScores(recording.rewards, recording.goal_similarity, recording.baseline_similarity)
        rewards = _rewards(recording.recipe, scores, recording.constants, alphas)
        return Sweep(recording, rewards, "nothing", prompts_of(inside))
    if recording.embeddings is None:
        raise ValueError(
            f"{path} stores no embeddings, and for other prompts {_AGAIN} vlmrm-wrap video ... --scores {path} "
            "--embeddings. Other alphas need nothing"
        )
    model = _model_of(recording, inside, path).with_settings(**changed, alpha=max(alphas))
    scores = model.score_embeddings(recording.embeddings)
    rewards = _rewards(recording.recipe, scores, model.constants, alphas)
    return Sweep(recording, rewards, "sentences", prompts_of({**inside, **changed}))


def _model_of(recording: Recording, recipe: dict[str, Any], path: Path) -> "CLIPRewardModel":
    """The model that the recording was made with; ValueError if its weights are other ones by now."""
    from vlmrm_wrap.reward_model import CLIPRewardModel

    assert recording.embeddings is not None
    # where the run had its image tower need not exist here, and sentences are encoded in float32 anyway
    here = {"device": "auto", "dtype": "auto", "backend": "torch"}
    model = CLIPRewardModel.from_recipe({**recipe, **here})
    again = model.score_embeddings(recording.embeddings).goal_similarity
    if np.abs(again - recording.goal_similarity).max(initial=0.0) > _TOLERANCE:
        raise ValueError(
            f"{path} was recorded with other weights of {recipe['encoder']!r} than this version has, so for "
            f"other prompts {_AGAIN} vlmrm-wrap video ... --scores {path} --embeddings. Other alphas need nothing"
        )
    return model


@dataclass(frozen=True)
class _Scored:
    """A reward model that knows the scores of the frames already, whatever they show."""

    scores: FrameScores

    def score(self, frames: NDArray[np.uint8]) -> FrameScores:
        return self.scores


def _rewards(
    recipe: dict[str, Any], scores: FrameScores, constants: dict[str, float], alphas: Sequence[float]
) -> dict[float, NDArray[np.float32]]:
    """R for each alpha, and what the run's options around its model make of it."""
    goal, baseline = (np.asarray(each, np.float64) for each in scores[1:])
    paid: dict[float, NDArray[np.float32]] = {}
    for alpha in alphas:
        plain = reward_from_similarities(goal, baseline, **constants, alpha=alpha).astype(np.float32)
        model = options_around(recipe, _Scored(scores._replace(rewards=plain)))
        paid[float(alpha)] = model.score(np.zeros((len(plain), 1, 1, 3), np.uint8)).rewards
    return paid


def _refuse_other_prompts(recipe: dict[str, Any], path: Path) -> None:
    """ValueError for an option that has prompts of its own: neither alpha nor goal would be all of its reward."""
    while "option" in recipe:
        if recipe["option"] not in ("ScaledReward", "StandardizedReward"):
            raise ValueError(f"{path} was recorded with {recipe['option']}, whose own prompts sweep doesn't change")
        recipe = recipe["model"]
