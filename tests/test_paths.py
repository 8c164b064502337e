"""Two roads, one answer: every path gives a step the reward of the frame after that step.

Painted frames make the comparison exact: a frame of another env, step or episode is another integer.
"""

import contextlib
import functools

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward, captured, painted_value
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from vlmrm_wrap import CLIPRewardVectorWrapper, CLIPRewardWrapper
from vlmrm_wrap.sb3 import CLIPRewardVecEnv

LENGTHS = [(3, 5, 2), (4, 1, 6), (2, 2, 2)]  # episode lengths of three envs, cycled
STEPS = 14
MODES = list(AutoresetMode)
# From fakes, not from here: a spawned worker imports the function's module, and this one imports torch.
ENV_FNS = [functools.partial(captured, index, LENGTHS[index]) for index in range(3)]


def vector(kind, mode):
    if kind == "sync":
        return SyncVectorEnv(ENV_FNS, autoreset_mode=mode)
    if kind == "pickled-obs":
        return AsyncVectorEnv(ENV_FNS, autoreset_mode=mode, context="fork", shared_memory=False)
    return AsyncVectorEnv(ENV_FNS, autoreset_mode=mode, context=kind)


def expected_episodes(index):
    """(episode, step, length) of each scored step, in order, whoever resets."""
    episode = 0
    while True:
        episode += 1
        length = LENGTHS[index][(episode - 1) % 3]
        for step in range(1, length + 1):
            yield episode, step, length


def play_single(index):
    """Rewards of one env behind CLIPRewardWrapper, reset by hand; the reference for all other paths."""
    env = CLIPRewardWrapper(PaintedEnv(index, LENGTHS[index]), PaintedReward())
    rewards, over = [], True
    for _ in range(STEPS):
        if over:
            env.reset()
        _, reward, terminated, truncated, info = env.step(0)
        assert info["env_reward"] == 100 * index + info["baseline_similarity"]
        rewards.append(reward)
        over = terminated or truncated
    return rewards


def test_single_wrapper_scores_the_frame_after_each_step():
    for index in range(3):
        steps = expected_episodes(index)
        wanted = [painted_value(index, episode, step) for episode, step, _ in (next(steps) for _ in range(STEPS))]
        assert play_single(index) == wanted


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("kind", ["sync", "fork", "spawn", "forkserver", "pickled-obs"])
def test_vector_wrapper_equals_single_wrapper(kind, mode):
    scorer = PaintedReward()
    got = [[], [], []]
    resets = 0
    with contextlib.closing(CLIPRewardVectorWrapper(vector(kind, mode), scorer)) as envs:
        envs.reset(seed=0)
        over = np.zeros(3, bool)
        for _ in range(2 * STEPS):
            reset_step = over if mode == AutoresetMode.NEXT_STEP else np.zeros(3, bool)
            _, rewards, terminations, truncations, infos = envs.step(np.zeros(3, int))
            assert rewards.dtype == np.float64
            assert (rewards[reset_step] == 0.0).all()
            for key in ("env_reward", "goal_similarity", "baseline_similarity"):
                np.testing.assert_array_equal(infos[f"_{key}"], ~reset_step)
                assert (infos[key][reset_step] == 0.0).all()
                assert key not in infos.get("final_info", {})
            np.testing.assert_array_equal(
                infos["env_reward"], np.where(reset_step, 0, 100 * np.arange(3) + infos["baseline_similarity"])
            )
            for index in np.flatnonzero(~reset_step):
                got[index].append(rewards[index])
            resets += int(reset_step.sum())
            over = terminations | truncations
            if mode == AutoresetMode.DISABLED and over.any():
                envs.reset(options={"reset_mask": over})
    for index in range(3):
        assert got[index][:STEPS] == play_single(index)
    assert len(scorer.seen) == sum(map(len, got))  # a reset frame never reaches the reward model
    assert all(step > 0 for _, _, step in scorer.seen)
    assert (resets > 5) == (mode == AutoresetMode.NEXT_STEP)


SB3_KINDS = ["dummy", "fork", "spawn", "forkserver"]


def sb3_venv(kind, env_fns=ENV_FNS):
    return DummyVecEnv(env_fns) if kind == "dummy" else SubprocVecEnv(env_fns, start_method=kind)


@pytest.mark.parametrize("kind", SB3_KINDS)
def test_sb3_wrapper_equals_single_wrapper(kind):
    scorer = PaintedReward()
    got, returns = [[], [], []], [0.0, 0.0, 0.0]
    with contextlib.closing(CLIPRewardVecEnv(sb3_venv(kind), scorer)) as venv:
        venv.reset()
        for _ in range(STEPS):
            _, rewards, dones, infos = venv.step(np.zeros(3, int))
            assert rewards.dtype == np.float32
            assert isinstance(infos, list)
            for index in range(3):
                got[index].append(float(rewards[index]))
                returns[index] += float(rewards[index])
                step = infos[index]["baseline_similarity"]
                assert infos[index]["env_reward"] == 100 * index + step
                assert dones[index] == ("clip_episode" in infos[index])
                if dones[index]:
                    assert infos[index]["clip_episode"] == {"r": returns[index], "l": int(step)}
                    returns[index] = 0.0
    assert got == [play_single(index) for index in range(3)]
    assert all(step > 0 for _, _, step in scorer.seen)


