"""Frames of an env at states that are set, or along a policy's way, scored as they are drawn.

A few frames at a time are held; thumbnails are kept of all.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.policies import Act, begin_episode
from vlmrm_wrap.insight.states import EnvStates, env_states, parse_grid
from vlmrm_wrap.insight.tables import rounded
from vlmrm_wrap.protocols import FrameScores, RewardModel, score_frames
from vlmrm_wrap.rendering import FrameRenderer

__all__ = [
    "Log",
    "Step",
    "episode",
    "frames_of_states",
    "own_rewards",
    "placed",
    "played",
    "score_frames_of",
    "terminal_state",
    "walk",
]

Frame = NDArray[np.uint8]
States = NDArray[np.float64]

_CHUNK = 16  # frames encoded at once
_THUMBNAIL = (240, 240)  # pixels, at most


class Step(NamedTuple):
    """What one step of an env gave; ``number``: from 1 on in its episode."""

    number: int
    reward: float
    terminated: bool


def episode(env: gym.Env[Any, Any], act: Act, seed: int | None = None) -> Iterator[Step]:
    """One episode from its reset on; after each step ``env`` is as that step left it."""
    begin_episode(act)
    obs, _ = env.reset(seed=seed)
    number, over = 0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        number, over = number + 1, bool(terminated or truncated)
        yield Step(number, float(reward), bool(terminated))


def walk(env: gym.Env[Any, Any], act: Act, steps: int, seed: int | None = None) -> Iterator[Step]:
    """``steps`` steps, through as many episodes as that takes; ``seed`` of the first of them."""
    while steps > 0:
        for step in islice(episode(env, act, seed), steps):
            steps -= 1
            yield step
        seed = None


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
            return ", ".join(f"{name} {rounded(state[space.index(name)], 2)}" for name in grid.names)
    return None


def frames_of_states(env: gym.Env[Any, Any], space: EnvStates, states: States, seed: int) -> NDArray[np.uint8] | None:
    """The frame of each of ``states (k, d)``, with all else as a reset leaves it: uint8 ``(k, height, width, 3)``.

    None where setting them doesn't decide on the observation that follows, or the env breaks: then they are not what
    the env goes on from.
    """

    def followed(state: States) -> Any:
        env.reset(seed=seed)
        space.place(state)
        return gym.spaces.flatten(env.observation_space, env.step(_neutral_action(env))[0])

    try:
        first, again = followed(states[0]), followed(states[0])
        if not np.array_equal(first, again) or all(np.array_equal(followed(state), first) for state in states[1:]):
            return None
        env.reset(seed=seed)
        # without a reset or a step in between, for a clock in the picture may count them
        return np.stack([frame.copy() for frame in placed(FrameRenderer(env), space, states)])
    except Exception:  # an env of the user's was given a state in a way that it need not understand
        return None


def _neutral_action(env: Any) -> Any:
    actions = env.action_space
    if isinstance(actions, gym.spaces.Box):
        return np.clip(np.zeros(actions.shape, actions.dtype), actions.low, actions.high)
    return actions.start + actions.n // 2 if isinstance(actions, gym.spaces.Discrete) else actions.sample()


def played(
    env: gym.Env[Any, Any],
    renderer: FrameRenderer,
    act: Act,
    steps: int,
    seed: int,
    space: EnvStates | None,
    log: Log,
) -> Iterator[Frame]:
    """The frame after each step of a :func:`walk`."""
    for index, step in enumerate(walk(env, act, steps, seed)):
        if index > 0 and step.number == 1:
            log.starts.append(index)
        log.rewards.append(step.reward)
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
