"""Worker processes that die, raise or wedge: an error in time, and nothing left behind."""

import contextlib
import functools
import glob
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import numpy as np
import psutil
import pytest
from fakes import PaintedReward, captured, failing
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv

from vlmrm_wrap import CLIPRewardVectorWrapper
from vlmrm_wrap.sb3 import CLIPRewardVecEnv
from vlmrm_wrap.workers import WorkerDied

KINDS = [f"{library}-{start}" for library in ("gym", "sb3") for start in ("fork", "spawn", "forkserver")]


def make(kind, how, timeout=60.0):
    """Two envs; env 1 does ``how`` in its third step."""
    library, start = kind.split("-")
    fns = [functools.partial(captured, 0, (50,)), functools.partial(failing, how, 3)]
    if library == "gym":
        envs = AsyncVectorEnv(fns, context=start)
        envs.reset()
        return CLIPRewardVectorWrapper(envs, PaintedReward(), worker_timeout=timeout), envs.processes
    venv = SubprocVecEnv(fns, start_method=start)
    venv.reset()  # a spawned worker imports torch first, which is no part of a step's time
    return CLIPRewardVecEnv(venv, PaintedReward(), worker_timeout=timeout), venv.processes


def leftovers(pid=None):
    """Frame files of this process, or of process ``pid``."""
    folders = ("/dev/shm", tempfile.gettempdir())
    return [path for folder in folders for path in glob.glob(f"{folder}/vlmrm_wrap_{pid or os.getpid()}_*")]


def play_until_it_fails(envs, error, match):
    """Step to the third step; the seconds that it took to fail."""
    envs.reset()
    for _ in range(2):
        envs.step(np.zeros(2, int))
    assert leftovers() == []  # unlinked as soon as the workers had opened it
    start = time.monotonic()
    with pytest.raises(error, match=match):
        envs.step(np.zeros(2, int))
    return time.monotonic() - start


def assert_gone(processes):
    _, alive = psutil.wait_procs([psutil.Process(p.pid) for p in processes if psutil.pid_exists(p.pid)], 3)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert leftovers() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_worker_raises_within_two_seconds(kind):
    envs, processes = make(kind, "die")
    assert play_until_it_fails(envs, WorkerDied, r"env worker 1 \(pid \d+, exit code -9\)") < 2.0
    assert_gone(processes)
    with pytest.raises(WorkerDied):
        envs.step(np.zeros(2, int))
    envs.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wedged_worker_raises_after_its_timeout(kind):
    envs, processes = make(kind, "wedge", timeout=1.5)
    match = r"env workers \[1\] gave no answer to step within worker_timeout=1.5 s"
    assert 1.4 < play_until_it_fails(envs, TimeoutError, match) < 3.5
    assert_gone(processes)
    envs.close()


@pytest.mark.filterwarnings("ignore:.*ERROR")  # gymnasium's logger prints the worker's traceback as a warning
@pytest.mark.parametrize("kind", ["gym-fork", "gym-spawn", "sb3-fork"])
def test_an_exception_in_a_worker_is_told(kind):
    envs, processes = make(kind, "raise")
    error, match = (OSError, "the simulator broke") if kind.startswith("gym") else (WorkerDied, "exit code 1")
    assert play_until_it_fails(envs, error, match) < 2.0
    envs.close()
    assert_gone(processes)


@pytest.mark.filterwarnings("ignore:.*ERROR")
def test_a_connection_error_of_the_envs_own_is_not_taken_for_a_dead_worker():
    envs, processes = make("gym-fork", "refuse")
    assert play_until_it_fails(envs, ConnectionRefusedError, "the simulator hung up") < 1.0
    assert_gone(processes)
    envs.close()


def test_a_worker_dead_before_the_wrapping_is_noticed():
    venv = SubprocVecEnv([functools.partial(captured, i) for i in range(2)], start_method="fork")
    os.kill(venv.processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="env worker 1"):
        CLIPRewardVecEnv(venv, PaintedReward())
    assert_gone(venv.processes)


def test_a_wedged_call_is_ended_too():
    envs, processes = make("sb3-fork", "nothing", timeout=0.5)
    with pytest.raises(TimeoutError, match="no answer to wedge"):
        envs.env_method("wedge", indices=[1])
    assert_gone(processes)


