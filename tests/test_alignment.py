"""RewardAlignment: what it logs, and when it warns, from scripted infos and a short training."""

import csv
import warnings

import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.logger import Logger, configure

from vlmrm_wrap import MixEnvReward, transform_reward
from vlmrm_wrap.insight.metrics import goal_epic_distance, pearson, spearman
from vlmrm_wrap.sb3 import (
    CLIPRewardVecEnv,
    DeferredVecNormalize,
    RewardAlignment,
    RewardsPartWarning,
    deferred_kwargs,
    make_vec_env,
)


class Script:
    """An algorithm that does nothing but to call back, with the steps of a script."""

    def __init__(self, callback, num_envs=1):
        env = CLIPRewardVecEnv.__new__(CLIPRewardVecEnv)
        env.num_envs, self.env = num_envs, env
        self.lengths = np.zeros(num_envs, int)
        self.logger, self.num_timesteps = Logger(None, []), 0
        self.get_env = lambda: env
        self.callback = callback
        callback.init_callback(self)
        callback.on_training_start({}, {})

    def step(self, clip, env, dones, **infos):
        self.num_timesteps += len(clip)
        rows = [{"env_reward": float(reward)} for reward in env]
        for name, values in infos.items():
            for row, value in zip(rows, values, strict=True):
                row[name] = value
        self.env.latest_rewards, self.env.latest_lengths = np.array(clip, np.float32), self.lengths + 1
        self.lengths = np.where(dones, 0, self.lengths + 1)
        self.callback.update_locals({"infos": rows, "dones": np.array(dones)})
        self.callback.on_step()

    def log(self):
        self.callback.on_rollout_end()
        return {name.removeprefix("alignment/"): value for name, value in self.logger.name_to_value.items()}


def close(value):
    return pytest.approx(value, abs=1e-6)


def test_steps_and_episodes_are_correlated():
    rng = np.random.default_rng(0)
    clip, env = np.float32(rng.random((60, 2))), rng.random((60, 2)).round(1)
    success = env > 0.6
    script = Script(RewardAlignment(), num_envs=2)
    for t in range(60):
        script.step(clip[t], env[t], [t % 5 == 4, t % 6 == 5], success=success[t])
    log = script.log()
    assert log["step_pearson"] == close(pearson(clip.ravel(), env.ravel()))
    assert log["step_spearman"] == close(spearman(clip.ravel(), env.ravel()))
    assert log["step_success_pearson"] == close(pearson(clip.ravel(), success.ravel()))
    assert log["step_success_epic"] == close(goal_epic_distance(clip.ravel(), success.ravel()))

    def returns(rewards):
        return np.concatenate([rewards[:, 0].reshape(12, 5).sum(axis=1), rewards[:, 1].reshape(10, 6).sum(axis=1)])

    ended = np.concatenate([success[4::5, 0], success[5::6, 1]])
    assert log["ep_pearson"] == close(pearson(returns(clip.astype(float)), returns(env)))
    assert log["ep_spearman"] == close(spearman(returns(clip.astype(float)), returns(env)))
    assert log["ep_success_spearman"] == close(spearman(returns(clip.astype(float)), ended))


def test_only_the_latest_steps_count():
    script = Script(RewardAlignment(steps=10))
    for t in range(30):
        script.step([t % 7], [-(t % 7) if t < 20 else t % 7], [False])
    assert script.log() == {"step_pearson": close(1), "step_spearman": close(1)}


def test_what_is_constant_is_not_logged():
    script = Script(RewardAlignment())
    for t in range(20):
        script.step([t], [1.0], [t % 5 == 4])
    assert script.log() == {}


def play(callback, clip_returns, env_returns):
    script = Script(callback)
    for clip, env in zip(clip_returns, env_returns, strict=True):
        script.step([clip / 2], [0.0], [False])
        script.step([clip / 2], [env], [True])
    return script


CLIMB = np.arange(40.0) + 10 * np.sin(np.arange(40.0))
FALL = -CLIMB[::-1] - 50


def test_it_warns_once_when_the_returns_part():
    callback = RewardAlignment(episodes=20)
    with pytest.warns(RewardsPartWarning, match="the CLIP return climbs.*while the env's own falls") as caught:
        play(callback, CLIMB, -CLIMB)
    assert len(caught) == 1
    assert callback.parted_at == 40  # the first time that 20 episodes have ended, of two steps each


