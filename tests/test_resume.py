"""A training that was interrupted and resumed is the one that was not, to the bit; what can't be resumed is refused."""

import csv
import gc
import os
import re
import signal
import sys
import weakref
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("jsonargparse")
pytest.importorskip("stable_baselines3")
from stable_baselines3.common.running_mean_std import RunningMeanStd

ROOT = Path(__file__).parent.parent
SHORT = ["--env.n_envs", "2", "--env.horizon", "12", "--window", "2"]
SHORT += ["--evaluation.episodes", "1", "--evaluation.max_steps", "5", "--evaluation.video", "false"]
CONSTANT = ["--env.id", "CartPole-v1", "--reward.goal_prompts", "up", "--reward.constant", "1"]
TINY_PPO = ["--ppo.n_steps", "16", "--ppo.batch_size", "16", "--ppo.n_epochs", "2", "--total_steps", "128"]

# Rollouts end in the middle of episodes; all that has a state is in one of them.
TRAININGS = {
    "ppo": [
        *("--env.id", "MountainCarContinuous-v0", "--env.reset_options", "{low: -1.0, high: 0.0}"),
        *("--env.rescale_obs", "true", "--normalize.obs", "true", "--normalize.reward", "true"),
        *("--reward.goal_prompts", "a car at the flag", "--reward.alpha", "0", "--reward.deferred", "true"),
        *("--reward.standardize", "true", "--reward.potential", "true", "--reward.env_weight", "0.1"),
        *("--ppo.use_sde", "true", "--ppo.decay", "true", *TINY_PPO),
    ],
    "dqn": [
        *("--env.id", "CartPole-v1", "--reward.goal_prompts", "pole upright", "--reward.baseline_prompts", "pole"),
        *("--reward.standardize", "true", "--reward.negative_prompts", "[pole lying flat]"),
        *("--dqn.learning_starts", "32", "--dqn.batch_size", "8", "--dqn.target_update_interval", "24"),
        *("--dqn.exploration_fraction", "0.9", "--dqn.buffer_size", "48", "--dqn.gradient_steps", "-1"),
        *("--total_steps", "128"),
    ],
    "sac": [
        *("--env.id", "Pendulum-v1", "--reward.goal_prompts", "the pendulum pointing up", "--reward.alpha", "0"),
        *("--sac.learning_starts", "32", "--sac.batch_size", "8", "--sac.net_arch", "[16]", "--sac.train_freq", "5"),
        *("--sac.use_sde", "true", "--normalize.obs", "true", "--total_steps", "120"),
    ],
}


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """``train(algorithm, cwd, *arguments, at=..., do=...)``: runs/mine in ``cwd``; ``do()`` in step ``at``."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import importlib

    import training
    from watch import TrainingWatch

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    on_step = TrainingWatch._on_step
    monkeypatch.setattr(training, "plot_learning_curves", lambda *_: None)  # it takes longer than these trainings

    def run(algorithm: str, cwd: str, *arguments: str, at: int = 0, do: Callable[[], object] | None = None) -> Path:
        (tmp_path / cwd).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / cwd)

        def interrupted(watch: Any) -> bool:
            if do is not None and watch.num_timesteps == at:
                do()
            return on_step(watch)

        monkeypatch.setattr(TrainingWatch, "_on_step", interrupted)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        torch.manual_seed(1)  # not where the last run in this process left it
        importlib.import_module(f"train_{algorithm}").main()
        return Path("runs/mine").resolve()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def kill() -> None:
    raise Killed


def end_state(folder: Path) -> dict[str, Any]:
    """All that the run remembers at its end."""
    from algorithm_state import from_bytes
    from resume import read_state

    state = read_state(folder)
    state["tensors"] = from_bytes(state["tensors"])
    for info in state["algo"]["ep_info_buffer"]:
        info.pop("t")  # wall time
    for name in ("files", "logged"):  # progress.csv is compared by itself; times are logged
        state.pop(name)
    return state


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key not in ("time/fps", "time/time_elapsed")}
            for row in csv.DictReader(file)
        ]


def differences(a: Any, b: Any, path: str = "state") -> list[str]:
    """Where two trees of data differ by a bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple | deque) and type(a) is type(b) and len(a) == len(b):
        return [found for i in range(len(a)) for found in differences(a[i], b[i], f"{path}[{i}]")]
    if isinstance(a, RunningMeanStd):
        return differences(vars(a), vars(b), path)
    if isinstance(a, np.random.Generator):
        return differences(a.bit_generator.state, b.bit_generator.state, path)
    if isinstance(a, np.ndarray | torch.Tensor):
        a, b = np.asarray(a), np.asarray(b)
        return [] if a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") else [path]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [path]  # NaN: success of an env without it


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("algorithm", TRAININGS)
def test_resumed_is_uninterrupted(train, algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped within a rollout, killed two rollouts after a save, resumed twice."""
    arguments = [*TRAININGS[algorithm], *SHORT, "--save_every", "32", "--name", "mine"]
    whole = train(algorithm, "whole", *arguments)
    with pytest.raises(SystemExit) as left:
        train(algorithm, "parts", *arguments, at=26, do=stop)
    assert left.value.code == 143
    assert "--resume runs/mine goes on from" in capsys.readouterr().out
    with pytest.raises(Killed):
        train(algorithm, "parts", "--resume", "runs/mine", at=94, do=kill)
    parts = train(algorithm, "parts", "--resume", "runs/mine")

    assert differences(end_state(whole), end_state(parts)) == []
    assert rows(whole) == rows(parts)
    assert len(rows(whole)) > 3
    assert (whole / "evaluation.json").read_text() == (parts / "evaluation.json").read_text()


def test_what_was_put_back_is_let_go_of(train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved replay buffer may be gigabytes, and the training fills another."""
    import command_line

    class State(dict):
        """A dict can't be watched."""

    watched: list[weakref.ref] = []

    def watched_state(folder: Path) -> State:
        state = State(read_state(folder))
        watched.extend([weakref.ref(state), *map(weakref.ref, state["buffer"]["arrays"].values())])
        return state

    def look() -> None:
        gc.collect()
        alive.append([ref() is not None for ref in watched])

    alive: list[list[bool]] = []
    read_state = command_line.read_state
    monkeypatch.setattr(command_line, "read_state", watched_state)
    arguments = [*TRAININGS["dqn"], *SHORT, "--save_every", "32", "--name", "mine"]
    with pytest.raises(Killed):
        train("dqn", "parts", *arguments, at=80, do=kill)
    train("dqn", "parts", "--resume", "runs/mine", at=72, do=look)
    assert len(watched) > 5
    assert alive == [[False] * len(watched)]


def test_the_states_of_env_workers_are_restored(train) -> None:
    arguments = [*CONSTANT, *SHORT, *TINY_PPO, "--env.vec", "subproc", "--env.start_method", "fork", "--name", "mine"]
    whole = train("ppo", "whole", *arguments)
    with pytest.raises(Killed):
        train("ppo", "parts", *arguments, "--save_every", "64", at=80, do=kill)
    # save_every is a setting like others; it is this run's own
    parts = train("ppo", "parts", "--resume", "runs/mine")
    found = differences(end_state(whole), end_state(parts))
    assert found == ["state.config"]
    assert rows(whole) == rows(parts)


def test_other_envs_begin_new_episodes_and_say_so(train, capsys: pytest.CaptureFixture[str]) -> None:
    """FrozenLake is no classic control."""
    arguments = ["--env.id", "FrozenLake-v1", "--reward.goal_prompts", "up", "--reward.constant", "1", *TINY_PPO]
    with pytest.raises(Killed):
        train("ppo", "parts", *arguments, *SHORT, "--save_every", "32", "--name", "mine", at=80, do=kill)
    assert "begins a new episode" not in capsys.readouterr().err
    folder = train("ppo", "parts", "--resume", "runs/mine")
    printed = capsys.readouterr()
    assert "can't be restored: each copy begins a new episode" in printed.err
    assert printed.out.splitlines()[-1].startswith("true return: ")
    assert rows(folder)[-1]["time/total_timesteps"] == "128"


def test_an_episode_that_a_stop_cut_short_counts_nowhere(train) -> None:
    """Else returns of two episodes would be compared as one: an agent that was stopped often would seem to improve."""
    arguments = ["--env.id", "FrozenLake-v1", "--reward.goal_prompts", "the elf at the goal", "--reward.alpha", "0"]
    arguments += ["--reward.standardize", "true", *TINY_PPO, *SHORT, "--window", "16", "--name", "mine"]
    with pytest.raises(Killed):
        train("ppo", "parts", *arguments, "--save_every", "32", at=80, do=kill)  # saved 8 steps into an episode
    folder = train("ppo", "parts", "--resume", "runs/mine")
    _, alignment, watch, standardize = end_state(folder)["others"]
    episodes = np.array(alignment["_episodes"])
    assert len(episodes) == 8  # of 12 steps, 2 of the 64 steps each before the kill and 2 of those after
    np.testing.assert_allclose(episodes[:, 0], list(watch["clip_returns"]))
    assert 0 < episodes[:, 0].min() <= episodes[:, 0].max() < 12  # not standardised: sums of cosines
    assert standardize["_count"] == 128
    logged = [row["rollout/ep_clip_rew_mean"] for row in rows(folder)]
    assert 0 < max(map(float, filter(None, logged))) < 12


def test_a_finished_run_goes_on_with_more_steps(train) -> None:
    """It is the run that had them from the beginning, where no setting follows the total."""
    arguments = [*CONSTANT, *SHORT, *TINY_PPO, "--name", "mine"]
    whole = train("ppo", "whole", *arguments, "--total_steps", "192")
    train("ppo", "parts", *arguments)
    with pytest.raises(SystemExit, match=r"runs/mine is finished: 128 steps.*A larger --total_steps"):
        train("ppo", "parts", "--resume", "runs/mine")
    parts = train("ppo", "parts", "--resume", "runs/mine", "--total_steps", "192")
    now, then = end_state(parts), end_state(whole)
    assert differences(now.pop("config"), then.pop("config")) == []
    # how much of the training remains is the one thing that follows the total
    assert set(differences(now, then)) <= {"state.algo._current_progress_remaining"}
    assert rows(parts) == rows(whole)


@pytest.mark.parametrize(("decay", "said"), [("true", "ppo.decay follows it"), ("false", "")])
def test_a_schedule_that_follows_the_total_is_said(train, capsys: pytest.CaptureFixture[str], decay, said) -> None:
    train("ppo", "parts", *CONSTANT, *SHORT, *TINY_PPO, "--ppo.decay", decay, "--name", "mine")
    Path("runs/mine/evaluation.json").unlink()
    capsys.readouterr()
    train("ppo", "parts", "--resume", "runs/mine")
    assert "follows it" not in capsys.readouterr().err
    train("ppo", "parts", "--resume", "runs/mine", "--total_steps", "160")
    errors = capsys.readouterr().err
    assert ("total_steps was 128 and is 160" in errors) == bool(said)
    assert said in errors


def test_schedules_of_dqn(train) -> None:
    import train_dqn
    from train_dqn import DQNConfig

    assert train_dqn.SCRIPT.schedule(DQNConfig()) == "dqn.exploration_fraction"
    assert train_dqn.SCRIPT.schedule(DQNConfig(exploration_initial_eps=0.05)) is None


def test_a_resumed_run_of_a_preset_says_so_again(train, capsys: pytest.CaptureFixture[str]) -> None:
    preset = ROOT / "configs" / "paper" / "cartpole_dqn.yaml"
    changes = ["--reward.constant", "1", "--total_steps", "400", "--dqn.learning_starts", "50"]
    folder = train("dqn", "parts", *changes, *SHORT, "--name", "mine", "--config", str(preset))
    assert (folder / "preset.txt").read_text() == "cartpole_dqn.yaml\n"
    first = [line for line in capsys.readouterr().out.splitlines() if line.startswith("departs from")]
    assert "departs from configs/paper/cartpole_dqn.yaml: reward.constant: None -> 1.0" in first
    train("dqn", "parts", "--resume", "runs/mine", "--total_steps", "500")
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("departs from")]
    assert again == [line.replace("-> 400", "-> 500") for line in first]


