"""Callbacks for Stable-Baselines3."""

from collections import deque

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["CLIPRewardLogger"]


class CLIPRewardLogger(BaseCallback):
    """Logs ``rollout/ep_clip_rew_mean``, the mean CLIP return of the latest episodes.

    Beside it, Stable-Baselines3 logs ``rollout/ep_rew_mean``: the env's own return, when Monitor is inside
    CLIPRewardVecEnv. Two curves that part are the first sign of a reward that is gamed. The window is the
    algorithm's ``stats_window_size`` (100 episodes), as for ``ep_rew_mean``. Of a deferred env, episodes count
    from when their frames are scored: on-policy, the end of their rollout; off-policy, logs may lag by a few steps.

    ``ep_clip_rew_mean``: the latest value, NaN before the first episode has ended.

    ``clip/cache_hit_rate``: the share of all frames so far that were not encoded because their scores were
    known; where the reward model of a CLIPRewardVecEnv has a cache.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._returns: deque[float] = deque(maxlen=100)
        self._unknown: deque[dict[str, float]] = deque()  # ended, but not scored yet; they become known in order

    def _on_training_start(self) -> None:
        window = getattr(self.model, "_stats_window_size", 100)
        self._returns = deque(self._returns, maxlen=window)

    @property
    def ep_clip_rew_mean(self) -> float:
        return float(np.mean(self._returns)) if self._returns else float("nan")

    def _on_step(self) -> bool:
        self._unknown.extend(info["clip_episode"] for info in self.locals["infos"] if "clip_episode" in info)
        if self._unknown:
            self._record()  # off-policy algorithms write their log in the middle of a rollout
        return True

    def _on_rollout_end(self) -> None:
        self._record()

    def _record(self) -> None:
        while self._unknown and "r" in self._unknown[0]:
            self._returns.append(self._unknown.popleft()["r"])
        if self._returns:
            self.logger.record("rollout/ep_clip_rew_mean", self.ep_clip_rew_mean)
        cache = getattr(getattr(self.training_env, "reward_model", None), "cache_info", None)
        if cache is not None:
            self.logger.record("clip/cache_hit_rate", cache.hit_rate)
