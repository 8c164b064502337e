"""TrainingWatch: what is shown, logged and kept while a training runs."""

import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from runs import save_policy


class TrainingWatch(BaseCallback):
    """The progress bar, about 200 rows of progress.csv, and the checkpoint with the best CLIP return.

    The CLIP return of a policy is the mean over the latest ``window`` finished training episodes; among
    equals the later one wins. The env's own return is shown and logged, and chooses nothing.
    """

    def __init__(self, path: Path, window: int, total_steps: int, rollout: int) -> None:
        """``rollout``: env steps between two updates, all copies together."""
        super().__init__()
        self.path, self.rollout = path, rollout
        self.rollouts_a_row = max(1, total_steps // rollout // 200)
        self.clip_returns: deque[float] = deque(maxlen=window)
        self.env_returns: deque[float] = deque(maxlen=window)
        self.best, self.best_step = -np.inf, 0
        self._unknown: deque[tuple[dict[str, Any], float]] = deque()  # deferred returns come later, in order
        self._bar: tqdm | None = None

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "clip_episode" in info:
                self._unknown.append((info["clip_episode"], info["episode"]["r"]))
        if self._bar is None:
            quiet = {} if sys.stderr.isatty() else {"mininterval": 15.0}
            total, before = self.locals["total_timesteps"], self.num_timesteps - self.training_env.num_envs
            self._bar = tqdm(total=total, initial=before, unit=" steps", smoothing=0.05, **quiet)
        self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_rollout_end(self) -> None:  # the policy here is the one that has just finished the episodes
        self._judge()
        count, rest = divmod(self.num_timesteps, self.rollout)
        if count % self.rollouts_a_row == 0 and not rest:
            self.logger.record("time/iterations", count, exclude="tensorboard")
            self.model.dump_logs()

    def _judge(self) -> None:
        judged = len(self._unknown)
        while self._unknown and "r" in self._unknown[0][0]:
            clip_episode, env_return = self._unknown.popleft()
            self.clip_returns.append(clip_episode["r"])
            self.env_returns.append(env_return)
        if len(self._unknown) == judged:
            return
        mean = float(np.mean(self.clip_returns))
        if self._bar is not None:
            self._bar.set_postfix_str(f"CLIP return {mean:.1f}, env's own {np.mean(self.env_returns):.1f}", False)
        if len(self.clip_returns) == self.clip_returns.maxlen and mean >= self.best:
            self.best, self.best_step = mean, self.num_timesteps
            save_policy(self.model, self.path)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
