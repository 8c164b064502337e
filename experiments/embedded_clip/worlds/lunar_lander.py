"""A lander over the moon: LunarLander-v3. The ground differs from episode to episode, the pad doesn't."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from .world import Aim, Array, Family, Region, World, above, near, sentences_beside, warp_degrees, wrap_angle

# As in gymnasium/envs/box2d/lunar_lander.py, in its metres: 30 pixels each.
WIDTH, HEIGHT = 20.0, 40 / 3
CHUNKS = 11
CHUNK_X = np.linspace(0, WIDTH, CHUNKS)
PAD = slice(CHUNKS // 2 - 2, CHUNKS // 2 + 3)
PAD_X, PAD_Y = WIDTH / 2, 0.99 * HEIGHT / 4  # the flags stand at PAD_X - 2 and PAD_X + 2
BODY = np.array([(-14, 17), (-17, 0), (-17, -10), (17, -10), (17, 0), (14, 17)]) / 30
LEG_ANGLE = 0.345  # where the springs hold the legs, in the air and, within 0.005, at rest on the ground
LEG_ANCHOR = np.array([20, 18]) / 30  # the hinge at the body's middle, seen from the leg
LEG = np.array([(-2, -8), (2, -8), (2, 8), (-2, 8)]) / 30

FINE = 12  # degrees: about what can be seen in a small picture
SLACK = 0.8  # the lander can rest this far from the pad's middle with both feet between the flags
SHELL = 0.015  # Box2D rests bodies this far above the ground


def _warp_degrees(degrees: float) -> float:
    return float(warp_degrees(degrees, FINE))


def _warp_metres(metres: Any) -> Array:
    """Monotone: finest near 0, where a landing is decided."""
    metres = np.asarray(metres, dtype=float)
    warped: Array = np.arcsinh(metres / 0.8) + metres / 5
    return warped


SEEN = near("lander_seen", 1, 2.5)


def _tilt(degrees: float, weight: float = 2) -> Aim:
    return near("lander_tilt", _warp_degrees(degrees), weight)


def _height(metres: float, weight: float = 1.5) -> Aim:
    return near("lander_height", float(_warp_metres(metres)), weight)


def _higher(metres: float, weight: float = 1.5) -> Aim:
    return above("lander_height", float(_warp_metres(metres)), weight)


FAMILY = Family(
    name="lunar_lander",
    share=0.27,
    regions=(
        Region("names", (near("lander_seen", 1, 1),), offset=-2),
        Region("landed", (SEEN, near("lander_pad", 0, 2))),
        Region("near the pad", (SEEN, near("lander_x", 0, 1.2), _height(1.5)), topic="place"),
        Region("high in the sky", (SEEN, _higher(6)), topic="place"),
        Region("on the ground left", (SEEN, near("lander_x", -2.2, 1), _height(0, 2)), mirrored=True,
               topic="place"),
        Region("left in the air", (SEEN, near("lander_x", -2.2, 1.5), _higher(1.5, 1)), offset=-0.3,
               mirrored=True, topic="place"),
        Region("tilted left", (SEEN, near("lander_lean", -_warp_degrees(35), 1.5)), mirrored=True,
               topic="tilt"),
        Region("upside down", (SEEN, _tilt(172)), topic="tilt"),
        Region("level", (SEEN, _tilt(0), _higher(0.7, 1)), offset=-0.3),
        Region("lying on its side", (SEEN, _tilt(90), _height(0, 1))),
        Region("not landed", (above("lander_pad", float(_warp_metres(1.2)), 1.5),), offset=-0.5),
        Region("not upright", (SEEN, above("lander_tilt", _warp_degrees(35), 1.5)), offset=-0.5),
        Region("gone", (near("lander_seen", 0, 3),)),
    ),
    sentences=sentences_beside(__file__),
    presets=("the lunar lander resting upright on the pad between the two flags", "a lunar lander"),
    truth_name="-distance to rest on the pad",
    signed=frozenset({"lander_x", "lander_lean"}),
)  # fmt: skip


def terrain(seed: int) -> Array:
    """The ground's height at CHUNK_X after `reset(seed=seed)`."""
    height = seeding.np_random(seed)[0].uniform(0, HEIGHT / 2, CHUNKS + 1)
    height[PAD] = HEIGHT / 4
    around = [np.roll(height, shift)[:CHUNKS] for shift in (1, 0, -1)]
    smooth: Array = 0.33 * np.sum(around, axis=0)
    return smooth


