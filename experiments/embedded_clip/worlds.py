"""The simulators the embedded CLIP is taught on: how to sample states, draw them, and measure them.

A `World` is one Gymnasium env. Its states are sampled directly (no policy is run), put into the
env, rendered, and shrunk to the model's input. `measure` turns the same states into *attributes*,
warped coordinates in which a distance of 1 is "clearly different to the eye"; captions aim at
values of these attributes (see captions.py), and the training targets are distances between the
two.

Worlds that look alike share a `family`: MountainCar-v0 and MountainCarContinuous-v0 draw the same
picture except for the flag, which stands at x = 0.5 in the first and at 0.45 in the second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

# Must be set before pygame starts: there may be no display, and none is needed.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from vlmrm_wrap.encoders.openai_clip import OPENAI_MEAN, OPENAI_STD
from vlmrm_wrap.preprocess import FramePreprocessor

Array = NDArray[Any]

IMAGE_SIZE = 64
INTERPOLATION, RESIZE_MODE = "bilinear", "squash"
# The library's own, so that the model is trained on exactly what it will be shown.
PREPROCESSOR = FramePreprocessor(IMAGE_SIZE, OPENAI_MEAN, OPENAI_STD, INTERPOLATION, RESIZE_MODE)

ATTRIBUTES = (
    "pole_lean", "pole_tilt", "cart_x", "cart_seen",          # CartPole
    "car_x", "car_progress", "car_height",                    # MountainCar
    "pendulum_tilt", "pendulum_side",                         # Pendulum
    "tip_height", "arm_fold", "arm_side",                     # Acrobot
)  # fmt: skip
COLUMN = {name: column for column, name in enumerate(ATTRIBUTES)}

VALLEY_X = -np.pi / 6  # the lowest point of MountainCar's sin(3x)


def wrap_angle(radians: Array) -> Array:
    """The same angle in [-pi, pi)."""
    return (np.asarray(radians) + np.pi) % (2 * np.pi) - np.pi


def warp_degrees(degrees: Any, fine: float) -> Array:
    """Signed, monotone: about `degrees / fine` near 0, compressive further out, never flat.

    asinh alone is nearly flat beyond 90 degrees (3.6 at 90, 4.3 at 180, with fine = 5), and the
    reward then rises again towards a hanging pole; the linear term keeps it falling.
    """
    degrees = np.asarray(degrees, dtype=float)
    return np.arcsinh(degrees / fine) + degrees / 90


@dataclass(frozen=True)
class World:
    """One env: `frames` training frames of it are drawn by one training run."""

    env_id: str
    family: str
    frames: int
    sample: Callable[[np.random.Generator, int], Array]  # -> states (n, k)
    place: Callable[[Any, Array], None]  # (unwrapped env, one state): put the state into the env
    measure: Callable[[Array], dict[str, Array]]  # states (n, k) -> attribute name -> (n,)

    def attributes(self, states: Array) -> Array:
        """float32 (n, len(ATTRIBUTES)); zero where another family's attribute stands."""
        values = np.zeros((len(states), len(ATTRIBUTES)), np.float32)
        for name, column in self.measure(states).items():
            values[:, COLUMN[name]] = column
        return values


def _sample_cartpole(rng: np.random.Generator, n: int) -> Array:
    """(x, theta): angles mostly where control happens; some carts beyond the picture's edge."""
    x = rng.uniform(-2.4, 2.4, n) * np.where(rng.random(n) < 0.15, 3.2 / 2.4, 1.0)
    spread = rng.choice([5.0, 15.0, 45.0, 180.0], size=n, p=[0.15, 0.35, 0.18, 0.32])
    return np.stack([x, np.deg2rad(rng.uniform(-1, 1, n) * spread)], axis=1)


def _place_cartpole(env: Any, state: Array) -> None:
    env.state = np.array([state[0], 0.0, state[1], 0.0])


def _measure_cartpole(states: Array) -> dict[str, Array]:
    x, degrees = states[:, 0], np.rad2deg(wrap_angle(states[:, 1]))
    return {
        "pole_lean": warp_degrees(degrees, fine=5),
        "pole_tilt": warp_degrees(np.abs(degrees), fine=5),
        "cart_x": x / 0.8,
        "cart_seen": np.clip((2.7 - np.abs(x)) / 0.4, 0, 1),
    }


def _sample_mountain_car(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-1.2, 0.6, (n, 1))


def _place_mountain_car(env: Any, state: Array) -> None:
    env.state = np.array([state[0], 0.0])


