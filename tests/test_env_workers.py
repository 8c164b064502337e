"""Env workers of a training: deaf to signals, and gone with the training all the same."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

pytest.importorskip("jsonargparse")
pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("start_method", "ending", "status"),
    [
        ("fork", "venv.close()", 0),
        ("fork", "", 0),
        ("fork", "raise SystemExit(3)", 3),
        ("fork", "os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("forkserver", "os.kill(os.getpid(), signal.SIGKILL)", -9),
    ],
    ids=["closed", "not closed", "left", "killed", "killed, forkserver"],
)
def test_workers_end_with_the_training(tmp_path: Path, start_method: str, ending: str, status: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing.connection, os, signal, sys
        sys.path.insert(0, {str(ROOT / "experiments")!r})
        from envs import make_reward_model, make_training_env
        from settings import EnvConfig, NormalizeConfig, RewardConfig

        if __name__ == "__main__":
            env = EnvConfig("CartPole-v1", n_envs=2, vec="subproc", start_method={start_method!r})
            reward = RewardConfig("pole upright", constant=1.0)  # nothing else watches the workers of a control
            venv = make_training_env(env, reward, make_reward_model(reward), [], NormalizeConfig(), seed=0, gamma=0.9)
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, lambda *_: None)
                os.killpg(0, signum)
            for _ in range(20):
                venv.reset()  # they still answer, ...
            workers = multiprocessing.active_children()
            assert multiprocessing.connection.wait([worker.sentinel for worker in workers], 0) == []  # ... and count
            print(*(worker.pid for worker in workers), flush=True)
            {ending}
        """)
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False, start_new_session=True)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], 5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert done.returncode == status
