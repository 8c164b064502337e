"""The pipe to a GPU, on queues that a CPU plays: in order, at the worst moments; then a model on such a pipe.

What only a GPU can show (streams, pinned memory, graphs of the real kernels) is in experiments/gpu_check.py.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmrm_wrap import CLIPRewardModel
from vlmrm_wrap.streams import FramePipe, bucket_of

CPU = torch.device("cpu")
LIMIT = 12


class Late:
    """Does nothing before somebody waits for it, and then no more than is waited for."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], Any]] = []
        self.passed = 0

    def run(self, work: Callable[[], Any]) -> None:
        self.tasks.append(work)

    def allocate(self, make: Callable[[], Tensor]) -> Tensor:
        return make()

    def mark(self) -> "Point":
        return Point(self, len(self.tasks))

    def wait_for(self, event: "Point") -> None:
        self.run(event.synchronize)


class AtOnce(Late):
    """A queue that is always idle."""

    def run(self, work: Callable[[], Any]) -> None:
        super().run(work)
        self.mark().synchronize()


class Point:
    def __init__(self, queue: Late, position: int) -> None:
        self.queue, self.position = queue, position

    def synchronize(self) -> None:
        while self.queue.passed < self.position:
            self.queue.passed += 1
            with torch.inference_mode():
                self.queue.tasks[self.queue.passed - 1]()


