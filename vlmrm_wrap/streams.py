"""Frames to a GPU and similarities back, with nobody waiting in between.

    the caller's frames -> pinned staging -> [copy queue] device staging -> [work queue] the bucket's input
                        -> one CUDA graph: resize, encode, similarities -> pinned results -> whoever asks

A queue is a CUDA stream: what is put into it runs later, in order. Everything that a later step would
overwrite is guarded by an event: pinned staging by "copied to the device", device staging by "taken over by
the work queue". There are two of each, so that the host fills one while the other is under way, and a host
that runs ahead by more is held back there.

CUDA graphs replay fixed shapes only, so a batch is padded to the next of a few sizes (:func:`bucket_of`),
whose graph serves every number of envs. Padding is whatever frames the input held before; rows of a batch
don't touch each other, and the padding's are cut off.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmrm_wrap.preprocess import as_tensor

__all__ = ["FramePipe", "Queue", "bucket_of", "capture_graph"]

Compute = Callable[[Tensor], Tensor]
Capture = Callable[[Compute, Tensor, Any], tuple[Callable[[], Any], Tensor]]

_EAGER_USES = 2  # of a bucket before its graph: kernels load and libraries set up outside of a capture


def bucket_of(n: int, limit: int) -> int:
    """The next of 1 to 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ... and ``limit``, from ``n`` up: a quarter more at most.

    >>> [bucket_of(n, limit=30) for n in (1, 5, 8, 9, 13, 17, 29, 30)]
    [1, 5, 8, 10, 14, 20, 30, 30]
    """
    step = 1 << max(0, (n - 1).bit_length() - 3)
    return min(-(-n // step) * step, limit)


class Event(Protocol):
    """A point in a queue; ``synchronize`` returns when the queue has passed it."""

    def synchronize(self) -> None: ...


class Queue:
    """A CUDA stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # a stream of its own does not wait for what put the weights on the device
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def run(self, work: Callable[[], Any]) -> None:
        """Put into the queue whatever ``work`` asks of the device."""
        with torch.cuda.stream(self._stream):
            work()

    def allocate(self, make: Callable[[], Tensor]) -> Tensor:
        """A tensor for use in this queue: torch hands its memory out again in the queue's own order."""
        with torch.cuda.stream(self._stream):
            return make()

    def mark(self) -> Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def wait_for(self, event: Any) -> None:
        """What is put in from now on runs after ``event`` of another queue; the host does not wait."""
        self._stream.wait_event(event)


def capture_graph(compute: Compute, frames: Tensor, pool: Any) -> tuple[Callable[[], None], Tensor]:
    """A function that repeats ``compute(frames)`` on what ``frames`` then holds, and where its result lies.

    Graphs of one ``pool`` work in the same memory: a result is to be copied out, in the same queue, before
    another of them runs.
    """
    graph, queue = torch.cuda.CUDAGraph(), torch.cuda.current_stream(frames.device)
    # thread_local: other threads of the program may go on using CUDA meanwhile
    with torch.cuda.graph(graph, pool=pool, stream=queue, capture_error_mode="thread_local"):
        result = compute(frames)
    return graph.replay, result


@dataclass
class _Slot:
    """Staging for one batch, as flat bytes that grow, and how far the queues are with it."""

    pinned: Tensor | None = None
    staged: Tensor | None = None
    copied: Event | None = None  # pinned may be written
    taken: Event | None = None  # staged may be written


@dataclass
class _Bucket:
    """One shape of input: what computes on it."""

    frames: Tensor
    uses: int = 0
    replay: Callable[[], Any] | None = None
    result: Tensor | None = None


