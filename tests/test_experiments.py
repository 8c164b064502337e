"""The experiments, through their real command lines, with tiny step counts, asserting on what they wrote."""

import csv
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("jsonargparse")
pytest.importorskip("stable_baselines3")
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from vlmrm_wrap import FrameScores
from vlmrm_wrap.insight.recording import Recording

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TINY = ["--total_steps", "384", "--env.n_envs", "2", "--env.horizon", "20", "--window", "4"]
TINY += ["--ppo.batch_size", "64", "--ppo.n_epochs", "2", "--evaluation.episodes", "2"]


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "experiments" / script), *map(str, arguments)]


def run(folder: Path, script: str, *arguments: object, code: int = 0) -> tuple[list[str], str]:
    """Lines of stdout, and stderr, of a script run in ``folder``."""
    done = subprocess.run(
        command(script, *arguments), cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run without --config: CartPole, the embedded model, with obs statistics for evaluate.py to find."""
    folder = tmp_path_factory.mktemp("trained")
    lines, _ = run(folder, "train_ppo.py", *TINY, "--normalize.obs", "true", "--reward.alpha", "3e-1")
    return folder / "runs" / "CartPole-v1-seed0", lines


def test_a_run_writes_everything(trained: tuple[Path, list[str]]) -> None:
    folder, lines = trained
    assert re.fullmatch(r"true return: \d+\.\d", lines[-1])

    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert lines[-1] == f"true return: {evaluation['mean']:.1f}"
    assert len(evaluation["returns"]) == 2
    # The unmodified env pays 1 a step and ends where it ends, not at the training horizon.
    assert evaluation["returns"] == evaluation["lengths"]

    description = json.loads((folder / "reward_model.json").read_text())
    assert description["recipe"]["encoder"] == "embedded"
    assert description["recipe"]["alpha"] == 0.3
    assert set(description["constants"]) == {"goal_norm", "baseline_norm", "goal_dot_baseline"}

    with (folder / "progress.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["rollout/ep_clip_rew_mean"]]
    assert float(rows[-1]["rollout/ep_len_mean"]) == 20
    # 20 rewards of at most 1 each; the env's own return is another number: it ends when the pole falls.
    assert 0 < float(rows[-1]["rollout/ep_clip_rew_mean"]) < 20
    assert float(rows[-1]["rollout/ep_rew_mean"]) == int(4 * float(rows[-1]["rollout/ep_rew_mean"])) / 4
    assert list(folder.glob("events.out.tfevents.*"))

    assert (folder / "learning_curves.png").read_bytes()[1:4] == b"PNG"
    assert (folder / "video.mp4").read_bytes()[4:8] == b"ftyp"
    filmed = Recording.load(folder / "scores.npz")
    assert len(filmed.rewards) == evaluation["lengths"][0]  # the film is of the evaluation's first episode
    assert filmed.embeddings.shape == (len(filmed.rewards), 128)
    assert filmed.recipe == description["recipe"]
    assert (folder / "policy.zip").stat().st_size > 10_000
    assert (folder / "final_policy.zip").stat().st_size > 10_000
    assert len(json.loads((folder / "policy.obs.json").read_text())["mean"]) == 4


def test_evaluate_repeats_the_number(trained: tuple[Path, list[str]]) -> None:
    folder, lines = trained
    again, _ = run(folder.parent.parent, "evaluate.py", folder)
    assert again[-1] == lines[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "config.yaml is empty"),
        ("env: {\nid", "config.yaml is no YAML"),
        ("env: {id: 1}", "has the settings of none"),
    ],
)
def test_evaluate_names_a_broken_config(tmp_path: Path, monkeypatch, capsys, content: str, message: str) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    (tmp_path / "config.yaml").write_text(content)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        importlib.import_module("evaluate").main()
    assert message in f"{left.value.code}{capsys.readouterr().err}"


def test_same_seed_same_run_and_nothing_overwritten(trained: tuple[Path, list[str]]) -> None:
    folder, lines = trained
    before = (folder / "progress.csv").read_bytes()
    again, _ = run(folder.parent.parent, "train_ppo.py", "--config", folder / "config.yaml")
    assert again[0] == "run folder: runs/CartPole-v1-seed0-2"
    assert again[1:] == lines[1:]
    assert (folder / "progress.csv").read_bytes() == before


@pytest.mark.parametrize("reward", [("--reward.constant", 0.25), ("--reward.alpha", 0, "--reward.deferred", "true")])
def test_another_env_from_fields_alone(tmp_path: Path, reward: tuple[object, ...]) -> None:
    """A continuous env in worker processes, wide starts, gSDE; the constant reward, and CLIP's when it comes later."""
    run(
        tmp_path,
        "train_ppo.py",
        *("--env.id", "MountainCarContinuous-v0", "--env.reset_options", "{low: -1.2, high: -1.1}"),
        *(
            "--env.vec",
            "subproc",
            "--env.start_method",
            "fork",
            "--ppo.n_steps",
            64,
            "--ppo.use_sde",
            "true",
            "--normalize.reward",
            "true",
        ),
        *("--reward.goal_prompts", "a car at the flag", *reward),
        *("--evaluation.max_steps", 30, "--evaluation.video", "false", "--name", "mine", *TINY),
    )
    folder = tmp_path / "runs" / "mine"
    with (folder / "progress.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["rollout/ep_clip_rew_mean"]]
    means = {float(row["rollout/ep_clip_rew_mean"]) for row in rows}
    assert means == {20 * 0.25} if "--reward.constant" in reward else 0 < min(means) < max(means) < 20
    assert json.loads((folder / "evaluation.json").read_text())["lengths"] == [30, 30]
    assert not (folder / "video.mp4").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize(
    ("signum", "start_method"),
    [(signal.SIGTERM, None), (signal.SIGINT, "fork"), (signal.SIGTERM, "fork"), (signal.SIGTERM, "forkserver")],
    ids=["sigterm", "ctrl-c", "sigterm to all", "sigterm to all and their server"],
)
def test_a_signal_saves_and_leaves(tmp_path: Path, signum: int, start_method: str | None) -> None:
    """Ctrl-C in a terminal and SIGTERM from a job manager go to env workers, and who starts them, as well."""
    workers = ["--env.vec", "subproc", "--env.start_method", start_method] if start_method else []
    arguments = [*TINY, "--total_steps", "1_000_000", *workers]
    with subprocess.Popen(
        command("train_ppo.py", *arguments),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        folder = tmp_path / "runs" / "CartPole-v1-seed0"
        wait_until(lambda: (folder / "policy.zip").exists() or process.poll() is not None, seconds=60)
        if workers:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signum, errors
    assert "Traceback" not in errors
    assert "stopped at once" not in errors
    steps = int(re.match(r"stopped after (\d+) steps", output.splitlines()[-1])[1])
    assert output.splitlines()[-1].endswith(f"goes on from {steps}")
    for name in ("config.yaml", "progress.csv", "policy.zip", "final_policy.zip", "learning_curves.png"):
        assert (folder / name).stat().st_size > 0
    if signum == signal.SIGINT:
        lines, _ = run(tmp_path, "train_ppo.py", "--resume", folder, "--total_steps", steps + 100)
        assert lines[-1].startswith("true return: ")
    wait_until(lambda: not group_is_alive(process.pid), seconds=10)


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("runs")


def test_the_best_clip_return_is_kept_and_the_later_of_equals(runs, tmp_path: Path) -> None:
    saved, logged = [], []
    algo = SimpleNamespace(num_timesteps=0, save=lambda path: saved.append(algo.num_timesteps))
    algo.get_env = lambda: SimpleNamespace(num_envs=1)
    algo.logger = SimpleNamespace(record=lambda *_, **__: None)
    algo.dump_logs = lambda: logged.append(algo.num_timesteps)
    watch = importlib.import_module("watch").TrainingWatch(tmp_path / "policy.zip", 2, total_steps=800, rollout=2)
    watch.model, watch.locals = algo, {"total_timesteps": 6}
    #           fills the window, 2.5 best, lower, 2.5 again; the env's own return says the opposite
    for clip, own in [(1.0, 9.0), (2.0, 9.0), (3.0, 0.0), (1.0, 9.0), (4.0, 9.0)]:
        algo.num_timesteps += 1
        deferred = {} if clip == 2.0 else {"r": clip}
        watch.locals["infos"] = [{"clip_episode": deferred, "episode": {"r": own}}]
        assert watch.on_step()
        watch._on_rollout_end()
        algo.num_timesteps += 1
        deferred["r"] = clip
        watch.locals["infos"] = [{}]
        assert watch.on_step()
        watch._on_rollout_end()  # nothing new has ended, but a return may be known by now
    watch.close()
    assert saved == [4, 5, 9]
    assert (watch.best, watch.best_step) == (2.5, 9)
    assert logged == [4, 8]  # every 4 of 800 steps


def test_a_loaded_policy_sees_the_observations_of_its_training(runs, tmp_path: Path) -> None:
    venv = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]), norm_reward=False)
    algo = PPO("MlpPolicy", venv, n_steps=64, n_epochs=1, seed=0, device="cpu").learn(64)
    with torch.no_grad():  # a policy that tells apart every scale and offset of its input
        algo.policy.action_net.weight.mul_(300.0)
    runs.save_policy(algo, tmp_path / "policy.zip")
    observations = np.random.default_rng(0).normal(size=(200, 4)) * [1.0, 2.0, 0.1, 2.0]
    expected = algo.predict(venv.normalize_obs(observations), deterministic=True)[0]

    fresh = PPO("MlpPolicy", DummyVecEnv([lambda: gym.make("CartPole-v1")]), seed=1, device="cpu")
    act = runs.load_actor(fresh, tmp_path / "policy.zip")
    assert np.array_equal(act(observations), expected)
    assert type(act(observations[0])) is int  # FrozenLake takes no numpy array
    assert not np.array_equal(fresh.predict(observations, deterministic=True)[0], expected)


