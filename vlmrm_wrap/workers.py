"""Watching the worker processes of a vector env: a dead or wedged one raises, and closing never hangs.

Left alone, a vector env blocks in ``recv`` on a worker that will never answer: for ever when a wedged renderer
holds it, and for ever too when a forked Stable-Baselines3 worker dies, because its siblings hold copies of its
end of the pipe. A :class:`WorkerWatch` keeps one thread that sleeps on the workers' process sentinels. When a
worker dies, or an operation outlasts its time, the thread kills all of them, which ends the blocked ``recv``
with an EOFError, and :meth:`WorkerWatch.operation` turns that into a :class:`WorkerDied` or a TimeoutError that
says what happened. Nothing is patched, and a step that goes well costs a few assignments. No torch here.
"""

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, util
from typing import Any

__all__ = ["WorkerDied", "WorkerWatch", "exit_with_parent"]

# How long a step may still go on when a worker is gone: the other answers may bring the exception it died of.
_GRACE = 1.0
_CLOSE_TIMEOUT = 10.0
_BROKEN_PIPE = (EOFError, ConnectionError)


class WorkerDied(RuntimeError):
    """A sub-env's worker process ended without being asked to."""


class WorkerWatch:
    """Watches ``base``, the innermost vector env, if it has worker processes; without any it only passes calls on.

    ``timeout``: seconds that one operation may take, None for ever. ``unanswered()``: indices of the sub-envs
    that an operation still waits for, as far as known, for the message.
    """

    def __init__(
        self,
        base: Any,
        timeout: float | None,
        unanswered: Callable[[], Sequence[int]] = lambda: (),
    ) -> None:
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ValueError(f"worker_timeout is {timeout!r}; required: seconds above 0, or None for ever")
        self._base, self._timeout, self.unanswered = base, timeout, unanswered
        self._processes: list[Any] = list(getattr(base, "processes", None) or ())
        if self._processes:
            self._state = _Watched(self._processes)
            # Not a bound method: the thread must not keep the vector env alive.
            thread = threading.Thread(target=_watch, args=(self._state,), name="vlmrm_wrap-watch", daemon=True)
            thread.start()
            self._stop = util.Finalize(self, _Watched.stop, (self._state,), exitpriority=100)
            # At exit multiprocessing terminates its workers and waits for them, but SDL, which draws for pygame,
            # takes SIGTERM over in each worker that has rendered: without this an unclosed env hangs the exit.
            util.Finalize(base, _kill, (self._processes,), exitpriority=100)

    @contextlib.contextmanager
    def operation(self, what: str) -> Iterator[None]:
        """Run one operation of the vector env; raises WorkerDied or TimeoutError if the workers fail in it.

        An exception that a worker raised itself (Gymnasium hands it over) is passed on as it is. After any
        of them the workers are gone.
        """
        if not self._processes:
            yield
            return
        if self._state.failure is not None:
            self._fail(what)
        self._state.begin(self._timeout)
        try:
            yield
        except _BROKEN_PIPE as error:
            if None in getattr(self._base, "parent_pipes", ()):  # Gymnasium's mark on a worker that told its error
                self.kill()
                raise
            self._state.failed.wait(2 * _GRACE)  # the thread hears of it a moment after the pipe does
            self._fail(what, error)
        except Exception:
            if self._state.failed.wait(0.0) or self._any_dead():
                self.kill()
            raise
        finally:
            self._state.end()

    def close(self, close: Callable[[], object]) -> None:
        """Call ``close()`` if the workers can still answer it, and end them in any case."""
        if not self._processes:
            close()
            return
        already_closed = bool(getattr(self._base, "closed", False))
        failed = self._state.failure is not None
        self._state.closing = True
        try:
            if not failed and not already_closed:
                self._state.begin(min(self._timeout or _CLOSE_TIMEOUT, _CLOSE_TIMEOUT))
                close()
        except Exception as error:
            if not isinstance(error, _BROKEN_PIPE) and not self._any_dead():
                raise
        finally:
            self._state.end()
            self.kill()

    def kill(self) -> None:
        """End every worker now and leave the vector env closed."""
        self._stop()
        _kill(self._processes)
        for process in self._processes:
            process.join(2.0)
        pipes: Sequence[Any] = getattr(self._base, "remotes", None) or getattr(self._base, "parent_pipes", None) or ()
        for pipe in pipes:
            if pipe is not None:
                pipe.close()
        self._base.closed = True  # or the vector env's own close() would wait for the dead

    def _any_dead(self) -> bool:
        return bool(connection.wait([process.sentinel for process in self._processes], 0))

    def _fail(self, what: str, cause: BaseException | None = None) -> None:
        failure = self._state.failure or ("died", [])
        waiting_for = list(self.unanswered())
        told = self._told_exception()
        self.kill()
        if told is not None:
            raise told from cause
        kind, dead = failure
        if kind == "timeout":
            who = f"env workers {waiting_for}" if waiting_for else "an env worker"
            raise TimeoutError(
                f"{who} gave no answer to {what} within worker_timeout={self._timeout} s, and all workers were "
                "ended. A larger worker_timeout (None: no limit) helps if the env is only slow."
            ) from cause
        who = ", ".join(
            f"env worker {i} (pid {self._processes[i].pid}, exit code {self._processes[i].exitcode})" for i in dead
        )
        raise WorkerDied(
            f"{who or 'an env worker'} died before or during {what}, and the others were ended. If it raised an "
            "exception, its traceback stands above; exit code -9 is a kill, often for want of memory."
        ) from cause

    def _told_exception(self) -> Exception | None:
        """The exception that a Gymnasium worker left in the error queue, if one did."""
        errors = getattr(self._base, "error_queue", None)
        if errors is None:
            return None
        try:
            _, kind, value, trace = errors.get(timeout=0.1)
        except (queue.Empty, *_BROKEN_PIPE, OSError, TypeError):
            return None
        error = value if isinstance(value, Exception) else kind(value)
        error.add_note(trace)
        return error