@pytest.mark.parametrize(
    ("clip", "env"),
    [
        (CLIMB, CLIMB),  # both climb
        (-CLIMB, -CLIMB),  # both fall
        (-CLIMB, CLIMB),  # not our trouble
        (CLIMB, np.zeros(40)),  # flat
        (CLIMB, np.random.default_rng(0).random(40)),  # noise
        (CLIMB[:19], -CLIMB[:19]),  # too few episodes
    ],
)
def test_it_does_not_warn_otherwise(clip, env):
    callback = RewardAlignment(episodes=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(callback, clip, env)
    assert callback.parted_at is None


def test_only_the_latest_episodes_can_part():
    callback = RewardAlignment(episodes=20)
    play(callback, np.concatenate([CLIMB, CLIMB]), np.concatenate([CLIMB, 50 + CLIMB]))
    with pytest.warns(RewardsPartWarning):
        play(callback, CLIMB, -CLIMB)


@pytest.mark.parametrize("deferred", [False, True], ids=["immediate", "deferred"])
@pytest.mark.parametrize("around", ["nothing", "normalize", "transform", "both"])
def test_it_reads_the_clip_reward_from_inside(around, deferred, tmp_path):
    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(1, (5, 3)), 1), PaintedReward(), deferred=deferred)
    if around in ("transform", "both"):
        venv = transform_reward(venv, MixEnvReward(env_weight=1000.0))
    if around in ("normalize", "both"):
        venv = DeferredVecNormalize(venv, norm_obs=False)
    buffer = deferred_kwargs(PPO, venv) if deferred else {}
    algo = PPO("MlpPolicy", venv, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0, **buffer)
    algo.set_logger(configure(str(tmp_path), ["csv"]))
    algo.learn(16, callback=RewardAlignment())
    algo.logger.close()
    with open(tmp_path / "progress.csv") as file:
        last = list(csv.DictReader(file))[-1]
    steps = [(10_000 + 100 * e + t, 100 + t) for e in range(1, 5) for t in range(1, (5, 3)[(e - 1) % 2] + 1)]
    assert float(last["alignment/step_pearson"]) == pytest.approx(pearson(*np.array(steps).T), abs=1e-5)
    returns = [tuple(np.sum([step for step in steps if step[0] // 100 == 100 + e], axis=0)) for e in range(1, 5)]
    assert float(last["alignment/ep_spearman"]) == pytest.approx(spearman(*np.array(returns).T), abs=1e-5)


def test_an_episode_goes_on_where_a_training_goes_on():
    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(1, (6,)), 1), PaintedReward())
    algo = PPO("MlpPolicy", venv, n_steps=4, batch_size=4, n_epochs=1, device="cpu")
    callback = RewardAlignment()
    for part in range(3):
        algo.learn(4, callback=callback, reset_num_timesteps=part == 0)
    returns = [(sum(10_000 + 100 * e + t for t in range(1, 7)), sum(100 + t for t in range(1, 7))) for e in (1, 2)]
    assert [episode[:2] for episode in callback._episodes] == returns
    algo.learn(4, callback=callback)  # from the beginning, in a new episode
    assert callback._returns[0].tolist() == [sum(10_400 + t for t in range(1, 5)), 410]


@pytest.mark.parametrize("deferred", [False, True])
def test_parts_of_two_episodes_are_not_one(deferred):
    """A reset cuts an episode short, and who comes in its middle has not seen its beginning."""
    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(1, (6,)), 1), PaintedReward(), deferred=deferred)
    buffer = deferred_kwargs(PPO, venv) if deferred else {}
    algo = PPO("MlpPolicy", venv, n_steps=4, batch_size=4, n_epochs=1, device="cpu", **buffer)
    algo.learn(4)
    late = RewardAlignment()
    algo.learn(8, callback=late, reset_num_timesteps=False)  # the last 2 steps of the first episode, all of the second
    returns = [(sum(10_000 + 100 * e + t for t in range(1, 7)), sum(100 + t for t in range(1, 7))) for e in (1, 2, 3)]
    assert [episode[:2] for episode in late._episodes] == returns[1:2]
    algo.learn(4, callback=late, reset_num_timesteps=False)  # 4 of the third
    algo._last_obs = venv.reset()
    algo.learn(8, callback=late, reset_num_timesteps=False)
    fourth = (returns[2][0] + 600, returns[2][1])
    assert [episode[:2] for episode in late._episodes] == [returns[1], fourth]


def test_off_policy_logs_have_it(tmp_path):
    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(1, (5, 3)), 1), PaintedReward())
    algo = DQN("MlpPolicy", venv, learning_starts=4, buffer_size=64, device="cpu", seed=0)
    algo.set_logger(configure(str(tmp_path), ["csv"]))
    algo.learn(32, callback=RewardAlignment())
    algo.logger.close()
    with open(tmp_path / "progress.csv") as file:
        assert list(csv.DictReader(file))[-1]["alignment/step_pearson"]


def test_without_a_clip_reward_it_says_so():
    venv = make_vec_env(lambda: PaintedEnv(1, (5,)), 1)
    with pytest.raises(ValueError, match=r"no CLIP reward in .*; required: a CLIPRewardVecEnv"):
        PPO("MlpPolicy", venv, n_steps=8, batch_size=8, device="cpu").learn(8, callback=RewardAlignment())


@pytest.mark.parametrize("kwargs", [{"steps": 1}, {"episodes": 9}, {"trend": 1.0}])
def test_what_can_not_be_meant_is_refused(kwargs):
    with pytest.raises(ValueError, match="required"):
        RewardAlignment(**kwargs)
