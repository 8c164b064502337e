"""FixedHorizon: episodes of one length, because termination leaks the task.

Where all rewards are positive, to survive pays, whatever the words say, and CartPole is "solved" by any of them
(a point that Rocamonde et al. 2023 make in appendix C.1). So the paper removes termination, and so does this
wrapper, by truncation, which learners bootstrap through.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

__all__ = ["FixedHorizon", "cartpole_state_fix"]

StateFix = Callable[[gym.Env[Any, Any]], Any]


class FixedHorizon(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Every episode lasts ``max_episode_steps`` steps and ends by truncation, whatever the env says.

    ``mode``: what follows the env's own end. "continue" steps the env further (classic control, MuJoCo);
    "freeze" repeats the last observation and frame without stepping (games that are over).
    ``state_fix(env)``: called with the unwrapped env after each step; may change the env's state, and returns
    the observation of the changed state, or None to keep the one that the step returned. By default CartPole
    gets :func:`cartpole_state_fix`, and other envs none.

    ``terminated`` is always False. The env's own flags are in ``info["env_terminated"]`` and
    ``info["env_truncated"]``. The reward is the env's own up to and with its first end and 0 after it, so a
    Monitor outside reports the return that the env would have paid; ``info["env_reward_raw"]`` keeps what it
    said. Goes inside FrameCapture and CLIPRewardWrapper.

    Example:
        >>> env = FixedHorizon(gym.make("CartPole-v1", render_mode="rgb_array"), 200)
        >>> env = CLIPRewardWrapper(env, model)

    Raises ValueError for a horizon below 1 or another mode.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        max_episode_steps: int,
        mode: str = "continue",
        state_fix: StateFix | None = None,
    ) -> None:
        check_horizon(max_episode_steps, "max_episode_steps")
        if mode not in ("continue", "freeze"):
            raise ValueError(f"mode is {mode!r}; required: 'continue' or 'freeze'")
        gym.utils.RecordConstructorArgs.__init__(
            self, max_episode_steps=max_episode_steps, mode=mode, state_fix=state_fix
        )
        gym.Wrapper.__init__(self, env)
        self._horizon, self._mode = int(max_episode_steps), mode
        self._state_fix = state_fix or _default_state_fix(env.unwrapped)
        self._steps = 0
        self._ended: tuple[bool, bool] = (False, False)
        self._last_obs: Any = None
        self._last_frame: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps, self._ended, self._last_frame = 0, (False, False), None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        over = any(self._ended)
        if over and self._mode == "freeze":
            obs, raw_reward, (terminated, truncated) = self._last_obs, 0.0, self._ended
            info: dict[str, Any] = {}
        else:
            obs, reward, terminated, truncated, info = self.env.step(action)
            raw_reward = float(reward)
            if self._state_fix is not None:
                fixed = self._state_fix(self.env.unwrapped)
                obs = obs if fixed is None else fixed
        self._last_obs = obs
        if not over:
            self._ended = (bool(terminated), bool(truncated))
        info = {
            **info,
            "env_terminated": bool(terminated),
            "env_truncated": bool(truncated),
            "env_reward_raw": raw_reward,
        }
        return obs, 0.0 if over else raw_reward, False, self._steps >= self._horizon, info

    def render(self) -> Any:
        # Some envs draw a frame anew at each call (BipedalWalker's lidar moves): a frozen one is kept.
        if self._mode != "freeze" or not any(self._ended):
            return self.env.render()
        if self._last_frame is None:
            self._last_frame = self.env.render()
        return self._last_frame


def check_horizon(steps: int, name: str) -> None:
    """ValueError unless ``steps`` is a whole number of at least 1."""
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"{name} is {steps!r}; required: a whole number of at least 1")


def _default_state_fix(env: gym.Env[Any, Any]) -> StateFix | None:
    try:
        from gymnasium.envs.classic_control import CartPoleEnv
    except ImportError:
        return None
    return cartpole_state_fix if isinstance(env, CartPoleEnv) else None


def cartpole_state_fix(env: Any) -> np.ndarray:
    """Keep CartPole in its picture beyond its own end: stop the cart at the edge, wrap the pole's angle.

    Without it a random policy's cart is out of the frame for a quarter of a 200-step episode, and the angle
    grows without bound. Positions in metres, angles in radians, as in the env; the paper's env does the same.
    """
    x, x_dot, theta, theta_dot = (float(value) for value in env.state)
    if abs(x) > env.x_threshold:
        x = float(np.clip(x, -env.x_threshold, env.x_threshold))
        x_dot = 0.0
    theta = (theta + np.pi) % (2 * np.pi) - np.pi
    env.state = np.array([x, x_dot, theta, theta_dot])
    env.steps_beyond_terminated = None  # or the env warns that nobody reset it
    return np.array(env.state, np.float32)
