"""ScoringQueue: frames of many steps become full micro-batches, in the order of the steps."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.protocols import FrameScores, RewardModel, check_scores
from vlmrm_wrap.sb3.pending import StepRewards

__all__ = ["ScoringQueue"]

_MICRO_BATCH = 64


class _Batch:
    """A staging array, and whose frames are in it: (step, first env, number of envs), one after the other."""

    def __init__(self, frames: NDArray[np.uint8]) -> None:
        self.frames = frames
        self.parts: list[tuple[StepRewards, int, int]] = []
        self.count = 0
        self.result: Callable[[], FrameScores] | None = None  # while it is being scored

    @property
    def full(self) -> bool:
        return self.count == len(self.frames)

    def stage(self, step: StepRewards, frames: NDArray[np.uint8], start: int) -> int:
        """Copies what has room of ``frames[start:]``; the index of the first that had none."""
        taken = min(len(frames) - start, len(self.frames) - self.count)
        self.frames[self.count : self.count + taken] = frames[start : start + taken]
        self.parts.append((step, start, taken))
        self.count += taken
        return start + taken


class ScoringQueue:
    """Frames wait here until a micro-batch is full: ``reward_model.micro_batch_size``, 64 for a model without.

    A frame is copied once, and its room used again as soon as it is scored: one micro-batch is filled while
    another is scored, whatever the length of a rollout. A model that has
    ``score_later(frames) -> Callable[[], FrameScores]`` scores in the background (the callable waits, and
    ``frames`` may be overwritten once ``score_later`` has returned); any other is called when a micro-batch
    is full. No thread of our own: on 2 cores one gained nothing dependable over that, and cost CPU time.

    A failing scorer loses nothing: its frames stay, and are scored again when the rewards are next asked for.
    """

    def __init__(self, reward_model: RewardModel) -> None:
        self._model = reward_model
        self._background: Callable[[NDArray[np.uint8]], Callable[[], FrameScores]] | None
        self._background = getattr(reward_model, "score_later", None)
        self._size = int(getattr(reward_model, "micro_batch_size", _MICRO_BATCH))
        self._batches: deque[_Batch] = deque()  # oldest first; all but the last are full
        self._spare: list[NDArray[np.uint8]] = []
        self._failure: Exception | None = None

    def put(self, frames: NDArray[np.uint8]) -> StepRewards:
        """Takes a copy of one step's ``frames``, uint8 ``(n, H, W, 3)``; scores nothing yet."""
        step = StepRewards(len(frames), self.flush)
        start = 0
        while start < len(frames):
            if not self._batches or self._batches[-1].full or self._batches[-1].result is not None:
                room = self._spare.pop() if self._spare else np.empty((self._size, *frames.shape[1:]), np.uint8)
                self._batches.append(_Batch(room))
            start = self._batches[-1].stage(step, frames, start)
        return step

    def settle(self) -> None:
        """Before a step: RuntimeError for what failed in the background; waits if two micro-batches are full."""
        self._raise_failure()
        while sum(batch.full for batch in self._batches) > 1:
            self._take()

    def advance(self) -> None:
        """While the envs step: scores what is full. Never raises, for their answers are still to be read."""
        try:
            for batch in self._batches:
                if batch.full:
                    self._begin(batch)
            while self._background is None and self._batches and self._batches[0].full:
                self._take()
        except Exception as error:  # the scorer's, or of what is made of its rewards
            self._failure = error

    def flush(self) -> None:
        """Scores every frame that waits; RuntimeError, with the number of frames, if the scorer raises."""
        self._raise_failure()
        for batch in self._batches:
            self._begin(batch)
        while self._batches:
            self._take()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _begin(self, batch: _Batch) -> None:
        if batch.result is not None:
            return
        frames = batch.frames[: batch.count]
        try:
            if self._background is not None:
                batch.result = self._background(frames)
            else:
                scores = self._model.score(frames)
                batch.result = lambda: scores
        except Exception as error:
            raise self._failed(error) from error

    def _take(self) -> None:
        """Waits for the oldest micro-batch and hands out its rewards."""
        batch = self._batches[0]
        self._begin(batch)
        result: Any = batch.result
        batch.result = None  # so that after an exception the frames are scored again
        try:
            rewards = check_scores(self._model, result(), batch.count).rewards
        except Exception as error:
            raise self._failed(error) from error
        self._batches.popleft()
        self._spare.append(batch.frames)
        start = 0
        for step, env, count in batch.parts:
            step.receive(env, rewards[start : start + count])
            start += count

    def _failed(self, error: Exception) -> RuntimeError:
        waiting = sum(batch.count for batch in self._batches)
        return RuntimeError(
            f"{type(self._model).__name__} failed while {waiting} frames of deferred rewards were waiting for it: "
            f"{type(error).__name__}: {error}. The frames are kept and will be scored when it works again."
        )
