"""The worlds that the embedded CLIP is taught on. A new one: its file beside this one, its lines here."""

from __future__ import annotations

from . import acrobot, cartpole, cliff_walking, frozen_lake, lunar_lander, mountain_car, pendulum
from .world import KINDS, Aim, Array, Family, Region, World

_MODULES = (cartpole, mountain_car, pendulum, acrobot, lunar_lander, frozen_lake, cliff_walking)

WORLDS: tuple[World, ...] = tuple(world for module in _MODULES for world in module.WORLDS)
FAMILIES: tuple[Family, ...] = tuple(module.FAMILY for module in _MODULES)

__all__ = ["FAMILIES", "KINDS", "WORLDS", "Aim", "Array", "Family", "Region", "World"]
