"""Deferred rewards: nothing is lost when the scorer fails or the env closes; the logs; the files."""

import csv
import pickle
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward, painted_value
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import (
    VecNormalize,
)
from test_sb3 import painted
from walks import (
    BATCHES,
    NET,
    OFF,
    ON,
    ON_AND_OFF_POLICY,
    PPO_KWARGS,
    BackgroundReward,
    GreyReward,
    assert_same_training,
    contrib,
    make,
    walk,
)

from vlmrm_wrap import FrameScores
from vlmrm_wrap.sb3 import (
    CLIPReplayBuffer,
    CLIPRewardLogger,
    CLIPRewardVecEnv,
    DeferredVecNormalize,
    make_vec_env,
    use_deferred_buffer,
)


class FlakyReward(PaintedReward):
    """Every third call fails."""

    micro_batch_size = 5

    def __init__(self):
        super().__init__()
        self.calls = 0

    def score(self, frames):
        self.calls += 1
        if self.calls % 3 == 0:
            raise ConnectionError("the line is dead")
        return super().score(frames)


class FlakyBackground(FlakyReward):
    """Fails in its thread."""

    def score_later(self, frames):
        return ThreadPoolExecutor(1).submit(self.score, frames.copy()).result


class FlakyStart(FlakyReward):
    """Fails before there is anything to wait for."""

    def score_later(self, frames):
        scores = self.score(frames)
        return lambda: scores


def insist(call, failures):
    for _ in range(9):
        try:
            return call()
        except (RuntimeError, ConnectionError) as error:
            failures.append(str(error))
    raise AssertionError("it does not recover")


@pytest.mark.parametrize("model", [FlakyReward, FlakyBackground, FlakyStart])
def test_after_a_failure_every_frame_is_scored_and_every_return_right(model):
    venv = CLIPRewardVecEnv(painted(2, (4, 3)), model(), deferred=True)
    venv.reset()
    failures = []
    steps = [insist(lambda: venv.step(np.zeros(2, int)), failures) for _ in range(40)]
    assert len(failures) > 4
    insist(steps[-1][1].step.wait, failures)
    for text in failures:
        assert re.search(r"failed while \d+ frames of deferred .* ConnectionError: the line is dead", text)

    times = [(e + 1, t + 1) for e, length in enumerate([4, 3] * 8) for t in range(length)]
    for (_, rewards, *_), (episode, time) in zip(steps, times, strict=False):
        assert rewards.numbers().tolist() == [painted_value(env, episode, time) for env in range(2)]
    ended = [info["clip_episode"] for *_, infos in steps for info in infos if "clip_episode" in info]
    assert len(ended) == 2 * 11
    for (episode, env), info in zip(((e, env) for e in range(1, 12) for env in range(2)), ended, strict=True):
        length = 4 if episode % 2 else 3
        assert info == {"l": length, "r": sum(painted_value(env, episode, time + 1) for time in range(length))}


def test_the_immediate_path_counts_the_next_episode_right_too():
    venv = CLIPRewardVecEnv(painted(1, (4,)), FlakyReward())
    venv.reset()
    ended, failures = [], []
    while len(ended) < 2:
        step = insist(lambda: venv.step(np.zeros(1, int)), failures)
        ended += [info["clip_episode"] for info in step[3] if "clip_episode" in info]
        if ended:
            venv.reward_model.calls = 0  # no failure in the second
    assert len(failures) == 1
    np.testing.assert_equal(ended, [{"l": 4, "r": np.nan}, {"l": 4, "r": 810.0}])


def test_a_failure_says_how_many_frames_wait():
    venv = CLIPRewardVecEnv(painted(2, (4,)), FlakyReward(), deferred=True)
    venv.reward_model.calls = 2
    venv.reset()
    for _ in range(3):
        rewards = venv.step(np.zeros(2, int))[1]
    with pytest.raises(RuntimeError, match="FlakyReward failed while 6 frames of deferred rewards"):
        rewards.numbers()
    assert rewards.numbers().tolist() == [103, 10_103]


