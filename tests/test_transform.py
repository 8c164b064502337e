"""Options that need the env's reward or an episode's boundaries: the same numbers in every kind of env."""

import contextlib
import functools
import json

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward, captured, painted_value
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from walks import OFF, PPO_KWARGS, BackgroundReward, GreyReward, assert_same_training, make, walk

from vlmrm_wrap import (
    CLIPRewardModel,
    CLIPRewardVectorWrapper,
    CLIPRewardWrapper,
    MixEnvReward,
    PotentialDifference,
    Standardize,
    StandardizedReward,
    transform_reward,
)
from vlmrm_wrap.sb3 import CLIPRewardVecEnv, DeferredVecNormalize, make_vec_env

LENGTHS = [(3, 5, 2), (4, 1, 6), (2, 2, 2)]  # odd episodes terminate, even ones are truncated
STEPS = 14
ENV_FNS = [functools.partial(captured, index, LENGTHS[index]) for index in range(3)]
SHAPED = PotentialDifference(0.5)
# powers of 2: every number is exact, in float32 too
TRANSFORMS = {
    "mix": [MixEnvReward(env_weight=0.25, clip_weight=2.0)],
    "potential": [SHAPED],
    "difference": [PotentialDifference(1.0, zero_at_end=False)],
    "both": [SHAPED, MixEnvReward(env_weight=1.0)],
    "own function": [lambda step: step.rewards - step.previous + step.terminated + 1],
}


def expected(index, name):
    """From the definition, episode by episode."""
    rewards, episode = [], 0
    while len(rewards) < STEPS:
        episode += 1
        length = LENGTHS[index][(episode - 1) % 3]
        potential = [0.0] + [painted_value(index, episode, step) for step in range(1, length + 1)]
        for step in range(1, length + 1):
            before, now = potential[step - 1], potential[step]
            env_reward = 100 * index + step
            ended = step == length and episode % 2 == 1
            shaped = 0.5 * (0.0 if ended else now) - before
            rewards.append(
                {
                    "mix": 2 * now + 0.25 * env_reward,
                    "potential": shaped,
                    "difference": now - before,
                    "both": shaped + env_reward,
                    "own function": now - before + ended + 1,
                }[name]
            )
    return rewards[:STEPS]


def transformed(env, name):
    for transform in TRANSFORMS[name]:
        env = transform_reward(env, transform)
    return env


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_single_env(name):
    for index in range(3):
        env = transformed(CLIPRewardWrapper(PaintedEnv(index, LENGTHS[index]), PaintedReward()), name)
        rewards, over = [], True
        for _ in range(STEPS):
            if over:
                env.reset()
            (_, episode, step), reward, terminated, truncated, info = env.step(0)
            assert type(reward) is float
            assert info["clip_reward"] == painted_value(index, episode, step)
            assert info["env_reward"] == 100 * index + step
            rewards.append(reward)
            over = terminated or truncated
        assert rewards == expected(index, name)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("name", "kind"), [*((name, "sync") for name in TRANSFORMS), ("both", "async")])
def test_vector_envs(name, kind, mode):
    base = SyncVectorEnv if kind == "sync" else functools.partial(AsyncVectorEnv, context="fork")
    envs = CLIPRewardVectorWrapper(base(ENV_FNS, autoreset_mode=mode), PaintedReward())
    got = [[], [], []]
    with contextlib.closing(transformed(envs, name)) as envs:
        envs.reset()
        for _ in range(2 * STEPS):
            obs, rewards, terminations, truncations, infos = envs.step(np.zeros(3, int))
            assert rewards.dtype == np.float64
            stepped = infos["_clip_reward"]
            np.testing.assert_array_equal(stepped, infos["_env_reward"])
            assert (rewards[~stepped] == 0).all()
            assert (infos["clip_reward"][~stepped] == 0).all()
            over = terminations | truncations
            for index in np.flatnonzero(stepped):
                got[index].append(rewards[index])
                if not over[index]:  # SAME_STEP shows the next episode then
                    assert infos["clip_reward"][index] == painted_value(*obs[index])
            if mode == AutoresetMode.DISABLED and over.any():
                envs.reset(options={"reset_mask": over})
    for index in range(3):
        assert got[index][:STEPS] == expected(index, name)


