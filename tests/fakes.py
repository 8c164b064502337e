"""Data that betrays mix-ups: an env that paints who, when and what into its pixels, and a scorer that reads it.

A frame of the wrong env, of the wrong step or of the next episode becomes a wrong *integer*, not a slightly
different float. The module imports numpy and gymnasium only, because env workers import it.
"""

import os
import signal
import sys
import threading
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from vlmrm_wrap.frames import FrameCapture
from vlmrm_wrap.protocols import FrameScores

HEIGHT, WIDTH = 8, 12


class PaintedEnv(gym.Env[np.ndarray, int]):
    """Episode e of env i ends after ``lengths[(e - 1) % len(lengths)]`` steps; the frame holds (i, e, step).

    ``e`` counts resets from 1. Even episodes end by truncation, odd ones by termination. The env's own
    reward is ``100 * i + step``, so it can't be taken for the painted one.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's convention

    def __init__(
        self,
        index: int = 0,
        lengths: tuple[int, ...] = (3, 5, 2),
        render_mode: str | None = "rgb_array",
        size: tuple[int, int] = (HEIGHT, WIDTH),
        own_buffer: bool = False,
    ) -> None:
        """``own_buffer``: render() returns one array, and reset() redraws it."""
        self.index, self.lengths, self.render_mode, self.size = index, lengths, render_mode, size
        self.observation_space = spaces.Box(0, 255, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.episode = self.time = 0
        self.renders = 0
        self.own_buffer = own_buffer
        self._buffer = np.empty((*size, 3), np.uint8)

    def _obs(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.time], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode += 1
        self.time = 0
        self._buffer[:] = (self.index, self.episode, self.time)
        return self._obs(), {}

    def step(self, action: int):
        self.time += 1
        over = self.time >= self.lengths[(self.episode - 1) % len(self.lengths)]
        odd = self.episode % 2 == 1
        return self._obs(), float(100 * self.index + self.time), over and odd, over and not odd, {}

    def render(self) -> np.ndarray:
        self.renders += 1
        frame = self._buffer if self.own_buffer else np.empty((*self.size, 3), np.uint8)
        frame[:] = (self.index, self.episode, self.time)
        return frame


def painted_value(index: int, episode: int, step: int) -> float:
    """The reward that :class:`PaintedReward` gives this frame; exact in float32."""
    return float(10_000 * index + 100 * episode + step)


class PaintedReward:
    """Reads (index, episode, step) back from the pixels; remembers every frame it was asked about."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def score(self, frames: np.ndarray) -> FrameScores:
        assert frames.dtype == np.uint8
        assert frames.ndim == 4
        assert frames.shape[-1] == 3
        corner = frames[:, 0, 0].astype(int)
        assert (frames == frames[:, :1, :1]).all(), "a frame mixes two pictures"
        self.seen += [tuple(row) for row in corner]
        rewards = corner @ np.array([10_000, 100, 1])
        return FrameScores(rewards.astype(np.float32), corner[:, 1].astype(np.float32), corner[:, 2].astype(np.float32))


def captured(index: int, lengths: tuple[int, ...] = (3, 5, 2), **kwargs: Any) -> FrameCapture:
    """What a vector env's env function returns."""
    return FrameCapture(PaintedEnv(index, lengths, **kwargs))


class FailingEnv(PaintedEnv):
    """Does ``how`` in step ``when``: "die", "wedge", "raise", "refuse", "report" what is loaded, or "nothing"."""

    def __init__(self, how: str, when: int) -> None:
        super().__init__(1, (50,))
        self.how, self.when = how, when

    def step(self, action: int):
        *result, info = super().step(action)
        if self.time == self.when:
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "wedge":
                threading.Event().wait()
            elif self.how == "raise":
                raise OSError("the simulator broke")
            elif self.how == "refuse":
                raise ConnectionRefusedError("the simulator hung up")
            elif self.how == "report":
                info = {"torch_loaded": "torch" in sys.modules}
        return *result, info

    def wedge(self) -> None:
        threading.Event().wait()


def failing(how: str, when: int) -> FrameCapture:
    return FrameCapture(FailingEnv(how, when))