@pytest.mark.parametrize(("mean", "line"), [(498.25, "498.2"), (-0.04, "0.0"), (-123.46, "-123.5")])
def test_the_last_line(runs, mean: float, line: str) -> None:
    assert runs.true_return({"mean": mean}) == f"true return: {line}"


def test_evaluate_prints_no_minus_zero(trained: tuple[Path, list[str]], monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    evaluate = importlib.import_module("evaluate")
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: {"mean": -0.04, "min": -0.04, "max": -0.0})
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(trained[0])])
    evaluate.main()
    assert capsys.readouterr().out == "2 episodes: min 0.0, max 0.0\ntrue return: 0.0\n"


@pytest.mark.parametrize("steps", [10, 510])
def test_the_film_is_as_long_as_the_evaluations_episode(runs, steps: int) -> None:
    import report
    from settings import EnvConfig, EvaluationConfig

    def act(_: object) -> np.ndarray:
        return np.zeros(1, np.float32)

    env, evaluation = EnvConfig("MountainCarContinuous-v0"), EvaluationConfig(episodes=1, max_steps=steps)
    filmed = report.record_video(act, env, evaluation, SimpleNamespace(score=black), None)
    assert len(filmed.rewards) == runs.evaluate(act, env, evaluation)["lengths"][0] == steps


