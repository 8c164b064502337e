"""What a frame costs before anything scores it: ratios measured side by side, and a picture of MuJoCo's options.

OMP_NUM_THREADS=1 python experiments/rendering.py docs/mujoco_render.png    # a minute on one core

Without a file's name it leaves MuJoCo out. CPU time where pygame draws, wall time where MuJoCo draws in threads.
"Gymnasium" is its own step and render.
"""

import sys
import time
from collections.abc import Callable

import gymnasium as gym
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from vlmrm_wrap import CLIPRewardWrapper, FastMuJoCoRender, FrameScores, make_vec
from vlmrm_wrap.frames import FrameReader

DRAWN_BY_PYGAME = ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1")
DRAWN_BY_MUJOCO = ("InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Humanoid-v5")
OPTIONS: dict[str, dict | None] = {
    "Gymnasium's": None,
    "shadow_size=1024, reflections=True": {"shadow_size": 1024, "reflections": True},
    "FastMuJoCoRender(env)": {},
}
ROUNDS = 9


class Free:
    """Scores nothing, keeps the last frame."""

    def score(self, frames: np.ndarray) -> FrameScores:
        self.frame = frames[-1]
        return FrameScores(*np.zeros((3, len(frames)), np.float32))


def medians(runs: dict[str, Callable[[], object]], repeat: int, clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of one call of each, the median of interleaved rounds after a round that doesn't count."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + ROUNDS):
        for name, run in runs.items():
            start = clock()
            for _ in range(repeat):
                run()
            spent[name].append(1000 * (clock() - start) / repeat)
    return {name: float(np.median(times[1:])) for name, times in spent.items()}


def stepper(env: gym.Env, after: Callable[[], object]) -> Callable[[], None]:
    env.reset(seed=0)
    env.action_space.seed(0)

    def step() -> None:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        after()
        if terminated or truncated:
            env.reset()

    return step


def pygame_table() -> None:
    print("\nms a step with its frame (CPU time)   Gymnasium   vlmrm_wrap   ratio")
    for name in DRAWN_BY_PYGAME:
        plain = gym.make(name, render_mode="rgb_array")
        ours = CLIPRewardWrapper(gym.make(name, render_mode="rgb_array"), Free())
        runs = {"plain": stepper(plain, plain.render), "ours": stepper(ours, lambda: None)}
        spent = medians(runs, 40, time.process_time)
        print(f"{name:36s} {spent['plain']:10.2f} {spent['ours']:12.2f} {spent['plain'] / spent['ours']:7.1f}")


def transport_table() -> None:
    envs = make_vec("CartPole-v1", 8, vectorization_mode="async")
    envs.reset(seed=0)
    reader = FrameReader(  # what CLIPRewardVectorWrapper reads with
        8,
        call=envs.call,
        bind=lambda shared: envs.set_attr("clip_slot", [(shared, i) for i in range(8)]),
        across_processes=True,
    )
    envs.step(np.zeros(8, int))
    copy = np.empty_like(reader.collect()[0])
    runs = {
        "Gymnasium's envs.render()": envs.render,
        "all frames in shared memory": reader.collect,
        "the same, and one copy of them": lambda: np.copyto(copy, reader.collect()[0]),
    }
    cpu, wall = (medians(runs, 10, clock) for clock in (time.process_time, time.perf_counter))
    print("\n8 async CartPoles, ms in the parent     CPU      wall")
    for name in runs:
        print(f"{name:34s} {cpu[name]:8.3f} {wall[name]:9.3f}")
    reader.close()
    envs.close()


def mujoco_table(path: str) -> None:
    figure, grid = plt.subplots(2, len(OPTIONS), figsize=(7.5, 5), layout="constrained")
    print("\nMuJoCo, 480 x 480, ms a step with its frame (wall time)   " + "   ".join(OPTIONS))
    for name in DRAWN_BY_MUJOCO:
        runs, scorers = {}, {}
        for option, kwargs in OPTIONS.items():
            env = gym.make(name, render_mode="rgb_array")
            env = env if kwargs is None else FastMuJoCoRender(env, **kwargs)
            scorers[option] = Free()
            runs[option] = stepper(CLIPRewardWrapper(env, scorers[option]), lambda: None)
        spent = medians(runs, 1, time.perf_counter)
        base = spent["Gymnasium's"]
        print(f"{name:30s} " + "   ".join(f"{ms:6.1f} ({base / ms:.1f}x)" for ms in spent.values()))
        if name in DRAWN_BY_MUJOCO[-2:]:
            for axes, (option, scorer) in zip(grid[DRAWN_BY_MUJOCO[-2:].index(name)], scorers.items(), strict=True):
                axes.imshow(scorer.frame[160:440, 100:380])
                axes.set_title(option, fontsize=8)
                axes.set_axis_off()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    pygame_table()
    transport_table()
    if len(sys.argv) > 1:
        mujoco_table(sys.argv[1])
