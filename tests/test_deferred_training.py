"""Deferred training is the immediate path's to the bit, for every algorithm and everything around the env."""

import copy
import pickle

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecFrameStack,
    VecNormalize,
)
from walks import (
    BATCHES,
    OFF,
    ON,
    ON_AND_OFF_POLICY,
    BackgroundReward,
    assert_same_training,
    contrib,
    make,
    normalized,
    walk,
)

from vlmrm_wrap import CLIPRewardModel
from vlmrm_wrap.sb3 import (
    CLIPRewardLogger,
    CLIPRewardVecEnv,
    DeferredVecNormalize,
    make_vec_env,
)

MOVES = {"continuous": True}
DICT = {"dict_obs": True}
MULTI = {"policy": "MultiInputPolicy"}
LSTM = {"policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 8}}
THRIFTY = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}

COMBINATIONS = {
    "PPO": (PPO, {}, {**ON, **BATCHES}),
    "PPO-Dict": (PPO, DICT, {**ON, **BATCHES, **MULTI}),
    "PPO-Box-action": (PPO, MOVES, {**ON, **BATCHES}),
    "A2C": (A2C, {}, ON),
    "A2C-Dict": (A2C, DICT, {**ON, **MULTI}),
    "TRPO": ("TRPO", {}, {**ON, "batch_size": 16}),
    "TRPO-Dict": ("TRPO", DICT, {**ON, "batch_size": 16, **MULTI}),
    "MaskablePPO": ("MaskablePPO", {}, {**ON, **BATCHES}),
    "MaskablePPO-Dict": ("MaskablePPO", DICT, {**ON, **BATCHES, **MULTI}),
    "RecurrentPPO": ("RecurrentPPO", {}, {**ON, **BATCHES, **LSTM, "policy": "MlpLstmPolicy"}),
    "RecurrentPPO-Dict": ("RecurrentPPO", DICT, {**ON, **BATCHES, **LSTM, "policy": "MultiInputLstmPolicy"}),
    "DQN": (DQN, {}, OFF),
    "DQN-Dict": (DQN, DICT, {**OFF, **MULTI}),
    "DQN-n-step": (DQN, {}, {**OFF, "n_step": 3}),
    "DQN-thrifty": (DQN, {}, {**OFF, **THRIFTY}),
    "DQN-one-env": (DQN, {"n": 1}, {**OFF, "buffer_size": 70}),
    "SAC": (SAC, MOVES, OFF),
    "SAC-Dict": (SAC, {**MOVES, **DICT}, {**OFF, **MULTI}),
    "SAC-n-step": (SAC, MOVES, {**OFF, "n_step": 3}),
    "SAC-thrifty": (SAC, MOVES, {**OFF, **THRIFTY}),
    "TD3": (TD3, MOVES, OFF),
    "TD3-Dict": (TD3, {**MOVES, **DICT}, {**OFF, **MULTI}),
    "TD3-episodes": (TD3, {**MOVES, "n": 1}, {**OFF, "train_freq": (2, "episode")}),
    "DDPG": (DDPG, MOVES, OFF),
    "TQC": ("TQC", MOVES, OFF),
    "TQC-n-step": ("TQC", MOVES, {**OFF, "n_step": 3}),
    "QRDQN": ("QRDQN", {}, OFF),
    "QRDQN-Dict": ("QRDQN", DICT, {**OFF, **MULTI}),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_training_is_the_immediate_paths_to_the_bit(name):
    algorithm, env, kwargs = COMBINATIONS[name]
    algorithm = contrib(algorithm) if isinstance(algorithm, str) else algorithm
    trained = []
    for deferred in (False, True):
        algo = make(algorithm, walk(deferred, **env), **copy.deepcopy(kwargs))
        trained.append(algo.learn(96, callback=CLIPRewardLogger()))
    assert_same_training(*trained)
    _, model = (algo.get_env().reward_model for algo in trained)
    assert max(model.batches) == 10, "micro-batches were never full"


def both(algorithm, wrap, steps=96, **kwargs):
    """The algorithm trained on ``wrap(deferred)``, immediate and deferred."""
    return [make(algorithm, wrap(deferred), **copy.deepcopy(kwargs)).learn(steps) for deferred in (False, True)]


def frozen(deferred):
    venv = DeferredVecNormalize(walk(deferred), training=False)
    venv.ret_rms.var = np.float64(5)
    return venv


@ON_AND_OFF_POLICY
@pytest.mark.parametrize(
    "wrap",
    [
        lambda deferred: walk(deferred, model=BackgroundReward()),
        lambda deferred: walk(deferred, n=2, vec_env_cls=SubprocVecEnv),
        lambda deferred: walk(deferred, n=23),  # one step fills two micro-batches
        lambda deferred: VecFrameStack(walk(deferred), 2),
        lambda deferred: VecNormalize(walk(deferred), norm_reward=False),
        normalized,
        frozen,
    ],
    ids=["background", "subproc", "many-envs", "frame-stack", "norm-obs", "norm-reward", "norm-frozen"],
)
def test_around_the_env_too(wrap, algorithm, kwargs):
    immediate, deferred = both(algorithm, wrap, **kwargs)
    stats = deferred.get_vec_normalize_env()
    if isinstance(stats, DeferredVecNormalize):
        one, two = (pickle.loads(pickle.dumps(algo.get_vec_normalize_env())).ret_rms for algo in (immediate, deferred))
        assert (one.mean, one.var, one.count) == (two.mean, two.var, two.count)
        assert (two.mean != 0) == stats.training
    assert_same_training(immediate, deferred)
    for algo in (immediate, deferred):
        algo.get_env().close()


class StopAt(BaseCallback):
    def __init__(self, calls):
        super().__init__()
        self.stop = calls

    def _on_step(self):
        return self.n_calls != self.stop


@ON_AND_OFF_POLICY
def test_a_stop_in_the_middle_of_a_rollout(algorithm, kwargs):
    trained = []
    for deferred in (False, True):
        algo = make(algorithm, normalized(deferred), **kwargs)
        algo.learn(144, callback=StopAt(21))
        algo.learn(96, reset_num_timesteps=False)
        trained.append(algo.learn(96))
    assert_same_training(*trained)


@ON_AND_OFF_POLICY
def test_the_embedded_models_rewards_agree(algorithm, kwargs):
    """To 1e-6, for its results vary by 1e-7 with the size of the batch."""
    model = CLIPRewardModel.from_pretrained(
        "embedded", goal_prompts="pole vertically upright on top of the cart", baseline_prompts="pole and cart"
    )

    def cart_pole(deferred):
        return CLIPRewardVecEnv(make_vec_env("CartPole-v1", 2, fixed_horizon=9), model, deferred=deferred)

    immediate, deferred = both(algorithm, cart_pole, steps=48 if algorithm is PPO else 56, **kwargs)
    buffers = ["rollout_buffer" if algorithm is PPO else "replay_buffer"] * 2
    one, two = map(getattr, (immediate, deferred), buffers)
    if algorithm is DQN:
        two.score_pending()
    assert len(np.unique(one.rewards)) > 20
    np.testing.assert_allclose(two.rewards, one.rewards, rtol=0, atol=1e-6)
    for mine, its in zip(immediate.policy.parameters(), deferred.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-5)
