"""The paper's presets: complete, strict, with its numbers; and what a run says when it departs from one."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("jsonargparse")
pytest.importorskip("stable_baselines3")

ROOT = Path(__file__).parent.parent
PRESETS = sorted((ROOT / "configs" / "paper").glob("*.yaml"))
POSES = {
    "kneeling": "kneeling",
    "lotus": "seated down, meditating in the lotus position",
    "standing": "standing up",
    "arms_raised": "standing up, with both arms raised",
    "splits": "practicing gymnastics, doing the side splits",
    "hands_on_hips": "standing up with hands on hips",
    "one_leg": "standing up on one leg",
    "arms_crossed": "standing up, with its arms crossed",
}


@pytest.fixture
def script_of(monkeypatch):
    """Preset -> its script."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import train_dqn
    import train_sac

    return lambda path: (train_dqn if "dqn" in path.stem else train_sac).SCRIPT


@pytest.fixture
def departures(script_of, capsys):
    """Of a command line without its script: what is printed without ``departs from configs/paper/FILE: ``."""
    from command_line import read_command_line

    def printed(path: Path, *arguments: str) -> list[str]:
        read_command_line(script_of(path), arguments)
        lines = capsys.readouterr().out.splitlines()
        head = f"departs from configs/paper/{path.name}: "
        assert all(line.startswith(head) for line in lines), lines
        return [line.removeprefix(head) for line in lines]

    return printed


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_strict_and_say_what_was_measured(path, script_of, tmp_path):
    from settings import instantiate

    parser = script_of(path).parser()
    config = instantiate(parser, parser.parse_args(["--config", str(path)]))
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert f"--config configs/paper/{path.name}" in header
    assert "# paper      " in header
    assert "# measured   " in header
    if path.stem.startswith("humanoid"):
        assert config.reward.goal_prompts == f"a humanoid robot {POSES[path.stem.removeprefix('humanoid_')]}"
        assert (config.reward.baseline_prompts, config.reward.alpha) == ("a humanoid robot", 0)
        assert config.reward.encoder == "open_clip:ViT-bigG-14/laion2b_s39b_b160k"
        assert f'# "{config.reward.goal_prompts}"' in header
        sac = config.sac
        assert (sac.learning_starts, sac.batch_size, sac.tau, sac.gamma) == (50_000, 512, 0.005, 0.95)
        assert (sac.train_freq, sac.gradient_steps, sac.learning_rate) == (100, 100, 6e-4)
        assert (config.total_steps, config.env.horizon) == (10_000_000, 100)
    (tmp_path / path.name).write_text(path.read_text() + "\nwidnow: 3\n")
    with pytest.raises(SystemExit):
        parser.parse_args(["--config", str(tmp_path / path.name)])


def test_every_pose_of_the_paper_is_there():
    assert {path.stem for path in PRESETS} == {
        "cartpole_dqn",
        "mountain_car_continuous_sac",
        *(f"humanoid_{pose}" for pose in POSES),
    }


def test_humanoids_differ_in_words_only():
    settings = {path.stem: yaml.safe_load(path.read_text()) for path in PRESETS if path.stem.startswith("humanoid")}
    for setting in settings.values():
        setting["reward"].pop("goal_prompts")
        setting["env"]["kwargs"].pop("goal", None)
    first, *others = settings.values()
    assert all(other == first for other in others)


CARTPOLE = ROOT / "configs" / "paper" / "cartpole_dqn.yaml"
KNEELING = ROOT / "configs" / "paper" / "humanoid_kneeling.yaml"


def test_what_a_run_departs_from(departures):
    own = ["--out", "elsewhere", "--name", "mine", "--seed", "4", "--reward.alpha", "0.5"]
    assert departures(CARTPOLE, "--config", str(CARTPOLE), *own) == []
    changed = ["--reward.encoder", "embedded", "--env.kwargs.sutton_barto_reward", "true", "--dqn.net_arch", "[32]"]
    assert departures(CARTPOLE, *changed, f"--config={CARTPOLE}", *own) == [
        "reward.encoder: RN50 -> embedded",
        "dqn.net_arch: [256, 256] -> [32]",
        "env.kwargs.sutton_barto_reward: not set -> True",
    ]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (["--env.kwargs.camera.distance", "5"], ["env.kwargs.camera.distance: 3.5 -> 5"]),
        (["--reward.constant", "1"], ["reward.deferred: True -> False", "reward.constant: None -> 1.0"]),
        (["--reward.goal_prompts", "[a humanoid robot kneeling]"], []),
        (["--reward.goal_prompts", "[kneeling]"], ["reward.goal_prompts: a humanoid robot kneeling -> ['kneeling']"]),
    ],
)
def test_what_is_printed_is_what_departs(departures, change, lines):
    """No more, such as the rest of a camera, and no less, such as the options that a control does without."""
    assert departures(KNEELING, "--config", str(KNEELING), *change) == lines


def test_another_config_is_nobodys_preset(departures, tmp_path):
    path = tmp_path / CARTPOLE.name
    path.write_text(CARTPOLE.read_text())
    assert departures(path, "--config", str(path), "--reward.encoder", "embedded") == []


def test_a_run_is_of_the_preset_that_its_folder_names(departures, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CARTPOLE.read_text())
    assert departures(CARTPOLE, "--config", str(path), "--reward.alpha", "0") == []
    for note, lines in ((CARTPOLE.name, ["reward.alpha: 0.5 -> 0.0"]), ("gone.yaml", []), ("../cartpole_dqn.yaml", [])):
        (tmp_path / "preset.txt").write_text(note + "\n")
        assert departures(CARTPOLE, "--config", str(path), "--reward.alpha", "0") == lines


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_smoke_run_changes_lengths_only(path, departures):
    """Its command line is one that the script takes; prompts, alpha and the like stay the preset's."""
    from smoke import command

    changed = {line.split(": ")[0] for line in departures(path, *command(path, "out")[2:])}
    kept = {"reward.goal_prompts", "reward.alpha", "env.id", "env.vec", "reward.deferred", "env.kwargs.width"}
    assert "reward.encoder" in changed
    assert not changed & kept


@pytest.mark.parametrize(
    ("env_id", "horizon", "rate"), [("task", 200, 0.0), ("task", 12, 1.0), ("CartPole-v1", 12, None)]
)
def test_success_is_half_of_an_episode_in_a_goal_state(monkeypatch, env_id, horizon, rate):
    """Pushed to the right only, the pole falls in the 9th or 10th step."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    from runs import evaluate
    from settings import EnvConfig, EvaluationConfig

    env = EnvConfig("vlmrm_wrap.tasks:vlmrm_wrap/CartPole-v0" if env_id == "task" else env_id, horizon=horizon)
    result = evaluate(lambda obs: 1, env, EvaluationConfig(episodes=2))
    assert result.get("success_rate") == rate
    assert set(result["lengths"]) <= {9, 10}