def test_a_curve_of_one_point_is_seen(runs, tmp_path: Path) -> None:
    import report

    rows = tmp_path / "progress.csv"
    rows.write_text("time/total_timesteps,rollout/ep_clip_rew_mean,rollout/ep_rew_mean\n4096,255.9,20.1\n")
    report.plot_learning_curves(rows, tmp_path / "curves.png", "short", None)
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    red, blue = picture[..., 0], picture[..., 2]
    assert (blue - red > 100).any()  # C0
    assert (red - blue > 100).any()  # C1


def black(frames: np.ndarray) -> FrameScores:
    return FrameScores(*np.zeros((3, len(frames)), np.float32))


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``main(*arguments)``: train_ppo's, in this process (where torch is loaded already), in a fresh folder."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.chdir(tmp_path)
    import train_ppo

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train_ppo.py", *arguments])
        with pytest.raises(SystemExit) as left:
            train_ppo.main()
        if isinstance(left.value.code, str):  # what the interpreter does with it
            print(left.value.code, file=sys.stderr)
            return 1
        return left.value.code or 0

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with warnings.catch_warnings():
        yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--reward.alhpa", "0.3"], 2, "reward.alhpa"),
        (["--reward.alpha", "1.5"], 2, "reward.alpha"),
        (["--env.id", "Pendulum-v1"], 2, "reward.goal_prompts"),  # not CartPole's prompts by oversight
        (["--env.id", "CartPoel-v1", "--reward.goal_prompts", "up", "--reward.constant", "1"], 1, "CartPoel"),
        (["--reward.constant", "1", "--env.kwargs", "{gravitas: 3}"], 1, "gravitas"),
        (["--env", "{id: Pendulum-v1}"], 2, "goal_prompts"),
        (["--env.kwargs", "{render_mode: human}"], 2, "render_mode, which is set for you"),
        (["--reward.constant", "1", "--name", "a/../b"], 1, "the name of one folder"),
    ],
)
def test_a_mistake_is_named(main, capsys, arguments: list[str], code: int, message: str) -> None:
    assert main(*arguments) == code
    assert message in " ".join(capsys.readouterr().err.splitlines()[-2:])
    assert not Path("runs").exists()


