"""Rewards in units of their own spread: what StandardizedReward and Standardize share. Imports numpy only."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["RunningStatistics"]

_EPSILON = 1e-5  # a hundred roundings of a float32 near 1: below it, a spread is noise


class RunningStatistics:
    """Mean and spread of all rewards so far, and what a reward is in their terms.

        R' = (R - mean) / (std + 0.00001),  and 0 as long as all R are the same

    Mean and standard deviation are updated reward by reward (Welford 1962, Technometrics 4:419), so results depend
    on the order of the rewards and not on how they are cut into batches. ``training = False`` stops the updates.
    """

    def __init__(self) -> None:
        self.training = True
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def standardized(self, rewards: ArrayLike) -> NDArray[np.float64]:
        """R' of ``rewards`` ``(n,)``, one after the other, each with itself among those so far."""
        return np.array([self._next(float(reward)) for reward in np.asarray(rewards)], np.float64)

    def state_dict(self) -> dict[str, Any]:
        """``count`` of rewards, their ``mean``, and ``squares``: the sum of their squared distances from it."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, a :meth:`state_dict`; ValueError for anything else."""
        if not _is_state(state):
            raise ValueError(
                f"statistics are count, mean and squares: a count of rewards, and finite numbers, squares not negative "
                f"and 0 for fewer than 2 rewards; got {state!r:.200}"
            )
        self._count, self._mean, self._squares = int(state["count"]), float(state["mean"]), float(state["squares"])

    def _next(self, reward: float) -> float:
        if self.training:
            distance = reward - self._mean
            self._count += 1
            self._mean += distance / self._count
            self._squares += distance * (reward - self._mean)
        if self._squares == 0:
            return 0.0
        return (reward - self._mean) / (math.sqrt(self._squares / self._count) + _EPSILON)


def _is_state(state: Any) -> bool:
    if not isinstance(state, Mapping) or set(state) != {"count", "mean", "squares"}:
        return False
    count, mean, squares = state["count"], state["mean"], state["squares"]
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or int(count) < 0:
        return False
    if not all(isinstance(each, numbers.Real) and math.isfinite(each) for each in (mean, squares)):
        return False
    return bool(squares >= 0 if int(count) > 1 else squares == 0)
