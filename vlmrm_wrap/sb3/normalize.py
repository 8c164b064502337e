"""DeferredVecNormalize: normalised rewards where the rewards come later."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecNormalize

from vlmrm_wrap.sb3.pending import PendingRewards, UnknownRewards

__all__ = ["DeferredVecNormalize"]


class DeferredVecNormalize(VecNormalize):
    """VecNormalize, outside a deferred CLIPRewardVecEnv too: same arguments, same numbers.

    Statistics of rewards are updated when the rewards become known, in the order of the steps, so that each is
    divided by what VecNormalize would have divided it by. Outside any other env it is VecNormalize.

    >>> venv = DeferredVecNormalize(CLIPRewardVecEnv(make_vec_env("CartPole-v1", 8), model, deferred=True))
    >>> algo = PPO("MlpPolicy", venv, **deferred_kwargs(PPO, venv))
    """

    def reset(self) -> Any:
        self._discounted = np.zeros(self.num_envs)  # anew: steps from before that wait go on with the old
        return super().reset()

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = super().step_wait()
        raw: Any = self.old_reward
        if isinstance(raw, PendingRewards):
            normalize = partial(self._normalize_in_turn, self._discounted, self.training, dones)
            rewards = PendingRewards(raw.step.map(normalize))  # type: ignore[assignment]
        return obs, rewards, dones, infos

    def _update_reward(self, reward: Any) -> None:
        if not isinstance(reward, PendingRewards):
            super()._update_reward(reward)

    def normalize_reward(self, reward: Any) -> Any:
        return reward if isinstance(reward, UnknownRewards) else super().normalize_reward(reward)

    def _normalize_in_turn(
        self, discounted: NDArray[np.float64], training: bool, dones: NDArray[np.bool_], rewards: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What VecNormalize does in a step; ``discounted`` takes the place of its ``returns``."""
        if training:
            discounted *= self.gamma
            discounted += rewards
            self.ret_rms.update(discounted)
        normalized: NDArray[np.float32] = super().normalize_reward(rewards)
        discounted[dones] = 0
        return normalized

    def __getstate__(self) -> dict[str, Any]:
        raw: Any = self.old_reward
        if isinstance(raw, PendingRewards):
            raw.numbers()  # its statistics are complete then
        return super().__getstate__()
