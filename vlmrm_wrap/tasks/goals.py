"""Goal states: whether one is reached, how often, and how to stay there.

A goal is a function of the unwrapped env that says whether its present state is a goal state, or one of the names that
:data:`GOALS` has for the env, or None for its only one.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrm_wrap.tasks.poses import POSES

__all__ = ["GOALS", "AbsorbingGoal", "Goal", "Success", "is_success"]

Goal = Callable[[Any], bool]


def is_success(in_goal: int, steps: int) -> bool:
    """The paper's criterion: half or more of an episode's ``steps`` ended in a goal state.

    (Rocamonde et al. 2023, section 4.3.)
    """
    return in_goal >= 0.5 * steps


def _balanced(env: Any) -> bool:
    """CartPole within the limits where Gymnasium ends its episode: 2.4 m and 12 degrees."""
    x, _, theta, _ = (float(value) for value in env.state)
    theta = (theta + np.pi) % (2 * np.pi) - np.pi
    return bool(abs(x) <= env.x_threshold and abs(theta) <= env.theta_threshold_radians)


def _at_flag(env: Any) -> bool:
    """MountainCar where Gymnasium ends its episode: at the flag or beyond it."""
    position, velocity = (float(value) for value in env.state)
    return bool(position >= env.goal_position and velocity >= env.goal_velocity)


_MOUNTAIN_CAR: dict[str, Goal] = {"at_flag": _at_flag}

GOALS: dict[str, dict[str, Goal]] = {
    "CartPoleEnv": {"balanced": _balanced},
    "MountainCarEnv": _MOUNTAIN_CAR,
    "Continuous_MountainCarEnv": _MOUNTAIN_CAR,
    "HumanoidEnv": POSES,
}
"""By the class of the unwrapped env, or one that it derives from: its goals by name."""


def _goal_of(env: gym.Env[Any, Any], goal: Goal | str | None, wrapper: str) -> Goal:
    if callable(goal):
        return goal
    known = next((GOALS[cls.__name__] for cls in type(env.unwrapped).__mro__ if cls.__name__ in GOALS), {})
    if goal is None and len(known) == 1:
        return next(iter(known.values()))
    if goal in known:
        return known[str(goal)]
    names = f", or one of {sorted(known)}" if known else "; this env has no goals known by name"
    raise ValueError(
        f"{wrapper} got {env} with goal={goal!r}; required: goal=, a function of the unwrapped env that returns a "
        f"bool{names}"
    )


class Success(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """``info["success"]``, a bool: is the state after this step (or reset) a goal state?

    And ``info["is_success"]`` in every step: have at least half of the episode's steps so far ended in one? In the
    last step of an episode of fixed length that is the paper's criterion, and Stable-Baselines3 logs its mean as
    ``rollout/success_rate``. Both begin anew with every reset. Nothing else of a step changes.

    ``goal``: see :mod:`vlmrm_wrap.tasks.goals`; CartPole's and MountainCar's are known, and Humanoid's poses, by the
    names in :mod:`vlmrm_wrap.tasks.poses`. Other options around the reward read it:
    :class:`~vlmrm_wrap.sb3.RewardAlignment` correlates the reward with ``info["success"]``.

    Example:
        >>> env = Success(gym.make("Pendulum-v1"), lambda env: abs(env.state[0]) < 0.2)

    Raises ValueError for an env without a known goal, or a name that the env doesn't have.
    """

    def __init__(self, env: gym.Env[Any, Any], goal: Goal | str | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, goal=goal)
        gym.Wrapper.__init__(self, env)
        self._goal = _goal_of(env, goal, "Success")
        self._steps = self._successes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps = self._successes = 0
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, {**info, "success": bool(self._goal(self.env.unwrapped))}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        success = bool(self._goal(self.env.unwrapped))
        self._steps += 1
        self._successes += success
        verdict = {"success": success, "is_success": is_success(self._successes, self._steps)}
        return obs, reward, terminated, truncated, {**info, **verdict}


class AbsorbingGoal(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Who reaches the goal stays there: the env is not stepped again before the next reset.

    The step that reaches a goal state is the env's own, its reward included, but not ``terminated``. The steps after
    it return the same observation and leave the same picture, pay 0, and have an empty info. So an undiscounted
    return is what the env without this wrapper would have paid, and the time limit, outside, ends the episode.
    An episode that starts in a goal state stays there from the start, unpaid. Where the env terminates elsewhere it
    still does.

    ``goal``: see :mod:`vlmrm_wrap.tasks.goals`; MountainCar's is known.

    Example:
        >>> env = AbsorbingGoal(gym.make("MountainCarContinuous-v0", render_mode="rgb_array"))

    Raises ValueError for an env without a known goal, or a name that the env doesn't have.
    """

    def __init__(self, env: gym.Env[Any, Any], goal: Goal | str | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, goal=goal)
        gym.Wrapper.__init__(self, env)
        self._goal = _goal_of(env, goal, "AbsorbingGoal")
        self._last_obs: Any = None
        self._absorbed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self._remember(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._absorbed:
            return deepcopy(self._last_obs), 0.0, False, False, {}  # learners keep what they are given
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._remember(obs)
        return obs, reward, terminated and not self._absorbed, truncated, info

    def _remember(self, obs: Any) -> None:
        self._absorbed = bool(self._goal(self.env.unwrapped))
        self._last_obs = deepcopy(obs) if self._absorbed else None