class Rows:
    """Means of the first two channels; remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, frames: Tensor) -> Tensor:
        self.batches.append(len(frames))
        return frames.float().mean(dim=(1, 2))[:, :2]


class Graphs:
    """Captures like CUDA: what is replayed reads the same input and writes to memory that all graphs share."""

    def __init__(self) -> None:
        self.memory = torch.zeros(LIMIT, 2)
        self.replays = 0

    def __call__(self, compute: Callable[[Tensor], Tensor], frames: Tensor, pool: Any) -> Any:
        result = self.memory[: len(frames)]

        def replay() -> None:
            self.replays += 1
            self.memory.fill_(-1)
            result.copy_(compute(frames))

        return replay, result


def frames_of(n: int, seed: int, height: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, height, 6, 3), dtype=np.uint8)


def expected(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return frames.mean(axis=(1, 2), dtype=np.float32)[:, :2]


QUEUES = [(Late, Late), (AtOnce, Late), (Late, AtOnce), (AtOnce, AtOnce)]


@pytest.fixture(params=QUEUES, ids=lambda pair: "-".join(kind.__name__ for kind in pair))
def queues(request: pytest.FixtureRequest) -> Any:
    return tuple(kind() for kind in request.param)


def pipe_of(queues: Any, compute: Any = None, capture: Any = None) -> FramePipe:
    return FramePipe(compute or Rows(), CPU, queues=queues, capture=capture or Graphs())


@pytest.mark.parametrize("limit", [1, 2, 7, 64, 100])
def test_buckets_are_few_and_hold_every_size(limit: int) -> None:
    sizes = [bucket_of(n, limit) for n in range(1, limit + 1)]
    assert all(n <= size <= limit for n, size in enumerate(sizes, 1))
    assert all(size <= 1.25 * n for n, size in enumerate(sizes, 1))
    assert [bucket_of(size, limit) for size in sizes] == sizes
    assert len(set(sizes)) <= 4 * limit.bit_length()


def test_rows_are_right_however_late_the_queues_are_and_whoever_overwrites_the_frames(queues: Any) -> None:
    pipe = pipe_of(queues)
    sizes = [1, 3, 12, 5, 5, 2, 5, 7, 5, 12, 12, 1, 12, 5, 8, 1, 1] * 2
    waiting, wanted, buffer = [], [], np.empty((LIMIT, 4, 6, 3), np.uint8)
    for seed, n in enumerate(sizes):
        buffer[:n] = frames_of(n, seed)
        wanted.append(expected(buffer[:n]))
        waiting.append(pipe.submit(buffer[:n], LIMIT))
    buffer[:] = 0
    for rows, want in zip(reversed(waiting), reversed(wanted), strict=True):
        for _ in range(2):  # asking again changes nothing
            np.testing.assert_allclose(rows(), want, rtol=1e-6)


def test_frame_sizes_may_change(queues: Any) -> None:
    pipe = pipe_of(queues)
    for seed, height in enumerate([4, 4, 4, 9, 4, 9, 9, 9, 2, 4]):
        frames = frames_of(3, seed, height)
        np.testing.assert_allclose(pipe.submit(frames, LIMIT)(), expected(frames), rtol=1e-6)
    assert set(pipe.captured) == {(3, 4, 6, 3), (3, 9, 6, 3)}


def test_frames_of_any_strides_and_read_only_ones(queues: Any) -> None:
    pipe, frames = pipe_of(queues), frames_of(4, 0)
    frozen = frames.copy()
    frozen.flags.writeable = False
    for view in (frames[::-1], frames[::2], frames[:, :, ::-1], frozen):
        np.testing.assert_allclose(pipe.submit(view, LIMIT)(), expected(view), rtol=1e-6)


def test_the_third_batch_of_a_bucket_is_captured_and_replayed() -> None:
    compute, graphs = Rows(), Graphs()
    pipe = pipe_of((AtOnce(), AtOnce()), compute, graphs)
    for n in (9, 10, 9, 10, 9, 1):
        pipe.submit(frames_of(n, n), LIMIT)()
    assert pipe.captured == [(10, 4, 6, 3)]
    assert graphs.replays == 3
    assert compute.batches == [10, 10, 10, 10, 10, 1]


def test_two_batches_are_staged_ahead_and_no_more() -> None:
    copies, work = Late(), Late()
    pipe = pipe_of((copies, work))
    for seed in range(6):
        pipe.submit(frames_of(2, seed), LIMIT)
        under_way = len(copies.tasks) - copies.passed
        assert under_way == min(seed + 1, 2) if seed < 2 else under_way <= 4  # two copies, and what they wait for


def test_staging_is_only_given_up_when_both_queues_are_done_with_it() -> None:
    copies, work = Late(), Late()
    pipe = pipe_of((copies, work))
    for n in (1, 1):
        pipe.submit(frames_of(n, 0), LIMIT)
    assert work.passed == 0
    pipe.submit(frames_of(2, 0), LIMIT)  # does not fit into the first's
    assert work.passed == 2  # it waited for the first copy, and took it over


def test_a_cleared_pipe_has_waited_forgotten_and_goes_on() -> None:
    queues = Late(), Late()
    pipe = pipe_of(queues)
    for seed in range(3):
        waiting = pipe.submit(frames_of(5, seed), LIMIT)
    pipe.clear()
    assert queues[1].passed == len(queues[1].tasks)
    assert pipe.captured == []
    for n in (5, 2):
        np.testing.assert_allclose(pipe.submit(frames_of(n, n), 5)(), expected(frames_of(n, n)), rtol=1e-6)
    assert [len(memory) for memory in pipe._inputs.values()] == [5]
    np.testing.assert_allclose(waiting(), expected(frames_of(5, 2)), rtol=1e-6)


def test_what_cant_be_captured_runs_without_and_says_so_once() -> None:
    def refuses(compute: Any, frames: Tensor, pool: Any) -> Any:
        raise RuntimeError("operation not permitted\n  when stream is capturing")

    compute = Rows()
    pipe = pipe_of((AtOnce(), AtOnce()), compute, refuses)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in (9, 9, 9, 9, 11, 11, 11):
            np.testing.assert_allclose(pipe.submit(frames_of(n, n), LIMIT)(), expected(frames_of(n, n)), rtol=1e-6)
    assert len(caught) == 1
    assert "(operation not permitted when stream is capturing); it runs without" in str(caught[0].message)
    assert compute.batches == [10, 10, 9, 9, 11, 11, 11]  # and nothing is padded any more
    assert pipe.captured == []


# --- a reward model on a pipe ------------------------------------------------------------------


def model_of(capture: Any, queue: type[Late] = Late, **settings: Any) -> CLIPRewardModel:
    prompts = {"goal_prompts": "pole upright", "baseline_prompts": "pole and cart"}
    model = CLIPRewardModel.from_pretrained("embedded", **prompts, device="cpu", cache=False, **settings)
    scoring = model._similarities
    scoring.pipe = FramePipe(scoring.compute, CPU, queues=(queue(), queue()), capture=capture)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("micro_batch_size", [3, 7, 64])
def test_scores_are_those_without_a_pipe(micro_batch_size: int) -> None:
    graphs = Graphs()
    graphs.memory = torch.zeros(64, 2)
    model, plain = model_of(graphs, micro_batch_size=micro_batch_size), model_of(None)
    plain._similarities.pipe = None
    for n in (0, 1, 2, 5, 5, 5, 5, 9, 9):
        frames = frames_of(n, n, height=5)
        later = model.score_later(frames)
        frames_then = frames.copy()
        frames[:] = 7
        for part, want in zip(later(), plain.score(frames_then), strict=True):
            np.testing.assert_allclose(part, want, rtol=0, atol=1e-6)
            assert part.dtype == np.float32
    assert graphs.replays > 0


@pytest.mark.parametrize("leaving_the_capture_fails_too", [False, True])
def test_out_of_memory_in_a_pipe_halves_the_micro_batch(leaving_the_capture_fails_too: bool) -> None:
    graphs = Graphs()

    def capture(compute: Any, frames: Tensor, pool: Any) -> Any:
        if len(frames) > 4:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            finally:
                if leaving_the_capture_fails_too:
                    raise RuntimeError("capture ended badly")
        return graphs(compute, frames, pool)

    model = model_of(capture, AtOnce, micro_batch_size=9)
    frames = frames_of(9, 0)
    want = model(frames)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            np.testing.assert_allclose(model(frames), want, rtol=0, atol=1e-6)
    assert len(caught) == 1
    assert "9 frames at once don't fit on cpu" in str(caught[0].message)
    assert model._similarities.pipe is not None
    assert set(model._similarities.pipe.captured) == {(4, 4, 6, 3), (1, 4, 6, 3)}
    assert [len(memory) for memory in model._similarities.pipe._inputs.values()] == [4]