class _Watched:
    """What the watching thread and the stepping thread share."""

    def __init__(self, processes: Sequence[Any]) -> None:
        self.processes = processes
        self.deadline: float | None = None
        self.busy = False
        self.closing = False
        self.failure: tuple[str, list[int]] | None = None
        self.failed = threading.Event()
        self._wake_read, self._wake_write = multiprocessing.Pipe(duplex=False)
        self.stopped = False

    def begin(self, timeout: float | None) -> None:
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.busy = True

    def end(self) -> None:
        self.busy = False
        self.deadline = None

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._wake_write.send_bytes(b".")  # a mere close goes unheard while a forked child holds a copy
            self._wake_write.close()

    @property
    def wakes(self) -> connection.Connection:
        return self._wake_read


def _watch(state: _Watched) -> None:
    """The thread: sleeps until a worker ends, an operation is late, or nobody needs it any more."""
    sentinels = {process.sentinel: i for i, process in enumerate(state.processes)}
    tick = 0.25  # how late a deadline may be noticed; a dead worker is noticed at once
    while not state.stopped:
        ready = connection.wait([*sentinels, state.wakes], tick)
        if state.stopped or state.wakes in ready:
            return
        dead = sorted(sentinels[s] for s in ready if s in sentinels)
        deadline = state.deadline
        if dead and not state.closing:
            _give_grace(state)
            _report(state, ("died", dead))
            return
        if dead:
            for process_sentinel in [s for s, i in sentinels.items() if i in dead]:
                del sentinels[process_sentinel]
        if state.busy and deadline is not None and time.monotonic() > deadline:
            _report(state, ("timeout", []))
            return


def _give_grace(state: _Watched) -> None:
    until = time.monotonic() + _GRACE
    while state.busy and not state.stopped and time.monotonic() < until:
        time.sleep(0.02)


def _report(state: _Watched, failure: tuple[str, list[int]]) -> None:
    if not state.stopped:
        state.failure = failure
        _kill(state.processes)
        state.failed.set()


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            process.kill()


_parent_watched = False


def exit_with_parent() -> None:
    """In a worker process: leave when the parent does, even if that was killed. Elsewhere: nothing.

    Forked Stable-Baselines3 workers hold each other's pipes open, so none of them would hear of the
    parent's end and all would stay.
    """
    global _parent_watched
    parent = multiprocessing.parent_process()
    if parent is None or _parent_watched:
        return
    _parent_watched = True

    def wait_and_exit() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_exit, name="vlmrm_wrap-parent", daemon=True).start()