@pytest.mark.parametrize(("name", "kind"), [*((name, "dummy") for name in TRANSFORMS), ("both", "fork")])
def test_stable_baselines_vec_envs(name, kind):
    venv = DummyVecEnv(ENV_FNS) if kind == "dummy" else SubprocVecEnv(ENV_FNS, start_method="fork")
    got, clip_return = [[], [], []], np.zeros(3)
    with contextlib.closing(transformed(CLIPRewardVecEnv(venv, PaintedReward()), name)) as venv:
        venv.reset()
        for _ in range(STEPS):
            _, rewards, dones, infos = venv.step(np.zeros(3, int))
            assert rewards.dtype == np.float32
            for index in range(3):
                got[index].append(float(rewards[index]))
                clip_return[index] += infos[index]["clip_reward"]
                if dones[index]:
                    assert infos[index]["clip_episode"]["r"] == clip_return[index]
                    clip_return[index] = 0
    assert got == [expected(index, name) for index in range(3)]


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_standardised_outside_as_around_the_model(mode):
    """A NEXT_STEP reset step, which pays 0, is no reward to be measured by."""
    paid, standardize = [], Standardize()
    for model, outside in ((StandardizedReward(PaintedReward()), []), (PaintedReward(), [standardize])):
        envs = CLIPRewardVectorWrapper(SyncVectorEnv(ENV_FNS, autoreset_mode=mode), model)
        for transform in outside:
            envs = transform_reward(envs, transform)
        envs.reset()
        paid.append([])
        steps = 0
        for _ in range(STEPS):
            _, rewards, terminations, truncations, infos = envs.step(np.zeros(3, int))
            paid[-1].append(rewards)
            steps += infos["_env_reward"].sum()
            over = terminations | truncations
            if mode == AutoresetMode.DISABLED and over.any():
                envs.reset(options={"reset_mask": over})
    np.testing.assert_allclose(*paid, rtol=1e-6)
    assert standardize.state_dict()["count"] == steps
    assert (steps < 3 * STEPS) == (mode == AutoresetMode.NEXT_STEP)
    assert np.ptp(paid) > 2


def test_standardised_single_env_goes_on_where_it_was_saved():
    rewards = []
    for parts in ([12], [5, 7]):
        env, state = CLIPRewardWrapper(PaintedEnv(0, (12,)), PaintedReward()), None
        env.reset()
        rewards.append([])
        for steps in parts:
            standardize = Standardize()
            if state is not None:
                standardize.load_state_dict(state)
            part = transform_reward(env, standardize)
            rewards[-1] += [part.step(0)[1] for _ in range(steps)]
            state = json.loads(json.dumps(standardize.state_dict()))
    assert rewards[0] == rewards[1]
    standardize.training = False
    part.step(0)
    assert standardize.state_dict() == state


def test_what_is_logged_of_a_standardised_reward_is_the_reward():
    """Standardised ones of two times don't compare: their 0 has moved."""
    venv = CLIPRewardVecEnv(DummyVecEnv(ENV_FNS), PaintedReward())
    venv = transform_reward(transform_reward(transform_reward(venv, Standardize()), SHAPED), MixEnvReward(1.0))
    venv.reset()
    returns = np.zeros(3)
    for _ in range(STEPS):
        _, rewards, dones, infos = venv.step(np.zeros(3, int))
        assert np.abs(rewards - [info["env_reward"] for info in infos]).max() < 10
        returns += [info["clip_reward"] for info in infos]
        np.testing.assert_array_equal(venv.venv.venv.venv.latest_rewards, [info["clip_reward"] for info in infos])
        for index in np.flatnonzero(dones):
            assert infos[index]["clip_episode"]["r"] == returns[index] > 100
            returns[index] = 0


