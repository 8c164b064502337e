"""Options outside a CLIP reward: those that need the env's own reward, or to know where episodes begin.

    env = transform_reward(CLIPRewardWrapper(env, model), MixEnvReward(env_weight=0.1))

The same for a single env, a Gymnasium vector env and a Stable-Baselines3 VecEnv. An option is a function of one
:class:`Step` of ``n`` envs; what it must know of the step before stands there too, so only Standardize has a state.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vlmrm_wrap.standardizing import RunningStatistics

__all__ = ["MixEnvReward", "PotentialDifference", "Standardize", "Step", "Transform", "transform_reward"]

Floats = NDArray[np.float64]


class Step(NamedTuple):
    """One step of ``n`` envs: arrays ``(n,)``, float64 but for ``terminated``."""

    rewards: Floats
    """What the wrapper inside pays: CLIP's reward, or that of another transform."""
    previous: Floats
    """The same of the step before in the same episode; 0 in an episode's first step."""
    env_rewards: Floats
    terminated: NDArray[np.bool_]
    """Whether the env ended for good, and was not cut off by a time limit."""
    stepped: NDArray[np.bool_]
    """False in a NEXT_STEP reset step, which is no step of the env, and pays 0 whatever a transform returns."""


Transform = Callable[[Step], Floats]


@dataclass(frozen=True)
class MixEnvReward:
    """R' = clip_weight * R + env_weight * env_reward: CLIP's reward on top of a task's own, often a sparse one.

    FuRL (Fu et al. 2024, arXiv 2406.00645) adds a VLM's reward to the task's in this way, at a weight of 0.05.
    """

    env_weight: float
    clip_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.env_weight) and math.isfinite(self.clip_weight)):
            raise ValueError(f"weights must be finite, got {self}")
        if self.env_weight == self.clip_weight == 0:
            raise ValueError(f"both weights are 0, and so would be every reward: {self}; required: one of them is not")

    def __call__(self, step: Step) -> Floats:
        return self.clip_weight * step.rewards + self.env_weight * step.env_rewards


@dataclass(frozen=True)
class PotentialDifference:
    """F = gamma * phi(s') - phi(s), phi the CLIP reward: pays for coming closer, not for being near.

    Ng, Harada and Russell 1999, "Policy invariance under reward transformations": added to the env's reward, with the
    learner's ``gamma``, F changes no optimal policy:
    ``transform_reward(transform_reward(env, PotentialDifference(0.99)), MixEnvReward(env_weight=1.0))``.

    phi is 0 where the env terminated, as the theorem needs it, and stays as it is where a time limit cut.
    ``zero_at_end=False`` keeps it there as well: with ``gamma=1`` that is the plain difference of two rewards, whose
    sum over an episode is the reward of its last frame. An episode's first state is not rendered; its phi counts as
    0, which adds to the return only what no action can change. So the first F is large; ScaledReward(model,
    shift=...) inside makes it smaller.
    """

    gamma: float
    zero_at_end: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:  # also catches NaN
            raise ValueError(f"gamma is {self.gamma}; required: the learner's discount, in [0, 1]")

    def __call__(self, step: Step) -> Floats:
        reached = np.where(step.terminated & self.zero_at_end, 0.0, step.rewards)
        return self.gamma * reached - step.previous


class Standardize(RunningStatistics):
    """R' = (R - mean) / (std + 0.00001) of all rewards so far, this one among them; 0 as long as they are all the same.

    What :class:`~vlmrm_wrap.StandardizedReward` does around the model, outside the wrapper: there ``clip_reward``,
    ``clip_episode`` and what is logged and compared stay R, where R' of two times are measured by different means.
    One that is shared between envs standardises them by one statistic. ``training = False`` stops the updates, for
    evaluation; ``state_dict()``, three numbers to save beside the policy, and ``load_state_dict()`` go on later.

    >>> env = transform_reward(CLIPRewardWrapper(env, model), Standardize())
    """

    def __call__(self, step: Step) -> Floats:
        paid = np.zeros(len(step.rewards))
        paid[step.stepped] = self.standardized(step.rewards[step.stepped])
        return paid

    def __repr__(self) -> str:
        return "Standardize()"


_TRANSFORMS = {kind.__name__: kind for kind in (MixEnvReward, PotentialDifference, Standardize)}


