"""TexturedMountainCar: a red car on a grassy mountain, where Gymnasium draws a box on a line.

The paper could not learn MountainCar from Gymnasium's picture, and could from one with textures (Rocamonde et al.
2023, section 4.2). The geometry is Gymnasium's (400 x 600 pixels, the hill, the flag's place); all else is drawn
here: the landscape once a process, the car at its exact place and slope in each frame.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.rendering import check_renders
from vlmrm_wrap.tasks.looks import look, noise

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TexturedMountainCar"]

_HEIGHT, _WIDTH, _LEFT_END, _SCALE = 400, 600, -1.2, 600 / 1.8  # pixels; the env's units; pixels a unit

# The car's picture: a canvas in its own pixels, so many of them a pixel of the frame; the frame's patch that holds it.
_CANVAS, _FINE, _PATCH = (72, 40), 2, 88
_DRAWN = 4  # times larger than kept, for smooth edges


def _surface(position: Any) -> Any:
    """The hill's height in pixels of the frame, counted from its top edge."""
    return _HEIGHT - (np.sin(3 * position) * 0.45 + 0.55) * _SCALE


def _slope(position: Any) -> Any:
    """The angle of the hill in radians, positive where it rises to the right."""
    return np.arctan(1.35 * np.cos(3 * position))


