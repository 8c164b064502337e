"""Humanoid's poses as goals, told from where the parts of its body are.

The definitions are ours: in the paper people judged films (Rocamonde et al. 2023, section 4.3). Its eighth pose, the
lotus, has none here: the joints don't bring a foot onto the other thigh, and what less would do is a matter of taste.

A goal is a function of the unwrapped Humanoid env, whose floor is at height 0. Heights are in metres and of centres:
of a knee, hip or elbow the joint's, of a hand or foot (a ball of 4 or 7.5 cm radius) its own. Places are those that
the picture shows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["POSES"]

Point = NDArray[np.float64]

_SIDES = (("left", 1.0), ("right", -1.0))  # the body's own y axis points to its left
_UPRIGHT = np.cos(np.deg2rad(30))


def _standing(env: Any) -> bool:
    """Where Gymnasium pays for survival: the torso's centre 1 to 2 m above the floor (``healthy_z_range``)."""
    return bool(env.is_healthy)


def _arms_raised(env: Any) -> bool:
    """Standing upright, both hands higher than the top of the head."""
    top = _place(env, "head")[2] + 0.09
    return _standing_upright(env) and all(_place(env, f"{side}_hand")[2] > top for side, _ in _SIDES)


def _hands_on_hips(env: Any) -> bool:
    """Standing upright, each hand within 15 cm of its side of the pelvis, the elbow 5 cm or more farther out."""
    return _standing_upright(env) and all(_on_hip(env, side, outwards) for side, outwards in _SIDES)


def _arms_crossed(env: Any) -> bool:
    """Standing upright, each hand, all of it, on the other arm's side, between waist and chin.

    Which is before the chest and as much as the joints allow: the forearms cross, and can't be folded.
    """
    hands = [_seen_from(env, "torso", _place(env, f"{side}_hand")) * (1, outwards, 1) for side, outwards in _SIDES]
    return _standing_upright(env) and all(y < -0.04 and -0.3 < z < 0.1 for _, y, z in hands)


def _one_leg(env: Any) -> bool:
    """Standing upright, one foot on the floor (within 5 cm) and the other 20 cm or more above it."""
    lower, higher = sorted(_place(env, f"{side}_foot")[2] - 0.075 for side, _ in _SIDES)
    return _standing_upright(env) and lower < 0.05 and higher > 0.2


def _kneeling(env: Any) -> bool:
    """Upright, both knees on the floor (lower than 10 cm), and the hips 10 cm or more above them.

    So sitting on the heels is kneeling, and sitting with stretched legs is not.
    """
    knees = [env.data.body(f"{side}_shin").xpos[2] for side, _ in _SIDES]
    return _upright(env) and max(knees) < 0.1 and min(_hips(env)) > max(knees) + 0.1


def _splits(env: Any) -> bool:
    """Side splits: upright, the hips lower than 25 cm, the feet on the floor (within 10 cm) and 1.3 m apart sideways.

    More than 1.53 m the joints don't allow, which is an angle of 125 degrees between the legs; 1.3 m are a right angle.
    """
    left, right = (_place(env, f"{side}_foot") for side, _ in _SIDES)
    apart = (left - right) @ env.data.body("pelvis").xmat.reshape(3, 3)[:, 1]
    on_floor = max(left[2], right[2]) < 0.175
    return _upright(env) and max(_hips(env)) < 0.25 and on_floor and bool(apart > 1.3)


POSES: dict[str, Callable[[Any], bool]] = {
    "standing": _standing,
    "arms_raised": _arms_raised,
    "hands_on_hips": _hands_on_hips,
    "arms_crossed": _arms_crossed,
    "one_leg": _one_leg,
    "kneeling": _kneeling,
    "splits": _splits,
}
"""The names that :class:`~vlmrm_wrap.tasks.Success` takes for Humanoid."""


def _upright(env: Any) -> bool:
    """The torso's long axis within 30 degrees of the vertical."""
    return bool(env.data.body("torso").xmat[8] > _UPRIGHT)


def _standing_upright(env: Any) -> bool:
    return _standing(env) and _upright(env)


def _on_hip(env: Any, side: str, outwards: float) -> bool:
    hand = _seen_from(env, "pelvis", _place(env, f"{side}_hand"))
    elbow = _seen_from(env, "pelvis", env.data.body(f"{side}_lower_arm").xpos)
    hip = np.array([0, 0.16 * outwards, 0])  # on the pelvis's surface
    return bool(np.linalg.norm(hand - hip) < 0.15 and (elbow - hand)[1] * outwards > 0.05)


def _place(env: Any, geom: str) -> Point:
    place: Point = env.data.geom(geom).xpos
    return place


def _hips(env: Any) -> list[float]:
    return [float(env.data.body(f"{side}_thigh").xpos[2]) for side, _ in _SIDES]


def _seen_from(env: Any, body: str, place: Point) -> Point:
    """``place`` in the body's own axes: forwards, to its left, along it upwards."""
    frame = env.data.body(body)
    seen: Point = frame.xmat.reshape(3, 3).T @ (place - frame.xpos)
    return seen
