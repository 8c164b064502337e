"""Humanoid's poses as goals: hand-made poses that fulfil them, and some that don't quite."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco")

from vlmrm_wrap.tasks.poses import POSES

# Joint angles in degrees, of both sides, or of one by its name; those left out are 0. pitch: of the whole body;
# above: how many metres its lowest point is above the floor.
ARMS_UP = {"shoulder1": -85, "shoulder2": 35, "elbow": -60}
ON_HIPS = {"shoulder1": 50, "shoulder2": -75, "elbow": -20}
CROSSED = {"right_shoulder1": 59, "right_shoulder2": 13, "right_elbow": -33, "left_shoulder1": -59, "left_elbow": -43}
KNEELING = {"pitch": 5, "hip_y": 20, "knee": -70}
SPLITS = {"hip_x": -20, "hip_z": -55, "hip_y": -65}

CASES = {
    "standing": ({}, {"standing"}),
    "lying on the back": ({"pitch": -90}, set()),
    "arms raised": (ARMS_UP, {"standing", "arms_raised"}),
    "one arm raised": ({"right_shoulder1": -85, "right_shoulder2": 35, "right_elbow": -60}, {"standing"}),
    "arms raised, leaning back": ({**ARMS_UP, "pitch": -33}, {"standing"}),
    "arms raised, kneeling": ({**ARMS_UP, **KNEELING}, {"kneeling"}),
    "hands on hips": (ON_HIPS, {"standing", "hands_on_hips"}),
    "one hand on a hip": ({"right_shoulder1": 50, "right_shoulder2": -75, "right_elbow": -20}, {"standing"}),
    "arms hanging": ({"shoulder1": 35, "shoulder2": -65, "elbow": -30}, {"standing"}),
    "hands on hips, kneeling": ({**ON_HIPS, **KNEELING}, {"kneeling"}),
    "arms crossed": (CROSSED, {"standing", "arms_crossed"}),
    "one arm across": ({**CROSSED, "left_shoulder1": 0, "left_elbow": 0}, {"standing"}),
    "arms crossed, kneeling": ({**CROSSED, **KNEELING}, {"kneeling"}),
    "one hand before the face": (
        {**CROSSED, "right_shoulder1": 5, "right_shoulder2": 55, "right_elbow": -20},
        {"standing"},
    ),
    "one hand before the belly": (
        {**CROSSED, "right_shoulder1": 55, "right_shoulder2": 5, "right_elbow": -90},
        {"standing"},
    ),
    "on one leg": ({"right_hip_y": -45, "right_knee": -90}, {"standing", "one_leg"}),
    "one foot 10 cm up": ({"right_hip_y": -30, "right_knee": -60}, {"standing"}),
    "both feet off the floor": ({"right_hip_y": -45, "right_knee": -90, "above": 0.3}, {"standing"}),
    "squatting on one leg": ({"left_hip_y": -100, "left_knee": -130, "right_hip_y": -95}, set()),
    "kneeling": (KNEELING, {"kneeling"}),
    "sitting on the heels": ({"hip_y": -60, "knee": -150}, {"kneeling"}),
    "on one knee": ({"right_hip_y": 20, "right_knee": -90, "left_hip_y": -70}, set()),
    "on hands and knees": ({"pitch": 75, "hip_y": -75, "knee": -90}, set()),
    "sitting with stretched legs": ({"hip_y": -90}, set()),
    "side splits": (SPLITS, {"splits"}),
    "side splits, bent over": ({**SPLITS, "pitch": 45, "abdomen_y": -45}, set()),
    "side splits, hips up": ({**SPLITS, "pitch": 25}, set()),
    "side splits, feet up": ({**SPLITS, "pitch": -15, "hip_y": -80}, set()),
    "legs a little apart": ({"hip_x": -20, "hip_z": -20, "hip_y": -70}, set()),
    "a long step": ({"right_hip_y": -85, "left_hip_y": 20, "pitch": 25}, {"standing"}),
    "handstand splits": ({**SPLITS, "pitch": 180}, set()),
}


@pytest.fixture(scope="module")
def env():
    return gym.make("Humanoid-v5").unwrapped


def put(env, pitch=0, above=0.0, **degrees):
    """Take the pose of these angles, within the joints' limits, on the floor."""
    qpos = np.zeros(env.model.nq)
    qpos[2], qpos[3], qpos[5] = 3, np.cos(np.deg2rad(pitch) / 2), np.sin(np.deg2rad(pitch) / 2)
    for joint in range(1, env.model.njnt):
        name = env.model.joint(joint).name
        side, _, part = name.partition("_")
        mirrored = -1 if side == "left" and "shoulder" in part else 1  # the axes of that shoulder point the other way
        angle = np.deg2rad(degrees.get(name, mirrored * degrees.get(part, 0)))
        qpos[joint + 6] = np.clip(angle, *env.model.jnt_range[joint])
    env.set_state(qpos, np.zeros(env.model.nv))
    shapes = zip(env.data.geom_xpos, env.data.geom_xmat, env.model.geom_size, strict=True)
    lowest = min(centre[2] - radius - abs(axes[8]) * half for centre, axes, (radius, half, _) in list(shapes)[1:])
    qpos[2] += above - lowest
    env.set_state(qpos, np.zeros(env.model.nv))


@pytest.mark.parametrize("case", CASES)
def test_a_pose_is_what_it_is_and_nothing_else(env, case):
    angles, goals = CASES[case]
    put(env, **angles)
    within = [contact.dist for contact in env.data.contact if env.model.geom("floor").id not in contact.geom]
    assert min(within, default=0) > -0.01  # no arm passes through the body
    assert {name for name, holds in POSES.items() if holds(env)} == goals


def test_every_goal_has_a_pose(env):
    assert set().union(*(goals for _, goals in CASES.values())) == POSES.keys()
