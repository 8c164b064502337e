"""The reward over states, or along a policy's way: what is drawn, what stands beside it, what is refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from insights import PROMPTS, Lamp, is_png, rows_of

from vlmrm_wrap import CLIPRewardModel, FrameScores
from vlmrm_wrap.insight.checks import check_env_is_known
from vlmrm_wrap.insight.landscape import landscape
from vlmrm_wrap.insight.plotting import save_curves
from vlmrm_wrap.insight.policies import random_policy
from vlmrm_wrap.insight.tables import rank_correlation, rounded


@pytest.mark.parametrize(
    ("env_id", "measure"), [("CartPole-v1", 0.95), ("MountainCar-v0", 0.8), ("Pendulum-v1", 0.95), ("Acrobot-v1", 0.9)]
)
def test_a_classic_env_needs_no_more_than_prompts(run, encoded, env_id: str, measure: float) -> None:
    goal, baseline = PROMPTS[env_id]
    two = env_id == "Acrobot-v1"
    sweeps = ["--state", "theta1=-3:3:6", "theta2=-3:3:5"] if two else []  # 625 frames by default
    status, out, _ = run(
        "landscape", env_id, "--goal", goal, "--baseline", baseline, *sweeps, "--alpha", "0", "0.5", "1"
    )
    assert status == 0
    assert is_png("landscape.png")
    columns = rows_of("landscape.csv")
    n = 30 if two else 61
    assert {len(values) for values in columns.values()} == {n}
    assert sum(encoded) == n + 1  # one warm-up; three alphas cost no more than one
    assert max(encoded) == 16  # frames are not held until the end
    last = out.splitlines()[-2].split()
    assert last[0] == "1"
    assert float(last[-1]) > measure  # R rises with what the env is about

    model = CLIPRewardModel.from_pretrained("embedded", goal_prompts=goal, baseline_prompts=baseline)
    scores = FrameScores(
        *(columns[name].astype(np.float32) for name in ["goal_similarity"] * 2 + ["baseline_similarity"])
    )
    for alpha in (0.0, 0.5, 1.0):
        assert np.allclose(columns[f"reward_alpha_{alpha:g}"], model.rewards_at(alpha, scores), atol=1e-6)


class Brightness:
    """Reads a Lamp's two numbers from its frames; ``alpha`` mixes them."""

    encoder, recipe = None, None

    def score(self, frames: np.ndarray) -> FrameScores:
        left, right = (frames[:, 0, column, 0].astype(np.float32) for column in (0, -1))
        return FrameScores(left, left, right)

    def rewards_at(self, alpha: float, scores: FrameScores) -> np.ndarray:
        return ((1 - alpha) * scores.goal_similarity + alpha * scores.baseline_similarity).astype(np.float32)


def test_each_frame_shows_the_state_that_stands_beside_it() -> None:
    env = Lamp(render_mode="rgb_array")
    result = landscape(env, Brightness(), alphas=[0, 1], states=["0=10:250:5", "1=0:200:3"], against=["1", "0=130"])
    assert result.states.tolist() == [[a, b] for a in (10, 70, 130, 190, 250) for b in (0, 100, 200)]
    assert result.rewards[0].tolist() == result.states[:, 0].tolist()
    assert result.rewards[1].tolist() == result.states[:, 1].tolist()
    assert result.env_rewards.tolist() == [(state + 30) % 256 for state in result.states[:, 0]]
    assert [picture[0, 0, 0] for picture in result.thumbnails] == result.states[:, 0].tolist()
    assert result.correlations["1"][1] == pytest.approx(1)
    assert abs(result.correlations["0=130"][0]) < 1e-9  # symmetric about the target
    assert abs(result.correlations["1"][0]) < 1e-9


def test_the_other_variables_stay_where_the_reset_or_the_user_put_them() -> None:
    env = Lamp(render_mode="rgb_array")
    assert set(landscape(env, Brightness(), alphas=[0], states=["0=0:9:2"]).states[:, 1]) == {200}
    assert set(landscape(env, Brightness(), alphas=[0], states=["0=0:9:2", "1=7"]).scores.baseline_similarity) == {7}


def test_along_a_policy() -> None:
    env = Lamp("ends", render_mode="rgb_array")
    seen = []
    result = landscape(env, Brightness(), alphas=[0], policy=lambda obs: seen.append(obs[0]) or 0, steps=7)
    assert seen == [40, 70, 100, 40, 70, 100, 40]
    assert result.rewards[0].tolist() == [70, 100, 130, 70, 100, 130, 70]  # the frame after the step
    assert result.env_rewards.tolist() == result.rewards[0].tolist()
    assert result.states[:, 0].tolist() == result.rewards[0].tolist()
    assert result.starts == (3, 6)
    assert result.correlations["env reward"][0] == pytest.approx(1)