def _measure_mountain_car(states: Array, flag_x: float) -> dict[str, Array]:
    """`car_progress` is flat left of the valley, where the car must go to gain speed, and past the
    flag: captions about the flag aim at it; captions about other places aim at `car_x`."""
    x = states[:, 0]
    return {
        "car_x": x / 0.25,
        "car_progress": (np.clip(x, VALLEY_X, flag_x) - flag_x) / 0.25,
        "car_height": np.sin(3 * x) / 0.4,
    }


def _sample_pendulum(rng: np.random.Generator, n: int) -> Array:
    """(theta, torque): the torque is drawn as an arrow, of which no caption speaks; NaN is none."""
    spread = rng.choice([30.0, 180.0], size=n, p=[0.25, 0.75])
    torque = np.where(rng.random(n) < 0.1, np.nan, rng.uniform(-2, 2, n))
    return np.stack([np.deg2rad(rng.uniform(-1, 1, n) * spread), torque], axis=1)


def _place_pendulum(env: Any, state: Array) -> None:
    env.state = np.array([state[0], 0.0])
    env.last_u = None if np.isnan(state[1]) else float(state[1])


def _measure_pendulum(states: Array) -> dict[str, Array]:
    theta = wrap_angle(states[:, 0])
    return {
        "pendulum_tilt": warp_degrees(np.abs(np.rad2deg(theta)), fine=10),
        "pendulum_side": -2 * np.sin(theta),  # theta > 0 is counter-clockwise, to the left
    }


def _sample_acrobot(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-np.pi, np.pi, (n, 2))


def _place_acrobot(env: Any, state: Array) -> None:
    env.state = np.array([state[0], state[1], 0.0, 0.0])


def tip_height(states: Array) -> Array:
    """Height of Acrobot's free end over its pivot, in links: -2 hanging, 2 upright, line at 1."""
    return -np.cos(states[:, 0]) - np.cos(states[:, 0] + states[:, 1])


def _measure_acrobot(states: Array) -> dict[str, Array]:
    first, second = states[:, 0], states[:, 1]
    return {
        "tip_height": tip_height(states) / 0.5,
        "arm_fold": np.abs(wrap_angle(second)) / 0.6,
        "arm_side": (np.sin(first) + np.sin(first + second)) / 0.6,
    }


def _mountain_car(env_id: str, flag_x: float) -> World:
    measure = partial(_measure_mountain_car, flag_x=flag_x)
    return World(env_id, "mountain_car", 3000, _sample_mountain_car, _place_mountain_car, measure)


WORLDS = (
    World("CartPole-v1", "cartpole", 14000, _sample_cartpole, _place_cartpole, _measure_cartpole),
    _mountain_car("MountainCar-v0", flag_x=0.5),
    _mountain_car("MountainCarContinuous-v0", flag_x=0.45),
    World("Pendulum-v1", "pendulum", 4500, _sample_pendulum, _place_pendulum, _measure_pendulum),
    World("Acrobot-v1", "acrobot", 9500, _sample_acrobot, _place_acrobot, _measure_acrobot),
)

# The share of images and captions each family has in a training batch. CartPole gets most: its
# captions cover two things, angle and place, and tell single degrees apart.
FAMILY_SHARE = {"cartpole": 0.56, "mountain_car": 0.15, "pendulum": 0.11, "acrobot": 0.18}
FAMILIES = tuple(FAMILY_SHARE)


def draw(world: World, states: Array) -> Iterator[Array]:
    """The frames of these states as the env renders them, uint8 (height, width, 3)."""
    env = gym.make(world.env_id, render_mode="rgb_array")
    try:
        env.reset(seed=0)
        for state in states:
            world.place(env.unwrapped, state)
            yield env.unwrapped.render()  # type: ignore[misc]
    finally:
        env.close()


def draw_small(world: World, states: Array, rng: np.random.Generator) -> Tensor:
    """uint8 (n, 3, 64, 64). A fifth of the frames takes a detour over another render size, so that
    the model doesn't depend on the exact antialiasing of one."""
    images = torch.empty((len(states), 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    for index, frame in enumerate(draw(world, states)):
        image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        if rng.random() < 0.2:
            image = _rescaled(image, scale=rng.uniform(0.4, 1.2))
        images[index] = PREPROCESSOR.resize(image)[0]
    return images


def _rescaled(image: Tensor, scale: float) -> Tensor:
    size = [round(scale * side) for side in image.shape[-2:]]
    resized: Tensor = tvf.resize(image, size, antialias=True)
    return resized