def test_a_reset_in_the_middle_begins_an_episode():
    first = 0.5 * painted_value(0, 2, 1)
    env = transform_reward(CLIPRewardWrapper(PaintedEnv(0, (9,)), PaintedReward()), SHAPED)
    env.reset()
    env.step(0)
    env.reset()
    assert env.step(0)[1] == first
    sync = SyncVectorEnv([functools.partial(captured, 0, (9,))] * 2, autoreset_mode=AutoresetMode.DISABLED)
    envs = transform_reward(CLIPRewardVectorWrapper(sync, PaintedReward()), SHAPED)
    envs.reset()
    envs.step([0, 0])
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert envs.step([0, 0])[1].tolist() == [first, 0.5 * painted_value(0, 1, 2) - painted_value(0, 1, 1)]
    envs.reset()
    assert envs.step([0, 0])[1][0] == 0.5 * painted_value(0, 3, 1)
    venv = transform_reward(
        CLIPRewardVecEnv(DummyVecEnv([functools.partial(captured, 0, (9,))]), PaintedReward()), SHAPED
    )
    venv.reset()
    venv.step([0])
    venv.reset()
    assert venv.step([0])[1].tolist() == [first]


def test_the_sum_of_differences_is_the_last_reward():
    env = transformed(CLIPRewardWrapper(PaintedEnv(0, (6,)), PaintedReward()), "difference")
    env.reset()
    assert sum(env.step(0)[1] for _ in range(6)) == painted_value(0, 1, 6)


def test_normalisation_goes_outside_and_evaluation_reports_the_envs_own_return():
    class Policy:
        def predict(self, obs, state=None, episode_start=None, deterministic=True):
            return np.zeros(len(obs), int), state

    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(0, (4,)), 1), PaintedReward())
    venv = VecNormalize(transform_reward(venv, MixEnvReward(1.0)), norm_obs=False)
    venv.reset()
    venv.step(np.zeros(1, int))
    assert venv.get_original_reward().tolist() == [painted_value(0, 1, 1) + 1]
    mean, _ = evaluate_policy(Policy(), venv, 2)
    assert mean == 1 + 2 + 3 + 4


@pytest.mark.parametrize(
    "transform", [MixEnvReward(0.5, 2.0), PotentialDifference(0.9, zero_at_end=False), Standardize()]
)
def test_the_spec_makes_it_again(transform):
    model = CLIPRewardModel.from_pretrained(
        "embedded", goal_prompts="pole upright", baseline_prompts="pole and cart", device="cpu"
    )
    env = transform_reward(CLIPRewardWrapper(gym.make("CartPole-v1", render_mode="rgb_array"), model), transform)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    rewards = []
    for each in (env, again):
        each.reset(seed=0)
        rewards.append([each.step(1)[1] for _ in range(3)])
        each.close()
    assert rewards[0] == rewards[1]
    assert str(again) == str(env)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: transform_reward(PaintedEnv(), SHAPED), ValueError, "no CLIP reward inside"),
        (lambda: transform_reward(SyncVectorEnv(ENV_FNS), SHAPED), ValueError, "no CLIP reward inside"),
        (lambda: transform_reward(DummyVecEnv(ENV_FNS), SHAPED), TypeError, "got DummyVecEnv; required"),
        (lambda: transform_reward("env", SHAPED), TypeError, "got str"),
        (
            lambda: transform_reward(CLIPRewardWrapper(PaintedEnv(), PaintedReward()), 0.5),
            TypeError,
            "transform is 0.5",
        ),
        (lambda: MixEnvReward(np.nan), ValueError, "weights must be finite"),
        (lambda: MixEnvReward(0, 0.0), ValueError, "both weights are 0"),
        (lambda: Standardize().load_state_dict({"count": -1}), ValueError, "count, mean and squares"),
        (lambda: PotentialDifference(1.1), ValueError, "gamma is 1.1"),
    ],
)
def test_what_can_not_be_meant_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_transform_of_another_shape_is_refused():
    env = transform_reward(CLIPRewardWrapper(PaintedEnv(), PaintedReward()), lambda step: np.zeros(2))
    env.reset()
    with pytest.raises(ValueError, match=r"returned shape \(2,\); required: \(1,\)"):
        env.step(0)