@pytest.mark.parametrize("bad", [np.zeros((10, 1)), np.zeros(1), 3.0])
def test_scores_of_another_shape_are_refused(bad):
    model = GreyReward()
    model.score = lambda frames: FrameScores(bad, bad, bad)
    venv = walk(True, 10, model=model)
    venv.reset()
    venv.step(np.zeros(10, int))
    with pytest.raises(RuntimeError, match=r"10 frames.*GreyReward\.score returned"):
        for _ in range(2):
            venv.step(np.zeros(10, int))


@ON_AND_OFF_POLICY
def test_a_failure_stops_training_which_can_go_on(algorithm, kwargs):
    class Dead(GreyReward):
        dead = True

        def score(self, frames):
            if self.dead:
                raise ConnectionError("the line is dead")
            return super().score(frames)

    venv = walk(True, model=Dead())
    algo = make(algorithm, venv, **kwargs)
    with pytest.raises(RuntimeError, match="frames of deferred rewards"):
        algo.learn(144)
    Dead.dead = False
    algo.learn(144)
    buffer = algo.rollout_buffer if algorithm is PPO else algo.replay_buffer
    buffer.score_pending()
    assert np.isfinite(buffer.rewards).all()


def test_an_env_may_be_closed_before_its_frames_are_scored():
    venv = CLIPRewardVecEnv(painted(2, (4,)), PaintedReward(), deferred=True)
    venv.reset()
    rewards = venv.step(np.zeros(2, int))[1]
    venv.close()
    assert venv.reward_model.seen == []
    assert rewards.numbers().tolist() == [101, 10_101]


def test_a_reset_starts_the_clip_return_anew_while_frames_wait():
    venv = CLIPRewardVecEnv(painted(1, (4,)), PaintedReward(), deferred=True)
    venv.reset()
    venv.step(np.zeros(1, int))
    venv.reset()
    for _ in range(4):
        _, rewards, _, infos = venv.step(np.zeros(1, int))
    with pytest.raises(KeyError, match="not before the episode's frames are scored"):
        infos[0]["clip_episode"]["r"]
    rewards.step.wait()
    assert infos[0]["clip_episode"] == {"r": 4 * 200 + 10, "l": 4}
    assert infos[0]["episode"]["r"] == 10
    assert not {"goal_similarity", "baseline_similarity"} & set(infos[0])


@pytest.mark.parametrize("model", [GreyReward, BackgroundReward])
def test_frames_are_dropped_as_soon_as_they_are_scored(model):
    """600 frames of 64 x 64 x 3 bytes are 7.4 MB, a micro-batch of 10 is 0.12 MB."""
    venv = CLIPRewardVecEnv(make_vec_env(lambda: PaintedEnv(size=(64, 64)), 3), model(), deferred=True)
    algo = make(PPO, venv, n_steps=200, **NET, batch_size=60, n_epochs=1)
    tracemalloc.start()
    algo.learn(600)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def test_set_env_leaves_a_dead_model_behind():
    class Dead(GreyReward):
        def score(self, frames):
            raise ConnectionError("the line is dead")

    algo = make(PPO, walk(True, model=Dead()), **PPO_KWARGS)
    with pytest.raises(RuntimeError, match="frames of deferred rewards"):
        algo.learn(48)
    algo.set_env(walk(True))
    algo.learn(48)
    assert np.isfinite(algo.rollout_buffer.rewards).all()


@pytest.mark.parametrize("model", [GreyReward, BackgroundReward])
def test_full_micro_batches_are_scored_while_the_envs_step(model):
    venv = walk(True, 5, model=model())
    venv.reset()
    for _ in range(3):
        venv.step(np.zeros(5, int))
    venv.step_async(np.zeros(5, int))
    if model is BackgroundReward:
        venv.reward_model.pool.shutdown()
    assert venv.reward_model.batches == [10]
    _, rewards, *_ = venv.step_wait()
    assert not rewards.step.scored


