"""scores.npz: what the rewards of some episodes are made of, so that others can be computed without a frame.

s.g and s.b with |g|, |b| and g.b give R for any alpha; the embeddings, if asked for, for any prompts as well.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.protocols import FrameScores, RewardModel, recipe_of, score_frames

__all__ = ["Recording", "ScoreRecorder"]

_COLUMNS = {
    "episode": np.int32,
    "env_reward": np.float64,
    "rewards": np.float32,
    "goal_similarity": np.float32,
    "baseline_similarity": np.float32,
}


@dataclass(frozen=True)
class Recording:
    """Steps of whole episodes, in order: arrays ``(n,)``, and ``embeddings (n, embed_dim)`` or None.

    ``episode``: 0 for the steps of the first, and so on. ``env_reward``: the env's own. ``recipe`` and ``constants``:
    the reward model's; None for a model (a constant, say) without. An option with more prompts has no constants.
    """

    episode: NDArray[np.int32]
    env_reward: NDArray[np.float64]
    rewards: NDArray[np.float32]
    goal_similarity: NDArray[np.float32]
    baseline_similarity: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    recipe: dict[str, Any] | None
    constants: dict[str, float] | None

    def save(self, path: str | os.PathLike[str]) -> None:
        """An npz of plain arrays and, for ``recipe`` and ``constants``, JSON."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        arrays |= {name: json.dumps(getattr(self, name)) for name in ("recipe", "constants")}
        if self.embeddings is not None:
            arrays["embeddings"] = self.embeddings
        with open(path, "wb") as file:  # numpy adds .npz to a name without it
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recording":
        """ValueError for a file that :meth:`save` did not write, FileNotFoundError for none; unpickles nothing."""
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: np.asarray(file[name], dtype) for name, dtype in _COLUMNS.items()}
                embeddings = file.get("embeddings")
                recipe, constants = (json.loads(str(file[name])) for name in ("recipe", "constants"))
        except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no recorded scores; `vlmrm-wrap video --scores` writes some") from error
        return cls(**columns, embeddings=embeddings, recipe=recipe, constants=constants)


class ScoreRecorder:
    """Scores frames one by one and remembers the numbers.

    >>> recorder = ScoreRecorder(model, embeddings=True)                # doctest: +SKIP
    >>> reward = recorder.add(env.render(), env_reward, episode=0)      # doctest: +SKIP
    >>> recorder.recording().save("scores.npz")                         # doctest: +SKIP

    ``embeddings``: keep them too, where the model has any; 4 bytes a dimension and step.
    """

    def __init__(self, reward_model: RewardModel, *, embeddings: bool = False) -> None:
        self._model: Any = reward_model
        self._embeds = embeddings and hasattr(reward_model, "embed")
        self._rows: list[tuple[float, ...]] = []
        self._embeddings: list[NDArray[np.float32]] = []

    def add(self, frame: NDArray[np.uint8], env_reward: float, episode: int = 0) -> float:
        """The reward of the uint8 frame ``(height, width, 3)`` that followed a step."""
        scores = self._score(frame[None])
        self._rows.append((episode, float(env_reward), *(float(part[0]) for part in scores)))
        return float(scores.rewards[0])

    def recording(self) -> Recording:
        """All steps so far."""
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(_COLUMNS)
        arrays: dict[str, Any] = {
            name: np.array(values, dtype) for (name, dtype), values in zip(_COLUMNS.items(), columns, strict=True)
        }
        constants = getattr(self._model, "constants", None)
        return Recording(
            **arrays,
            embeddings=np.concatenate(self._embeddings) if self._embeddings else None,
            recipe=recipe_of(self._model),
            constants=dict(constants) if isinstance(constants, Mapping) else None,
        )

    def _score(self, frames: NDArray[np.uint8]) -> FrameScores:
        if not self._embeds:
            return score_frames(self._model, frames)
        self._embeddings.append(self._model.embed(frames))
        scores: FrameScores = self._model.score_embeddings(self._embeddings[-1])
        return scores
