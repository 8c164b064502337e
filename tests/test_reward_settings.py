"""The reward options that a training's settings have: trained on, saved with the run, rebuilt from it."""

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml

pytest.importorskip("jsonargparse")
from stable_baselines3.common.vec_env import VecEnvWrapper

from vlmrm_wrap import (
    CLIPRewardModel,
    PerEnvPrompts,
    RenderEvery,
    ScaledReward,
    SoftmaxReward,
    Standardize,
    StandardizedReward,
    WeightedGoals,
)
from vlmrm_wrap.insight.recording import Recording
from vlmrm_wrap.insight.sweep import sweep
from vlmrm_wrap.insight.video import video
from vlmrm_wrap.protocols import as_reward_model

ROOT = Path(__file__).parent.parent
PROMPTS = {"goal_prompts": "pole vertically upright on top of the cart", "baseline_prompts": "pole and cart"}
GAMMA = 0.9


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "experiments")
        import envs
        import settings

        yield settings, envs


@pytest.fixture(scope="module")
def model() -> CLIPRewardModel:
    return CLIPRewardModel.from_pretrained("embedded", **PROMPTS, device="cpu")


def rewards_of(scripts, steps: int = 12, deferred: bool = False, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """Rewards ``(steps, 2)`` of a seeded training env, and whether they ended an episode."""
    settings, envs = scripts
    env = settings.EnvConfig("CartPole-v1", n_envs=2, horizon=5)
    reward = settings.RewardConfig(**PROMPTS, device="cpu", deferred=deferred, **options)
    scorer = envs.make_reward_model(reward)
    transforms = envs.reward_transforms(reward, GAMMA)
    venv = envs.make_training_env(env, reward, scorer, transforms, settings.NormalizeConfig(), seed=3, gamma=GAMMA)
    try:
        venv.seed(7)
        venv.reset()
        made = [venv.step(np.array([step % 2, 1])) for step in range(steps)]
        rewards = [step[1].numbers() if deferred else step[1] for step in made]
        return np.array(rewards), np.array([step[2] for step in made])
    finally:
        venv.close()


@pytest.mark.parametrize("deferred", [False, True])
def test_what_is_set_is_paid(scripts, deferred: bool) -> None:
    plain, dones = rewards_of(scripts)
    scaled, _ = rewards_of(scripts, deferred=deferred, scale=10.0, shift=-8.0)
    np.testing.assert_allclose(scaled, 10 * plain - 8, atol=1e-4)
    all_at_once, _ = rewards_of(scripts, deferred=deferred, scale=10.0, shift=-8.0, potential=True, env_weight=0.5)
    before = np.vstack([np.zeros((1, 2)), np.where(dones, 0, scaled)[:-1]])
    np.testing.assert_allclose(all_at_once, GAMMA * scaled - before + 0.5, atol=1e-4)  # CartPole pays 1


@pytest.mark.parametrize("deferred", [False, True])
def test_standardised_first_then_shaped_then_mixed(scripts, deferred: bool) -> None:
    plain, dones = rewards_of(scripts)
    wanted = Standardize().standardized(plain.ravel()).reshape(plain.shape)
    paid, _ = rewards_of(scripts, deferred=deferred, standardize=True)
    np.testing.assert_allclose(paid, wanted, atol=1e-3)  # in deferred batches R differs by 1e-7, its spread is 1e-3
    all_at_once, _ = rewards_of(scripts, deferred=deferred, standardize=True, potential=True, env_weight=0.5)
    before = np.vstack([np.zeros((1, 2)), np.where(dones, 0, paid)[:-1]])
    np.testing.assert_allclose(all_at_once, GAMMA * paid - before + 0.5, atol=1e-4)


def test_frames_are_held(scripts) -> None:
    settings, envs = scripts
    reward = settings.RewardConfig(**PROMPTS, device="cpu", render_every=3)
    env = settings.EnvConfig("CartPole-v1", n_envs=1, horizon=5)
    venv = envs.make_training_env(
        env, reward, envs.make_reward_model(reward), [], settings.NormalizeConfig(), seed=0, gamma=GAMMA
    )
    inner = venv
    while isinstance(inner, VecEnvWrapper):
        inner = inner.venv
    layer = inner.envs[0]
    while not isinstance(layer, RenderEvery):
        layer = layer.env
    venv.close()
    held, _ = rewards_of(scripts, 5, render_every=3)
    every, _ = rewards_of(scripts, 5)
    np.testing.assert_allclose(held, every[[0, 0, 0, 3, 4]], atol=1e-6)


def test_released_weights_lie_in_a_folder_of_choice(scripts, tmp_path: Path, monkeypatch) -> None:
    from vlmrm_wrap.encoders import openai_clip

    def offline(url: str, root: str) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(openai_clip.import_clip().clip, "_download", offline)
    reward = scripts[0].RewardConfig(**PROMPTS, encoder="ViT-B/32", device="cpu", download_root=str(tmp_path))
    with pytest.raises(OSError, match=f"not at {tmp_path / 'ViT-B-32.pt'}.*as download_root"):
        scripts[1].make_reward_model(reward)


def test_off_by_default(scripts) -> None:
    settings, envs = scripts
    reward = settings.RewardConfig(**PROMPTS, device="cpu")
    assert type(envs.make_reward_model(reward)) is CLIPRewardModel
    assert envs.reward_transforms(reward, GAMMA) == []


def test_the_run_describes_the_reward_that_it_pays(scripts) -> None:
    settings, envs = scripts
    reward = settings.RewardConfig(**PROMPTS, device="cpu", scale=2.0, shift=0.5)
    scorer = envs.make_reward_model(reward)
    described = json.loads(json.dumps(envs.describe(reward, scorer)))
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    rebuilt = as_reward_model(described["recipe"])
    np.testing.assert_array_equal(rebuilt.score(frames).rewards, scorer.score(frames).rewards)
    assert described["constants"] == scorer.model.constants


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"scale": 0.0}, r"reward\.scale is 0"),
        ({"goal_weights": [1.0], "negative_prompts": ["a cart"]}, "both set"),
        ({"temperature": 0.1}, r"reward\.temperature is 0\.1.*give reward\.negative_prompts"),
        ({"standardize": True, "shift": -1.0}, r"reward\.standardize undoes"),
        ({"goal_weights": [0.0]}, r"weights are \[0\.0\]"),
        ({"goal_weights": [1.0, 2.0]}, "1 goals and 2 weights"),
        ({"negative_prompts": [PROMPTS["goal_prompts"]]}, "is a goal of the model"),
    ],
)
def test_what_can_not_be_meant_is_refused(scripts, fields: dict, match: str) -> None:
    """Before any weights load: there are none at that place."""
    with pytest.raises(ValueError, match=match):
        scripts[1].make_reward_model(scripts[0].RewardConfig(**PROMPTS, encoder="no/such/weights.pt", **fields))