class TexturedMountainCar(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Draws MountainCar, discrete or continuous, as a car in a landscape: uint8 (400, 600, 3).

    Position and slope are those of the env's state, in fractions of a pixel. The env itself draws nothing, so
    pygame isn't needed. Goes inside FrameCapture and CLIPRewardWrapper.

    Example:
        >>> env = TexturedMountainCar(gym.make("MountainCarContinuous-v0", render_mode="rgb_array"))
        >>> env.reset(seed=0)[0].shape, env.render().shape
        ((2,), (400, 600, 3))

    Raises ValueError for another env, or another render mode than "rgb_array".
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        from gymnasium.envs.classic_control import Continuous_MountainCarEnv, MountainCarEnv

        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        if not isinstance(env.unwrapped, Continuous_MountainCarEnv | MountainCarEnv):
            raise ValueError(f"TexturedMountainCar got {env}; required: MountainCar-v0 or MountainCarContinuous-v0")
        check_renders(env, "TexturedMountainCar")
        self.metadata = {**env.metadata, "render_modes": ["rgb_array"]}

    def render(self) -> NDArray[np.uint8]:
        drawn: Any = self.env.unwrapped
        position = float(drawn.state[0])
        frame = _landscape(float(drawn.goal_position)).copy()
        _put_car(frame, position)
        return frame


def _put_car(frame: NDArray[np.uint8], position: float) -> None:
    from PIL import Image

    x, y = (position - _LEFT_END) * _SCALE, float(_surface(position))
    slope = _slope(position)
    left, top = int(np.floor(x)) - _PATCH // 2, int(np.floor(y)) - _PATCH // 2
    # Canvas pixel = turned and scaled (frame pixel - wheels' foot) + the foot's place on the canvas.
    cos, sin = _FINE * np.cos(slope), _FINE * np.sin(slope)
    foot = (_FINE * _CANVAS[0] / 2, _FINE * (_CANVAS[1] - 2))
    dx, dy = left - x, top - y
    to_canvas = (cos, -sin, cos * dx - sin * dy + foot[0], sin, cos, sin * dx + cos * dy + foot[1])
    patch = _car().transform((_PATCH, _PATCH), Image.Transform.AFFINE, to_canvas, Image.Resampling.BILINEAR)
    rows = slice(max(top, 0), min(top + _PATCH, _HEIGHT))
    columns = slice(max(left, 0), min(left + _PATCH, _WIDTH))
    car = np.asarray(patch)[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    opacity = car[..., 3:].astype(np.float32) / 255
    behind = frame[rows, columns]
    frame[rows, columns] = (behind + opacity * (car[..., :3].astype(np.float32) - behind) + 0.5).astype(np.uint8)


@lru_cache(maxsize=1)
def _car() -> "Image":
    """The car from its right side, RGBA, wheels at the bottom."""
    from PIL import Image, ImageDraw

    unit = _FINE * _DRAWN
    width, height = (side * unit for side in _CANVAS)
    image = Image.new("RGBA", (width, height), (170, 20, 24, 0))
    draw = ImageDraw.Draw(image)

    def points(*pairs: tuple[float, float]) -> list[tuple[float, float]]:
        """Pixels of the frame, right of and above the foot."""
        return [(width / 2 + x * unit, height - (y + 2) * unit) for x, y in pairs]

    def disc(x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
        draw.ellipse([*points((x - radius, y + radius))[0], *points((x + radius, y - radius))[0]], fill=colour)

    red, dark, glass = (206, 30, 34), (132, 14, 20), (176, 214, 232)
    body = [(-29, 7), (-29.5, 13), (-27, 17.5), (-18, 19), (12, 18.5), (25, 16), (29, 13), (29.5, 7)]
    cabin = [(-20, 18), (-13.5, 28), (-10, 29.5), (4, 29.5), (7, 28.5), (16, 18)]
    draw.polygon(points(*cabin), fill=red)
    draw.polygon(points(*body), fill=red)
    draw.polygon(points((-29, 6), (-29.3, 10), (29.3, 10), (29, 6)), fill=dark)
    draw.polygon(points((-16.5, 19), (-11.5, 26.8), (-5, 27.2), (-5, 19)), fill=glass)
    draw.polygon(points((-2.8, 19), (-2.8, 27.2), (4, 27.2), (11.5, 19)), fill=glass)
    draw.line(points((-3.9, 7), (-3.9, 19)), fill=dark, width=unit)
    draw.polygon(points((25, 12.5), (26.5, 15.2), (28.6, 13.2), (29, 11.5)), fill=(255, 238, 150))
    draw.polygon(points((-29.4, 12.5), (-28, 16.4), (-26.4, 16.4), (-26.6, 12.5)), fill=(120, 8, 12))
    for x in (-17.5, 17.5):
        disc(x, 7.5, 8.6, (60, 10, 12))
        disc(x, 7, 7, (26, 26, 28))
        disc(x, 7, 3.8, (190, 194, 200))
        disc(x, 7, 1.4, (90, 94, 100))
    return image.reduce(_DRAWN)


@lru_cache(maxsize=4)
def _landscape(flag: float) -> NDArray[np.uint8]:
    """Everything but the car: sky, distant ridges, the mountain, the flag. Read-only."""
    picture = _sky()
    positions = _LEFT_END + (np.arange(_WIDTH) + 0.5) / _SCALE
    depth = np.arange(_HEIGHT)[:, None] + 0.5 - _surface(positions)[None]
    depth *= np.cos(_slope(positions))  # pixels below the surface, at right angles to it
    sod = 13 + 3 * noise((1, _WIDTH), roughness=0.7, seed=22)  # how deep the grass reaches down
    ground = _tiled("earth").astype(float) * np.clip(1.12 - depth / 700, 0.55, 1)[..., None]
    grass = _tiled("grass").astype(float) * np.clip(1.15 - depth / 50, 0.7, 1.15)[..., None]
    ground = _over(ground, grass, np.clip((sod - depth) / 3, 0, 1))
    picture = _over(picture, ground, np.clip(depth + 0.5, 0, 1))
    frame: NDArray[np.uint8] = np.clip(picture, 0, 255).astype(np.uint8)
    _put_flag(frame, flag)
    frame.setflags(write=False)
    return frame


def _sky() -> NDArray[np.float64]:
    rows = np.linspace(0, 1, _HEIGHT)[:, None, None]
    sky = np.array([96, 164, 226]) * (1 - rows) + np.array([226, 240, 250]) * rows
    sky = np.repeat(sky, _WIDTH, axis=1).astype(np.float64)
    clouds = noise((_HEIGHT, _WIDTH), roughness=1.7, stretch=(1, 2.5), seed=20)
    sky = _over(sky, np.array([252.0, 252, 250]), np.clip(0.6 * clouds - 0.25, 0, 0.85) * (1 - rows[..., 0]))
    y = np.arange(_HEIGHT)[:, None] + 0.5
    for seed, level, colour in ((21, 190, (150, 176, 204)), (23, 240, (122, 154, 172))):
        ridge = level - 26 * noise((1, _WIDTH), roughness=1.25, seed=seed)
        sky = _over(sky, np.array(colour, float), np.clip(y - ridge + 0.5, 0, 1))
    return sky


def _put_flag(frame: NDArray[np.uint8], flag: float) -> None:
    from PIL import Image, ImageDraw

    scale = 4
    image = Image.new("RGBA", (48 * scale, 60 * scale), (244, 204, 22, 0))
    draw = ImageDraw.Draw(image)
    draw.polygon([(x * scale, y * scale) for x, y in ((5, 3), (42, 13), (5, 25))], fill=(250, 208, 18))
    draw.polygon([(x * scale, y * scale) for x, y in ((5, 19), (24, 18.9), (5, 25))], fill=(226, 180, 10))
    draw.rectangle([2 * scale, 1 * scale, 5 * scale, 60 * scale], fill=(88, 58, 34))
    left, foot = round((flag - _LEFT_END) * _SCALE) - 3, round(float(_surface(flag))) + 4
    sprite = np.asarray(image.reduce(scale))[max(0, 60 - foot) :, : _WIDTH - left].astype(float)
    behind = frame[max(foot - 60, 0) : foot, left : left + sprite.shape[1]]
    behind[:] = _over(behind.astype(float), sprite[..., :3], sprite[..., 3] / 255).round().astype(np.uint8)


def _tiled(name: str) -> NDArray[np.uint8]:
    return np.tile(look(name, 256), (2, 3, 1))[:_HEIGHT, :_WIDTH]


def _over(below: NDArray[np.float64], above: NDArray[np.float64], opacity: NDArray[np.float64]) -> NDArray[np.float64]:
    return below + opacity[..., None] * (above - below)