@pytest.mark.parametrize("kind", ["gym-fork", "sb3-fork"])
def test_a_worker_killed_between_steps_is_noticed(kind):
    envs, processes = make(kind, "nothing")
    envs.reset()
    envs.step(np.zeros(2, int))
    os.kill(processes[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="env worker 0"):
        while True:
            envs.step(np.zeros(2, int))
    assert_gone(processes)
    envs.close()


@pytest.mark.parametrize("kind", ["gym-fork", "sb3-fork"])
def test_close_ends_a_wedged_worker(kind, monkeypatch):
    monkeypatch.setattr("vlmrm_wrap.workers._CLOSE_TIMEOUT", 0.5)
    envs, processes = make(kind, "wedge", timeout=None)
    envs.reset()
    for _ in range(2):
        envs.step(np.zeros(2, int))
    (envs.env if kind.startswith("gym") else envs.venv).step_async(np.zeros(2, int))
    with pytest.warns(UserWarning, match="waiting") if kind.startswith("gym") else contextlib.nullcontext():
        envs.close()
    assert_gone(processes)
    envs.close()  # twice is once


@pytest.mark.parametrize("kind", ["gym-fork", "sb3-fork"])
def test_close_leaves_nothing(kind):
    envs, processes = make(kind, "nothing")
    envs.reset()
    envs.step(np.zeros(2, int))
    envs.close()
    assert_gone(processes)
    assert all(process.exitcode == 0 for process in processes)


def run_script(body, tmp_path, timeout=60):
    """Run ``body`` as a script that imports this module; (its standard output, its return code)."""
    head = f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import numpy as np
        import test_workers
        if __name__ == "__main__":
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), "    "))
    command = [sys.executable, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout, check=False)
    return done.stdout, done.returncode


@pytest.mark.parametrize(
    ("kind", "when"),
    [("gym-fork", "after a step"), ("sb3-fork", "after a step"), ("sb3-fork", "before"), ("sb3-forkserver", "before")],
)
def test_workers_leave_with_a_killed_parent(kind, when, tmp_path):
    """Forked Stable-Baselines3 workers hold each other's pipes open and would stay for ever."""
    step = "envs.step(np.zeros(2, int))" if when == "after a step" else ""
    out, code = run_script(
        f"""
        envs, processes = test_workers.make({kind!r}, "nothing")
        envs.reset()
        {step}
        print(os.getpid(), *(process.pid for process in processes), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
    )
    assert code == -signal.SIGKILL
    parent, *pids = (int(pid) for pid in out.split())
    assert len(pids) == 2
    workers = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(workers, 3)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert leftovers(parent) == []


@pytest.mark.parametrize("kind", ["gym-fork", "sb3-fork"])
@pytest.mark.parametrize("ending", ["", "raise ValueError('a bug in the script')"])
def test_a_script_without_close_ends(kind, ending, tmp_path):
    """pygame takes SIGTERM over in workers that draw, and multiprocessing would wait for them at the exit."""
    make = {
        "gym-fork": "CLIPRewardVectorWrapper(make_vec('CartPole-v1', 2, vectorization_mode='async'), scorer)",
        "sb3-fork": "CLIPRewardVecEnv(make_vec_env('CartPole-v1', 2, vec_env_cls=SubprocVecEnv, "
        "start_method='fork'), scorer)",
    }[kind]
    out, code = run_script(
        f"""
        from stable_baselines3.common.vec_env import SubprocVecEnv
        from vlmrm_wrap import CLIPRewardVectorWrapper, make_vec
        from vlmrm_wrap.sb3 import CLIPRewardVecEnv, make_vec_env
        scorer = type("Any", (), {{"score": lambda self, frames: np.zeros((3, len(frames)), np.float32)}})()
        envs = {make}
        envs.reset()
        envs.step(np.zeros(2, int))
        print("stepped", flush=True)
        {ending}
        """,
        tmp_path,
    )
    assert (out.split()[-1:], code) == ([b"stepped"], 1 if ending else 0)


def test_bad_timeouts_are_refused():
    for timeout in (0, -1.0, "60"):
        with pytest.raises(ValueError, match="required: seconds above 0, or None"):
            envs = SyncVectorEnv([functools.partial(captured, 0)])
            CLIPRewardVectorWrapper(envs, PaintedReward(), worker_timeout=timeout)


def test_a_spawned_worker_imports_no_torch():
    envs = AsyncVectorEnv([functools.partial(failing, "report", 1)], context="spawn")
    envs = CLIPRewardVectorWrapper(envs, PaintedReward())
    envs.reset()
    *_, infos = envs.step([0])
    assert not infos["torch_loaded"][0]
    assert infos["_torch_loaded"][0]
    envs.close()