def test_tensorboard_forgets_what_came_after_the_save(train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def steps(folder: Path) -> list[int]:
        events = EventAccumulator(str(folder)).Reload()
        return [scalar.step for scalar in events.Scalars("rollout/ep_rew_mean")]

    arguments = [*CONSTANT, *SHORT, *TINY_PPO, "--save_every", "64", "--name", "mine"]
    whole = train("ppo", "whole", *arguments)
    with pytest.raises(Killed):
        train("ppo", "parts", *arguments, at=126, do=kill)
    parts = Path("runs/mine").resolve()
    assert steps(parts) == [32, 64, 96]
    (before,) = parts.glob("events.out.tfevents.*")
    before.rename(parts / "events.out.tfevents.0000000001.first")  # not in the same second as the other
    train("ppo", "parts", "--resume", "runs/mine")
    assert steps(parts) == steps(whole) == [32, 64, 96, 128, 128]


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("during", ["plot_learning_curves", "evaluate"])
def test_a_stop_during_the_report_says_how_to_get_it(
    train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    import training

    with monkeypatch.context() as patch:
        patch.setattr(training, during, lambda *_: stop())
        with pytest.raises(SystemExit, match="143"):
            train("ppo", "parts", *CONSTANT, *SHORT, *TINY_PPO, "--name", "mine")
    assert capsys.readouterr().out.splitlines()[-1].endswith("report was written; --resume runs/mine makes it")
    train("ppo", "parts", "--resume", "runs/mine", at=130, do=kill)  # no step is taken
    assert capsys.readouterr().out.splitlines()[-1].startswith("true return: ")


def test_a_run_that_only_lacks_its_report_gets_it(train) -> None:
    folder = train("ppo", "parts", *CONSTANT, *SHORT, *TINY_PPO, "--name", "mine")
    report, table = (folder / "evaluation.json").read_text(), rows(folder)
    (folder / "evaluation.json").unlink()
    (folder / "policy.zip").unlink()
    train("ppo", "parts", "--resume", "runs/mine", at=130, do=kill)  # no step is taken
    assert (folder / "evaluation.json").read_text() == report
    assert rows(folder) == table


@pytest.fixture
def stopped(train) -> Path:
    with pytest.raises(Killed):
        train("ppo", "parts", *CONSTANT, *SHORT, *TINY_PPO, "--save_every", "32", "--name", "mine", at=80, do=kill)
    return Path("runs/mine").resolve()


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def not_a_state(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("state.pickle", b"\x80\x05}.")


def test_what_can_t_be_resumed_is_refused_in_one_line(train, stopped: Path) -> None:
    file = stopped / "resume.zip"
    whole = file.read_bytes()
    before = (stopped / "progress.csv").read_bytes()

    def refused(*arguments: str, algorithm: str = "ppo") -> str:
        with pytest.raises(SystemExit) as left:
            train(algorithm, "parts", "--resume", *arguments)
        message = str(left.value.code)
        assert message.startswith("error: ")
        assert "\n" not in message
        return message

    assert "seed was 0 and is 3" in refused("runs/mine", "--seed", "3")
    assert "is a configuration for train_ppo.py, and this is train_dqn.py" in refused("runs/mine", algorithm="dqn")
    assert "runs/other is no run folder" in refused("runs/other")
    config = (stopped / "config.yaml").read_text()
    for content, said in (("", "config.yaml is empty"), ("env: {\nid", "config.yaml is no YAML")):
        (stopped / "config.yaml").write_text(content)
        assert said in refused("runs/mine")
    (stopped / "config.yaml").write_text(config)
    for damage, said in ((cut_off, "not a zip file"), (flip_a_bit, "its checksum is wrong"), (not_a_state, "format")):
        damage(file)
        assert re.search(f"is damaged, or of another version .*{said}", refused("runs/mine"))
        file.write_bytes(whole)
    file.unlink()
    assert "it holds no resume.zip" in refused("runs/mine")
    assert (stopped / "progress.csv").read_bytes() == before


def test_a_save_that_fails_leaves_the_last_one(train, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resume

    file = stopped / "resume.zip"
    before = file.read_bytes()

    def full(_: Any, member: Any, **__: Any) -> None:
        member.write(b"the beginning")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(resume.pickle, "dump", full)
        with pytest.raises(OSError, match="no space"):
            train("ppo", "parts", "--resume", "runs/mine")
    assert file.read_bytes() == before
    train("ppo", "parts", "--resume", "runs/mine")
