"""SharedFrames: the memory in which env workers leave their frames for the process that scores them."""

import mmap
import os
import tempfile
from typing import Any

import numpy as np

__all__ = ["SharedFrames"]


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
