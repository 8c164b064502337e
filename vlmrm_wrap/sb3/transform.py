"""The Stable-Baselines3 side of :func:`vlmrm_wrap.transform_reward`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from vlmrm_wrap.wrappers.transform import Transform, Transformer

__all__ = ["TransformedVecEnv"]


class TransformedVecEnv(VecEnvWrapper):
    """What :func:`~vlmrm_wrap.transform_reward` puts around a CLIPRewardVecEnv; rewards are float32 ``(n,)``."""

    def __init__(self, venv: VecEnv, transform: Transform) -> None:
        super().__init__(venv)
        self._transformed = Transformer(venv, transform, venv.num_envs)

    def reset(self) -> Any:
        self._transformed.restart()
        return self.venv.reset()

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        obs, rewards, dones, infos = self.venv.step_wait()
        env_rewards = [info["env_reward"] for info in infos]
        cut_off = [info.get("TimeLimit.truncated", False) for info in infos]
        transformed = self._transformed(rewards, env_rewards, dones & ~np.array(cut_off, np.bool_), dones)
        infos = [{"clip_reward": float(reward), **info} for reward, info in zip(rewards, infos, strict=True)]
        return obs, transformed.astype(np.float32), dones, infos
