"""One checked frame from any env, MuJoCo's OpenGL contexts included.

MuJoCo envs need care that no other family does, because each holds an OpenGL context and a process has one
*current* context a thread. Unattended (all seen with gymnasium 1.4 and mujoco 4.0): a second MuJoCo env makes
the first one draw the wrong model, closing it turns the first one black, a context opened before a fork hangs
the children, and a machine without a display fails on the first render and aborts on the second.
"""

import os
import sys
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.screens import try_packed_screen

__all__ = ["FrameRenderer", "check_frame", "check_renders"]

_GL_MODULES = ("mujoco.egl", "mujoco.osmesa")

# On so many frames the pixels of a packed screen are compared with the env's own before it stays.
_TRIALS = 3

# True in a process that was forked from one holding an OpenGL context.
_forked_with_gl = False


def _note_fork() -> None:
    global _forked_with_gl
    _forked_with_gl = any(name in sys.modules for name in _GL_MODULES)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def check_renders(env: gym.Env[Any, Any], wrapper: str) -> None:
    """ValueError unless ``env.render()`` gives the frame of the state that the last step reached."""
    if not isinstance(env, gym.Env):
        raise TypeError(f"{wrapper} wraps a gymnasium.Env, got {type(env).__name__}")
    mode = env.render_mode
    if mode == "rgb_array_list":
        raise ValueError(
            f"{wrapper} got an env with render_mode='rgb_array_list', whose frames leave it when they are read. "
            "Make the env with render_mode='rgb_array' and put RenderCollection outside."
        )
    if mode != "rgb_array":
        raise ValueError(
            f"{wrapper} needs an env made with render_mode='rgb_array'; this one has render_mode={mode!r}. "
            "For example: gym.make(env_id, render_mode='rgb_array')."
        )
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.Autoreset):
            raise ValueError(
                f"{wrapper} got an env with the Autoreset wrapper inside, which would show it frames of resets "
                f"as if they were steps. Put Autoreset outside: Autoreset({wrapper}(env, ...))."
            )
        layer = layer.env


class FrameRenderer:
    """Renders ``env`` once a call and checks what comes: uint8 RGB, shape (height, width, 3), unchanging.

    Raises TypeError or ValueError for anything else, naming what came and how to mend it.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env = env
        self._shape: tuple[int, ...] | None = None
        self._trials_left = _TRIALS

    def __call__(self) -> NDArray[np.uint8]:
        return self.checked(self.render())

    def render(self) -> Any:
        """What the env draws, unchecked."""
        mujoco_renderer = self._mujoco_renderer()
        if mujoco_renderer is not None:
            return self._render_mujoco(mujoco_renderer)
        frame = self._env.render()
        if self._trials_left > 0:
            same = try_packed_screen(self._env, keep=self._trials_left == 1)
            self._trials_left = self._trials_left - 1 if same else 0
        return frame

    def checked(self, frame: Any) -> NDArray[np.uint8]:
        """``frame``, if it is one; the first one fixes the shape."""
        checked = check_frame(frame, self._shape, self._env)
        self._shape = checked.shape
        return checked

    def close(self) -> None:
        """Free MuJoCo's drawing context inside its own OpenGL context; call before ``env.close()``."""
        viewer = getattr(self._mujoco_renderer(), "viewer", None)
        context = getattr(viewer, "con", None)
        if viewer is not None and context is not None:
            viewer.make_context_current()
            context.free()

    def _mujoco_renderer(self) -> Any:
        return getattr(self._env.unwrapped, "mujoco_renderer", None)

    def _render_mujoco(self, renderer: Any) -> Any:
        viewer = getattr(renderer, "viewer", None)
        if viewer is None:
            _prepare_headless_gl()
        else:
            viewer.make_context_current()  # else the env that rendered last lends us its model
        frame = self._env.render()
        if viewer is not None and isinstance(frame, np.ndarray) and not frame.any():
            # An env outside our care was closed and took our textures along; a new viewer brings them back.
            renderer._viewers.clear()
            frame = self._env.render()
        return frame


def check_frame(frame: Any, shape: tuple[int, ...] | None, source: object) -> NDArray[np.uint8]:
    """``frame`` if it is uint8 (height, width, 3), and of ``shape`` unless that is None; else says how to mend it."""
    if not isinstance(frame, np.ndarray):
        raise TypeError(
            f"{source}.render() returned {type(frame).__name__}; required: a uint8 array of shape "
            "(height, width, 3). Make the env with render_mode='rgb_array'."
        )
    if frame.dtype != np.uint8:
        raise TypeError(
            f"{source}.render() returned {frame.dtype} of shape {frame.shape}; required: uint8, 0 to 255. "
            "For floats in [0, 1]: (255 * frame).round().astype(np.uint8), in a wrapper's render()."
        )
    if frame.ndim != 3 or frame.shape[2] != 3:
        remedy = {
            4: "drop alpha: frame[..., :3]",
            1: "repeat grey: frame.repeat(3, axis=2)",
        }.get(frame.shape[2] if frame.ndim == 3 else 0, "one RGB image a call")
        raise ValueError(
            f"{source}.render() returned shape {frame.shape}; required: (height, width, 3). "
            f"Mend it in a wrapper's render(): {remedy}."
        )
    if shape is not None and frame.shape != shape:
        raise ValueError(
            f"{source}.render() returned shape {frame.shape} after {shape}; required: frames of one "
            "size. Resize them in a wrapper's render()."
        )
    return frame


def _prepare_headless_gl() -> None:
    """Before a process's first MuJoCo render: choose EGL where there is no display, refuse a forked context."""
    if _forked_with_gl:
        raise RuntimeError(
            "this env worker was forked from a process in which MuJoCo had already rendered; an OpenGL context "
            "does not survive a fork, and rendering here would hang. Start the workers with "
            "make_vec(..., vector_kwargs={'context': 'forkserver'}), or make_vec_env(..., start_method='forkserver'), "
            "or before anything renders."
        )
    no_display = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform == "linux" and no_display and "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = "egl"  # gymnasium would try GLFW first, which aborts without a display
