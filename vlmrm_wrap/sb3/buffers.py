"""Stable-Baselines3's buffers, with rewards that come later: the other end of ``CLIPRewardVecEnv(deferred=True)``.

    add()      takes PendingRewards, holds NaN in their place
    before training reads rewards (GAE on-policy, a sample off-policy, a pickle): all are there

``deferred_kwargs`` picks the buffer. No algorithm is subclassed.
"""

from collections import deque
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import (
    BaseBuffer,
    DictReplayBuffer,
    DictRolloutBuffer,
    NStepReplayBuffer,
    ReplayBuffer,
    RolloutBuffer,
)
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecCheckNan, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from vlmrm_wrap.sb3.normalize import DeferredVecNormalize
from vlmrm_wrap.sb3.pending import PendingRewards, UnknownRewards
from vlmrm_wrap.sb3.vec_env import CLIPRewardVecEnv

__all__ = ["CLIPReplayBuffer", "CLIPRolloutBuffer", "deferred_kwargs", "use_deferred_buffer"]

_NORMALIZED = (
    "VecNormalize(norm_reward=True) needs each reward at its step, and deferred ones come later. Put "
    "vlmrm_wrap.sb3.DeferredVecNormalize in its place, which takes the same arguments and gives the same rewards; "
    "or VecNormalize(norm_reward=False), or CLIPRewardVecEnv(deferred=False)."
)


class _DeferredBuffer(BaseBuffer):
    rewards: NDArray[np.float32]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._pending: deque[tuple[int, PendingRewards]] = deque()  # (row, its rewards), oldest first
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        self._pending.clear()
        super().reset()

    def score_pending(self) -> None:
        """Waits until all of ``rewards`` is known. RuntimeError if the scorer fails; its frames are kept."""
        self._fill(wait=True)

    def _hold(self, row: int, reward: PendingRewards) -> None:
        self._pending.append((row, reward))
        self._fill(wait=False)

    def _fill(self, *, wait: bool) -> None:
        while self._pending and (wait or self._pending[0][1].step.scored):
            row, reward = self._pending[0]
            self.rewards[row] = reward.numbers()  # a row that has come round again gets its later reward later
            self._pending.popleft()

    def _placeholder(self, reward: Any) -> NDArray[np.float32]:
        """NaN to store until ``reward`` is known; TypeError unless it will be."""
        if isinstance(reward, PendingRewards):
            return np.full(self.n_envs, np.nan, np.float32)
        if isinstance(reward, UnknownRewards):
            raise TypeError(f"the deferred rewards were changed on their way to the buffer. {_NORMALIZED}")
        raise TypeError(
            f"{type(self).__name__} got rewards of type {type(reward).__name__}; required: those of a "
            "CLIPRewardVecEnv(..., deferred=True), as they come. An env without deferred=True needs no buffer of ours."
        )

    def __getstate__(self) -> dict[str, Any]:
        self.score_pending()
        return self.__dict__.copy()


class CLIPRolloutBuffer(_DeferredBuffer, RolloutBuffer):
    """RolloutBuffer of a deferred env: rewards are known when advantages are computed.

    For PPO, A2C and TRPO with Box observations: ``rollout_buffer_class=CLIPRolloutBuffer``.
    :func:`deferred_kwargs` finds the buffer of every algorithm and observation space.
    """

    def add(self, obs: Any, action: Any, reward: Any, *args: Any, **kwargs: Any) -> None:
        row = self.pos
        super().add(obs, action, self._placeholder(reward), *args, **kwargs)
        self._hold(row, reward)

    def compute_returns_and_advantage(self, *args: Any, **kwargs: Any) -> None:
        self.score_pending()
        super().compute_returns_and_advantage(*args, **kwargs)


class CLIPReplayBuffer(_DeferredBuffer, ReplayBuffer):
    """ReplayBuffer of a deferred env: rewards are known when a batch is sampled, or the buffer saved.

    For DQN, DDPG, TD3, SAC, QRDQN and TQC with Box observations: ``replay_buffer_class=CLIPReplayBuffer``.
    :func:`deferred_kwargs` finds the buffer of every algorithm and observation space.
    """

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, *args: Any, **kwargs: Any) -> None:
        row = self.pos
        super().add(obs, next_obs, action, self._placeholder(reward), *args, **kwargs)
        self._hold(row, reward)

    def _get_samples(self, batch_inds: NDArray[Any], env: VecNormalize | None = None) -> Any:
        if env is not None and env.norm_reward and not isinstance(env, DeferredVecNormalize):
            raise ValueError(_NORMALIZED)
        self.score_pending()
        return super()._get_samples(batch_inds, env)


class CLIPDictRolloutBuffer(CLIPRolloutBuffer, DictRolloutBuffer):
    """The same for Dict observations."""


class CLIPDictReplayBuffer(CLIPReplayBuffer, DictReplayBuffer):
    """The same for Dict observations."""


class CLIPNStepReplayBuffer(CLIPReplayBuffer, NStepReplayBuffer):
    """The same for n-step returns."""