@pytest.mark.parametrize(("control", "paid"), [({"constant": 2.0}, 2.0), ({"env_reward": True}, 1.0)])
def test_a_control_is_without_options(scripts, control: dict, paid: float) -> None:
    """So that every configuration has its controls: CartPole's own reward is 1."""
    options = {
        "scale": 5.0,
        "shift": -3.0,
        "potential": True,
        "env_weight": 0.5,
        "render_every": 2,
        "goal_weights": [1],
    }
    rewards, _ = rewards_of(scripts, 4, **control, **options)
    np.testing.assert_array_equal(rewards, np.full((4, 2), paid))
    softmax = {"negative_prompts": ["a cart"], "temperature": 0.1}
    assert scripts[0].RewardConfig("up", deferred=True, **softmax, **control) == scripts[0].RewardConfig(
        "up", **control
    )


@pytest.mark.parametrize("config", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_has_its_controls(scripts, config: Path) -> None:
    reward = yaml.safe_load(config.read_text())["reward"]
    assert scripts[0].RewardConfig(**reward, constant=1.0).control == "constant"
    assert scripts[0].RewardConfig(**reward, env_reward=True).control == "env"


def test_options_with_prompts_of_their_own(scripts, model) -> None:
    settings, envs = scripts
    frames = np.random.default_rng(1).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    goals = ["pole upright", "cart in the middle"]
    weighted = settings.RewardConfig(goals, "pole and cart", device="cpu", goal_weights=[0.7, -0.3], scale=2.0)
    likely = settings.RewardConfig(**PROMPTS, device="cpu", negative_prompts=["pole lying flat"], temperature=0.1)
    for config, expected in (
        (weighted, ScaledReward(WeightedGoals(model, goals, [0.7, -0.3]), 2.0)),
        (likely, SoftmaxReward(model, ["pole lying flat"], 0.1)),
    ):
        paid = envs.make_reward_model(config)
        np.testing.assert_allclose(paid.score(frames).rewards, expected.score(frames).rewards, atol=1e-6)
        described = envs.describe(config, paid)
        assert described["recipe"]["option"] == expected.recipe["option"]
        assert "constants" not in described  # there is no one goal that they could be of
    own = settings.RewardConfig(**PROMPTS, device="cpu", negative_prompts=["pole lying flat"])
    assert envs.make_reward_model(own).temperature == 1 / model.encoder.logit_scale
    with pytest.raises(ValueError, match="2 goals and 1 weights"):
        envs.make_reward_model(settings.RewardConfig(goals, goal_weights=[1.0], alpha=0.0, device="cpu"))


def recorded(reward_model, path: Path) -> Recording:
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    recording = video(env, reward_model, lambda obs: 1, None, max_steps=8, embeddings=True)
    env.close()
    recording.save(path)
    return recording


def test_a_sweep_pays_as_the_run_did(model, tmp_path: Path) -> None:
    recording = recorded(ScaledReward(model, 10.0, -8.0), tmp_path / "scores.npz")
    again = sweep(tmp_path / "scores.npz", [0.5, 0.0])
    np.testing.assert_allclose(again.rewards[0.5], recording.rewards, atol=1e-4)
    plain = model.score_embeddings(recording.embeddings)
    np.testing.assert_allclose(again.rewards[0.0], 10 * model.rewards_at(0.0, plain) - 8, atol=1e-4)
    other = sweep(tmp_path / "scores.npz", goal_prompts="the pole is lying flat")
    flat = model.with_settings(goal_prompts="the pole is lying flat").score_embeddings(recording.embeddings).rewards
    np.testing.assert_allclose(other.rewards[0.5], 10 * flat - 8, atol=1e-4)
    assert "the pole is lying flat" in other.prompts


def test_another_alpha_of_weighted_goals_is_computed_from_embeddings(model, tmp_path: Path) -> None:
    goals, weights = ["pole upright", ["cart in the middle", "cart at the centre"]], [0.7, -0.3]
    paid = ScaledReward(WeightedGoals(model, goals, weights), 2.0, 1.0)
    recording = recorded(paid, tmp_path / "scores.npz")
    assert recording.constants is None
    found = sweep(tmp_path / "scores.npz")
    assert list(found.rewards) == [0.0, 0.25, 0.5, 0.75, 1.0]
    for alpha, rewards in found.rewards.items():
        each = [model.with_settings(goal_prompts=goal, alpha=alpha) for goal in goals]
        first, second = (one.score_embeddings(recording.embeddings).rewards for one in each)
        np.testing.assert_allclose(rewards, 2 * (0.7 * first - 0.3 * second) + 1, atol=1e-5)
    np.testing.assert_allclose(found.rewards[0.5], recording.rewards, atol=1e-5)
    assert np.abs(found.rewards[0.0] - recording.rewards).max() > 1e-3
    assert "0.7 x pole upright / -0.3 x cart in the middle / cart at the centre" in found.prompts
    with pytest.raises(ValueError, match="with WeightedGoals, of which sweep changes alpha, and no prompts"):
        sweep(tmp_path / "scores.npz", goal_prompts="a cart")
    dataclasses.replace(recording, embeddings=None).save(tmp_path / "scores.npz")
    with pytest.raises(ValueError, match=r"no embeddings, and for another alpha of WeightedGoals.*--embeddings$"):
        sweep(tmp_path / "scores.npz", [0.0])


@pytest.mark.parametrize(
    ("option", "match"),
    [
        (lambda m: SoftmaxReward(m, ["a cart"]), "with SoftmaxReward, which pays a probability and knows no alpha"),
        (lambda m: PerEnvPrompts(m, ["a cart"]), "with PerEnvPrompts, whose prompts are those of several envs"),
        (lambda m: ScaledReward(StandardizedReward(m)), "with StandardizedReward, whose rewards depend on all before"),
    ],
)
def test_what_can_not_be_swept_over_is_said(model, option, match: str, tmp_path: Path) -> None:
    recorded(option(model), tmp_path / "scores.npz")
    for changes in ({}, {"alphas": [0.0]}, {"goal_prompts": "a cart"}):
        with pytest.raises(ValueError, match=match):
            sweep(tmp_path / "scores.npz", **changes)


def test_the_softmax_of_other_prompts_can_be_computed_as_the_message_says(model, tmp_path: Path) -> None:
    paid = SoftmaxReward(model, ["a cart"])
    recording = recorded(paid, tmp_path / "scores.npz")
    np.testing.assert_allclose(paid.score_embeddings(recording.embeddings).rewards, recording.rewards, atol=1e-5)
