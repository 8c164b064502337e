"""No number before it is known: what reads pending rewards raises, and says what to do."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)
from walks import (
    OFF,
    PPO_KWARGS,
    GreyReward,
    WalkEnv,
    contrib,
    walk,
)

from vlmrm_wrap.sb3 import (
    CLIPReplayBuffer,
    CLIPRewardVecEnv,
    CLIPRolloutBuffer,
    deferred_kwargs,
    make_vec_env,
    use_deferred_buffer,
)


def pending(n=3):
    venv = walk(True, n)
    venv.reset()
    return venv.step(np.zeros(n, int))[1]


@pytest.mark.parametrize(
    "read",
    [
        np.array,
        np.asarray,
        list,
        sum,
        bool,
        np.sum,
        np.add.reduce,
        torch.as_tensor,
        lambda rewards: float(rewards[0]),
        lambda rewards: rewards[0].item(),
        lambda rewards: rewards.mean(),
        lambda rewards: float((rewards + 1)[0]),
        lambda rewards: np.zeros((2, 3)).__setitem__(0, rewards),
        lambda rewards: np.copyto(np.zeros(3), rewards),
        lambda rewards: np.mean(rewards, out=np.zeros(())),
        lambda rewards: np.add.at(np.zeros(3), [0, 1, 2], rewards),
        lambda rewards: np.add(1, rewards, out=np.zeros(3)),
        lambda rewards: np.zeros(3).__iadd__(rewards),
        lambda rewards: rewards.__setitem__(0, 1.0),
        lambda rewards: rewards.__setitem__(0, rewards[0] + 1.0),
        lambda rewards: rewards.__setitem__(0, pending()[0]),
        lambda rewards: f"{rewards[0] > 1 and 1}",
    ],
)
def test_reading_pending_rewards_raises(read):
    with pytest.raises((TypeError, AttributeError), match=r"deferred_kwargs\(PPO, venv\)"):
        read(pending())


def test_pending_rewards_take_additions_and_copies():
    venv = walk(True, 3)
    venv.reset()
    rewards = venv.step(np.ones(3, int))[1]
    rewards[1] += torch.ones(1)
    kept = [rewards.copy(), rewards.astype(np.float32), copy.deepcopy(rewards)]
    rewards[2] += 2.0
    expected = np.sin(
        (128 + 20 * np.array([env.unwrapped.x for env in venv.venv.envs])).astype(np.uint8) / np.float32(40)
    )
    for each in kept:
        np.testing.assert_array_equal(each.numbers(), expected + np.array([0, 1, 0], np.float32))
    np.testing.assert_array_equal(rewards.numbers(), expected + np.array([0, 1, 2], np.float32))
    with pytest.raises(TypeError, match="deferred_kwargs"):
        np.array(rewards.astype(np.float64))
    with pytest.raises(TypeError, match="deferred_kwargs"):
        np.array(pickle.loads(pickle.dumps(rewards)))


class GoalWalkEnv(WalkEnv):
    """What HerReplayBuffer wants."""

    def __init__(self, render_mode="rgb_array"):
        super().__init__()
        self.observation_space = spaces.Dict(self._thrice(self.observation_space))

    def _thrice(self, line):
        return dict.fromkeys(["observation", "achieved_goal", "desired_goal"], line)

    def _obs(self):
        return self._thrice(np.array([self.x, 0], np.float32))

    def compute_reward(self, achieved, desired, info):
        return np.zeros(len(achieved))


def her(*, deferred=True):
    return DQN(
        "MultiInputPolicy",
        CLIPRewardVecEnv(make_vec_env(GoalWalkEnv, 1), GreyReward(), deferred=deferred),
        replay_buffer_class=HerReplayBuffer,
        learning_starts=8,
        buffer_size=80,
    )


@pytest.mark.parametrize(
    ("train", "error", "match"),
    [
        (lambda: PPO("MlpPolicy", walk(True), **PPO_KWARGS).learn(9), TypeError, r"deferred_kwargs\(PPO, venv\)"),
        (lambda: DQN("MlpPolicy", walk(True), **OFF).learn(9), TypeError, r"deferred_kwargs\(PPO, venv\)"),
        (lambda: her().learn(9), TypeError, "HerReplayBuffer can't be used: it relabels"),
        (lambda: her(deferred=False).learn(99), TypeError, "HerReplayBuffer relabels with compute_reward"),
        (
            lambda: evaluate_policy(PPO("MlpPolicy", walk(True), device="cpu"), walk(True), 2),
            TypeError,
            "Evaluate on the plain env",
        ),
        (
            lambda: PPO("MlpPolicy", VecNormalize(walk(True)), rollout_buffer_class=CLIPRolloutBuffer).learn(9),
            TypeError,
            "changed on their way.*DeferredVecNormalize in its place",
        ),
        (
            lambda: DQN("MlpPolicy", VecNormalize(walk(True)), replay_buffer_class=CLIPReplayBuffer, **OFF).learn(99),
            ValueError,
            "DeferredVecNormalize in its place",
        ),
        (
            lambda: PPO("MlpPolicy", walk(False), rollout_buffer_class=CLIPRolloutBuffer).learn(9),
            TypeError,
            "type ndarray; required: those of a CLIPRewardVecEnv",
        ),
        (
            lambda: contrib("RecurrentPPO")("MlpLstmPolicy", walk(True), n_steps=8).learn(9),
            TypeError,
            r"use_deferred_buffer\(algo\)",
        ),
    ],
)
def test_what_would_train_on_nothing_raises(train, error, match):
    with pytest.raises(error, match=match):
        train()


@pytest.mark.parametrize(
    ("algorithm", "wrap", "kwargs", "error", "match"),
    [
        (PPO, lambda: walk(False), {}, ValueError, "CLIPRewardVecEnv holds no deferred"),
        (PPO, lambda: walk(False).venv, {}, ValueError, "DummyVecEnv holds no deferred"),
        (PPO, lambda: VecNormalize(walk(True)), {}, ValueError, "put|Put vlmrm_wrap.sb3.DeferredVecNormalize"),
        (PPO, lambda: VecMonitor(VecFrameStack(walk(True), 2)), {}, ValueError, "VecMonitor is outside"),
        (DQN, lambda: VecCheckNan(walk(True)), {}, ValueError, "VecCheckNan is outside"),
        (BaseAlgorithm, lambda: walk(True), {}, TypeError, "BaseAlgorithm is no class of an algorithm"),
        ("PPO", lambda: walk(True), {}, TypeError, "PPO is no class of an algorithm"),
        (PPO, lambda: walk(True), {"n_steps": 3}, ValueError, "PPO takes its n_steps itself"),
        (DQN, lambda: walk(True), {"n_steps": 3}, ValueError, "gamma=None"),
        (DQN, lambda: walk(True), {"n_steps": 0, "gamma": 0.9}, ValueError, "n_steps=0"),
        (DQN, lambda: walk(True, dict_obs=True), {"n_steps": 3, "gamma": 0.9}, ValueError, "no Dict"),
    ],
)
@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`:UserWarning")
def test_deferred_kwargs_refuses(algorithm, wrap, kwargs, error, match):
    with pytest.raises(error, match=match):
        deferred_kwargs(algorithm, wrap(), **kwargs)


def test_recurrent_ppo_is_told_its_way():
    recurrent = contrib("RecurrentPPO")
    with pytest.raises(TypeError, match=r"algo = use_deferred_buffer\(RecurrentPPO"):
        deferred_kwargs(recurrent, walk(True))
    with pytest.raises(ValueError, match="holds no deferred"):
        use_deferred_buffer(recurrent("MlpLstmPolicy", walk(False), n_steps=8))
    for algorithm in (PPO, contrib("TRPO")):
        with pytest.raises(TypeError, match=f"{algorithm.__name__}.* takes its buffer as an argument"):
            use_deferred_buffer(algorithm("MlpPolicy", walk(True), n_steps=8, batch_size=8, device="cpu"))
