"""Rewards that are not known yet: an array without numbers, from the step to the buffer.

    CLIPRewardVecEnv.step -> PendingRewards -> the algorithm adds gamma * V where a time limit cut -> buffer.add
                                            -> ... the frames are scored ... -> numbers()

It is no ``np.ndarray``, whose memory anybody may read: zeros there would be trained on in silence. Arithmetic
is allowed and its result is unknown too, because VecNormalize keeps statistics of rewards even where it
normalises observations only; whoever wants a number gets a TypeError that says what to do.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

__all__ = ["PendingRewards", "StepRewards", "UnknownRewards"]

_NOT_YET = (
    "the rewards of a deferred CLIPRewardVecEnv are not known at their step, so they can't be read as numbers. "
    "Train with buffers that wait for them: PPO('MlpPolicy', venv, **deferred_kwargs(PPO, venv)); RecurrentPPO "
    "takes use_deferred_buffer(algo) instead. Evaluate on the plain env or on CLIPRewardVecEnv(venv, model), which is "
    "also the one for VecMonitor, VecCheckNan and callbacks that read rewards. In place of VecNormalize("
    "norm_reward=True) put DeferredVecNormalize. HerReplayBuffer can't be used: it relabels transitions with the "
    "env's own reward."
)


class StepRewards:
    """The rewards of one step of ``n`` envs as they come in: ``values`` float32 ``(n,)``, whole once ``scored``."""

    def __init__(self, n: int, wait: Callable[[], None]) -> None:
        """``wait()``: returns when the values are there; raises what the scorer raised."""
        self.values = np.full(n, np.nan, np.float32)
        self.wait = wait
        self._missing = n
        self._listeners: list[Callable[[NDArray[np.float32]], object]] = []

    @property
    def scored(self) -> bool:
        return self._missing == 0

    def receive(self, start: int, rewards: NDArray[np.float32]) -> None:
        self.values[start : start + len(rewards)] = rewards
        self._missing -= len(rewards)
        if self.scored:
            for listener in self._listeners:
                listener(self.values)

    def listen(self, listener: Callable[[NDArray[np.float32]], object]) -> None:
        """``listener(values)`` is called once all are there; steps become known in their order."""
        self._listeners.append(listener)

    def map(self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> "StepRewards":
        """The rewards that ``function`` will make of these."""
        mapped = StepRewards(len(self.values), self.wait)
        self.listen(lambda values: mapped.receive(0, function(values)))
        return mapped


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(_NOT_YET)


class UnknownRewards(NDArrayOperatorsMixin):
    """What arithmetic makes of pending rewards; reading it is a TypeError."""

    dtype = np.dtype(np.float32)
    ndim = 1

    def __init__(self, n: int) -> None:
        self.shape = (n,)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        # with out, or by ufunc.at, somebody's numbers would stay as they were
        return UnknownRewards(*self.shape) if method == "__call__" and out is None else _refuse()

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in (np.mean, np.var, np.clip) and "out" not in kwargs:  # VecNormalize's
            return UnknownRewards(*self.shape)
        return _refuse()

    __array__ = __iter__ = __float__ = __int__ = __index__ = __complex__ = __bool__ = _refuse

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name if name.startswith("__") else f"no {name!r}: {_NOT_YET}")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> "UnknownRewards":
        return UnknownRewards(*self.shape)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Nothing to write: what is unknown stays so."""

    def astype(self, *_: Any, **__: Any) -> "UnknownRewards":
        return self

    def copy(self) -> "UnknownRewards":
        return self


class PendingRewards(UnknownRewards):
    """float32 ``(n,)`` to come. ``rewards[index] += x`` is remembered, and done when the numbers are there.

    Only that, ``copy()`` and ``astype(np.float32)`` keep the promise of numbers; all else makes them unknown.
    """

    def __init__(self, step: StepRewards, added: tuple[tuple[Any, Any], ...] = ()) -> None:
        super().__init__(len(step.values))
        self.step = step
        self._added = added

    def numbers(self) -> NDArray[np.float32]:
        """The rewards; waits for them if need be. Raises what :meth:`StepRewards.wait` raises."""
        if not self.step.scored:
            self.step.wait()
            assert self.step.scored
        values = self.step.values.copy()
        for index, value in self._added:
            values[index] += value  # the algorithm's own expression, so the same bits
        return values

    def __getitem__(self, index: Any) -> "_Element":
        return _Element(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not (isinstance(value, _Element) and value.rewards is self):
            raise TypeError(
                f"rewards[{index!r}] = ... on pending rewards; possible: rewards[{index!r}] += ... {_NOT_YET}"
            )
        self._added += tuple((index, addend) for addend in value.added)

    def astype(self, dtype: Any = np.float32, *_: Any, **__: Any) -> UnknownRewards:
        return self.copy() if np.dtype(dtype) == self.dtype else UnknownRewards(*self.shape)

    def copy(self) -> "PendingRewards":
        return PendingRewards(self.step, self._added)

    def __deepcopy__(self, memo: Any) -> "PendingRewards":
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownRewards, self.shape  # VecNormalize pickles its latest rewards; no frames, no model with them


class _Element(UnknownRewards):
    """``rewards[index]`` on its way from ``__getitem__`` through ``+=`` to ``__setitem__``."""

    def __init__(self, rewards: PendingRewards, index: Any, added: tuple[Any, ...] = ()) -> None:
        super().__init__(*rewards.shape)
        self.rewards, self._index, self.added = rewards, index, added

    __len__ = _refuse

    def __iadd__(self, value: Any) -> "_Element":
        return _Element(self.rewards, self._index, (*self.added, value))
