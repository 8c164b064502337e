"""Env workers: signals are the training's, and its workers end with it, however it ends.

Ctrl-C in a terminal and the SIGTERM of a job manager reach the whole process group. A training that is asked to stop
finishes its rollout, for which its workers must live.
"""

import atexit
import multiprocessing
import signal

import gymnasium as gym

from vlmrm_wrap.workers import exit_with_parent

_LEFT = (signal.SIGINT, signal.SIGTERM)


def leaving_signals_to_the_parent(env: gym.Env) -> gym.Env:
    """``env``, in a worker process that lives as long as its parent, or until that closes or kills it."""
    if multiprocessing.parent_process() is not None:
        for signum in _LEFT:
            signal.signal(signum, signal.SIG_IGN)
        exit_with_parent()
    return env


def before_workers_start(start_method: str | None) -> None:
    """In the training: SIGTERM will not end its workers any more. ``start_method``: null is SB3's, as in EnvConfig."""
    atexit.register(_end_workers)
    if start_method in (None, "forkserver") and "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        # A dead server counts as dead workers. It has no say in its signals, but inherits those that are ignored; the
        # training misses those of the few milliseconds in which a process is begun.
        handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in _LEFT}
        forkserver.ensure_running()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _end_workers() -> None:
    """Before multiprocessing sends SIGTERM to what is left at the exit, and waits."""
    for worker in multiprocessing.active_children():
        worker.kill()
