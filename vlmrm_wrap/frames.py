"""The frame after the step, taken inside the sub-env, before any autoreset can replace it.

A vector env's own ``render()`` comes too late: Stable-Baselines3 and Gymnasium's SAME_STEP have reset the
sub-env by then, and the last reward of every episode would score the next episode's first frame. So each
sub-env carries a :class:`FrameCapture`, which renders in ``step``, and the process that scores carries one
:class:`FrameReader`::

    FrameCapture.step -> renders -> row i of SharedFrames, its step counter + 1      (in the env worker)
    FrameReader.collect() -> all rows as one (n, H, W, 3) view, and who stepped      (where CLIP lives)

Who stepped is counted, not deduced from the last ``terminated`` flags, which go wrong whenever somebody resets
in between. Binding is late: nothing renders before the first step, so the number of renders is the same as
with a single env, and the OpenGL contexts open in the workers only. This module imports no torch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.rendering import FrameRenderer, check_renders
from vlmrm_wrap.shared_frames import SharedFrames
from vlmrm_wrap.workers import exit_with_parent

__all__ = ["FrameCapture", "FrameReader", "SharedFrames"]

# In a step counter: the FrameCapture has no frame to show but an error to tell; it belongs to a later reader now.
_FAILED, _TAKEN = -1, -2


class FrameCapture(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Renders the frame after each step, for the reward wrapper outside the vector env.

    Goes outermost in every sub-env, as :func:`vlmrm_wrap.make_vec` and :func:`vlmrm_wrap.sb3.make_vec_env`
    put it. It changes nothing that a step returns, never renders at a reset, and without a reward wrapper
    outside it does nothing at all.

    Example:
        >>> envs = gym.make_vec("CartPole-v1", 8, "async", wrappers=[FrameCapture], render_mode="rgb_array")
        >>> envs = CLIPRewardVectorWrapper(envs, model)

    Raises ValueError when ``env.render_mode`` is not "rgb_array", or an Autoreset wrapper is inside.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        check_renders(env, "FrameCapture")
        self._renderer = FrameRenderer(env)
        self._armed = False
        self._steps = 0
        self._frame: NDArray[np.uint8] | None = None
        self._failure: tuple[str, str] | None = None
        self._slot: tuple[SharedFrames, int] | None = None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        if self._armed:
            self._capture()
        return result

    def close(self) -> None:
        self._slot = self._frame = None
        self._renderer.close()
        self.env.close()

    def _capture(self) -> None:
        self._steps += 1
        unchecked = self._renderer.render()  # an exception of the env's own goes its own way
        try:
            frame = self._renderer.checked(unchecked)
        except (TypeError, ValueError) as error:
            # Told by the reader in its own process: a Stable-Baselines3 worker would die of it, wordless.
            self._failure = (type(error).__name__, str(error))
        else:
            # Before it is bound the frame waits through an autoreset, which may redraw the env's own buffer.
            self._failure, self._frame = None, frame if self._slot else frame.copy()
        self._publish()

    def _publish(self) -> None:
        if self._slot is None:
            return
        shared, row = self._slot
        if self._frame is not None:
            np.copyto(shared.frames[row], self._frame)
            self._frame = None
        shared.steps[row] = self._steps if self._failure is None else _FAILED

    # The protocol of FrameReader. Names start with clip_, because they are called through every wrapper outside.

    def clip_arm(self, across_processes: bool) -> bool:
        """Start to render after each step, for a new reader; a worker process now leaves with its parent.

        Whether a RenderEvery inside shows frames again.
        """
        if across_processes:
            exit_with_parent()
        if self._slot is not None:
            self._slot[0].steps[self._slot[1]] = _TAKEN
        self._armed, self._steps = True, 0
        self._frame = self._slot = self._failure = None
        return self.env.has_wrapper_attr("holds_frames")

    def clip_frame_shape(self) -> tuple[int, ...] | None:
        """Shape of the frame that waits to be bound; None before the first step."""
        return None if self._frame is None else self._frame.shape

    def clip_failure(self) -> tuple[str, str] | None:
        """(error type, message) when the last frame was refused."""
        return self._failure

    def clip_bind(self, shared: SharedFrames, row: int) -> None:
        """Write every frame into ``shared.frames[row]`` from now on, the one that waits included."""
        self._slot = (shared, row)
        self._publish()

    @property
    def clip_slot(self) -> tuple[SharedFrames, int] | None:
        """Assigning (shared, row) binds: Gymnasium's vector envs have no call with an argument for each env."""
        return self._slot

    @clip_slot.setter
    def clip_slot(self, slot: tuple[SharedFrames, int]) -> None:
        self.clip_bind(*slot)


class FrameReader:
    """Reads the frames of ``num_envs`` sub-envs that each hold a :class:`FrameCapture`.

    ``call(name, *args)`` calls a method of every FrameCapture, returning a list; ``bind(shared)`` hands row i of
    ``shared`` to sub-env i. They differ between Gymnasium and Stable-Baselines3; all else is here. ``held``: whether
    some of the frames will be shown again, by RenderEvery.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        call: Callable[..., Sequence[Any]],
        bind: Callable[[SharedFrames], object],
        across_processes: bool,
    ) -> None:
        self._num_envs, self._call, self._bind = num_envs, call, bind
        self._across_processes = across_processes
        self._shared: SharedFrames | None = None
        self._seen = np.zeros(num_envs, np.int64)
        self.held = any(call("clip_arm", across_processes))

    def collect(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Frames (n, H, W, 3), valid until the next step, and a mask (n,) of the sub-envs that stepped."""
        shared = self._shared or self._bind_all()
        if shared is None:
            return np.zeros((self._num_envs, 1, 1, 3), np.uint8), np.zeros(self._num_envs, np.bool_)
        steps = shared.steps.copy()
        if (steps == _FAILED).any():
            self._raise_failure()
        if (steps == _TAKEN).any():
            raise RuntimeError(
                "another CLIP reward wrapper was put around the same sub-envs and has their frames now; "
                "use that one, or make new envs"
            )
        stepped = steps != self._seen
        self._seen = steps
        return shared.frames, stepped

    def unstepped(self) -> list[int]:
        """Sub-envs without a new frame since the last :meth:`collect`: the ones a stuck step waits for."""
        if self._shared is None:
            return []
        return np.flatnonzero(self._shared.steps == self._seen).tolist()

    def close(self) -> None:
        if self._shared is not None:
            self._shared.unlink()
            self._shared = None

    def _bind_all(self) -> SharedFrames | None:
        """None while no sub-env has stepped: all of them had ended when they were wrapped, and now reset."""
        self._raise_failure()
        shapes = {shape for shape in self._call("clip_frame_shape") if shape is not None}
        if not shapes:
            return None
        if len(shapes) > 1:
            raise ValueError(
                f"the sub-envs render frames of {len(shapes)} sizes, {sorted(shapes)}; required: one size for all. "
                "Resize them in a wrapper's render(), inside FrameCapture."
            )
        shared = SharedFrames(self._num_envs, shapes.pop(), across_processes=self._across_processes)
        try:
            self._bind(shared)
        finally:
            shared.unlink()
        self._shared = shared
        return shared

    def _raise_failure(self) -> None:
        for index, failure in enumerate(self._call("clip_failure")):
            if failure is not None:
                kind, message = failure
                raise {"TypeError": TypeError}.get(kind, ValueError)(f"sub-env {index}: {message}")
