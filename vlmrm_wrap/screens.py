"""pygame: cheaper frames, to the bit the same, from Gymnasium's envs that draw with it; and scripts without a screen.

Classic control and toy text draw on a surface of four bytes a pixel that they keep, and most of their render()
is numpy's way out of it, three bytes at a time: 0.9 of CartPole's 1.2 ms. On a surface whose pixels lie as
those of the frame do, three bytes each, the same copy is one block. So the surface is what is changed, the
env's own render() draws and returns as ever, and nothing of Gymnasium or pygame is touched.

Left as they are: an env or a wrapper with a render() of its own; Box2D's envs, which make a new surface for
each frame; and any env whose pixels differ on the new surface by as much as one level.
"""

import os
import sys
from typing import Any

import gymnasium as gym
import numpy as np

__all__ = ["quiet_pygame", "try_packed_screen"]

# Where the envs of a module keep the surface that they draw each frame on, all of it anew.
_SCREENS = {
    "gymnasium.envs.classic_control.acrobot": "screen",
    "gymnasium.envs.classic_control.cartpole": "screen",
    "gymnasium.envs.classic_control.continuous_mountain_car": "screen",
    "gymnasium.envs.classic_control.mountain_car": "screen",
    "gymnasium.envs.classic_control.pendulum": "screen",
    "gymnasium.envs.toy_text.blackjack": "screen",
    "gymnasium.envs.toy_text.cliffwalking": "window_surface",
    "gymnasium.envs.toy_text.frozen_lake": "window_surface",
    "gymnasium.envs.toy_text.taxi": "window",
}


def quiet_pygame() -> None:
    """For scripts, before anything is drawn: no greeting on stdout, and no search for a screen where there is none.

    Sets environment variables of this process, and of workers to come, where they are not set; pygame reads them.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # Gymnasium's frames are drawn in memory


def try_packed_screen(env: gym.Env[Any, Any], *, keep: bool) -> bool:
    """Whether ``env``, which has rendered before, draws its present state alike on a packed screen.

    The unwrapped env is rendered once on its own screen and once on the packed one. If the frames are equal and
    ``keep`` is set the packed one stays; in all other cases, errors included, the env has its own back.
    """
    name = _screen_name(env)
    if name is None:
        return False
    drawer: Any = env.unwrapped
    own = getattr(drawer, name, None)
    same = False
    try:
        expected = drawer.render()
        setattr(drawer, name, _packed_like(own))
        frame = drawer.render()
        same = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and np.array_equal(frame, expected)
    except Exception:
        pass  # whatever it was, the env can do without us
    finally:
        if not (same and keep):
            setattr(drawer, name, own)
    return same


def _screen_name(env: Any) -> str | None:
    """The attribute of the unwrapped env that holds its screen; None for an env that is not to be touched."""
    while isinstance(env, gym.Wrapper):
        # A wrapper of the user's may read the screen in its own way, and those of our tasks draw their own picture.
        if not _render_module(env).startswith(("gymnasium.", "vlmrm_wrap.wrappers.")):
            return None
        env = env.env
    return _SCREENS.get(_render_module(env))


def _render_module(env: Any) -> str:
    """The module in which what ``env.render()`` runs was written, "" if there is more than one."""
    methods = [name for name in ("render", "_render_gui") if hasattr(type(env), name)]  # _render_gui: toy text
    modules = {str(getattr(getattr(type(env), name), "__module__", "")) for name in methods}
    return "" if vars(env).keys() & set(methods) or len(modules) != 1 else modules.pop()


def _packed_like(own: Any) -> Any:
    """A surface of ``own``'s size and content with the pixels of an RGB array (height, width, 3)."""
    pygame = sys.modules["pygame"]  # the env has drawn with it
    if type(own) is not pygame.Surface or own.get_bitsize() != 32 or own.get_masks()[3] or own.get_colorkey():
        raise ValueError(f"the screen is {own!r}; required: a plain opaque surface of four bytes a pixel")
    width, height = own.get_size()
    packed = pygame.image.frombuffer(bytearray(3 * width * height), (width, height), "RGB")
    packed.blit(own, (0, 0))
    return packed