def test_a_run_without_its_film_still_ends_in_its_number(main, capsys, monkeypatch) -> None:
    import train_ppo
    import training

    def broken(*_: object) -> None:
        raise OSError("no ffmpeg here")

    monkeypatch.setattr(training, "record_video", broken)
    monkeypatch.setattr(sys, "argv", ["train_ppo.py", "--reward.constant", "1", *TINY, "--total_steps", "100"])
    train_ppo.main()
    printed = capsys.readouterr()
    assert "total_steps=100 is trained as 128" in printed.err
    assert printed.out.splitlines()[-1].startswith("true return: ")
    assert "no video: OSError: no ffmpeg here" in printed.err


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("dqn", ["--dqn.learning_starts", "64", "--dqn.batch_size", "8"]),
        ("sac", ["--sac.learning_starts", "64", "--sac.batch_size", "8", "--reward.deferred", "true"]),
    ],
)
def test_the_other_algorithms(main, capsys, monkeypatch, script: str, settings: list[str]) -> None:
    """Their default configurations, off policy, several envs and the updates of many; then evaluate.py."""
    short = [*TINY[:8], "--total_steps", "256", "--evaluation.episodes", "2", "--evaluation.max_steps", "20"]
    monkeypatch.setattr(sys, "argv", ["train.py", *short, *settings, "--evaluation.video", "false", "--name", "mine"])
    importlib.import_module(f"train_{script}").main()
    number = capsys.readouterr().out.splitlines()[-1]
    folder = Path("runs/mine")
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["env"] == {"dqn": "CartPole-v1", "sac": "MountainCarContinuous-v0"}[script]
    with (folder / "progress.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["rollout/ep_clip_rew_mean"]][-1]
    assert float(last["rollout/ep_len_mean"]) == 20
    assert float(last["train/n_updates"]) > 0
    assert 0 < float(last["rollout/ep_clip_rew_mean"]) < 20
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "runs/mine"])
    evaluation = importlib.import_module("evaluate")
    evaluation.main()
    assert capsys.readouterr().out.splitlines()[-1] == number
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: {"mean": -0.04, "min": -0.04, "max": -0.0})
    evaluation.main()
    assert capsys.readouterr().out == "2 episodes: min 0.0, max 0.0\ntrue return: 0.0\n"


def test_a_name_is_taken_once(main, capsys) -> None:
    Path("runs/taken").mkdir(parents=True)
    assert main("--name", "taken", "--reward.constant", "1") == 1
    assert "a run is never overwritten" in capsys.readouterr().err


def test_print_config(main, capsys) -> None:
    assert main("--ppo.n_steps", "64", "--print_config") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  n_steps: 64" in lines
    assert "  goal_prompts: pole vertically upright on top of the cart" in lines


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_strict_and_say_what_they_cost(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    from settings import instantiate

    script = importlib.import_module(f"train_{path.stem.split('_')[-1]}").SCRIPT
    parser = script.parser()
    config = instantiate(parser, parser.parse_args(["--config", str(path)]))
    assert isinstance(script.settings(config).learning_rate, float)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"configs/{path.name}" in line or "this file is the default" in line for line in header)
    assert any("true return" in line for line in header)
    assert any("CPU-minutes" in line for line in header)

    (tmp_path / "typo.yaml").write_text(path.read_text() + "\nwidnow: 3\n")
    with pytest.raises(SystemExit):
        parser.parse_args(["--config", str(tmp_path / "typo.yaml")])


def test_the_benchmark_writes_what_it_prints(tmp_path: Path) -> None:
    files = ("--json", tmp_path / "b.json", "--plot", tmp_path / "b.png")
    lines, _ = run(tmp_path, "benchmark.py", "stages", "--quick", *files)
    results = json.loads((tmp_path / "b.json").read_text())
    stages = {row["stage"]: row["ms a frame"] for row in results["stages"]}
    assert stages["transport, ours"] < stages["transport, envs.render()"]
    assert all(f"| {stage} |" in "\n".join(lines) for stage in stages)
    assert (tmp_path / "b.png").read_bytes()[1:4] == b"PNG"
    _, errors = run(tmp_path, "benchmark.py", "stagse", code=2)
    assert "unknown sections ['stagse']; there are stages, recipes" in errors


