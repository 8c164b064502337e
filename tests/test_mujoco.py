"""Several MuJoCo envs in one process: no black frames, no frames of another env, no display needed."""

import ctypes.util
import os
import subprocess
import sys
import textwrap

import gymnasium as gym
import pytest
from fakes import PaintedEnv

from vlmrm_wrap import FastMuJoCoRender

pytest.importorskip("mujoco")
pytestmark = pytest.mark.skipif(
    sys.platform == "linux" and ctypes.util.find_library("EGL") is None,
    reason="headless MuJoCo needs EGL: apt-get install libegl1 libgl1-mesa-dri",
)


def run_in_fresh_process(script):
    """What the script prints. A fresh process, because an OpenGL backend is chosen once a process."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELUDE = """
import gc, sys
import gymnasium as gym, numpy as np
from vlmrm_wrap import CLIPRewardVectorWrapper, CLIPRewardWrapper, FrameCapture, make_vec
from vlmrm_wrap.protocols import FrameScores

class Keep:
    "Remembers the frames."
    def __init__(self):
        self.frames = []
    def score(self, frames):
        self.frames.append(frames.copy())
        zeros = np.zeros(len(frames), np.float32)
        return FrameScores(zeros, zeros, zeros)

SIZE = dict(width=64, height=48)

def play(name, scorer, steps=1):
    env = CLIPRewardWrapper(gym.make(name, render_mode="rgb_array", **SIZE), scorer)
    env.reset(seed=0)
    for _ in range(steps):
        env.step(np.zeros(env.action_space.shape, np.float32))
    return env
"""


def test_headless_rendering_needs_no_variables():
    out = run_in_fresh_process(
        PRELUDE
        + """
keep = Keep()
play("InvertedPendulum-v5", keep).close()
print(keep.frames[0].shape, keep.frames[0].max() > 0)
"""
    )
    assert out.split("\n")[-2] == "(1, 48, 64, 3) True"


def test_envs_of_one_process_keep_their_own_pictures():
    """Alone, beside another model, after its end, and after an env outside our care was closed."""
    out = run_in_fresh_process(
        PRELUDE
        + """
alone = Keep()
play("InvertedPendulum-v5", alone, 5).close()
gc.collect()

keep = Keep()
env = play("InvertedPendulum-v5", keep)
action = np.zeros(env.action_space.shape, np.float32)
other = play("Reacher-v5", Keep())
env.step(action)
viewer = env.unwrapped.mujoco_renderer.viewer
other.close()
env.step(action)
del other
gc.collect()
env.step(action)
kept = env.unwrapped.mujoco_renderer.viewer is viewer  # our own close costs nobody a new viewer
stranger = gym.make("Reacher-v5", render_mode="rgb_array", **SIZE)
stranger.reset(seed=0)
stranger.render()
stranger.close()
del stranger
gc.collect()
env.step(action)
differences = [int(np.abs(a.astype(int) - b).max()) for a, b in zip(alone.frames, keep.frames)]
print(kept, differences)
"""
    )
    assert out.split("\n")[-2] == "True [0, 0, 0, 0, 0]"


def test_vector_paths_show_the_single_paths_pictures():
    out = run_in_fresh_process(
        PRELUDE
        + """
if __name__ == "__main__":
    single = Keep()
    play("InvertedPendulum-v5", single, 3).close()
    for kwargs in (dict(), dict(vectorization_mode="async", vector_kwargs={"context": "forkserver"})):
        keep = Keep()
        envs = CLIPRewardVectorWrapper(make_vec("InvertedPendulum-v5", 2, **kwargs, **SIZE), keep)
        envs.reset(seed=[0, 0])
        for _ in range(3):
            envs.step(np.zeros(envs.action_space.shape, np.float32))
        envs.close()
        print([bool((frame == single.frames[t][0]).all()) for t in range(3) for frame in keep.frames[t]])
"""
    )
    assert out.split("\n")[-3:-1] == [str([True] * 6)] * 2


def test_workers_forked_from_a_rendering_process_are_refused_not_hung():
    out = run_in_fresh_process(
        PRELUDE
        + """
keep = Keep()
env = play("InvertedPendulum-v5", keep)
envs = CLIPRewardVectorWrapper(
    make_vec("InvertedPendulum-v5", 1, vectorization_mode="async", vector_kwargs={"context": "fork"}, **SIZE),
    keep,
    worker_timeout=20,
)
envs.reset()
try:
    envs.step(np.zeros(envs.action_space.shape, np.float32))
except RuntimeError as error:
    print(error)
envs.close()
"""
    )
    assert "vector_kwargs={'context': 'forkserver'}" in out


def test_fast_rendering_changes_the_pictures_and_only_when_asked():
    """MuJoCo's own numbers change nothing; the fast ones draw another picture of the same state, on every road."""
    out = run_in_fresh_process(
        PRELUDE
        + """
from functools import partial
from vlmrm_wrap import FastMuJoCoRender

def drawn(wrapper):
    keep = Keep()
    envs = CLIPRewardVectorWrapper(make_vec("Hopper-v5", 1, wrappers=[wrapper], **SIZE), keep)
    envs.reset(seed=0)
    obs = [envs.step(np.full((1, 3), 0.5, np.float32))[0] for _ in range(2)]
    quality = envs.unwrapped.envs[0].unwrapped.model.vis.quality
    envs.close()
    return np.stack(keep.frames), np.stack(obs), (quality.shadowsize, quality.offsamples)

frames, obs, quality = drawn(lambda env: env)
same_frames, same_obs, _ = drawn(partial(FastMuJoCoRender, shadow_size=4096, multisampling=4, reflections=True))
fast_frames, fast_obs, fast_quality = drawn(FastMuJoCoRender)
dull_frames, _, dull_quality = drawn(partial(FastMuJoCoRender, shadow_size=4096, multisampling=4))
print(quality, fast_quality, dull_quality)
print((frames == same_frames).all(), (frames == fast_frames).all(), (frames == dull_frames).all())
print((obs == same_obs).all(), (obs == fast_obs).all())
"""
    )
    assert out.split("\n")[-4:-1] == ["(4096, 4) (0, 0) (4096, 4)", "True False False", "True True"]


class TestFastMuJoCoRender:
    def test_env_spec_rebuilds_it(self):
        env = FastMuJoCoRender(gym.make("InvertedPendulum-v5", render_mode="rgb_array"), shadow_size=7)
        again = gym.make(env.spec)
        assert isinstance(again, FastMuJoCoRender)
        quality = again.unwrapped.model.vis.quality
        assert (quality.shadowsize, quality.offsamples) == (7, 0)

    @pytest.mark.parametrize("number", [-1, 0.5, True, None])
    @pytest.mark.parametrize("name", ["shadow_size", "multisampling"])
    def test_what_is_no_size_is_refused(self, name, number):
        with pytest.raises(ValueError, match=f"{name} is {number!r}; required: a whole number"):
            FastMuJoCoRender(gym.make("InvertedPendulum-v5"), **{name: number})

    def test_an_env_without_mujoco_is_refused(self):
        with pytest.raises(TypeError, match=r"PaintedEnv.* which has no mujoco_renderer"):
            FastMuJoCoRender(PaintedEnv())

    def test_an_env_that_has_rendered_is_refused(self):
        env = gym.make("InvertedPendulum-v5", render_mode="rgb_array")
        env.unwrapped.mujoco_renderer.viewer = object()
        with pytest.raises(ValueError, match="after its first render"):
            FastMuJoCoRender(env)
        env.unwrapped.mujoco_renderer.viewer = None
