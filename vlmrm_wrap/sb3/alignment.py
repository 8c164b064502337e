"""RewardAlignment: while training, does the CLIP reward still say what the env's own reward says?"""

import warnings
from collections import deque
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper

from vlmrm_wrap.insight.metrics import goal_epic_distance, pearson, spearman
from vlmrm_wrap.sb3.pending import PendingRewards
from vlmrm_wrap.sb3.vec_env import CLIPRewardVecEnv

__all__ = ["RewardAlignment", "RewardsPartWarning"]


class RewardsPartWarning(UserWarning):
    """The CLIP return climbs while the env's own falls: the reward is being gamed, or means something else."""


class RewardAlignment(BaseCallback):
    """Logs how the CLIP reward goes with the env's own, and warns, once, when their returns part.

    ``alignment/step_pearson`` and ``step_spearman``: correlations of the rewards of the latest ``steps`` steps.
    ``alignment/ep_pearson`` and ``ep_spearman``: those of the returns of the latest ``episodes`` episodes.
    ``alignment/step_success_*`` and ``ep_success_*``: the same with ``info["success"]`` or ``info["is_success"]``,
    where an env has one (of an episode: its last step's), and ``step_success_epic``, the EPIC distance of Lemma 1.
    What is constant (CartPole pays 1 in every step) correlates with nothing and is not logged.

    The warning, a :class:`RewardsPartWarning`: over the latest ``episodes`` episodes, in the order of their ends,
    Spearman's rank correlation of place and CLIP return is above ``trend``, and that of place and the env's own
    return below ``-trend``. Never before as many episodes have ended. By chance alone one such trend appears in about
    one of 10,000 independent runs of 50 episodes; fewer episodes tell sooner, and more often in vain.
    ``parted_at``: the time step of the warning, None before.

    Goes with a CLIPRewardVecEnv, whatever is around it, and compares the rewards that this pays: put what makes them
    depend on their time (:class:`~vlmrm_wrap.Standardize`) outside. The env's own returns are summed from
    ``info["env_reward"]``, without a Monitor. An episode counts if it was seen from its first step to its last. Steps
    of a deferred one count when their rewards become known.

    >>> PPO("MlpPolicy", venv).learn(100_000, callback=[CLIPRewardLogger(), RewardAlignment()])

    ValueError for fewer than 2 steps or 10 episodes, a ``trend`` outside (0, 1), or, when the training starts, an env
    without a CLIPRewardVecEnv.
    """

    def __init__(self, *, steps: int = 5000, episodes: int = 50, trend: float = 0.5, verbose: int = 0) -> None:
        super().__init__(verbose)
        if steps < 2 or episodes < 10:
            raise ValueError(f"steps is {steps} and episodes {episodes}; required: at least 2 and 10")
        if not 0 < trend < 1:
            raise ValueError(f"trend is {trend}; required: a rank correlation in (0, 1)")
        self.parted_at: int | None = None
        self._trend = trend
        # (CLIP's, the env's, success or NaN) of each step, and of each episode
        self._steps: deque[tuple[float, float, float]] = deque(maxlen=steps)
        self._episodes: deque[tuple[float, float, float]] = deque(maxlen=episodes)
        self._returns: NDArray[np.float64] = np.zeros((0, 2))
        self._new_steps = 0
        self._latest: dict[str, float] = {}

    def _on_training_start(self) -> None:
        layer: Any = self.training_env
        while isinstance(layer, VecEnvWrapper) and not isinstance(layer, CLIPRewardVecEnv):
            layer = layer.venv
        if not isinstance(layer, CLIPRewardVecEnv):
            raise ValueError(
                f"RewardAlignment found no CLIP reward in {type(self.training_env).__name__}; required: a "
                "CLIPRewardVecEnv in the env that is trained on"
            )
        self._source = layer  # of CLIP's rewards, from inside of what normalises or transforms them
        if len(self._returns) != layer.num_envs:  # else episodes may go on
            self._returns = np.full((layer.num_envs, 2), np.nan)  # of an episode whose beginning was not seen

    def _on_step(self) -> bool:
        infos, dones = self.locals["infos"], self.locals["dones"]
        success = [float(info.get("success", info.get("is_success", np.nan))) for info in infos]
        own = [info["env_reward"] for info in infos]
        began = self._source.latest_lengths == 1
        count = partial(self._count, own, success, began, dones, self.num_timesteps)
        rewards = self._source.latest_rewards
        if isinstance(rewards, PendingRewards):
            rewards.step.listen(count)
        else:
            count(rewards)
        if dones.any():
            self._record()  # off-policy algorithms write their log in the middle of a rollout
        return True

    def _count(
        self,
        own: list[float],
        success: list[float],
        began: NDArray[np.bool_],
        dones: Any,
        timestep: int,
        rewards: NDArray[np.float32],
    ) -> None:
        self._returns[began] = 0.0  # here, not where one ends: a reset may have cut the last one short
        for i, step in enumerate(zip(rewards.tolist(), own, success, strict=True)):
            self._steps.append(step)
            self._new_steps += 1
            self._returns[i] += step[:2]
            if dones[i] and not np.isnan(self._returns[i]).any():
                self._episodes.append((*self._returns[i].tolist(), success[i]))
                self._warn_if_parted(timestep)

    def _on_rollout_end(self) -> None:
        self._record()

    def _warn_if_parted(self, timestep: int) -> None:
        if self.parted_at is not None or len(self._episodes) < (self._episodes.maxlen or 0):
            return
        clip_returns, env_returns, _ = np.array(self._episodes).T
        climbs, falls = (_correlation(spearman, np.arange(len(r)), r) for r in (clip_returns, env_returns))
        if climbs is not None and falls is not None and climbs > self._trend and falls < -self._trend:
            self.parted_at = timestep
            warnings.warn(
                f"over the latest {len(clip_returns)} episodes, up to step {timestep}, the CLIP return "
                f"climbs (rank correlation with time {climbs:.2f}) while the env's own falls ({falls:.2f}). If the "
                "env's own reward is what you mean, this one is being gamed: watch a video, and try other prompts.",
                RewardsPartWarning,
                stacklevel=2,
            )

    def _record(self) -> None:
        # Ranking 5000 steps takes milliseconds, and off-policy algorithms end a rollout every few steps.
        if self._new_steps > 0.02 * len(self._steps):
            self._new_steps = 0
            self._latest = {**_alignment("step", self._steps), **_alignment("ep", self._episodes)}
        for name, value in self._latest.items():
            self.logger.record(f"alignment/{name}", value)


def _alignment(unit: str, rows: deque[tuple[float, float, float]]) -> dict[str, float]:
    """The correlations that exist."""
    if len(rows) < 2:
        return {}
    clip, env, success = np.array(rows).T
    found = {
        f"{unit}_pearson": _correlation(pearson, clip, env),
        f"{unit}_spearman": _correlation(spearman, clip, env),
    }
    known = ~np.isnan(success)
    if known.sum() >= 2:
        found |= {
            f"{unit}_success_pearson": _correlation(pearson, clip[known], success[known]),
            f"{unit}_success_spearman": _correlation(spearman, clip[known], success[known]),
        }
        if unit == "step":
            found["step_success_epic"] = _correlation(goal_epic_distance, clip[known], success[known])
    return {name: value for name, value in found.items() if value is not None}


def _correlation(measure: Any, a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """None where one of them is constant (or success is no bool)."""
    try:
        return float(measure(a, b))
    except ValueError:
        return None
