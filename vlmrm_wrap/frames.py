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

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.rendering import FrameRenderer, check_renders
from vlmrm_wrap.workers import exit_with_parent

__all__ = ["FrameCapture", "FrameReader", "SharedFrames"]

# In a step counter: the FrameCapture has no frame to show but an error to tell; it belongs to a later reader now.
_FAILED, _TAKEN = -1, -2


class SharedFrames:
    """``frames`` uint8 (n, height, width, 3) and ``steps`` int64 (n,), one row a sub-env.

    Within one process this is plain memory. Across processes it is a mapped file that workers open by its
    path, so it works with every start method (``multiprocessing.shared_memory`` does not: a worker's own
    resource tracker unlinks it early), and the file is unlinked as soon as all have opened it, so nothing can
    stay behind. Its blocks are reserved at once: a full /dev/shm is an OSError here, not a SIGBUS later.
    """

    def __init__(self, num_envs: int, frame_shape: tuple[int, ...], *, across_processes: bool) -> None:
        self._layout = (num_envs, tuple(frame_shape))
        self._path: str | None = None
        size = self._steps_offset() + 8 * num_envs
        if across_processes:
            fd, self._path = tempfile.mkstemp(prefix=f"vlmrm_wrap_{os.getpid()}_", dir=_roomy_folder(size))
            self._map(fd, size)
        else:
            self._view(bytearray(size))  # no anonymous mmap, which forked children would share

    def _steps_offset(self) -> int:
        num_envs, frame_shape = self._layout
        return -(-num_envs * int(np.prod(frame_shape)) // 64) * 64  # int64 rows start on a cache line

    def _map(self, fd: int, size: int) -> None:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)
            else:
                os.ftruncate(fd, size)
            self._view(mmap.mmap(fd, size))
        except BaseException:
            self.unlink()
            raise
        finally:
            os.close(fd)

    def _view(self, memory: mmap.mmap | bytearray) -> None:
        num_envs, frame_shape = self._layout
        count = num_envs * int(np.prod(frame_shape))
        self.frames = np.frombuffer(memory, np.uint8, count).reshape(num_envs, *frame_shape)
        self.steps = np.frombuffer(memory, np.int64, num_envs, self._steps_offset())

    def __getstate__(self) -> dict[str, Any]:
        if self._path is None:
            raise TypeError("these frames live in one process, or are bound already; they can't be sent")
        return {"layout": self._layout, "path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._layout, self._path = state["layout"], None  # only the maker unlinks
        fd = os.open(state["path"], os.O_RDWR)
        try:
            self._view(mmap.mmap(fd, os.fstat(fd).st_size))
        finally:
            os.close(fd)

    def unlink(self) -> None:
        """Remove the file's name; the memory lives as long as somebody maps it. Harmless when repeated."""
        path, self._path = self._path, None
        if path is not None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except PermissionError:  # Windows can't unlink what is mapped: again at close
                self._path = path


def _roomy_folder(size: int) -> str:
    """/dev/shm where it exists and has room (containers often give it 64 MB), else the temp folder."""
    shm = "/dev/shm"
    try:
        room = os.statvfs(shm)
        if room.f_bavail * room.f_frsize > size and os.access(shm, os.W_OK):
            return shm
    except (OSError, AttributeError):
        pass
    return tempfile.gettempdir()


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