def _rotated(points: Array, angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    rotated: Array = points @ np.array([(cos, sin), (-sin, cos)])
    return rotated


def _leg(side: int) -> tuple[Array, float]:
    """(position, angle) of a leg in the body's frame; the env's first leg, of side -1, hangs on the right."""
    angle = -side * LEG_ANGLE
    return -_rotated(LEG_ANCHOR * (side, 1), angle), angle


def _outline() -> Array:
    """The corners of body and legs in the body's frame."""
    legs = [_rotated(LEG, angle) + position for position, angle in map(_leg, (-1, 1))]
    return np.concatenate([BODY, *legs])


OUTLINE = _outline()
RESTING = float(SHELL - OUTLINE[:, 1].min())  # of the body's middle over flat ground


def ground_contact(x: float, angle: float, ground: Array) -> float:
    """The height at which a falling lander touches the ground, with a corner or on one of the ground's corners."""
    corners = _rotated(OUTLINE, angle)
    own = np.max(np.interp(x + corners[:, 0], CHUNK_X, ground) - corners[:, 1])
    near_peak = np.abs(CHUNK_X - x) < 1.2
    bottom = [_bottom(corners, peak - x) for peak in CHUNK_X[near_peak]]
    peaks = [height - low for height, low in zip(ground[near_peak], bottom, strict=True)]
    return float(max([own, *peaks])) + SHELL


def _bottom(corners: Array, x: float) -> float:
    """The lower edge of the convex shapes (body, leg, leg) at `x`; inf beside them."""
    lowest = np.inf
    for shape in np.split(corners, (6, 10)):
        start, end = shape, np.roll(shape, -1, axis=0)
        crossing = (start[:, 0] - x) * (end[:, 0] - x) < 0
        start, end = start[crossing], end[crossing]
        share = (x - start[:, 0]) / (end[:, 0] - start[:, 0])
        lowest = min([lowest, *(start[:, 1] + share * (end[:, 1] - start[:, 1]))])
    return lowest


def _clearance(states: Array) -> Array:
    """How far the lander is above where it would touch the ground."""
    contact = [ground_contact(x, angle, terrain(int(seed))) for seed, x, _, angle, _ in states]
    return np.maximum(states[:, 2] - contact, 0)


def pad_distance(states: Array) -> Array:
    """Metres from resting upright between the flags; 25 degrees of tilt count as one."""
    beside = np.maximum(np.abs(states[:, 1] - PAD_X) - SLACK, 0)
    above_pad = states[:, 2] - (PAD_Y + RESTING)
    tilt = np.abs(np.rad2deg(wrap_angle(states[:, 3]))) / 25
    return np.sqrt(beside**2 + above_pad**2 + tilt**2)


def _sample(rng: np.random.Generator, n: int) -> Array:
    """(seed of the ground, x, y, angle, flames): mostly in the air, a third on the ground, some out at the top."""
    return np.array([_sample_one(rng) for _ in range(n)])


def _sample_one(rng: np.random.Generator) -> tuple[float, ...]:
    seed, flames = int(rng.integers(1, 2**31)), int(rng.integers(1, 2**31)) if rng.random() < 0.5 else 0
    ground = terrain(seed)
    kind = rng.random()
    if kind < 0.14:  # landed, or nearly so
        angle = np.deg2rad(rng.normal(0, 1) if rng.random() < 0.7 else rng.normal(0, 12))
        x = rng.uniform(PAD_X - 1, PAD_X + 1)
        return seed, x, ground_contact(x, angle, ground), angle, flames if rng.random() < 0.3 else 0
    if kind < 0.32:  # on the ground
        x = rng.uniform(0.5, WIDTH - 0.5)
        slope = np.diff(np.interp([x - 0.9, x + 0.9], CHUNK_X, ground))[0] / 1.8
        upright = np.arctan(slope) + np.deg2rad(rng.normal(0, 6))
        angle = upright if rng.random() < 0.55 else rng.uniform(-np.pi, np.pi)
        if rng.random() < 0.15:
            angle = np.arctan(slope) + np.deg2rad(rng.choice([-90, 90]) + rng.normal(0, 10))
        return seed, x, ground_contact(x, angle, ground), float(wrap_angle(angle)), flames
    if kind < 0.37:  # out at the top, or nearly so
        return seed, rng.uniform(0, WIDTH), rng.uniform(HEIGHT, 17), rng.uniform(-np.pi, np.pi), flames
    spread = rng.choice([6.0, 25.0, 70.0, 180.0], p=[0.3, 0.25, 0.2, 0.25])
    angle = np.deg2rad(rng.uniform(-1, 1) * spread)
    x, top = rng.uniform(0, WIDTH), HEIGHT
    if kind < 0.57:  # low above the pad
        x, top = rng.normal(PAD_X, 1.2), PAD_Y + 4
    low = ground_contact(x, angle, ground)
    return seed, x, rng.uniform(low, max(top, low + 1)), angle, flames


def _place(env: Any, state: Array) -> None:
    """Only what is drawn: the env keeps the ground of its last reset for the physics."""
    seed, x, y, angle, flames = state
    corners = list(zip(CHUNK_X.tolist(), terrain(int(seed)).tolist(), strict=True))
    env.sky_polys = [[a, b, (b[0], HEIGHT), (a[0], HEIGHT)] for a, b in pairwise(corners)]
    parts = [(env.lander, np.zeros(2), 0.0), *((leg, *_leg(side)) for leg, side in zip(env.legs, (-1, 1), strict=True))]
    for body, offset, turn in parts:
        dx, dy = _rotated(offset, angle)
        body.position = (float(x + dx), float(y + dy))
        body.angle = float(angle + turn)
        body.linearVelocity, body.angularVelocity = (0.0, 0.0), 0.0
    env._clean_particles(True)
    if flames:
        _add_flames(env, (x, y), angle, np.random.default_rng(int(flames)))


def _add_flames(env: Any, centre: tuple[float, float], angle: float, rng: np.random.Generator) -> None:
    """The sparks of up to seven steps with the main engine or one of the side engines on; no sentence is about them."""
    nozzle, direction = (((0, -0.2), (0, -1)), ((-0.5, 0.55), (-1, 0)), ((0.5, 0.55), (1, 0)))[rng.integers(3)]
    drift = rng.normal(0, 0.2, 2)
    for age in range(6 - int(rng.integers(6)), -1, -1):  # the env wants the oldest first
        local = np.array(nozzle) + np.array(direction) * (0.25 + 0.45 * age) + drift * age + rng.normal(0, 0.08, 2)
        x, y = np.array(centre) + _rotated(local, angle)
        env._create_particle(1.0, float(x), float(y), 1.0 - 0.13 * age)


def _measure(states: Array) -> dict[str, Array]:
    degrees = np.rad2deg(wrap_angle(states[:, 3]))  # above 0 is counter-clockwise, to the left
    return {
        "lander_seen": np.clip((14.1 - states[:, 2]) / 0.5, 0, 1),
        "lander_x": (states[:, 1] - PAD_X) / 2.5,
        "lander_height": _warp_metres(_clearance(states)),
        "lander_tilt": warp_degrees(np.abs(degrees), FINE),
        "lander_lean": warp_degrees(-degrees, FINE),
        "lander_pad": _warp_metres(pad_distance(states)),
    }


def _truth(states: Array) -> Array:
    """NaN where part of the lander is out of the picture."""
    x, y = states[:, 1], states[:, 2]
    inside = (y < HEIGHT - 0.7) & (x > 1) & (x < WIDTH - 1)
    return np.where(inside, -pad_distance(states), np.nan)


def _in_crop(states: Array) -> Array:
    """The central square shows the middle 40 / 3 metres; half a lander's width is 1."""
    inside: Array = np.abs(states[:, 1] - PAD_X) < 5.6
    return inside


WORLDS = (World("LunarLander-v3", FAMILY, 12000, _sample, _place, _measure, _truth, crop=_in_crop),)
