"""A pole on a cart: CartPole, drawn flat, and MuJoCo's InvertedPendulum, the same thing in three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .world import Aim, Array, Family, Region, World, above, below, near, sentences_beside, warp_degrees, wrap_angle

FINE = 5  # degrees: control happens within 12


def _warp(degrees: float) -> float:
    return float(warp_degrees(degrees, FINE))


SEEN = near("cart_seen", 1, 2.5)


def _tilt(degrees: float) -> tuple[Aim, ...]:
    return SEEN, near("pole_tilt", _warp(degrees), 2)


def _lean(degrees: float) -> tuple[Aim, ...]:
    """To the left, as all mirrored regions."""
    return SEEN, near("pole_lean", -_warp(degrees), 2)


def _cart(x: float) -> tuple[Aim, ...]:
    return SEEN, near("cart_x", x / 0.8, 2)


FAMILY = Family(
    name="cartpole",
    share=0.40,
    regions=(
        Region("names", (near("cart_seen", 1, 1),), offset=-2),
        Region("upright", _tilt(0), topic="pole"),
        Region("nearly upright", _tilt(2), topic="pole"),
        Region("slightly tilted", _tilt(6), topic="pole"),
        Region("slightly tilted left", _lean(6), mirrored=True, topic="pole"),
        Region("tilted", _tilt(15), topic="pole"),
        Region("tilted left", _lean(15), mirrored=True, topic="pole"),
        Region("far tilted", _tilt(32), topic="pole"),
        Region("far tilted left", _lean(32), mirrored=True, topic="pole"),
        Region("falling", _tilt(50), topic="pole"),
        Region("fallen", _tilt(87), topic="pole"),
        Region("fallen left", _lean(87), mirrored=True, topic="pole"),
        Region("hanging", _tilt(172), topic="pole"),
        Region("degrees", _tilt, numbers=range(1, 61), share=2, topic="pole"),
        Region("degrees left", _lean, numbers=range(1, 61), share=2, mirrored=True, topic="pole"),
        Region("more than degrees", lambda n: (SEEN, above("pole_tilt", _warp(n), 1.5)), numbers=range(1, 61), share=2,
               offset=-0.5),
        Region("less than degrees", lambda n: (SEEN, below("pole_tilt", _warp(n), 1.5)), numbers=range(1, 61), share=2,
               offset=-0.5),
        Region("not upright", (SEEN, above("pole_tilt", _warp(15), 1.5)), offset=-0.5),
        Region("not fallen", (SEEN, below("pole_tilt", _warp(25), 1.5)), offset=-0.5),
        Region("not leaning left", (SEEN, above("pole_lean", 0, 1.5)), offset=-0.5, mirrored=True),
        Region("cart centre", _cart(0), topic="cart"),
        Region("cart a bit left", _cart(-0.8), mirrored=True, topic="cart"),
        Region("cart left", _cart(-1.6), mirrored=True, topic="cart"),
        Region("cart far left", _cart(-2.3), mirrored=True, topic="cart"),
        Region("cart not left", (SEEN, above("cart_x", 0, 1.5)), offset=-0.5, mirrored=True),
        Region("cart gone", (near("cart_seen", 0, 3),)),
    ),
    sentences=sentences_beside(__file__),
    presets=("pole vertically upright on top of the cart", "pole and cart"),
    truth_name="-abs(angle), degrees",
    signed=frozenset({"pole_lean", "cart_x"}),
)  # fmt: skip


def _sample(rng: np.random.Generator, n: int) -> Array:
    """(x, theta): angles mostly where control happens; some carts beyond the picture's edge."""
    x = rng.uniform(-2.4, 2.4, n) * np.where(rng.random(n) < 0.15, 3.2 / 2.4, 1.0)
    spread = rng.choice([5.0, 15.0, 45.0, 180.0], size=n, p=[0.15, 0.35, 0.18, 0.32])
    return np.stack([x, np.deg2rad(rng.uniform(-1, 1, n) * spread)], axis=1)


def _place(env: Any, state: Array) -> None:
    env.state = np.array([state[0], 0.0, state[1], 0.0])


def _measure(states: Array) -> dict[str, Array]:
    x, degrees = states[:, 0], np.rad2deg(wrap_angle(states[:, 1]))
    return {
        "pole_lean": warp_degrees(degrees, FINE),
        "pole_tilt": warp_degrees(np.abs(degrees), FINE),
        "cart_x": x / 0.8,
        "cart_seen": np.clip((2.7 - np.abs(x)) / 0.4, 0, 1),
    }


def _truth(states: Array) -> Array:
    """-abs(angle) in degrees; NaN where part of the cart is out of the picture."""
    degrees = -np.abs(np.rad2deg(wrap_angle(states[:, 1])))
    return np.where(np.abs(states[:, 0]) < 2.4, degrees, np.nan)


def _in_crop(states: Array) -> Array:
    """The central square shows abs(x) < 1.6; half a cart's width is 0.38."""
    inside: Array = np.abs(states[:, 0]) < 1.2
    return inside


# InvertedPendulum's picture is 2 units wide where CartPole's is 4.8.
MUJOCO_SCALE = 2.4


def _place_mujoco(env: Any, state: Array) -> None:
    env.set_state(np.array([state[0] / MUJOCO_SCALE, state[1]]), np.zeros(2))


WORLDS = (
    World("CartPole-v1", FAMILY, 14000, _sample, _place, _measure, _truth, crop=_in_crop),
    # At half its usual size, which is a tenth of the cost in software and more than the model sees.
    World("InvertedPendulum-v5", FAMILY, 6000, _sample, _place_mujoco, _measure, _truth,
          kwargs={"width": 240, "height": 240}),
)  # fmt: skip
