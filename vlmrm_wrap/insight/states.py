"""The state of an env by the names of its variables: read, set, swept.

Three kinds of env let their state be set: Gymnasium's classic control, whose variables are known by name; MuJoCo's
(``set_state``), by joint; and any other whose ``unwrapped`` holds a ``state`` of numbers, by index.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

__all__ = ["EnvStates", "Grid", "env_states", "parse_grid"]

States = NDArray[np.float64]

_POINTS = {1: 61, 2: 25}  # of each variable, by how many are swept
_SCALAR_JOINTS = (2, 3)  # mjJNT_SLIDE, mjJNT_HINGE: joints with one coordinate


@dataclass(frozen=True)
class _Classic:
    """What is known of a classic-control env: by the index of the variable, and what to look at by default."""

    names: tuple[str, ...]
    sweep: tuple[str, ...]
    measures: Mapping[str, Callable[[States], States]] = field(default_factory=dict)


def _upright(column: int) -> Callable[[States], States]:
    return lambda states: np.cos(states[:, column])


_MOUNTAIN_CAR = _Classic(("position", "velocity"), ("position=-1.2:0.6",), {"progress": lambda states: states[:, 0]})
_CLASSIC = {  # by class, so that subclasses and ids of the user's own count as well
    "CartPoleEnv": _Classic(("x", "x_dot", "theta", "theta_dot"), ("theta=-1.57:1.57",), {"upright": _upright(2)}),
    "MountainCarEnv": _MOUNTAIN_CAR,
    "Continuous_MountainCarEnv": _MOUNTAIN_CAR,
    "PendulumEnv": _Classic(("theta", "theta_dot"), ("theta=-3.14:3.14",), {"upright": _upright(0)}),
    "AcrobotEnv": _Classic(
        ("theta1", "theta2", "theta1_dot", "theta2_dot"),
        ("theta1=-3.14:3.14", "theta2=-3.14:3.14"),
        {"tip_height": lambda states: -np.cos(states[:, 0]) - np.cos(states[:, 0] + states[:, 1])},
    ),
}


@dataclass(frozen=True)
class EnvStates:
    """The state variables of one env. Angles are in radians, lengths in the env's units.

    ``names``: of each variable; a number where it has no name. ``default_sweep``: what :func:`parse_grid` takes,
    empty for an env that nothing is known of. ``measures``: what a goal of the env usually is about, computed from
    states ``(n, len(names))``. ``far_apart``: states ``(k, len(names))`` whose frames differ, if the camera sees the
    object; none for an env that nothing is known of.
    """

    names: tuple[str, ...]
    read: Callable[[], States]
    place: Callable[[States], None]
    default_sweep: tuple[str, ...] = ()
    measures: Mapping[str, Callable[[States], States]] = field(default_factory=dict)
    far_apart: States = field(default_factory=lambda: np.zeros((0, 0)))

    def index(self, name: str) -> int:
        """The column of a variable, by name or index; ValueError that lists what there is."""
        if name in self.names:
            return self.names.index(name)
        if name.isdecimal() and int(name) < len(self.names):
            return int(name)
        raise ValueError(f"no state variable {name!r}; there is {', '.join(self.names)}, or 0 to {len(self.names) - 1}")

    def values(self, name: str, states: States) -> States:
        """A variable or a measure of ``states (n, len(names))``; of NAME=TARGET, minus the distance to the target."""
        name, aims, target = name.partition("=")
        values = self.measures[name](states) if name in self.measures else states[:, self.index(name)]
        return -np.abs(values - _number(target, name)) if aims else values


def env_states(env: gym.Env[Any, Any]) -> EnvStates | None:
    """How to read and set the state of ``env``, which has been reset; None where nobody knows."""
    inner: Any = env.unwrapped
    if callable(getattr(inner, "set_state", None)) and hasattr(getattr(inner, "data", None), "qpos"):
        return _of_mujoco(inner)
    state = getattr(inner, "state", None)
    if not isinstance(state, np.ndarray | tuple | list) or not len(state):
        return None
    values = np.asarray(state)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        return None

    def place(new: States) -> None:
        inner.state = np.array(new, values.dtype if values.dtype.kind == "f" else np.float64)
        if hasattr(inner, "steps_beyond_terminated"):
            inner.steps_beyond_terminated = None  # or CartPole pays 0 from here on, and warns
        if hasattr(inner, "last_u"):
            inner.last_u = None  # Pendulum draws the last torque as an arrow

    def read() -> States:
        return np.array(inner.state, np.float64)

    classes = [each.__name__ for each in type(inner).__mro__ if each.__module__.startswith("gymnasium.")]
    known = next((_CLASSIC[name] for name in classes if name in _CLASSIC), None)
    if known is None or len(known.names) != len(values):
        return EnvStates(tuple(map(str, range(len(values)))), read, place)
    bare = EnvStates(known.names, read, place, known.sweep, known.measures)
    return replace(bare, far_apart=parse_grid([f"{sweep}:3" for sweep in known.sweep], bare).states)


def _of_mujoco(inner: Any) -> EnvStates:
    """Positions (qpos), at rest: velocities are in no picture."""
    model = inner.model
    names = [str(index) for index in range(model.nq)]
    far_apart = np.tile(np.array(inner.data.qpos, np.float64), (3, 1))
    for joint in range(model.njnt):
        place = model.jnt_qposadr[joint]
        if model.jnt_type[joint] not in _SCALAR_JOINTS:
            continue
        names[place] = model.joint(joint).name or names[place]
        low, high = model.jnt_range[joint] if model.jnt_limited[joint] else far_apart[0, place] + np.array([-1.0, 1.0])
        far_apart[1:, place] = low + (high - low) * np.array([0.25, 0.75])
    return EnvStates(
        tuple(names),
        lambda: np.array(inner.data.qpos, np.float64),
        lambda new: inner.set_state(np.asarray(new, np.float64), np.zeros_like(inner.data.qvel)),
        far_apart=far_apart if (far_apart != far_apart[0]).any() else far_apart[:0],
    )


@dataclass(frozen=True)
class Grid:
    """One or two state variables over a range each: ``names``, ``axes`` (their values), ``states (n, d)`` to draw.

    Of two, the second varies fastest.
    """

    names: tuple[str, ...]
    axes: tuple[States, ...]
    states: States


def parse_grid(texts: Sequence[str], space: EnvStates) -> Grid:
    """``["x=-2.4:2.4", "theta=0.1"]``: NAME=LOW:HIGH[:COUNT] varies, NAME=VALUE stays; others stay as they are.

    COUNT is 61 for one variable that varies and 25 for each of two. ValueError for anything else.
    """
    swept: dict[int, tuple[str, list[str]]] = {}
    given_as: dict[int, str] = {}
    start = space.read()
    for text in texts:
        name, _, given = text.partition("=")
        parts = given.split(":")
        if len(parts) > 3 or not given or (len(parts) == 3 and not (parts[2].isdecimal() and int(parts[2]) > 1)):
            raise ValueError(f"a state is NAME=LOW:HIGH, NAME=LOW:HIGH:COUNT or NAME=VALUE, got {text!r}")
        index = space.index(name)
        if index in given_as:
            raise ValueError(f"{given_as[index]!r} and {text!r} are of one state variable; required: each once")
        given_as[index] = text
        start[index] = _number(parts[0], name)
        if len(parts) > 1:
            swept[index] = (name, parts)
    if len(swept) not in _POINTS:
        raise ValueError(f"{len(swept)} of {list(texts)} have a range LOW:HIGH; required: one or two")
    axes = [
        np.linspace(_number(low, name), _number(high, name), int(count[0]) if count else _POINTS[len(swept)])
        for name, (low, high, *count) in swept.values()
    ]
    points = np.array(list(itertools.product(*axes)))
    states = np.tile(start, (len(points), 1))
    states[:, list(swept)] = points
    return Grid(tuple(space.names[index] for index in swept), tuple(axes), states)


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"{name!r} is given {text!r}; required: a finite number")
    return number
