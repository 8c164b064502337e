"""What a training script makes of its arguments: any order, entries inside of dicts, and mistakes in one line."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse")
pytest.importorskip("stable_baselines3")

ROOT = Path(__file__).parent.parent
CARTPOLE = str(ROOT / "configs" / "cartpole_dqn.yaml")
KNEELING = str(ROOT / "configs" / "paper" / "humanoid_kneeling.yaml")


@pytest.fixture
def read(monkeypatch):
    """``read(algorithm, *arguments)``: the run that is asked for."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import train_dqn
    import train_ppo
    import train_sac
    from command_line import read_command_line

    scripts = {"ppo": train_ppo.SCRIPT, "dqn": train_dqn.SCRIPT, "sac": train_sac.SCRIPT}
    return lambda algorithm, *arguments: read_command_line(scripts[algorithm], arguments)[0]


@pytest.fixture
def refused(read, capsys):
    """``refused(...)``: the last line of what is said in place of a run."""

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as left:
            read(*arguments)
        return left.value.code if isinstance(left.value.code, str) else capsys.readouterr().err.splitlines()[-1]

    return said


def test_a_field_wins_over_the_file_wherever_it_stands(read):
    for arguments in (
        ["--dqn.learning_rate", "1e-2", "--config", CARTPOLE],
        ["--dqn.learning_rate=1e-2", f"--config={CARTPOLE}", "--seed", "3"],
        ["--config", CARTPOLE, "--dqn.learning_rate", "1e-2"],
        ["--dqn.learning_rate", "1e-2"],  # with the script's own file
    ):
        config = read("dqn", *arguments).config
        assert (config.dqn.learning_rate, config.dqn.train_freq) == (1e-2, 32)


def test_the_later_of_two_files_wins(read, tmp_path):
    (tmp_path / "more.yaml").write_text("seed: 3\n")
    assert read("dqn", "--config", CARTPOLE, "--config", str(tmp_path / "more.yaml")).config.seed == 3
    assert read("dqn", "--config", str(tmp_path / "more.yaml"), "--config", CARTPOLE).config.seed == 0


def test_an_entry_inside_a_dict_leaves_the_others(read, capsys):
    whole = {"trackbodyid": 1, "distance": 3.5, "lookat": [0, 0, 1], "elevation": -10, "azimuth": 180}
    changes = [
        "--env.kwargs.camera.distance",
        "5",
        "--env.kwargs.camera.lookat=[0, 0, 2e0]",
        "--env.kwargs.width",
        "64",
    ]
    kwargs = read("sac", *changes, "--config", KNEELING, "--env.kwargs.body.foot", "null").config.env.kwargs
    assert kwargs["camera"] == {**whole, "distance": 5, "lookat": [0, 0, 2.0]}
    assert (kwargs["width"], kwargs["height"], kwargs["body"]) == (64, 480, {"foot": None})
    options = read("dqn", "--env.reset_options.a.b", "1", "--env.reset_options.a.c", "2").config.env.reset_options
    assert options == {"a": {"b": 1, "c": 2}}
    with pytest.raises(SystemExit, match="0"):
        read("sac", "--config", KNEELING, "--env.kwargs.camera.distance", "5", "--print_config")
    printed = capsys.readouterr().out
    assert "distance: 5\n" in printed
    assert "azimuth: 180\n" in printed


def test_mistakes_in_files_are_named_with_the_file(refused, tmp_path):
    file = tmp_path / "some.yaml"
    for content, said in (
        (b"", "some.yaml is empty; required: a configuration of a training"),
        (b"a sentence", "some.yaml is no YAML of fields, but 'a sentence'"),
        (b"env: {id: 1\nreward: [", "some.yaml is no YAML: while parsing a flow mapping"),
        (b"\xff\xfe\x00", "some.yaml is no YAML"),
    ):
        file.write_bytes(content)
        message = refused("dqn", "--config", str(file))
        assert message.startswith("error: ")
        assert said in message
    assert "nowhere.yaml" in refused("dqn", "--config", "nowhere.yaml")
    assert "expected one argument" in refused("dqn", "--config")
    assert "--conf" in refused("dqn", "--conf", CARTPOLE)  # an abbreviation would not be moved to the front
    assert "--env.kwargs: expected one" in refused("sac", "--config", KNEELING, "--env.kwargs.camera.distance")


def test_a_file_of_another_script_names_it(refused):
    assert refused("dqn", "--config", KNEELING) == (
        f"error: {KNEELING} is a configuration for train_sac.py, and this is train_dqn.py"
    )


@pytest.mark.parametrize(
    ("algorithm", "env_id", "fitting"),
    [
        ("dqn", "Pendulum-v1", "train_ppo.py and train_sac.py can"),
        ("sac", "CartPole-v1", "train_ppo.py and train_dqn.py can"),
    ],
)
def test_actions_of_another_algorithm_name_its_script(monkeypatch, algorithm, env_id, fitting):
    """Before weights load: there are none at that place."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import importlib

    arguments = ["--env.id", env_id, "--reward.goal_prompts", "up", "--reward.encoder", "no/weights.pt"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--reward.alpha", "0"])
    with pytest.raises(SystemExit, match=f"error: the actions of {env_id} are .*can't train; {fitting}"):
        importlib.import_module(f"train_{algorithm}").main()


def test_help_tells_of_resume(read, capsys):
    with pytest.raises(SystemExit, match="0"):
        read("dqn", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "a run that goes on: --resume RUN" in printed
    assert "dqn.exploration_fraction) makes a run that goes on with more steps another" in printed