def logarithm(step):
    with np.errstate(all="ignore"):
        return np.log(step.env_rewards)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_transform_that_makes_no_number_is_named(bad):
    env = transform_reward(CLIPRewardWrapper(PaintedEnv(), PaintedReward()), lambda step: bad + step.rewards)
    env.reset()
    with pytest.raises(ValueError, match=rf"the transform <function .*<lambda>.* made {bad} of the reward 101.0 and"):
        env.step(0)
    venv = CLIPRewardVecEnv(DummyVecEnv(ENV_FNS), PaintedReward())
    venv = transform_reward(venv, lambda step: np.where(np.arange(3) == 1, bad, step.rewards))
    venv.reset()
    with pytest.raises(ValueError, match=rf"made {bad} .* and the env's own 101.0, in sub-env 1; required: finite"):
        venv.step(np.zeros(3, int))


def test_what_a_transform_makes_of_a_reset_step_is_not_asked():
    """The env's own reward is 0 there, whose logarithm is infinite."""
    envs = CLIPRewardVectorWrapper(SyncVectorEnv(ENV_FNS, autoreset_mode=AutoresetMode.NEXT_STEP), PaintedReward())
    envs = transform_reward(envs, logarithm)
    envs.reset()
    resets = 0
    for _ in range(STEPS):
        resets += (~envs.step(np.zeros(3, int))[4]["_env_reward"]).sum()
    assert resets > 3


# --- deferred ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"])
@pytest.mark.parametrize("scorer", [GreyReward, BackgroundReward])
def test_deferred_training_sees_the_same_rewards(algorithm, kwargs, scorer):
    trained = []
    for deferred in (False, True):
        venv = walk(deferred, model=scorer())
        for transform in (Standardize(), PotentialDifference(0.9), MixEnvReward(0.5, 2.0)):
            venv = transform_reward(venv, transform)
        algo = make(algorithm, (DeferredVecNormalize if deferred else VecNormalize)(venv, gamma=0.9), **kwargs)
        algo.learn(100)
        algo.learn(100)  # anew: envs are reset in the middle of episodes
        trained.append(algo)
    assert_same_training(*trained)


def test_steps_that_wait_at_a_reset_go_on_with_what_was_before_it():
    paid = []
    for deferred in (False, True):
        venv = transform_reward(walk(deferred), PotentialDifference(0.9))
        rewards = []
        for _ in range(2):  # 6 frames a time, of a micro-batch of 10
            venv.reset()
            rewards += [venv.step(np.ones(3, int))[1] for _ in range(2)]
        assert not deferred or not any(each.step.scored for each in rewards)
        paid.append(np.array([each.numbers() if deferred else each for each in rewards]))
    np.testing.assert_array_equal(*paid)


def test_a_transform_that_fails_says_so_between_two_steps_of_a_deferred_env():
    venv = transform_reward(walk(True, vec_env_cls=SubprocVecEnv), lambda step: np.zeros(2))
    with contextlib.closing(venv):
        venv.reset()
        for _ in range(5):  # the fourth fills a micro-batch, scored while the workers take the fifth
            venv.step(np.zeros(3, int))
        with pytest.raises(ValueError, match=r"returned shape \(2,\); required: \(3,\)"):
            venv.step_async(np.zeros(3, int))
        venv.step(np.zeros(3, int))  # their answers were read
