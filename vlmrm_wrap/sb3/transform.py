"""The Stable-Baselines3 side of :func:`vlmrm_wrap.transform_reward`."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from vlmrm_wrap.sb3.pending import PendingRewards
from vlmrm_wrap.wrappers.transform import Transform, Transformer

__all__ = ["TransformedVecEnv"]


class TransformedVecEnv(VecEnvWrapper):
    """What :func:`~vlmrm_wrap.transform_reward` puts around a CLIPRewardVecEnv; rewards are float32 ``(n,)``.

    Those of a deferred one are transformed when they become known, in the order of the steps.
    """

    def __init__(self, venv: VecEnv, transform: Transform) -> None:
        super().__init__(venv)
        self._transformed, self._previous = Transformer(venv, transform), np.zeros(venv.num_envs)

    def reset(self) -> Any:
        self._previous = np.zeros(self.num_envs)  # anew: steps from before that wait go on with the old
        return self.venv.reset()

    def step_wait(self) -> tuple[Any, Any, NDArray[np.bool_], list[dict[str, Any]]]:
        obs, rewards, dones, infos = self.venv.step_wait()
        env_rewards = [info["env_reward"] for info in infos]
        cut_off = [info.get("TimeLimit.truncated", False) for info in infos]
        terminated = dones & ~np.array(cut_off, np.bool_)
        change = partial(self._change, self._previous, env_rewards, terminated, dones)
        if isinstance(rewards, PendingRewards):
            return obs, PendingRewards(rewards.step.map(change)), dones, infos
        infos = [{"clip_reward": float(reward), **info} for reward, info in zip(rewards, infos, strict=True)]
        return obs, change(rewards), dones, infos

    def _change(
        self, previous: Any, env_rewards: Any, terminated: Any, dones: Any, rewards: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return self._transformed(previous, rewards, env_rewards, terminated, dones).astype(np.float32)
