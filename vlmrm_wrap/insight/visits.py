"""Frames of an env at states that are set, or along a policy's way, scored as they are drawn.

A few frames at a time are held; thumbnails are kept of all.
"""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.states import EnvStates, env_states, parse_grid
from vlmrm_wrap.protocols import FrameScores, RewardModel, score_frames
from vlmrm_wrap.rendering import FrameRenderer

__all__ = ["Log", "own_rewards", "placed", "played", "score_frames_of", "terminal_state"]

Frame = NDArray[np.uint8]
States = NDArray[np.float64]

_CHUNK = 16  # frames encoded at once
_THUMBNAIL = (240, 240)  # pixels, at most


class Log:
    """What a policy's way leaves behind besides its frames; ``starts``: where episodes after the first begin."""

    def __init__(self) -> None:
        self.states: list[States] = []
        self.rewards: list[float] = []
        self.starts: list[int] = []


def placed(renderer: FrameRenderer, space: EnvStates, states: States) -> Iterator[Frame]:
    """The frame of each state."""
    for state in states:
        space.place(state)
        yield renderer()


def own_rewards(env: gym.Env[Any, Any], space: EnvStates, states: States) -> NDArray[np.float64]:
    """What the env pays for one step from each state with an action that does nothing, or little."""
    inner: Any = env.unwrapped
    rewards = []
    for state in states:
        space.place(state)
        rewards.append(float(inner.step(_neutral_action(inner))[1]))
    return np.array(rewards, np.float64)


def terminal_state(env: gym.Env[Any, Any], seed: int) -> str | None:
    """A state that ``env``, wrappers and all, terminates from, in words; None where the usual ones hold none.

    Only envs with a default sweep are asked, and they are reset as often as that has states.
    """
    env.reset(seed=seed)
    space = env_states(env)
    if space is None or not space.default_sweep:
        return None
    grid = parse_grid(space.default_sweep, space)
    for state in grid.states[::-1]:  # in MountainCar the goal comes last
        env.reset()
        space.place(state)
        if env.step(_neutral_action(env))[2]:
            return ", ".join(f"{name} {state[space.index(name)]:.2f}" for name in grid.names)
    return None


def _neutral_action(env: Any) -> Any:
    actions = env.action_space
    if isinstance(actions, gym.spaces.Box):
        return np.clip(np.zeros(actions.shape, actions.dtype), actions.low, actions.high)
    return actions.start + actions.n // 2 if isinstance(actions, gym.spaces.Discrete) else actions.sample()


def played(
    env: gym.Env[Any, Any],
    renderer: FrameRenderer,
    act: Callable[[Any], Any],
    obs: Any,
    steps: int,
    space: EnvStates | None,
    log: Log,
) -> Iterator[Frame]:
    """The frame after each of ``steps`` steps from ``obs`` on, through as many episodes as that takes."""
    over = False
    for step in range(steps):
        if over:
            obs, _ = env.reset()
            log.starts.append(step)
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        over = terminated or truncated
        log.rewards.append(float(reward))
        if space is not None:
            log.states.append(space.read())
        yield renderer()


def score_frames_of(model: RewardModel, frames: Iterator[Frame]) -> tuple[FrameScores, list[Frame]]:
    """Scores of all frames, encoded as they come, and thumbnails of them."""
    from PIL import Image

    parts: list[FrameScores] = []
    thumbnails: list[Frame] = []
    chunk: list[Frame] = []
    for frame in frames:
        chunk.append(frame.copy())  # the env may draw the next one into the same memory
        picture = Image.fromarray(frame)
        picture.thumbnail(_THUMBNAIL)
        thumbnails.append(np.asarray(picture))
        if len(chunk) == _CHUNK:
            parts.append(score_frames(model, np.stack(chunk)))
            chunk.clear()
    if chunk:
        parts.append(score_frames(model, np.stack(chunk)))
    return FrameScores(*(np.concatenate(each) for each in zip(*parts, strict=True))), thumbnails