class FramePipe:
    """Runs ``compute`` on a CUDA device for batches of frames, and never waits for one before it is asked to.

    ``compute``: uint8 frames ``(k, height, width, 3)`` on the device -> float32 ``(k, columns)`` there, row
    by row, without asking the device for a value. ``queues`` (one that copies, one that computes) and
    ``capture`` are for tests.

    torch.OutOfMemoryError of the device comes out of :meth:`submit`; the pipe can go on after :meth:`clear`.
    Where ``compute`` can't be captured, one warning names the reason, and it runs without graphs.
    """

    def __init__(
        self,
        compute: Compute,
        device: torch.device,
        *,
        queues: tuple[Queue, Queue] | None = None,
        capture: Capture = capture_graph,
    ) -> None:
        self._compute, self._device, self._capture = compute, device, capture
        self._copies, self._work = queues or (Queue(device), Queue(device))
        self._slots = [_Slot(), _Slot()]
        self._inputs: dict[tuple[int, ...], Tensor] = {}
        self._buckets: dict[tuple[int, ...], _Bucket] = {}
        self._pool: Any = None
        self._graphs = True

    @property
    def captured(self) -> list[tuple[int, ...]]:
        """The shapes of input that run as a graph by now."""
        return [shape for shape, bucket in self._buckets.items() if bucket.replay is not None]

    def submit(self, frames: NDArray[np.uint8], limit: int) -> Callable[[], NDArray[np.float32]]:
        """Start on ``frames`` ``(n, height, width, 3)``, 1 <= n <= ``limit``; what is returned waits for the rows.

        ``limit``: the largest batch to pad to, smaller than before only after a :meth:`clear`. ``frames`` may
        be overwritten as soon as this returns.
        """
        with torch.inference_mode():
            return self._submit(as_tensor(frames), limit)

    def clear(self) -> None:
        """Give back the memory of every graph and its input; they are made again when needed."""
        self._work.mark().synchronize()  # what runs still reads it
        self._buckets.clear()
        self._inputs.clear()
        self._pool = None

    def _submit(self, frames: Tensor, limit: int) -> Callable[[], NDArray[np.float32]]:
        n = len(frames)
        slot = self._slots[0]
        self._slots.reverse()
        pinned, staged = self._staging(slot, frames)
        pinned.copy_(frames)
        if slot.taken is not None:
            self._copies.wait_for(slot.taken)
        self._copies.run(lambda: staged.copy_(pinned, non_blocking=True))
        slot.copied = self._copies.mark()
        bucket = self._bucket(bucket_of(n, limit), limit, frames.shape[1:])
        self._work.wait_for(slot.copied)
        self._work.run(lambda: bucket.frames[:n].copy_(staged))
        slot.taken = self._work.mark()
        results: list[Tensor] = []
        self._work.run(lambda: results.append(self._download(self._result(bucket, n))))
        done = self._work.mark()

        def rows() -> NDArray[np.float32]:
            done.synchronize()
            return results[0].numpy()

        return rows

    def _staging(self, slot: _Slot, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the slot's memory in the shape of ``frames``; waits until its last copy has left the host."""
        if slot.copied is not None:
            slot.copied.synchronize()
        size = frames.numel()
        if slot.pinned is None or slot.staged is None or slot.pinned.numel() < size:
            if slot.taken is not None:
                slot.taken.synchronize()  # torch knows staged as memory of one queue, and two use it
            slot.pinned = self._pinned(size, torch.uint8)
            slot.staged = self._copies.allocate(partial(torch.empty, size, dtype=torch.uint8, device=self._device))
        return slot.pinned[:size].view(frames.shape), slot.staged[:size].view(frames.shape)

    def _bucket(self, size: int, limit: int, frame: tuple[int, ...]) -> _Bucket:
        """For ``size`` frames; those of one frame shape share their memory, used by one after the other."""
        if (size, *frame) not in self._buckets:
            if frame not in self._inputs:
                make = partial(torch.zeros, (limit, *frame), dtype=torch.uint8, device=self._device)
                self._inputs[frame] = self._work.allocate(make)
            self._buckets[size, *frame] = _Bucket(self._inputs[frame][:size])
        return self._buckets[size, *frame]

    def _result(self, bucket: _Bucket, n: int) -> Tensor:
        """Of the first ``n`` frames that the bucket holds."""
        bucket.uses += 1
        if self._graphs and bucket.replay is None and bucket.uses > _EAGER_USES:
            self._try_to_capture(bucket)
        if not self._graphs:
            return self._compute(bucket.frames[:n])
        if bucket.replay is None or bucket.result is None:
            return self._compute(bucket.frames)[:n]
        bucket.replay()
        return bucket.result[:n]

    def _try_to_capture(self, bucket: _Bucket) -> None:
        if self._pool is None and self._device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
        try:
            bucket.replay, bucket.result = self._capture(self._compute, bucket.frames, self._pool)
        except RuntimeError as error:  # also CUDA's own
            # leaving a capture that ran out of memory may raise an error on top of that one
            for cause in (error, error.__context__):
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
            self._graphs = False
            reason = " ".join(str(error).split())[:300]
            warnings.warn(
                f"the encoder can't be captured in a CUDA graph ({reason}); it runs without, which costs small "
                "batches some speed and changes no result",
                UserWarning,
                stacklevel=2,
            )

    def _download(self, rows: Tensor) -> Tensor:
        """A copy under way to pinned memory; torch gives that out again only when the copy has arrived."""
        return self._pinned(rows.shape, rows.dtype).copy_(rows, non_blocking=True)

    def _pinned(self, shape: Any, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")
