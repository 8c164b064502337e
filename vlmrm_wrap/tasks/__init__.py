"""The tasks of the paper as Gymnasium envs, and what they are made of, for any env.

Importing this module registers the ids, so ``gym.make("vlmrm_wrap.tasks:vlmrm_wrap/TexturedHumanoid-v0")`` needs no
import of its own, in a worker process neither. The envs are Gymnasium's with their physics, observations and starts:

===========================================  =====================================================================
id                                           what is different
===========================================  =====================================================================
vlmrm_wrap/CartPole-v0                       CartPole-v1 with ``info["success"]``: pole and cart within its limits
vlmrm_wrap/TexturedMountainCar-v0            MountainCar-v0 as a landscape; the flag is absorbing; success: at the flag
vlmrm_wrap/TexturedMountainCarContinuous-v0  the same of MountainCarContinuous-v0
vlmrm_wrap/TexturedHumanoid-v0               Humanoid-v5 in clothes, on planks, under a sky, seen by the paper's camera
vlmrm_wrap/TexturedMuJoCo-v0                 any MuJoCo env of Gymnasium: ``env_id="Ant-v5"`` and the same arguments
===========================================  =====================================================================

goals.py AbsorbingGoal, Success; poses.py Humanoid's poses as goals; mountain_car.py TexturedMountainCar;
mujoco_xml.py textured_mujoco_xml; cameras.py camera, TrackingCamera; looks.py, sky.py the pictures; envs.py the entry
points and their arguments. No torch, pygame or mujoco before an env is made.
"""

import gymnasium as gym

from vlmrm_wrap.tasks.cameras import TrackingCamera, camera
from vlmrm_wrap.tasks.goals import AbsorbingGoal, Success, is_success
from vlmrm_wrap.tasks.mountain_car import TexturedMountainCar
from vlmrm_wrap.tasks.mujoco_xml import textured_mujoco_xml

__all__ = [
    "AbsorbingGoal",
    "Success",
    "TexturedMountainCar",
    "TrackingCamera",
    "camera",
    "is_success",
    "textured_mujoco_xml",
]

for _name, _maker, _limit in (
    ("CartPole-v0", "cartpole", 500),
    ("TexturedMountainCar-v0", "mountain_car", 200),
    ("TexturedMountainCarContinuous-v0", "mountain_car_continuous", 999),
    ("TexturedHumanoid-v0", "humanoid", 1000),
    ("TexturedMuJoCo-v0", "mujoco", None),  # which has the time limit of its env_id inside
):
    gym.register(f"vlmrm_wrap/{_name}", f"vlmrm_wrap.tasks.envs:{_maker}", max_episode_steps=_limit)