class TestSeedStudy:
    @pytest.fixture
    def study(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "experiments"))
        return importlib.import_module("seed_study")

    @pytest.mark.parametrize(
        ("values", "mean"),
        [([7.0], 7.0), ([1, 2], 1.5), ([0, 1, 3, 100], 2.0), ([0, 10, 20, 30, 1000], (7.5 + 20 + 22.5) / 2.5)],
    )
    def test_interquartile_mean(self, study: ModuleType, values: list[float], mean: float) -> None:
        assert study.iqm(np.array(values[::-1])) == pytest.approx(mean)

    def test_interval_holds_the_mean_and_narrows_with_seeds(self, study: ModuleType) -> None:
        values = np.random.default_rng(0).normal(size=40)
        few, many = study.interval(values[:5]), study.interval(values)
        assert many[0] < study.iqm(values) < many[1]
        assert many[1] - many[0] < few[1] - few[0]

    def test_does_not_repeat_what_is_finished_and_reports_all(self, tmp_path: Path) -> None:
        config = ROOT / "configs" / "cartpole_ppo.yaml"
        finished = tmp_path / "study" / "cartpole_ppo-constant-seed0"
        finished.mkdir(parents=True)
        (finished / "evaluation.json").write_text('{"mean": 123.4, "terminated": [true, false]}')
        further = tmp_path / "study" / "cartpole_ppo-constant-seed10"  # of an earlier study of more seeds
        further.mkdir()
        (further / "evaluation.json").write_text('{"mean": 125.4, "terminated": [false, false]}')
        cut_short = tmp_path / "study" / "cartpole_ppo-env-seed0"
        cut_short.mkdir()
        arguments = [config, "--rewards", "constant", "env", "--seeds", 1, "--out", "study", "--report", "report"]
        lines, _ = run(tmp_path, "seed_study.py", *arguments, *TINY)
        assert [line.split(":")[0] for line in lines if line.startswith("[")] == ["[1/1] cartpole_ppo-env-seed0"]
        evaluation = json.loads((cut_short / "evaluation.json").read_text())
        assert len(evaluation["terminated"]) == 2  # TINY's episodes win over the study's 100
        text = (tmp_path / "report.md").read_text()
        solved = "0 of 2 at 475 or more"
        assert f"| a constant (control) | 124.4 | 123.4 to 125.4 | {solved} | 0 to 50 % | 123.4, 125.4 |" in text
        assert f"| the env's own (ceiling) | {evaluation['mean']:.1f} |" in text
        entries = [(entry["reward"], entry["seed"]) for entry in json.loads((tmp_path / "report.json").read_text())]
        assert entries == [("constant", 0), ("env", 0), ("constant", 10)]
        assert (tmp_path / "report.png").read_bytes()[1:4] == b"PNG"

    def test_goes_on_with_what_was_cut_short(
        self, study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started: list[list[str]] = []
        monkeypatch.setattr(study.subprocess, "Popen", lambda command, **_: started.append(command))
        config = tmp_path / "tiny.yaml"
        config.write_text("ppo: {n_steps: 8}\n")
        one = study.Run(config, "clip", 0, tmp_path / "study")
        one.start(["--total_steps", "8"])
        saved = tmp_path / "study" / one.name / "resume.zip"
        saved.parent.mkdir()
        saved.touch()
        one.start(["--total_steps", "8"])
        assert started[1][1:] == [str(ROOT / "experiments" / "train_ppo.py"), "--resume", str(saved.parent)]
        config.write_text("ppo: {n_steps: 16}\n")
        one.start(["--total_steps", "8"])
        assert started[2] == started[0]
        assert not saved.exists()
        one.start(["--total_steps", "16"])
        assert "--resume" not in started[3]

    def test_a_broken_config_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "broken.yaml").write_text("env: {")
        _, errors = run(tmp_path, "seed_study.py", "broken.yaml", code=2)
        assert "error: broken.yaml is no YAML" in errors

    def test_a_failed_training_is_named(self, tmp_path: Path) -> None:
        arguments = ["--rewards", "constant", "--seeds", 1, "--out", "study", "--no_such_option", "1"]
        lines, errors = run(tmp_path, "seed_study.py", ROOT / "configs" / "cartpole_ppo.yaml", *arguments, code=1)
        assert "cartpole_ppo-constant-seed0: exit status 2" in " ".join(lines)
        assert "failed: cartpole_ppo-constant-seed0, see study" in errors

    def test_a_signal_ends_its_trainings(self, tmp_path: Path) -> None:
        config = ROOT / "configs" / "cartpole_ppo.yaml"
        process = subprocess.Popen(
            command("seed_study.py", config, "--seeds", 1, "--out", "study"), cwd=tmp_path, stderr=subprocess.PIPE
        )
        folder = tmp_path / "study" / "cartpole_ppo-clip-seed0"
        wait_until((folder / "config.yaml").exists, seconds=60)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"goes on with the runs" in errors
        assert (folder / "final_policy.zip").exists()  # the training was told, not killed, and was waited for
