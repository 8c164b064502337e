"""The Stable-Baselines3 side: order of wrappers, whose return is reported, what is refused."""

import contextlib
import csv

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from vlmrm_wrap import FixedHorizon, FrameCapture
from vlmrm_wrap.cache import CacheInfo
from vlmrm_wrap.sb3 import CLIPRewardLogger, CLIPRewardVecEnv, make_vec_env


def painted(n=2, lengths=(4,)):
    counter = iter(range(n))
    return make_vec_env(lambda: PaintedEnv(next(counter), lengths), n)


def layers(env):
    names = [type(env)]
    while isinstance(env, gym.Wrapper):
        env = env.env
        names.append(type(env))
    return names


def test_make_vec_env_puts_the_wrappers_in_their_order():
    venv = make_vec_env("CartPole-v1", 2, fixed_horizon=50, wrappers=[gym.wrappers.FlattenObservation])
    assert isinstance(venv, DummyVecEnv)
    names = layers(venv.envs[0])
    order = [FrameCapture, Monitor, gym.wrappers.FlattenObservation, FixedHorizon]
    assert [name for name in names if name in order] == order
    assert names[0] is FrameCapture
    assert venv.render_mode == "rgb_array"


def test_seeds_repeat():
    first, second = (make_vec_env("CartPole-v1", 2, seed=3).reset() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()


def test_monitor_reports_the_envs_return_and_clip_episode_ours():
    venv = CLIPRewardVecEnv(painted(), PaintedReward())
    venv.reset()
    for _ in range(4):
        *_, infos = venv.step(np.zeros(2, int))
    assert [info["episode"]["r"] for info in infos] == [1 + 2 + 3 + 4, 400 + 10]
    assert [info["clip_episode"]["r"] for info in infos] == [410, 4 * 10_100 + 10]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False]


def test_a_time_limit_stays_truncated():
    venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", 1, fixed_horizon=5), PaintedLike())
    venv.reset()
    for _ in range(5):
        *_, dones, infos = venv.step(np.zeros(1, int))
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"]


class PaintedLike:
    """Any frame scores its mean pixel."""

    def score(self, frames):
        mean = frames.reshape(len(frames), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
        return mean, mean, 0 * mean


def test_a_reset_starts_the_clip_return_anew():
    venv = CLIPRewardVecEnv(painted(1, (4,)), PaintedReward())
    venv.reset()
    venv.step(np.zeros(1, int))
    venv.reset()
    for _ in range(4):
        *_, infos = venv.step(np.zeros(1, int))
    assert infos[0]["clip_episode"] == {"r": 4 * 200 + 10, "l": 4}


def test_evaluate_policy_reports_the_envs_own_return():
    venv = CLIPRewardVecEnv(painted(1, (4,)), PaintedReward())
    mean, _ = evaluate_policy(PPO("MlpPolicy", venv, n_steps=8, batch_size=8, device="cpu"), venv, 2)
    assert mean == 1 + 2 + 3 + 4


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_the_logger_logs_our_return_beside_the_envs(algorithm, tmp_path):
    venv = CLIPRewardVecEnv(painted(1, (4,)), PaintedReward())
    kwargs = {"n_steps": 16, "batch_size": 16} if algorithm is PPO else {"learning_starts": 4, "buffer_size": 64}
    algo = algorithm("MlpPolicy", venv, device="cpu", seed=0, **kwargs)
    algo.set_logger(configure(str(tmp_path), ["csv"]))
    callback = CLIPRewardLogger()
    assert np.isnan(callback.ep_clip_rew_mean)
    algo.learn(16, callback=callback)
    algo.logger.close()
    with open(tmp_path / "progress.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["rollout/ep_rew_mean"]) == 10
    returns = [4 * 100 * episode + 10 for episode in range(1, 5)]
    assert float(last["rollout/ep_clip_rew_mean"]) == pytest.approx(np.mean(returns))
    assert callback.ep_clip_rew_mean == pytest.approx(np.mean(returns))


def test_the_logger_logs_how_many_frames_were_not_encoded(tmp_path):
    scorer = PaintedReward()
    scorer.cache_info = CacheInfo(hits=3, misses=8, maxsize=9, currsize=8, skipped=1, stepped_aside=False)
    for model, logged in ((scorer, {"0.25"}), (PaintedReward(), set())):
        venv = VecNormalize(CLIPRewardVecEnv(painted(1, (4,)), model))
        algo = PPO("MlpPolicy", venv, n_steps=8, batch_size=8, device="cpu")
        algo.set_logger(configure(str(tmp_path), ["csv"]))
        algo.learn(16, callback=CLIPRewardLogger())
        algo.logger.close()
        with open(tmp_path / "progress.csv") as file:
            rows = list(csv.DictReader(file))
        assert {row["clip/cache_hit_rate"] for row in rows if "clip/cache_hit_rate" in row} == logged


def test_training_sees_our_rewards():
    """PPO's rollout buffer holds the painted numbers of the frames after each step."""
    venv = CLIPRewardVecEnv(painted(2, (50,)), PaintedReward())
    algo = PPO("MlpPolicy", venv, n_steps=4, batch_size=8, n_epochs=1, device="cpu")
    algo.learn(8)
    np.testing.assert_array_equal(algo.rollout_buffer.rewards, [[100 + t, 10_100 + t] for t in range(1, 5)])


def test_other_vec_wrappers_go_outside_and_inside():
    inside = CLIPRewardVecEnv(VecFrameStack(painted(), 2), PaintedReward())
    inside.reset()
    assert inside.step(np.zeros(2, int))[1].tolist() == [101, 10_101]
    outside = VecNormalize(CLIPRewardVecEnv(painted(), PaintedReward()), norm_reward=True)
    outside.reset()
    outside.step(np.zeros(2, int))
    assert outside.get_original_reward().tolist() == [101, 10_101]


def test_vec_normalize_inside_is_refused():
    with pytest.raises(ValueError, match=r"Put it outside: VecNormalize\(CLIPRewardVecEnv"):
        CLIPRewardVecEnv(VecFrameStack(VecNormalize(painted()), 2), PaintedReward())


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"start_method": "spawn"}, "vec_env_cls=SubprocVecEnv"),
        ({"env_kwargs": {"render_mode": "human"}}, "rgb_array"),
        ({"fixed_horizon": 0, "vec_env_cls": SubprocVecEnv}, "fixed_horizon is 0"),
        ({"n_envs": 0}, "n_envs is 0"),
    ],
)
def test_make_vec_env_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_vec_env("CartPole-v1", **{"n_envs": 1, **kwargs})


def test_subprocess_envs_are_made_from_ids():
    venv = make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv, start_method="fork", fixed_horizon=9)
    with contextlib.closing(CLIPRewardVecEnv(venv, PaintedLike())) as venv:
        venv.reset()
        for _ in range(9):
            _, rewards, dones, _ = venv.step(np.zeros(2, int))
        assert dones.all()
        assert (rewards > 0).all()


def test_a_stable_baselines_zip_holds_no_reward_model(tmp_path):
    venv = CLIPRewardVecEnv(painted(1), PaintedReward())
    venv.reward_model.ballast = np.zeros(10_000_000, np.uint8)
    PPO("MlpPolicy", venv, n_steps=8, batch_size=8, device="cpu").save(tmp_path / "policy.zip")
    assert (tmp_path / "policy.zip").stat().st_size < 1_000_000
