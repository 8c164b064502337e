"""Frames: what is refused, in whose words, and how often an env is rendered."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward, captured
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import AddRenderObservation, Autoreset, RenderCollection
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from vlmrm_wrap import CLIPRewardVectorWrapper, CLIPRewardWrapper, FrameCapture, make_vec
from vlmrm_wrap.sb3 import CLIPRewardVecEnv


class Repainted(gym.Wrapper):
    """An env whose ``render()`` returns what ``change`` makes of the frame."""

    def __init__(self, env, change):
        super().__init__(env)
        self.change = change

    def render(self):
        return self.change(self.env.render(), self.unwrapped.time)


BAD_FRAMES = {
    "none": (lambda frame, time: None, TypeError, "returned NoneType"),
    "float": (lambda frame, time: frame / 255, TypeError, r"returned float64 .* required: uint8"),
    "rgba": (lambda frame, time: frame.repeat(2, axis=2)[..., :4], ValueError, r"drop alpha: frame\[\.\.\., :3\]"),
    "grey": (lambda frame, time: frame[..., :1], ValueError, "repeat grey"),
    "flat": (lambda frame, time: frame[..., 0], ValueError, r"shape \(8, 12\); required: \(height, width, 3\)"),
    "growing": (lambda frame, time: np.zeros((8, 11 + time, 3), np.uint8), ValueError, "frames of one size"),
}


def repainted(kind):
    return FrameCapture(Repainted(PaintedEnv(0, (50,)), BAD_FRAMES[kind][0]))


def two_steps(envs, n):
    envs.reset()
    for _ in range(2):
        envs.step(np.zeros(n, int) if n else 0)


@pytest.mark.parametrize("kind", BAD_FRAMES)
class TestBadFramesAreRefused:
    """The same words on every road, worker processes included."""

    def check(self, kind, envs, n):
        _, error, match = BAD_FRAMES[kind]
        with pytest.raises(error, match=match):
            two_steps(envs, n)
        envs.close()

    def test_single(self, kind):
        self.check(kind, CLIPRewardWrapper(repainted(kind).env, PaintedReward()), 0)

    @pytest.mark.parametrize("base", [SyncVectorEnv, functools.partial(AsyncVectorEnv, context="fork")])
    def test_vector(self, kind, base):
        fns = [functools.partial(captured, 0, (50,)), functools.partial(repainted, kind)]
        self.check(kind, CLIPRewardVectorWrapper(base(fns), PaintedReward()), 2)

    @pytest.mark.parametrize("base", [DummyVecEnv, functools.partial(SubprocVecEnv, start_method="fork")])
    def test_sb3(self, kind, base):
        fns = [functools.partial(captured, 0, (50,)), functools.partial(repainted, kind)]
        self.check(kind, CLIPRewardVecEnv(base(fns), PaintedReward()), 2)


def test_a_bug_in_the_envs_own_render_keeps_its_traceback():
    def broken(frame, time):
        raise ValueError("a bug in render")

    envs = CLIPRewardVectorWrapper(
        SyncVectorEnv([lambda: FrameCapture(Repainted(PaintedEnv(), broken))]), PaintedReward()
    )
    with pytest.raises(ValueError, match=r"^a bug in render$") as caught:
        two_steps(envs, 1)
    assert caught.traceback[-1].name == "broken"


def test_sub_envs_of_two_sizes_are_refused():
    envs = SyncVectorEnv([functools.partial(captured, i, size=(8, 10 + i)) for i in range(2)])
    envs = CLIPRewardVectorWrapper(envs, PaintedReward())
    with pytest.raises(ValueError, match=r"2 sizes, \[\(8, 10, 3\), \(8, 11, 3\)\]"):
        two_steps(envs, 2)


@pytest.mark.parametrize("mode", [None, "human", "rgb_array_list"])
def test_other_render_modes_are_refused_at_construction(mode):
    hint = "put RenderCollection outside" if mode == "rgb_array_list" else r"gym.make\(env_id, render_mode='rgb_array'"
    for wrap in (FrameCapture, lambda env: CLIPRewardWrapper(env, PaintedReward())):
        with pytest.raises(ValueError, match=hint):
            wrap(PaintedEnv(render_mode=mode))
    with pytest.raises(ValueError, match="put RenderCollection outside"):
        FrameCapture(RenderCollection(PaintedEnv()))


def test_autoreset_inside_is_refused_and_outside_is_right():
    with pytest.raises(ValueError, match=r"Put Autoreset outside: Autoreset\(CLIPRewardWrapper\("):
        CLIPRewardWrapper(Autoreset(PaintedEnv()), PaintedReward())
    env = Autoreset(CLIPRewardWrapper(PaintedEnv(0, (2,)), PaintedReward()))
    env.reset()
    assert [env.step(0)[1] for _ in range(4)] == [101, 102, 0, 201]


def test_a_missing_frame_capture_is_refused_with_the_line_that_mends_it():
    with pytest.raises(ValueError, match=r"vlmrm_wrap.make_vec\(env_id, num_envs"):
        CLIPRewardVectorWrapper(SyncVectorEnv([PaintedEnv]), PaintedReward())
    with pytest.raises(ValueError, match=r"vlmrm_wrap.sb3.make_vec_env\(env_id, n_envs\)"):
        CLIPRewardVecEnv(DummyVecEnv([PaintedEnv]), PaintedReward())


def test_two_rewards_on_one_vector_env_are_refused():
    envs = CLIPRewardVectorWrapper(SyncVectorEnv([functools.partial(captured, 0)]), PaintedReward())
    with pytest.raises(ValueError, match="already"):
        CLIPRewardVectorWrapper(envs, PaintedReward())
    venv = CLIPRewardVecEnv(DummyVecEnv([functools.partial(captured, 0)]), PaintedReward())
    with pytest.raises(ValueError, match="already"):
        CLIPRewardVecEnv(venv, PaintedReward())


def test_one_render_a_step_and_none_at_a_reset():
    single = PaintedEnv(0, (50,))
    two_steps(CLIPRewardWrapper(single, PaintedReward()), 0)
    vector = SyncVectorEnv([functools.partial(captured, 0, (50,))])
    two_steps(CLIPRewardVectorWrapper(vector, PaintedReward()), 1)
    idle = captured(0, (50,))
    two_steps(idle, 0)
    assert [single.renders, vector.envs[0].unwrapped.renders, idle.unwrapped.renders] == [2, 2, 0]


def test_a_second_wrapper_starts_afresh_on_the_same_envs():
    base = SyncVectorEnv([functools.partial(captured, 0, (50,))])
    two_steps(CLIPRewardVectorWrapper(base, PaintedReward()), 1)
    envs = CLIPRewardVectorWrapper(base, PaintedReward())
    envs.reset()
    assert [float(envs.step([0])[1][0]) for _ in range(3)] == [201, 202, 203]


def test_frames_may_be_flipped_views():
    """MuJoCo's frames have negative strides."""
    scorer = PaintedReward()
    env = FrameCapture(Repainted(PaintedEnv(3, (50,)), lambda frame, time: frame[::-1]))
    two_steps(CLIPRewardVectorWrapper(SyncVectorEnv([lambda: env]), scorer), 1)
    assert scorer.seen == [(3, 1, 1), (3, 1, 2)]