def test_mujoco_by_joint(run) -> None:
    pytest.importorskip("mujoco")
    status, out, _ = run(
        "landscape", "InvertedPendulum-v5", "--goal", "pole upright", "--baseline", "a pole", "--state", "hinge=-1:1:5",
        "slider=0.5", "--against", "hinge=0",
    )  # fmt: skip
    assert status == 0
    columns = rows_of("landscape.csv")
    assert columns["hinge"].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert set(columns["slider"]) == {0.5}
    assert len(set(columns["goal_similarity"])) == 5
    assert "~ hinge=0" in out
    assert "nothing else" not in out  # the embedded model has been taught it


def test_states_that_were_not_swept_are_named(run) -> None:
    pytest.importorskip("mujoco")
    words = ["--goal", "pole upright", "--baseline", "a pole", "--steps", "3"]
    status, out, _ = run("landscape", "InvertedPendulum-v5", *words)
    assert status == 0
    assert "along a random policy; the state can be swept instead, --state NAME=LOW:HIGH, of slider, hinge" in out


def test_an_env_that_the_embedded_model_was_not_taught_is_told() -> None:
    clip = SimpleNamespace(name="embedded", metadata={"env_ids": '["CartPole-v1"]'})
    known, unknown = (SimpleNamespace(spec=SimpleNamespace(id=name)) for name in ("CartPole-v1", "Hopper-v5"))
    assert check_env_is_known(clip, known) == []
    assert "knows CartPole-v1 and nothing else" in check_env_is_known(clip, unknown)[0].message


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 8, 27, 64])) == pytest.approx(1)
    # ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(np.array([0, 5, 5, 9]), np.array([1, 3, 2, 4])) == pytest.approx((4.5 / 5) ** 0.5)
    assert np.isnan(rank_correlation(np.array([1, 2]), np.array([3, 3])))


@pytest.mark.parametrize("twice", [["theta=-1:1:5", "2=0:1:3"], ["theta=-1:1:5", "theta=0"], ["x=0", "0=1", "1=0:1"]])
def test_a_variable_given_twice_is_refused(run, twice: list[str]) -> None:
    status, _, err = run("landscape", "CartPole-v1", "--goal", "a pole", "--state", *twice)
    assert (status, err.count("\n")) == (2, 1)
    assert f"{twice[0]!r} and {twice[1]!r} are of one state variable" in err


def test_the_title_says_who_acts() -> None:
    env, model = Lamp(render_mode="rgb_array"), Brightness()
    assert landscape(env, model, alphas=[0], steps=2).title.startswith("Lamp, random policy\n")
    act = random_policy(env, 0)
    assert landscape(env, model, alphas=[0], policy=act, steps=2).title.startswith("Lamp, random policy\n")
    assert landscape(env, model, alphas=[0], policy=lambda obs: 0, steps=2).title.startswith("Lamp, given policy\n")


def test_an_episode_of_one_step_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    drawn = []
    from matplotlib.axes import Axes

    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda *args, **how: drawn.append(how["markevery"]) or plot(*args, **how))
    for breaks in ([1, 2], [1], [], [2]):  # of three steps; a gap is put in before each
        save_curves(tmp_path / "plot.png", "title", "step", np.arange(3), {"a": np.arange(3.0)}, breaks=breaks)
    save_curves(tmp_path / "plot.png", "title", "step", np.arange(1), {"a": np.arange(1.0)})
    assert drawn == [[0, 2, 4], [0], [], [3], [0]]


def test_no_caption_has_a_negative_zero() -> None:
    assert [rounded(value, 2) for value in (-0.001, -0.0, 0.0, -0.006)] == ["0.00", "0.00", "0.00", "-0.01"]
    env = Lamp(render_mode="rgb_array")
    result = landscape(env, Brightness(), alphas=[0], states=["0=0:9:2", "1=-0.001:5:2"])
    assert any("1 0.00" in caption for caption, _ in result._extremes())


def test_the_numbers_file_is_checked_before_the_work(run, encoded) -> None:
    Path("landscape.csv").mkdir()
    status, _, err = run("landscape", "CartPole-v1", "--goal", "a pole")
    assert (status, "landscape.csv is a folder" in err, encoded) == (2, True, [])


def test_an_env_that_pays_nan_is_named() -> None:
    env = Lamp(render_mode="rgb_array")
    env.step = lambda action, step=env.step: (*step(action)[:1], float("nan"), False, False, {})
    result = landscape(env, Brightness(), alphas=[0], steps=3)
    assert np.isnan(result.correlations["env reward"][0])
    assert "Lamp itself pays NaN or infinity at 3 of these 3 frames" in str(result)