def transform_reward(env: Any, transform: Transform) -> Any:
    """``env`` with its CLIP rewards changed by ``transform``: MixEnvReward, PotentialDifference, Standardize, or yours.

    ``env``: a CLIPRewardWrapper, CLIPRewardVectorWrapper or CLIPRewardVecEnv, whatever is around it; the result is of
    the same kind. Rewards keep their type; info gains ``clip_reward``, what CLIP paid. A NEXT_STEP reset step still
    pays 0. ``clip_episode`` stays CLIP's own return. Rewards of a deferred CLIPRewardVecEnv are transformed when they
    become known, and its infos have no ``clip_reward``.

    >>> env = transform_reward(CLIPRewardWrapper(env, model), MixEnvReward(env_weight=0.1))

    TypeError for something that is no env, or no function; ValueError for an env without a CLIP reward inside and, in
    a step, for a transform that returns another shape, or numbers that are not finite.
    """
    if isinstance(env, VectorEnv):
        return TransformedVectorReward(env, transform)
    if isinstance(env, gym.Env):
        return TransformedReward(env, transform)
    if hasattr(env, "step_wait") and hasattr(env, "venv"):
        from vlmrm_wrap.sb3.transform import TransformedVecEnv  # Stable-Baselines3 is loaded: it made this

        return TransformedVecEnv(env, transform)
    raise TypeError(
        f"transform_reward got {type(env).__name__}; required: a CLIPRewardWrapper, CLIPRewardVectorWrapper or "
        "CLIPRewardVecEnv"
    )


class TransformedReward(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """What :func:`transform_reward` puts around a single env. env.spec has the transforms of this module as dicts.

    Statistics are not among them: of a spec, Standardize starts anew.
    """

    def __init__(self, env: gym.Env[Any, Any], transform: Transform | Mapping[str, Any]) -> None:
        if isinstance(transform, Mapping):
            arguments = dict(transform)
            transform = _TRANSFORMS[arguments.pop("transform")](**arguments)
        recorded: Any = transform
        if type(transform) in _TRANSFORMS.values():
            arguments = asdict(transform) if is_dataclass(transform) else {}
            recorded = {"transform": type(transform).__name__, **arguments}
        gym.utils.RecordConstructorArgs.__init__(self, transform=recorded)
        gym.Wrapper.__init__(self, env)
        self._transformed, self._previous = Transformer(env, transform), np.zeros(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._previous[:] = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        over = terminated or truncated
        rewards = self._transformed(self._previous, [reward], [info["env_reward"]], np.array([terminated]), over)
        return obs, float(rewards[0]), terminated, truncated, {"clip_reward": reward, **info}


class TransformedVectorReward(VectorWrapper[Any, Any, Any, Any, Any]):
    """What :func:`transform_reward` puts around a vector env; rewards are float64 ``(n,)``."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], transform: Transform) -> None:
        super().__init__(envs)
        self._transformed, self._previous = Transformer(envs, transform), np.zeros(envs.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        mask = None if options is None else options.get("reset_mask")
        self._previous[slice(None) if mask is None else mask] = 0.0
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Floats, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        obs, rewards, terminations, truncations, infos = self.env.step(actions)
        stepped = infos["_env_reward"]  # not so in a NEXT_STEP reset step
        over = terminations | truncations
        transformed = self._transformed(self._previous, rewards, infos["env_reward"], terminations, over, stepped)
        infos = {"clip_reward": rewards, "_clip_reward": stepped.copy(), **infos}
        return obs, np.where(stepped, transformed, 0.0), terminations, truncations, infos


class Transformer:
    """A transform of a step's rewards; shared by the three kinds of env, which remember the step before."""

    def __init__(self, env: Any, transform: Transform) -> None:
        if not callable(transform):
            raise TypeError(f"transform is {transform!r}; required: MixEnvReward(...), or a function of a Step")
        layer = env
        while "reward_model" not in vars(layer):
            layer = getattr(layer, "env", None) or getattr(layer, "venv", None)
            if layer is None:
                raise ValueError(
                    f"{type(env).__name__} has no CLIP reward inside; required: transform_reward outside of "
                    "CLIPRewardWrapper, CLIPRewardVectorWrapper or CLIPRewardVecEnv"
                )
        self._transform = transform

    def __call__(
        self,
        previous: Floats,
        rewards: Any,
        env_rewards: Any,
        terminated: Any,
        ended: Any,
        stepped: NDArray[np.bool_] | None = None,
    ) -> Floats:
        """The transformed rewards ``(n,)``.

        ``previous``: the rewards of the step before, 0 in an episode's first; it gets those of this step, or 0 where
        the episode ``ended``. ``stepped``: None for all of them.
        """
        stepped = np.ones(len(previous), np.bool_) if stepped is None else stepped
        step = Step(
            np.array(rewards, np.float64), previous.copy(), np.array(env_rewards, np.float64), terminated, stepped
        )
        transformed = np.asarray(self._transform(step), np.float64)
        if transformed.shape != step.rewards.shape:
            raise ValueError(
                f"the transform returned shape {transformed.shape}; required: {step.rewards.shape}, a reward an env"
            )
        if not np.isfinite(transformed[stepped]).all():
            wrong = int(np.flatnonzero(stepped & ~np.isfinite(transformed))[0])
            raise ValueError(
                f"the transform {self._transform!r} made {transformed[wrong]} of the reward {step.rewards[wrong]} and "
                f"the env's own {step.env_rewards[wrong]}, in sub-env {wrong}; required: finite numbers"
            )
        previous[:] = np.where(ended, 0.0, step.rewards)
        return transformed
