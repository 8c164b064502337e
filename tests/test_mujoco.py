"""Several MuJoCo envs in one process: no black frames, no frames of another env, no display needed."""

import ctypes.util
import os
import subprocess
import sys
import textwrap

import pytest

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