def deferred_kwargs(
    algorithm: type[BaseAlgorithm], venv: VecEnv, *, n_steps: int = 1, gamma: float | None = None
) -> dict[str, Any]:
    """Arguments that give ``algorithm`` the buffer which waits for the rewards of the deferred ``venv``.

    >>> algo = PPO("MlpPolicy", venv, **deferred_kwargs(PPO, venv))

    For on- and off-policy algorithms of Stable-Baselines3 and sb3-contrib, Box and Dict observations. n-step
    returns of an off-policy algorithm are asked for here, with its ``gamma``, for Stable-Baselines3 ignores its own
    ``n_steps`` beside a buffer class: ``DQN(..., gamma=0.99, **deferred_kwargs(DQN, venv, n_steps=3, gamma=0.99))``.
    RecurrentPPO has no such argument: ``algo = use_deferred_buffer(RecurrentPPO("MlpLstmPolicy", venv))``.

    Raises ValueError for a ``venv`` that is not deferred, has VecNormalize(norm_reward=True), VecMonitor or
    VecCheckNan outside, or an ``n_steps`` that can't be meant; TypeError for an algorithm without a buffer argument.
    """
    _check_deferred(venv)
    has_dict = isinstance(venv.observation_space, spaces.Dict)
    if not isinstance(algorithm, type) or not issubclass(algorithm, OnPolicyAlgorithm | OffPolicyAlgorithm):
        raise TypeError(
            f"{getattr(algorithm, '__name__', algorithm)} is no class of an algorithm with a rollout or replay buffer; "
            "required: PPO, A2C, DQN, DDPG, SAC, TD3, or one of sb3-contrib's. Others read each reward at its step: "
            "use CLIPRewardVecEnv(deferred=False)."
        )
    if issubclass(algorithm, OffPolicyAlgorithm):
        if n_steps == 1:
            return {"replay_buffer_class": CLIPDictReplayBuffer if has_dict else CLIPReplayBuffer}
        if n_steps < 1 or gamma is None or has_dict:
            raise ValueError(
                f"n_steps={n_steps}, gamma={gamma}, {'Dict' if has_dict else 'Box'} observations; n-step returns need "
                "n_steps of at least 2, the algorithm's own gamma, and no Dict, which Stable-Baselines3 refuses as well"
            )
        kwargs = {"n_steps": n_steps, "gamma": gamma}
        return {"replay_buffer_class": CLIPNStepReplayBuffer, "replay_buffer_kwargs": kwargs}
    if n_steps != 1:
        raise ValueError(f"n_steps={n_steps}: {algorithm.__name__} takes its n_steps itself; this one is off-policy's")
    if _is_contribs(algorithm):
        from vlmrm_wrap.sb3.contrib import rollout_buffer_class

        return {"rollout_buffer_class": rollout_buffer_class(algorithm, has_dict)}
    return {"rollout_buffer_class": CLIPDictRolloutBuffer if has_dict else CLIPRolloutBuffer}


_Algorithm = TypeVar("_Algorithm", bound=BaseAlgorithm)


def use_deferred_buffer(algo: _Algorithm) -> _Algorithm:
    """Gives RecurrentPPO, which takes no buffer argument, the one for its deferred env; returns ``algo``.

    >>> algo = use_deferred_buffer(RecurrentPPO("MlpLstmPolicy", venv))

    Again after ``RecurrentPPO.load``, which makes a plain buffer. TypeError for any other algorithm: use
    :func:`deferred_kwargs`. ValueError as there.
    """
    if _is_contribs(type(algo)):
        from vlmrm_wrap.sb3.contrib import recurrent_buffer_for

        venv = algo.get_env()
        assert venv is not None
        _check_deferred(venv)
        algo.rollout_buffer = recurrent_buffer_for(algo)  # type: ignore[attr-defined]
        return algo
    name = type(algo).__name__
    raise TypeError(f"{name} takes its buffer as an argument: {name}(..., **deferred_kwargs({name}, venv))")


def _is_contribs(algorithm: type) -> bool:
    """Whether it is of sb3-contrib, an optional package that is not imported for others."""
    return any(base.__module__.partition(".")[0] == "sb3_contrib" for base in algorithm.__mro__)


def _check_deferred(venv: VecEnv) -> None:
    """ValueError unless a deferred CLIPRewardVecEnv is in ``venv``, and nothing outside reads its rewards."""
    layer: Any = venv
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, CLIPRewardVecEnv):
            if layer.deferred:
                return
            break
        if isinstance(layer, VecNormalize) and layer.norm_reward and not isinstance(layer, DeferredVecNormalize):
            raise ValueError(_NORMALIZED)
        if isinstance(layer, VecMonitor | VecCheckNan):
            raise ValueError(
                f"{type(layer).__name__} is outside the deferred CLIPRewardVecEnv and reads rewards that are not known "
                "yet. Put it inside, for the env's own rewards (make_vec_env has a Monitor there), or leave it out."
            )
        layer = layer.venv
    raise ValueError(
        f"{type(venv).__name__} holds no deferred CLIPRewardVecEnv; required: CLIPRewardVecEnv(venv, model, "
        "deferred=True). An immediate one needs no buffer of ours."
    )
