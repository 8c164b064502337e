"""What the tests of deferred rewards share: a cheap env, two scorers, and the comparison of two trainings."""

from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from vlmrm_wrap import FrameScores
from vlmrm_wrap.sb3 import CLIPRewardVecEnv, DeferredVecNormalize, deferred_kwargs, make_vec_env, use_deferred_buffer


class WalkEnv(gym.Env):
    """A walk on a line, painted as grey; ends at +-4, is cut off after 7 steps, starts at random."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's convention

    def __init__(self, continuous=False, dict_obs=False, render_mode="rgb_array"):
        self.render_mode = render_mode
        line = spaces.Box(-9, 9, (2,), np.float32)
        self.observation_space = spaces.Dict({"line": line, "time": spaces.Box(0, 9, (1,))}) if dict_obs else line
        self.action_space = spaces.Box(-2, 2, (1,)) if continuous else spaces.Discrete(2)

    def _obs(self):
        line = np.array([self.x, self.x**2 / 9], np.float32)
        dict_obs = isinstance(self.observation_space, spaces.Dict)
        return {"line": line, "time": np.array([self.time], np.float32)} if dict_obs else line

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.time = self.np_random.uniform(-2, 2), 0
        return self._obs(), {}

    def step(self, action):
        discrete = isinstance(self.action_space, spaces.Discrete)
        self.x += float(2 * action - 1 if discrete else action[0])
        self.time += 1
        return self._obs(), 1.0, abs(self.x) > 4, self.time == 7, {}

    def render(self):
        return np.full((4, 6, 3), 128 + 20 * self.x, np.uint8)

    def action_masks(self):
        return np.array([True, self.x < 3])


class GreyReward:
    """A number for each grey, whatever the batch; knows how often it was asked, and for how many frames."""

    micro_batch_size = 10  # no multiple of the envs: micro-batches begin and end within a step

    def __init__(self):
        self.batches = []

    def score(self, frames):
        self.batches.append(len(frames))
        grey = np.sin(frames[:, 0, 0, 0].astype(np.float32) / 40)
        return FrameScores(grey, grey, grey)


class BackgroundReward(GreyReward):
    """The same through score_later, in a thread, from its own copy of the frames."""

    def __init__(self):
        super().__init__()
        self.pool = ThreadPoolExecutor(1)

    def score_later(self, frames):
        return self.pool.submit(self.score, frames.copy()).result


def walk(deferred, n=3, *, model=None, vec_env_cls=None, **kwargs):
    vec = {} if vec_env_cls is None else {"vec_env_cls": vec_env_cls, "start_method": "fork"}
    venv = make_vec_env(WalkEnv, n, seed=1, env_kwargs=kwargs, **vec)
    return CLIPRewardVecEnv(venv, model or GreyReward(), deferred=deferred)


def make(algorithm, venv, policy="MlpPolicy", n_step=1, **kwargs):
    """``algorithm`` for ``venv``, with the buffer that it needs; ``n_step``: off-policy's n_steps."""
    kwargs |= {"gamma": 0.9, "seed": 1, "device": "cpu"}
    n_steps = {} if n_step == 1 else {"n_steps": n_step}
    if not any(layer.deferred for layer in layers(venv) if isinstance(layer, CLIPRewardVecEnv)):
        return algorithm(policy, venv, **kwargs, **n_steps)
    if algorithm.__name__ == "RecurrentPPO":
        return use_deferred_buffer(algorithm(policy, venv, **kwargs))
    given = deferred_kwargs(algorithm, venv, **n_steps, **({"gamma": 0.9} if n_steps else {}))
    return algorithm(policy, venv, **kwargs, **given)


def layers(venv):
    while isinstance(venv, VecEnvWrapper):
        yield venv
        venv = venv.venv


def contrib(name):
    return getattr(pytest.importorskip("sb3_contrib"), name)


def normalized(deferred):
    return (DeferredVecNormalize if deferred else VecNormalize)(walk(deferred), gamma=0.9)


NET = {"policy_kwargs": {"net_arch": [8]}}
ON = {**NET, "n_steps": 16}
BATCHES = {"batch_size": 16, "n_epochs": 2}
OFF = {**NET, "learning_starts": 40, "buffer_size": 75, "batch_size": 16}  # 75 rows of steps come round
PPO_KWARGS = {**ON, **BATCHES}
ON_AND_OFF_POLICY = pytest.mark.parametrize(
    ("algorithm", "kwargs"), [(PPO, PPO_KWARGS), (DQN, OFF)], ids=["PPO", "DQN"]
)


def assert_same_training(expected, got):
    """Every number that training read or made."""
    for name, parameter in expected.policy.state_dict().items():
        assert torch.equal(parameter, got.policy.state_dict()[name]), name
    one = expected.rollout_buffer if hasattr(expected, "rollout_buffer") else expected.replay_buffer
    two = got.rollout_buffer if hasattr(got, "rollout_buffer") else got.replay_buffer
    fields = ["rewards", "advantages", "returns"] if hasattr(expected, "rollout_buffer") else ["rewards", "dones"]
    if fields[1] == "dones":
        two.score_pending()  # the last step, which no sample has asked for
    for field in fields:
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field), field)
    assert len(np.unique(one.rewards)) > 10