def test_frames_reach_the_reward_model_without_a_copy():
    class Shared(PaintedReward):
        def score(self, frames):
            self.same_memory = np.shares_memory(frames, envs._frames._reader._shared.frames)
            return super().score(frames)

    scorer = Shared()
    envs = CLIPRewardVectorWrapper(SyncVectorEnv([functools.partial(captured, i) for i in range(2)]), scorer)
    two_steps(envs, 2)
    assert scorer.same_memory


def test_an_older_wrapper_on_the_same_envs_says_that_it_lost_them():
    base = SyncVectorEnv([functools.partial(captured, 0, (50,))])
    older = CLIPRewardVectorWrapper(base, PaintedReward())
    two_steps(older, 1)
    CLIPRewardVectorWrapper(base, PaintedReward())
    with pytest.raises(RuntimeError, match="another CLIP reward wrapper"):
        older.step([0])


def test_what_fails_to_wrap_leaves_the_envs_idle():
    base = SyncVectorEnv([functools.partial(captured, 0, (50,))])
    with pytest.raises(TypeError):
        CLIPRewardVectorWrapper(base, 3)
    two_steps(base, 1)
    assert base.envs[0].unwrapped.renders == 0


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda: CLIPRewardWrapper(3, PaintedReward()), "wraps a gymnasium.Env, got int"),
        (lambda: CLIPRewardVecEnv(PaintedEnv(), PaintedReward()), "got PaintedEnv.*CLIPRewardWrapper"),
    ],
)
def test_the_wrong_kind_of_env_is_refused(wrap, match):
    with pytest.raises(TypeError, match=match):
        wrap()


def test_user_wrappers_stay_inside_frame_capture():
    envs = make_vec("CartPole-v1", 2, wrappers=[AddRenderObservation])
    assert isinstance(envs.envs[0], FrameCapture)
    assert isinstance(envs.envs[0].env, AddRenderObservation)
    assert envs.render_mode == "rgb_array"
    envs.close()


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"num_envs": 0}, "required: at least 1"),
        ({"vectorization_mode": "vector_entry_point"}, "required: 'sync' or 'async'"),
        ({"render_mode": "human"}, "required: 'rgb_array'"),
    ],
)
def test_make_vec_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match):
        make_vec("CartPole-v1", **{"num_envs": 2, **kwargs})


def test_make_vec_passes_on_what_gymnasium_takes():
    envs = make_vec("CartPole-v1", 2, autoreset_mode="SameStep", max_episode_steps=7, sutton_barto_reward=True)
    assert envs.metadata["autoreset_mode"] == gym.vector.AutoresetMode.SAME_STEP
    assert envs.envs[0].spec.max_episode_steps == 7
    envs.close()
