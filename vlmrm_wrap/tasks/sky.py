"""Skies for MuJoCo: six faces of a cube, clouds across their edges included."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.tasks.looks import noise

__all__ = ["SKIES", "sky_faces"]

_SIZE = 256  # pixels of a face

# Colours (0 to 255) overhead, at the horizon, of the clouds, of the ground beyond the floor.
SKIES = {
    "day": ((70, 134, 214), (206, 228, 246), (252, 252, 252), (150, 168, 160)),
    "evening": ((52, 62, 126), (246, 186, 132), (250, 214, 190), (96, 84, 92)),
}

# Where each face of MuJoCo's cube map lies, by trial: the directions of its middle, its first column and its first row.
_FACES = {
    "right": ((1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "left": ((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "back": ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    "front": ((0, -1, 0), (-1, 0, 0), (0, 0, 1)),
    "up": ((0, 0, 1), (-1, 0, 0), (0, 1, 0)),
    "down": ((0, 0, -1), (-1, 0, 0), (0, -1, 0)),
}


@lru_cache(maxsize=2)
def sky_faces(name: str) -> dict[str, NDArray[np.uint8]]:
    """MuJoCo's names of the faces -> uint8 RGB ``(256, 256, 3)``; ``name``: one of :data:`SKIES`."""
    clouds = noise((1024, 1024), roughness=1.5, seed=30)
    across = 1 - 2 * (np.arange(_SIZE) + 0.5) / _SIZE  # of the first column's direction, or the first row's
    faces = {}
    for face, (middle, column, row) in _FACES.items():
        rays = np.array(middle) + across[None, :, None] * np.array(column) + across[:, None, None] * np.array(row)
        faces[face] = _colours(rays / np.linalg.norm(rays, axis=-1, keepdims=True), clouds, SKIES[name])
    return faces


def _colours(
    rays: NDArray[np.float64], clouds: NDArray[np.float64], sky: tuple[tuple[int, int, int], ...]
) -> NDArray[np.uint8]:
    """What is seen along unit vectors ``(..., 3)``: clouds on a plane overhead, which curves towards the horizon."""
    zenith, horizon, cloud, ground = (np.array(colour, float) for colour in sky)
    height = np.clip(rays[..., 2:], 0, 1)
    colour = horizon + height**0.6 * (zenith - horizon)
    where = (rays[..., :2] / (height + 0.3) * 120).astype(int) % len(clouds)
    opacity = np.clip(0.6 * clouds[where[..., 1], where[..., 0]], 0, 0.9)[..., None] * np.clip(height * 12, 0, 1)
    colour = colour + opacity * (cloud - colour)
    below = np.clip(-60 * rays[..., 2:], 0, 1)
    return np.asarray(np.clip(colour + below * (ground - colour), 0, 255), np.uint8)
