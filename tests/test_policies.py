"""Saved policies and run folders: what acts, on which observations, and for which reward."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from insights import PROMPTS, cartpole_frame, run_folder

from vlmrm_wrap import CLIPRewardModel, ScaledReward, SoftmaxReward, WeightedGoals
from vlmrm_wrap.insight.policies import make_env, rescaled
from vlmrm_wrap.insight.recording import Recording
from vlmrm_wrap.insight.rewards import changed_recipe
from vlmrm_wrap.insight.saved_policies import load_policy
from vlmrm_wrap.insight.visits import walk
from vlmrm_wrap.protocols import as_reward_model

sb3 = pytest.importorskip("stable_baselines3")
GOAL, BASELINE = PROMPTS["CartPole-v1"]


def clip_model(**changes: Any) -> CLIPRewardModel:
    return CLIPRewardModel.from_pretrained(
        "embedded", **{"goal_prompts": GOAL, "baseline_prompts": BASELINE, "alpha": 0.25, **changes}
    )


def test_a_run_folder_acts_in_its_own_env_with_its_own_prompts(run, monkeypatch) -> None:
    """With statistics of observations and rescaled ones; random weights, for an untrained policy is one as well."""
    sb3 = pytest.importorskip("stable_baselines3")
    from vlmrm_wrap.insight.policies import rescaled
    from vlmrm_wrap.insight.saved_policies import load_policy

    Path("run").mkdir()
    env = rescaled(gym.make("Pendulum-v1"))
    algo = sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu", clip_range=lambda left: 0.2 * left)
    algo.save("run/policy.zip")
    Path("run/policy.obs.json").write_text('{"mean": [0.5, 0, 0], "var": [4, 1, 1], "epsilon": 0, "clip": 0.2}')
    Path("run/config.yaml").write_text("env: {id: Pendulum-v1, kwargs: {g: 5.0}, rescale_obs: true}")
    model = clip_model(goal_prompts=PROMPTS["Pendulum-v1"][0], baseline_prompts=PROMPTS["Pendulum-v1"][1])
    Path("run/reward_model.json").write_text(json.dumps({"recipe": model.recipe, "constants": model.constants}))
    act = load_policy(Path("run/policy.zip"))
    scaled = np.array([0.2, -0.2, 0.1], np.float32)  # (0.9 - 0.5) / 2, clipped, as it is
    assert np.allclose(act(np.array([0.9, -0.3, 0.1])), algo.predict(scaled, deterministic=True)[0])

    status, _, err = run("video", "run", "--steps", "4", "--scores", "run/scores.npz")
    assert status == 0, err
    recording = Recording.load("run/scores.npz")
    assert recording.recipe == model.recipe
    with rescaled(gym.make("Pendulum-v1", g=5.0)) as own:
        obs, _ = own.reset(seed=0)
        paid = []
        for _ in range(4):
            obs, reward, *_ = own.step(act(obs))
            paid.append(reward)
    assert recording.env_reward.tolist() == pytest.approx(paid)
    status, _, err = run("sweep", "run", "--goal", "the pendulum hanging down")
    assert (status, "stores no embeddings" in err) == (2, True)


@pytest.mark.parametrize("name", ["A2C", "DQN", "SAC", "TD3"])
def test_the_algorithm_of_a_policy_is_found_out(name: str, tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from vlmrm_wrap.insight.saved_policies import load_policy

    env = gym.make("CartPole-v1" if name in ("A2C", "DQN") else "Pendulum-v1")
    algo = getattr(sb3, name)("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    algo.save(tmp_path / "policy.zip")
    obs = env.observation_space.sample()
    assert np.allclose(load_policy(tmp_path / "policy.zip")(obs), algo.predict(obs, deterministic=True)[0])


@pytest.fixture
def pendulum(tmp_path: Path) -> tuple[Path, Any]:
    """A run folder whose observations were rescaled, and its algorithm."""
    env = rescaled(gym.make("Pendulum-v1"))
    algo = sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
    model = clip_model(goal_prompts=PROMPTS["Pendulum-v1"][0], baseline_prompts=None, alpha=0.0)
    return run_folder(tmp_path / "pendulum", "{id: Pendulum-v1, rescale_obs: true}", model, algo), algo


def paid_to(policy: Any, env: gym.Env, steps: int = 4) -> list[float]:
    return [step.reward for step in walk(env, policy, steps, seed=0)]


def test_a_policy_that_knows_rescaled_observations_gets_them_in_any_env(run, pendulum) -> None:
    folder, algo = pendulum
    expected = paid_to(lambda obs: algo.predict(obs, deterministic=True)[0], rescaled(gym.make("Pendulum-v1", g=7.0)))
    other = ["Pendulum-v1", "--env-kwargs", '{"g": 7.0}', "--steps", "4"]
    for policy in (folder, folder / "policy.zip"):
        goal = ["--goal", "a pendulum"] if policy != folder else []
        status, _, err = run("video", policy, *other, *goal, "--scores", "s.npz", "--output", "a.mp4")
        assert status == 0, err
        assert Recording.load("s.npz").env_reward.tolist() == pytest.approx(expected)
        status, out, err = run("landscape", *other, "--policy", policy, "--goal", "a pendulum")
        assert status == 0, err
        assert f"Pendulum-v1, policy {folder}/policy.zip" in out
        with open("landscape.csv") as file:
            assert [float(line.split(",")[-1]) for line in file.readlines()[1:]] == pytest.approx(expected)


def test_a_policy_away_from_its_run_folder_is_warned_of(pendulum, tmp_path: Path) -> None:
    shutil.copy(pendulum[0] / "policy.zip", tmp_path / "best.zip")
    with pytest.warns(UserWarning, match=r"the observations Box\(-1\.0, 1\.0.*leave the policy in its run"):
        load_policy(tmp_path / "best.zip").fitted(gym.make("Pendulum-v1"))


def test_an_env_that_a_policy_can_not_act_in_is_refused(run, pendulum, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "{id: CartPole-v1}", clip_model())
    for acts, env_id, space in ((folder, "Acrobot-v1", "Box([-4.8"), (pendulum[0], "CartPole-v1", "Box(-1.0")):
        status, _, err = run("video", acts, env_id)
        assert (status, err.count("\n")) == (2, 1)
        assert f"policy.zip was trained with the observations {space}" in err
    with gym.make("CartPole-v1") as env:
        env.action_space = gym.spaces.Discrete(3)
        with pytest.raises(ValueError, match=r"with the actions Discrete\(2\), and .* has Discrete\(3\)"):
            load_policy(folder / "policy.zip").fitted(env)


# --- sb3-contrib ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TQC", "CrossQ", "QRDQN", "TRPO", "ARS"])
def test_policies_of_sb3_contrib_act(name: str, tmp_path: Path) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = gym.make("CartPole-v1" if name in ("QRDQN", "TRPO", "ARS") else "Pendulum-v1")
    algo = getattr(contrib, name)("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    algo.save(tmp_path / "policy.zip")
    obs, act = env.observation_space.sample(), load_policy(tmp_path / "policy.zip")
    assert np.allclose(act(obs), algo.predict(obs, deterministic=True)[0])


def test_a_recurrent_policy_remembers_the_episode_and_no_other(tmp_path: Path) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env = gym.make("Pendulum-v1", max_episode_steps=3)
    algo = contrib.RecurrentPPO("MlpLstmPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
    algo.save(tmp_path / "policy.zip")
    state, starts, expected = None, True, []
    obs, _ = env.reset(seed=0)
    for _ in range(7):
        action, state = algo.predict(obs, state=state, episode_start=np.array([starts]), deterministic=True)
        obs, reward, terminated, truncated, _ = env.step(action)
        expected.append(float(reward))
        if starts := terminated or truncated:
            obs, _ = env.reset()
    policy = load_policy(tmp_path / "policy.zip")
    assert paid_to(policy, env, 7) == pytest.approx(expected)
    assert paid_to(policy, env, 7) == pytest.approx(expected)  # and once more, from its reset on
    policy.reset()
    first, second = (policy(np.array([1.0, 0.0, 0.0], np.float32)) for _ in range(2))
    assert not np.allclose(first, second)


def test_a_maskable_policy_is_refused(tmp_path: Path) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    algo = contrib.MaskablePPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=8, batch_size=8, device="cpu")
    algo.save(tmp_path / "policy.zip")
    with pytest.raises(ValueError, match="MaskablePPO's, which must be told the allowed actions"):
        load_policy(tmp_path / "policy.zip")


def test_without_sb3_contrib_the_pip_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    algo = contrib.TQC("MlpPolicy", gym.make("Pendulum-v1"), device="cpu", policy_kwargs={"net_arch": [8]})
    algo.save(tmp_path / "policy.zip")
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match="pip install sb3-contrib"):
        load_policy(tmp_path / "policy.zip")


# --- a run with something changed ----------------------------------------------------------------------------


def recipe_of_film(run: Any, folder: Path, *options: str) -> dict[str, Any]:
    status, _, err = run("video", folder, *options, "--steps", "2", "--scores", "s.npz")
    assert status == 0, err
    return Recording.load("s.npz").recipe


def test_what_is_given_changes_that_and_nothing_else(run, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "{id: CartPole-v1}", clip_model(normalize_prompt_mean=True))
    own = json.loads((folder / "reward_model.json").read_text())["recipe"]
    assert recipe_of_film(run, folder) == own
    for options, changes in (
        (["--alpha", "0.75"], {"alpha": 0.75}),
        (["--goal", "the pole is lying flat"], {"goal_prompts": ["the pole is lying flat"]}),
        (["--baseline", "a cart", "--baseline", "a pole"], {"baseline_prompts": ["a cart", "a pole"]}),
        (["--device", "cpu", "--dtype", "bfloat16"], {"device": "cpu", "dtype": "bfloat16"}),
        (["--resize-mode", "pad"], {"resize_mode": "pad"}),
    ):
        assert recipe_of_film(run, folder, *options) == own | changes
    assert "ViT-B/32" in run("video", folder, "--encoder", "ViT-B/23")[2]  # it was asked for


def test_a_runs_env_is_changed_too(run, tmp_path: Path) -> None:
    algo = sb3.PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=8, batch_size=8, seed=0, device="cpu")
    model = clip_model(goal_prompts="a pendulum")
    folder = run_folder(tmp_path / "run", "{id: Pendulum-v1, kwargs: {g: 5.0}}", model, algo)
    policy = load_policy(folder / "policy.zip")
    for options, env_kwargs, steps in (
        (["--env-kwargs", '{"max_episode_steps": 3}'], {"g": 5.0}, 3),
        (["--env-kwargs", '{"g": 2}', "--horizon", "4"], {"g": 2}, 4),
        (["Pendulum-v1", "--horizon", "2"], {}, 2),
    ):
        status, out, err = run("video", folder, *options, "--scores", "s.npz")
        assert status == 0, err
        assert f"{steps} steps" in out
        expected = paid_to(policy, gym.make("Pendulum-v1", **env_kwargs), steps)
        assert Recording.load("s.npz").env_reward.tolist() == pytest.approx(expected)


def test_the_options_of_a_run_stay_around_its_model() -> None:
    frames = np.stack([cartpole_frame(degrees) for degrees in (0, 40)])
    model, other = clip_model(), clip_model(alpha=0.75, goal_prompts="the pole is lying flat")
    recipe = ScaledReward(model, 10.0, -8.0).recipe
    changed = as_reward_model(changed_recipe(recipe, {"alpha": 0.75, "goal_prompts": ["the pole is lying flat"]}))
    assert np.array_equal(changed.score(frames).rewards, ScaledReward(other, 10.0, -8.0).score(frames).rewards)
    recipe = ScaledReward(SoftmaxReward(model, ["a cart"]), 2.0).recipe
    assert changed_recipe(recipe, {"goal_prompts": ["a"]})["model"]["model"] == model.recipe | {"goal_prompts": ["a"]}
    weighted = WeightedGoals(model, ["a pole", "a cart"], [1, 1])
    assert changed_recipe(weighted.recipe, {"baseline_prompts": ["b"]})["model"]["baseline_prompts"] == ["b"]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (lambda model: SoftmaxReward(model, ["a cart"]), "alpha"),
        (lambda model: ScaledReward(SoftmaxReward(model, ["a cart"])), "baseline_prompts"),
        (lambda model: WeightedGoals(model, ["a pole"], [1]), "goal_prompts"),
        (lambda model: WeightedGoals(model, ["a pole"], [1], ["a cart"]), "baseline_prompts"),
    ],
)
def test_what_an_option_would_make_nothing_of_is_refused(option, name: str) -> None:
    with pytest.raises(ValueError, match=f"other {name} would change nothing: the run's reward is"):
        changed_recipe(option(clip_model()).recipe, {name: ["something"]})


def test_a_control_is_filmed_with_prompts_that_are_given(run, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "{id: CartPole-v1}", None)
    status, _, err = run("video", folder, "--steps", "2")
    assert (status, "is a control, whose reward was not written in prompts: give --goal" in err) == (2, True)
    assert recipe_of_film(run, folder, "--goal", GOAL, "--baseline", BASELINE) == clip_model(alpha=0.5).recipe


def test_fast_mujoco_goes_around_the_env_inside_the_horizon(run) -> None:
    pytest.importorskip("mujoco")
    env = make_env("InvertedPendulum-v5", horizon=3, fast_mujoco=True)
    assert str(env).startswith("<FixedHorizon<FastMuJoCoRender<")
    assert env.unwrapped.model.vis.quality.shadowsize == 0
    status, _, err = run("video", "random", "CartPole-v1", "--goal", "a pole", "--fast-mujoco")
    assert (status, err.count("\n"), "has no mujoco_renderer" in err) == (2, 1, True)
    _, out, _ = run("doctor", "InvertedPendulum-v5", "--goal", "a pole", "--steps", "4", "--fast-mujoco")
    assert " -> FastMuJoCoRender" not in out