def test_a_frame_in_the_envs_own_buffer_survives_the_autoreset():
    fns = [functools.partial(captured, index, (1, 2), own_buffer=True) for index in range(2)]
    envs = CLIPRewardVectorWrapper(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP), PaintedReward())
    envs.reset()
    assert [envs.step([0, 0])[1].tolist() for _ in range(2)] == [[101, 10_101], [201, 10_201]]
    venv = CLIPRewardVecEnv(DummyVecEnv(fns), PaintedReward())
    venv.reset()
    assert [venv.step([0, 0])[1].tolist() for _ in range(2)] == [[101, 10_101], [201, 10_201]]


@pytest.mark.parametrize("kind", ["sync", "fork"])
def test_envs_that_had_all_ended_when_they_were_wrapped(kind):
    """The first step that the wrapper sees is then a reset step of them all."""
    fns = [functools.partial(captured, index, (1,)) for index in range(2)]
    base = SyncVectorEnv(fns) if kind == "sync" else AsyncVectorEnv(fns, context=kind)
    base.reset()
    base.step([0, 0])
    with contextlib.closing(CLIPRewardVectorWrapper(base, PaintedReward())) as envs:
        assert [envs.step([0, 0])[1].tolist() for _ in range(3)] == [[0, 0], [201, 10_201], [0, 0]]


@pytest.mark.parametrize("kind", ["sync", "fork"])
def test_a_reset_in_the_middle_confuses_nobody(kind):
    """AsyncVectorEnv(shared_memory=False) makes a reset step right after a reset that follows an end."""
    scorer = PaintedReward()
    fns = ENV_FNS[1:2]
    base = SyncVectorEnv(fns) if kind == "sync" else AsyncVectorEnv(fns, context="fork", shared_memory=False)
    with contextlib.closing(CLIPRewardVectorWrapper(base, scorer)) as envs:
        envs.reset()
        for _ in range(4):
            *_, infos = envs.step([0])
        envs.reset()
        for _ in range(3):
            _, rewards, _, _, infos = envs.step([0])
            if infos["_env_reward"][0]:
                _, _, step = scorer.seen[-1]
                assert rewards[0] == painted_value(*scorer.seen[-1])
                assert step > 0
            else:
                assert rewards[0] == 0.0


def test_the_callers_reset_options_are_left_alone():
    envs = CLIPRewardVectorWrapper(vector("sync", AutoresetMode.DISABLED), PaintedReward())
    envs.reset()
    options = {"reset_mask": np.array([True, False, False])}
    envs.reset(options=options)
    assert list(options) == ["reset_mask"]  # gymnasium itself takes it out


@pytest.mark.parametrize("mask", [None, [True, True]])
def test_native_vector_env_steps_at_once_after_a_reset(mask):
    native = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", render_mode="rgb_array")
    scorer = PaintedReward()
    scorer.score = lambda frames: np.ones((3, len(frames)), np.float32)
    envs = CLIPRewardVectorWrapper(native, scorer)
    envs.reset(seed=0)
    over = np.zeros(2, bool)
    while not over.any():
        _, _, terminations, truncations, _ = envs.step(np.array([1, 1]))
        over = terminations | truncations
    envs.reset(options=None if mask is None else {"reset_mask": np.array(mask)})
    assert envs.step(np.array([1, 1]))[1].tolist() == [1.0, 1.0]
    envs.close()


def test_native_vector_env_is_scored_through_its_own_render():
    class MeanReward:
        def score(self, frames):
            mean = frames.reshape(len(frames), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
            self.count = getattr(self, "count", 0) + len(frames)
            return mean, mean, 0 * mean

    scorer = MeanReward()
    native = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", render_mode="rgb_array")
    envs = CLIPRewardVectorWrapper(native, scorer)
    envs.reset(seed=0)
    over, scored = np.zeros(2, bool), 0
    for _ in range(40):
        _, rewards, terminations, truncations, infos = envs.step(np.array([1, 1]))
        frames = np.asarray(native.render())
        wanted = np.where(over, 0.0, frames.reshape(2, -1).mean(axis=1, dtype=np.float64).astype(np.float32))
        np.testing.assert_array_equal(rewards, wanted)
        np.testing.assert_array_equal(infos["_env_reward"], ~over)
        scored += int((~over).sum())
        over = terminations | truncations
    assert scorer.count == scored < 80
    envs.close()


def test_native_vector_env_must_be_reset_first():
    """Which of its sub-envs had ended before is not to be known."""
    native = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", render_mode="rgb_array")
    native.reset()
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        CLIPRewardVectorWrapper(native, PaintedReward()).step(np.array([0, 0]))
    native.close()


def test_native_vector_envs_frames_are_checked(monkeypatch):
    native = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", render_mode="rgb_array")
    envs = CLIPRewardVectorWrapper(native, PaintedReward())
    envs.reset()
    for frames, match in (
        (np.zeros((2, 4, 4, 4), np.uint8), "drop alpha"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "frames of one size"),
        ([np.zeros((4, 4, 3), np.uint8)], "returned 1 frames; required: 2"),
        (None, "returned None"),
    ):
        monkeypatch.setattr(native, "render", lambda frames=frames: frames)
        with pytest.raises(ValueError, match=match):
            envs.step(np.array([0, 0]))
    envs.close()


def test_native_vector_env_that_shows_reset_frames_is_refused():
    native = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point", render_mode="rgb_array")
    native.metadata = {**native.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
    with pytest.raises(ValueError, match=r"SameStep.*required: NEXT_STEP"):
        CLIPRewardVectorWrapper(native, PaintedReward())
    native.close()
