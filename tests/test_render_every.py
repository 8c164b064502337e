"""RenderEvery: held rewards in every path, and no drawing in between."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward, painted_value
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from vlmrm_wrap import (
    CLIPRewardModel,
    CLIPRewardVectorWrapper,
    CLIPRewardWrapper,
    FrameCapture,
    RenderEvery,
    ScaledReward,
)
from vlmrm_wrap.sb3 import CLIPRewardVecEnv

LENGTHS = (8, 3, 1)
EVERY = 3
# (episode, step shown) of each step: 1, 4 and 7 of the first episode are drawn, and its last
SHOWN = [(1, 1), (1, 1), (1, 1), (1, 4), (1, 4), (1, 4), (1, 7), (1, 8), (2, 1), (2, 1), (2, 3), (3, 1), (4, 1), (4, 1)]
REWARDS = [painted_value(0, *shown) for shown in SHOWN]
DRAWN = len(set(SHOWN))


class DrawsInStep(PaintedEnv):
    """Steps draw on the array that render() returns."""

    def step(self, action):
        result = super().step(action)
        self._buffer[:] = (self.index, self.episode, self.time)
        return result


def make(env=PaintedEnv):
    return RenderEvery(env(0, LENGTHS, own_buffer=env is DrawsInStep), EVERY)


@pytest.mark.parametrize("env", [PaintedEnv, DrawsInStep])
def test_single(env):
    env = CLIPRewardWrapper(make(env), PaintedReward())
    rewards, over = [], True
    for _ in SHOWN:
        if over:
            env.reset()
        _, reward, terminated, truncated, _ = env.step(0)
        over = terminated or truncated
        rewards.append(reward)
    assert rewards == REWARDS
    assert env.unwrapped.renders == DRAWN


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_vector(mode):
    base = SyncVectorEnv([lambda: FrameCapture(make())] * 2, autoreset_mode=mode)
    envs = CLIPRewardVectorWrapper(base, PaintedReward())
    envs.reset()
    got = []
    while len(got) < len(SHOWN):
        _, rewards, terminations, truncations, infos = envs.step([0, 0])
        over = terminations | truncations
        if infos["_env_reward"][0]:
            got.append(rewards[0])
        if mode == AutoresetMode.DISABLED and over.any():
            envs.reset(options={"reset_mask": over})
    assert got == REWARDS
    assert [env.unwrapped.renders for env in base.envs] == [DRAWN] * 2


def test_stable_baselines():
    base = DummyVecEnv([lambda: FrameCapture(make(DrawsInStep))])
    venv = CLIPRewardVecEnv(base, PaintedReward())
    venv.reset()
    assert [float(venv.step([0])[1][0]) for _ in SHOWN] == REWARDS
    assert base.envs[0].unwrapped.renders == DRAWN


def wrapped(kind, model):
    """A held env in a wrapper of each kind."""
    if kind == "single":
        return CLIPRewardWrapper(make(), model)
    if kind == "vector":
        return CLIPRewardVectorWrapper(SyncVectorEnv([lambda: FrameCapture(make())] * 2), model)
    return CLIPRewardVecEnv(DummyVecEnv([lambda: FrameCapture(PaintedEnv(1)), lambda: FrameCapture(make())]), model)


@pytest.mark.parametrize("kind", ["single", "vector", "vec_env"])
def test_without_a_cache_a_held_frame_costs_as_much_and_it_says_so(kind, monkeypatch):
    model = CLIPRewardModel.from_pretrained("embedded", goal_prompts="pole upright", alpha=0.0, device="cpu")
    without = CLIPRewardModel(model.encoder, goal_prompts="pole upright", alpha=0.0, cache=False)
    with pytest.warns(UserWarning, match="RenderEvery shows frames again, and with cache=False") as caught:
        wrapped(kind, ScaledReward(without))
    assert [warning.filename for warning in caught] == [__file__]
    wrapped(kind, PaintedReward())
    CLIPRewardWrapper(PaintedEnv(), without)
    env = wrapped(kind, ScaledReward(model))
    env.reset()
    encoded = []
    encode = model.encoder.encode_image
    monkeypatch.setattr(model.encoder, "encode_image", lambda images: (encoded.append(len(images)), encode(images))[1])
    for _ in range(EVERY):
        env.step(0 if kind == "single" else [0, 0])
    held = sum(encoded) - (3 if kind == "vec_env" else 0)  # of the env that holds none
    assert held == 1, "the first is drawn and the others held"


def test_a_render_after_a_reset_is_drawn_anew():
    env = make()
    env.reset()
    env.step(0)
    env.render()
    env.reset()
    assert env.render()[0, 0].tolist() == [0, 2, 0]
    env.step(0)
    assert env.render()[0, 0].tolist() == [0, 2, 1]


def test_cartpole_shows_the_frames_it_would_have_drawn():
    """Gymnasium's own screens, which our wrappers may have replaced by faster ones."""
    plain = gym.make("CartPole-v1", render_mode="rgb_array")
    held = CLIPRewardWrapper(RenderEvery(gym.make("CartPole-v1", render_mode="rgb_array"), 2), PictureReward())
    plain.reset(seed=0)
    held.reset(seed=0)
    for step in range(9):
        terminated = plain.step(step % 2)[2]
        reward = held.step(step % 2)[1]
        if step % 2 == 0:
            last = plain.render()
        assert reward == float(np.float32((last.astype(np.int64) * np.arange(last.size).reshape(last.shape)).sum()))
        assert not terminated


class PictureReward:
    """A number that any two pictures are unlikely to share."""

    def score(self, frames):
        place = np.arange(frames[0].size).reshape(frames[0].shape)
        return np.float32([[(frame.astype(np.int64) * place).sum() for frame in frames]] * 3)


def test_the_spec_makes_it_again():
    env = RenderEvery(gym.make("CartPole-v1", render_mode="rgb_array"), 4)
    assert "RenderEvery<" in str(gym.make(env.spec))


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (functools.partial(RenderEvery, PaintedEnv(), 0), "steps is 0"),
        (functools.partial(RenderEvery, PaintedEnv(render_mode=None), 2), "render_mode='rgb_array'"),
    ],
)
def test_what_can_not_be_meant_is_refused(wrap, match):
    with pytest.raises(ValueError, match=match):
        wrap()
