"""What things look like: pictures of wood, grass, cloth and the like, computed from fixed seeds.

All are uint8 RGB ``(size, size, 3)`` and tile without a seam, since their noise is periodic.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOOKS", "look", "noise"]

Picture = NDArray[np.uint8]
Field = NDArray[np.float64]
Colour = tuple[float, float, float]


def noise(shape: tuple[int, int], *, roughness: float, stretch: tuple[float, float] = (1, 1), seed: int = 0) -> Field:
    """Periodic noise ``(height, width)`` of mean 0 and standard deviation 1.

    White noise with its amplitudes at frequency f scaled by ``f ** -roughness``: 0 is static, 2 is clouds.
    ``stretch``: how much longer than isotropic the grain is, down and across.
    """
    height, width = shape
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal(shape))
    rows = np.fft.fftfreq(height)[:, None] * stretch[0]
    columns = np.fft.rfftfreq(width)[None] * stretch[1]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no mean
    field = np.fft.irfft2(white * frequency**-roughness, s=shape)
    return np.asarray(field / field.std())


def _paint(colour: Colour, brightness: Field) -> Picture:
    """``colour`` (0 to 255) times ``1 + brightness`` of each pixel."""
    return np.asarray(np.clip(np.array(colour) * (1 + brightness[..., None]), 0, 255), np.uint8)


def _wood(size: int) -> Picture:
    """Eight planks, each of a tone of its own, with a joint somewhere."""
    rng = np.random.default_rng(1)
    plank = np.arange(size) * 8 // size
    tones, joints = rng.uniform(-0.16, 0.16, (8, 2)), rng.integers(0, size, 8)
    right = np.arange(size)[None] >= joints[plank][:, None]
    grain = noise((size, size), roughness=1.1, stretch=(1, 14), seed=2)
    brightness = np.where(right, tones[plank, 1:], tones[plank, :1]) + 0.11 * grain
    gap = max(1, size // 170)
    brightness[(np.arange(size) % (size // 8)) < gap] -= 0.5
    for row in range(8):
        brightness[plank == row, joints[row] : joints[row] + gap] -= 0.5
    return _paint((160, 116, 74), brightness)


def _grass(size: int) -> Picture:
    patches = noise((size, size), roughness=1.6, seed=3)
    blades = noise((size, size), roughness=0.6, stretch=(4, 1), seed=4)
    picture = _paint((88, 142, 52), 0.10 * patches + 0.20 * blades).astype(float)
    picture[..., 0] += 12 * patches  # some of it is dry
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _earth(size: int) -> Picture:
    lumps = noise((size, size), roughness=1.5, seed=5)
    grains = noise((size, size), roughness=0.5, seed=6)
    brightness = 0.16 * lumps + 0.08 * grains
    stones = noise((size, size), roughness=1.0, seed=7)
    brightness += 0.30 * np.clip(stones - 1.9, 0, 1)
    return _paint((128, 92, 62), brightness)


def _tiles(size: int) -> Picture:
    """Four by four stone tiles with joints."""
    rng = np.random.default_rng(8)
    index = np.arange(size) * 4 // size
    brightness = rng.uniform(-0.07, 0.07, (4, 4))[index[:, None], index[None]]
    brightness = brightness + 0.05 * noise((size, size), roughness=1.4, seed=9)
    joint = (np.arange(size) % (size // 4)) < max(1, size // 100)
    brightness[joint] = brightness[:, joint] = -0.3
    return _paint((196, 188, 172), brightness)


def _metal(size: int) -> Picture:
    return _paint((168, 174, 184), 0.07 * noise((size, size), roughness=0.8, stretch=(1, 30), seed=10))


def _skin(size: int) -> Picture:
    return _paint((226, 172, 138), 0.025 * noise((size, size), roughness=1.5, seed=11))


def _cloth(size: int, colour: Colour) -> Picture:
    """A weave of threads with soft folds."""
    thread = 2 * np.pi * np.arange(size) * (size // 8) / size
    weave = np.sin(thread)[:, None] * np.sin(thread)[None]
    return _paint(colour, 0.06 * weave + 0.07 * noise((size, size), roughness=1.8, seed=12))


LOOKS: dict[str, Callable[[int], Picture]] = {
    "wood": _wood,
    "grass": _grass,
    "earth": _earth,
    "tiles": _tiles,
    "metal": _metal,
    "skin": _skin,
}


@lru_cache(maxsize=32)
def look(name: str, size: int) -> Picture:
    """The picture of a name in :data:`LOOKS`, or of cloth dyed in a colour ``"#rrggbb"``.

    ValueError for anything else.
    """
    if name in LOOKS:
        return LOOKS[name](size)
    return _cloth(size, _colour(name))


def _colour(name: Any) -> Colour:
    try:
        if isinstance(name, str) and name.startswith("#") and len(name) == 7:
            return int(name[1:3], 16), int(name[3:5], 16), int(name[5:], 16)
    except ValueError:
        pass
    raise ValueError(f"a look is {name!r}; required: one of {sorted(LOOKS)}, or a colour such as '#2a5caa'")
