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
def scripts(monkeypatch):
    """Preset -> its script's parser."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import train_dqn
    import train_sac
    from settings import make_parser

    classes = {"dqn": train_dqn.DQNRunConfig, "sac": train_sac.SACRunConfig}
    return lambda path: make_parser(classes["dqn" if "dqn" in path.stem else "sac"], "train", "")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_strict_and_say_what_was_measured(path, scripts, tmp_path):
    from settings import instantiate

    parser = scripts(path)
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


def test_what_a_run_departs_from(scripts):
    from presets import departures

    path = ROOT / "configs" / "paper" / "cartpole_dqn.yaml"
    parser = scripts(path)
    own = ["--out", "elsewhere", "--name", "mine", "--seed", "4", "--reward.alpha", "0.5"]
    assert departures(parser, ["--config", str(path), *own]) == []
    changed = ["--reward.encoder", "embedded", "--env.kwargs.sutton_barto_reward", "true", "--dqn.net_arch", "[32]"]
    assert departures(parser, [f"--config={path}", *own, *changed]) == [
        f"departs from {path}: reward.encoder: RN50 -> embedded",
        f"departs from {path}: dqn.net_arch: [256, 256] -> [32]",
        f"departs from {path}: env.kwargs.sutton_barto_reward: not set -> True",
    ]


def test_another_config_is_nobodys_preset(scripts, tmp_path):
    from presets import departures

    path = tmp_path / "cartpole_dqn.yaml"
    path.write_text((ROOT / "configs" / "paper" / path.name).read_text())
    assert departures(scripts(path), ["--config", str(path), "--reward.encoder", "embedded"]) == []


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_the_smoke_run_changes_lengths_only(path, scripts):
    """Its command line is one that the script takes; prompts, alpha and the like stay the preset's."""
    from presets import departures
    from smoke import command

    arguments = command(path, "out")[2:]
    changed = {line.split(": ")[1] for line in departures(scripts(path), arguments)}
    kept = {"reward.goal_prompts", "reward.alpha", "env.id", "env.vec", "reward.deferred", "env.kwargs.width"}
    assert "reward.encoder" in changed
    assert not changed & kept
