"""FixedHorizon: one length, never terminated, and the env's own return untouched."""

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv
from stable_baselines3.common.monitor import Monitor

from vlmrm_wrap import FixedHorizon


def play(env, steps=100):
    """(reward, truncated, info) of one episode."""
    env.reset(seed=0)
    played = []
    for _ in range(steps):
        _, reward, terminated, truncated, info = env.step(0)
        assert terminated is False
        played.append((reward, truncated, info))
        if truncated:
            break
    return played


@pytest.mark.parametrize("mode", ["continue", "freeze"])
def test_episodes_have_one_length_and_pay_up_to_the_envs_own_end(mode):
    played = play(FixedHorizon(PaintedEnv(0, (3,)), 6, mode))
    assert [truncated for _, truncated, _ in played] == [False] * 5 + [True]
    assert [reward for reward, _, _ in played] == [1, 2, 3, 0, 0, 0]
    raw = [1, 2, 3, 4, 5, 6] if mode == "continue" else [1, 2, 3, 0, 0, 0]
    assert [info["env_reward_raw"] for *_, info in played] == raw
    assert [info["env_terminated"] for *_, info in played] == [False, False, True, True, True, True]
    assert not any(info["env_truncated"] for *_, info in played)


def test_the_envs_own_time_limit_is_an_end_too():
    env = gym.wrappers.TimeLimit(PaintedEnv(0, (50,)), 2)
    played = play(FixedHorizon(env, 4))
    assert [reward for reward, _, _ in played] == [1, 2, 0, 0]
    assert [info["env_truncated"] for *_, info in played] == [False, True, True, True]


def test_a_monitor_outside_reports_the_envs_own_return():
    env = Monitor(FixedHorizon(PaintedEnv(0, (3,)), 6))
    assert play(env)[-1][2]["episode"]["r"] == 1 + 2 + 3


def test_freeze_repeats_observation_and_frame_without_stepping():
    env = FixedHorizon(PaintedEnv(0, (2,)), 5, "freeze")
    env.reset()
    seen = []
    for _ in range(5):
        obs, *_ = env.step(0)
        seen.append((obs[2], env.render()[0, 0, 2]))
    assert seen == [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2)]
    assert env.unwrapped.renders == 2  # the frozen frame is kept: some envs draw another at each call
    env.reset()
    env.step(0)
    assert env.render()[0, 0, 1] == 2


def test_state_fix_changes_state_and_observation():
    def fix(env):
        env.time = 40
        return env._obs()

    env = FixedHorizon(PaintedEnv(0, (100,)), 3, state_fix=fix)
    env.reset()
    obs, *_ = env.step(0)
    assert obs[2] == env.unwrapped.time == 40


def test_cartpole_stays_in_its_picture_beyond_its_end():
    """Pushed to the right only, an unfixed cart leaves the frame within 100 steps; warnings are errors."""
    env = FixedHorizon(gym.make("CartPole-v1", render_mode="rgb_array"), 200)
    env.reset(seed=0)
    for _ in range(200):
        obs, reward, *_, info = env.step(1)
        np.testing.assert_array_equal(obs, env.unwrapped.state.astype(np.float32))
        assert abs(obs[0]) <= env.unwrapped.x_threshold + 1e-6
        assert abs(obs[2]) <= np.pi + 1e-6
    assert obs[0] == pytest.approx(env.unwrapped.x_threshold)
    assert reward == 0.0
    assert info["env_terminated"]


def test_a_fix_of_ones_own_replaces_the_default():
    env = FixedHorizon(gym.make("CartPole-v1"), 100, state_fix=lambda env: None)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="has already returned terminated"):
        obs = [env.step(1)[0] for _ in range(100)][-1]
    assert obs[0] > 2 * env.unwrapped.x_threshold


@pytest.mark.parametrize(
    ("args", "match"), [((0,), "at least 1"), ((2.5,), "whole number"), ((5, "stop"), "'continue' or 'freeze'")]
)
def test_bad_arguments_are_refused(args, match):
    with pytest.raises(ValueError, match=match):
        FixedHorizon(PaintedEnv(), *args)


def test_the_spec_rebuilds_it():
    env = gym.make(FixedHorizon(gym.make("CartPole-v1", render_mode="rgb_array"), 7).spec)
    assert len(play(env)) == 7