# --- logs and files ------------------------------------------------------------------------------------------


@ON_AND_OFF_POLICY
def test_the_logger_logs_the_immediate_paths_return(algorithm, kwargs, tmp_path):
    logs = []
    for deferred in (False, True):
        algo = make(algorithm, walk(deferred, n=1), stats_window_size=5, **kwargs)
        algo.train_freq = TrainFreq(1, TrainFrequencyUnit.STEP)  # DQN's
        algo.set_logger(configure(str(tmp_path / str(deferred)), ["csv"]))
        algo.learn(192, callback=CLIPRewardLogger(), log_interval=1)
        algo.logger.close()
        with open(tmp_path / str(deferred) / "progress.csv") as file:
            logs.append([row["rollout/ep_clip_rew_mean"] for row in csv.DictReader(file)])
    immediate, deferred = (log[-8:] for log in logs)
    assert len(set(immediate)) == 8
    if algorithm is PPO:  # a rollout is known at its end
        assert deferred == immediate
    else:  # an episode is known at the next sample, after the log of its end
        assert deferred[1:] == immediate[:-1]


def test_a_replay_buffer_is_saved_with_its_rewards_and_without_the_model(tmp_path):
    trained = []
    for deferred in (False, True):
        algo = make(DQN, walk(deferred), **{**OFF, "learning_starts": 90})
        algo.get_env().reward_model.ballast = np.random.default_rng(0).bytes(1_000_000)
        algo.learn(45)
        algo.save(tmp_path / "policy.zip")
        algo.save_replay_buffer(tmp_path / "buffer.pkl")
        assert (tmp_path / "policy.zip").stat().st_size + (tmp_path / "buffer.pkl").stat().st_size < 200_000
        assert np.isfinite(pickle.loads((tmp_path / "buffer.pkl").read_bytes()).rewards).all()
        loaded = DQN.load(tmp_path / "policy.zip", env=walk(deferred), device="cpu")
        loaded.load_replay_buffer(tmp_path / "buffer.pkl")
        trained.append(loaded.learn(144, reset_num_timesteps=False))
    assert isinstance(trained[1].replay_buffer, CLIPReplayBuffer)
    assert_same_training(*trained)


def test_loaded_on_policy_algorithms_stay_deferred(tmp_path):
    algorithms = [(PPO, "MlpPolicy"), (contrib("RecurrentPPO"), "MlpLstmPolicy")]
    for algorithm, policy in algorithms:
        trained = []
        for deferred in (False, True):
            make(algorithm, walk(deferred), policy, **ON, **BATCHES).learn(48).save(tmp_path / "policy.zip")
            algo = algorithm.load(tmp_path / "policy.zip", env=walk(deferred), device="cpu")
            if deferred and policy == "MlpLstmPolicy":
                use_deferred_buffer(algo)
            trained.append(algo.learn(48))
        assert_same_training(*trained)


def test_statistics_are_saved_without_the_model(tmp_path):
    for wrapper in (partial(VecNormalize, norm_reward=False), DeferredVecNormalize):
        venv = wrapper(walk(True))
        venv.venv.reward_model.ballast = np.zeros(1_000_000, np.uint8)
        venv.reset()
        venv.step(np.zeros(3, int))
        venv.save(tmp_path / "statistics.pkl")
        assert (tmp_path / "statistics.pkl").stat().st_size < 20_000
        loaded = VecNormalize.load(tmp_path / "statistics.pkl", walk(True))
        if wrapper is DeferredVecNormalize:
            assert loaded.ret_rms.mean == pytest.approx(venv.old_reward.numbers().mean(), rel=1e-3)
        make(PPO, loaded, **PPO_KWARGS).learn(48)
