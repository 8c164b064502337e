"""What a reward costs on this machine, against the alternatives: one command, ratios side by side in one run.

    python experiments/benchmark.py                            # everything, some 20 minutes on one core
    python experiments/benchmark.py stages paths --rounds 5
    python experiments/benchmark.py --json b.json --plot b.png
    python experiments/benchmark.py --quick                    # the same code, seconds, meaningless numbers

    stages     step, render, transport, preprocess, encode, reward: milliseconds a frame
    recipes    scoring the same frames: ours, the tutorial's recipe, the paper's (and OpenVINO, where installed)
    paths      env steps a second: single, vector, Stable-Baselines3 immediate and deferred
    ppo        the training loop with rewards, against the same loop that only renders
    memory     peak of 8 envs x 2048 steps of 400 x 600 frames, against the same loop that only renders
    cache      encodes saved over whole trainings, and what looking up costs where nothing repeats

All on CartPole's 400 x 600 frames with the embedded model, if not said otherwise; one thread of torch. Each table's
rows are timed in turns and reported as medians with the quartiles' half distance: these machines are shared, so read
the ratios. Times of this process are CPU time where one thread does the work, wall time elsewhere.
"""

import argparse
import atexit
import csv
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env as make_plain_vec_env
from stable_baselines3.common.vec_env import VecEnv

import gpu_check
from vlmrm_wrap import CLIPRewardModel, CLIPRewardVectorWrapper, CLIPRewardWrapper, FrameScores, make_vec
from vlmrm_wrap.frames import FrameReader
from vlmrm_wrap.rendering import FrameRenderer
from vlmrm_wrap.reward import reward_from_similarities
from vlmrm_wrap.sb3 import CLIPRewardVecEnv, deferred_kwargs, make_vec_env

HERE = Path(__file__).parent
PROMPTS = {
    "goal_prompts": "pole vertically upright on top of the cart",
    "baseline_prompts": "pole and cart",
}
N_ENVS = 8


class Free:
    """The reward model of a loop that only renders."""

    def score(self, frames: np.ndarray) -> FrameScores:
        return FrameScores(*np.zeros((3, len(frames)), np.float32))


class RenderEachStep(gym.Wrapper):
    """What a loop pays that renders through Gymnasium alone."""

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.env.render()
        return result


def embedded(**kwargs: Any) -> CLIPRewardModel:
    return CLIPRewardModel.from_pretrained("embedded", **PROMPTS, device="cpu", **kwargs)


# --- timing --------------------------------------------------------------------------------------------------

Row = dict[str, Any]


def in_turns(
    runs: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, np.ndarray]:
    """Seconds of each call, `rounds` of them, after one that doesn't count."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + rounds):
        for name, run in runs.items():
            start = clock()
            run()
            spent[name].append(clock() - start)
    return {name: np.array(times[1:]) for name, times in spent.items()}


def middle(values: np.ndarray) -> tuple[float, float]:
    """Median, and half the distance of the quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(high - low) / 2


def repeated(run: Callable[[], Any], times: int) -> Callable[[], None]:
    def many() -> None:
        for _ in range(times):
            run()

    return many


# --- sections: each returns rows of one table ----------------------------------------------------------------


def stages(args: Namespace) -> list[Row]:
    """ms a frame, CPU time of this process. Transport is the parent's part of 8 asynchronous envs."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    drawn = gym.make("CartPole-v1", render_mode="rgb_array")
    drawn.reset(seed=0)
    renderer = FrameRenderer(drawn)
    for _ in range(4):
        renderer()
    model = embedded(cache=False)
    frames = np.stack([renderer()] * N_ENVS)
    preprocess, encoder = model._frames.preprocess, model.encoder
    images = preprocess(frames)
    goal, baseline = np.random.default_rng(0).normal(size=(2, N_ENVS))
    combine = partial(reward_from_similarities, goal, baseline, alpha=0.5, **model.constants)

    envs = make_vec("CartPole-v1", N_ENVS, vectorization_mode="async")
    atexit.register(envs.close, terminate=True)  # else a failure below hangs at exit, on workers that wait
    envs.reset(seed=0)
    reader = FrameReader(
        N_ENVS,
        call=envs.call,
        bind=lambda shared: envs.set_attr("clip_slot", [(shared, index) for index in range(N_ENVS)]),
        across_processes=True,
    )
    envs.step(np.zeros(N_ENVS, int))
    repeat = 2 if args.quick else 20
    per_frame = {
        "step": (partial(step, env), 1),
        "render, Gymnasium's": (env.render, 1),
        "render, ours": (renderer, 1),
        "transport, envs.render()": (envs.render, N_ENVS),
        "transport, ours": (reader.collect, N_ENVS),
        "preprocess": (partial(preprocess, frames), N_ENVS),
        "encode": (partial(encoder.encode_image, images), N_ENVS),
        "reward": (combine, N_ENVS),
        "score, all three": (partial(model.score, frames), N_ENVS),
    }
    times = in_turns({name: repeated(run, repeat) for name, (run, _) in per_frame.items()}, args.rounds)
    reader.close()
    atexit.unregister(envs.close)
    envs.close()
    rows = []
    for name, (_, count) in per_frame.items():
        median, spread = middle(times[name] * 1e3 / repeat / count)
        rows.append({"stage": name, "ms a frame": median, "±": spread})
    return rows


def step(env: gym.Env) -> None:
    *_, terminated, truncated, _ = env.step(env.action_space.sample())
    if terminated or truncated:
        env.reset()


def recipes(args: Namespace) -> list[Row]:
    """Random weights of ViT-B/32's and of the embedded model's shape, float32, batches of 8."""
    has_openvino = importlib.util.find_spec("openvino") is not None
    towers = {
        "embedded's shape": partial(gpu_check.openai_vit, 64, 16, 128, 4, 2, 128),
        "ViT-B/32": gpu_check.TOWERS["ViT-B/32"],
    }
    if args.quick:
        towers = {"embedded's shape": towers["embedded's shape"]}
    settings = Namespace(
        device="cpu",
        dtype="float32",
        frame=(400, 600),
        batches=[8],
        backends=["torch", "openvino"] if has_openvino else ["torch"],
        micro_batch_size=64,
        rounds=args.rounds,
        seconds=600,
    )
    top, rows = gpu_check.peak(settings), []
    for name, make in towers.items():
        torch.manual_seed(0)
        tower = make().eval().requires_grad_(False)
        rows += gpu_check.measure(name, tower, top, settings)
    keep = ("tower", "backend", "frames/s", "tutorial/ours", "paper/ours", "encode own/ours", "share of peak")
    return [{name: row[name] for name in keep} for row in rows]


def paths(args: Namespace) -> list[Row]:
    """Env steps a second of wall time, random actions, and against the same path that only renders."""
    steps = 16 if args.quick else 256  # env steps, all copies together

    def single(model: Any) -> Callable[[], None]:
        env = CLIPRewardWrapper(gym.make("CartPole-v1", render_mode="rgb_array"), model)
        env.reset(seed=0)
        return repeated(partial(step, env), steps)

    def vector(mode: str, model: Any) -> Callable[[], None]:
        envs = CLIPRewardVectorWrapper(make_vec("CartPole-v1", N_ENVS, vectorization_mode=mode), model)
        envs.reset(seed=0)
        opened.append(envs)
        return repeated(lambda: envs.step(envs.action_space.sample()), steps // N_ENVS)

    def stable_baselines(model: Any) -> Callable[[], None]:
        venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", N_ENVS, seed=0), model)
        venv.reset()
        opened.append(venv)
        actions = np.random.default_rng(0).integers(2, size=(64, N_ENVS))
        return repeated(lambda: venv.step(actions[0]), steps // N_ENVS)

    opened: list[Any] = []
    kinds: dict[str, Callable[[Any], Callable[[], None]]] = {
        "single": single,
        "vector, sync": partial(vector, "sync"),
        "vector, async": partial(vector, "async"),
        "Stable-Baselines3": stable_baselines,
    }
    runs = {}
    for name, make in kinds.items():
        runs[name, "rendering"] = make(Free())
        runs[name, "no cache"] = make(embedded(cache=False))
        runs[name, "cache"] = make(embedded())
    times = in_turns(runs, args.rounds, time.perf_counter)  # type: ignore[arg-type,type-var]
    for closed in opened:
        closed.close()
    rows = []
    for name in kinds:
        rate = {kind: steps / times[name, kind] for kind in ("rendering", "no cache", "cache")}  # type: ignore[index]
        rows.append({
            "path": name,
            "rendering only, steps/s": middle(rate["rendering"])[0],
            "with rewards, steps/s": middle(rate["cache"])[0],
            "ratio": middle(rate["cache"] / rate["rendering"])[0],
            "±": middle(rate["cache"] / rate["rendering"])[1],
            "ratio without the cache": middle(rate["no cache"] / rate["rendering"])[0],
        })  # fmt: skip
    return rows


def ppo_of(venv: VecEnv, n_steps: int = 32, **kwargs: Any) -> PPO:
    """The main job's settings (configs/cartpole_ppo.yaml)."""
    settings = {"n_epochs": 20, "batch_size": 256, "gamma": 0.98, "gae_lambda": 0.8, "learning_rate": 1e-3} | kwargs
    return PPO("MlpPolicy", venv, n_steps=n_steps, seed=0, device="cpu", **settings)


def loops(**model: Any) -> dict[str, Callable[..., PPO]]:
    def ours() -> VecEnv:
        return make_vec_env("CartPole-v1", N_ENVS, seed=0, fixed_horizon=500)

    def deferred(**kwargs: Any) -> PPO:
        venv = CLIPRewardVecEnv(ours(), embedded(**model), deferred=True)
        return ppo_of(venv, **kwargs, **deferred_kwargs(PPO, venv))

    def gymnasium_renders(**kwargs: Any) -> PPO:
        env_kwargs = {"render_mode": "rgb_array"}
        venv = make_plain_vec_env("CartPole-v1", N_ENVS, seed=0, env_kwargs=env_kwargs, wrapper_class=RenderEachStep)
        return ppo_of(venv, **kwargs)

    return {
        "no rendering": lambda **kwargs: ppo_of(make_plain_vec_env("CartPole-v1", N_ENVS, seed=0), **kwargs),
        "Gymnasium's render()": gymnasium_renders,
        "our rendering": lambda **kwargs: ppo_of(CLIPRewardVecEnv(ours(), Free()), **kwargs),
        "rewards": lambda **kwargs: ppo_of(CLIPRewardVecEnv(ours(), embedded(**model)), **kwargs),
        "rewards, deferred": deferred,
    }


def ppo(args: Namespace) -> list[Row]:
    """Env steps a second of wall time of PPO on CartPole, 8 envs in one process, as in the main job."""
    steps = 256 if args.quick else 1024
    algos = {name: make() for name, make in loops().items()}
    algos["rewards, no cache"] = loops(cache=False)["rewards"]()
    runs = {
        name: partial(algo.learn, steps, reset_num_timesteps=False, log_interval=None) for name, algo in algos.items()
    }
    times = in_turns(runs, args.rounds, time.perf_counter)
    rates = {name: steps / taken for name, taken in times.items()}
    for algo in algos.values():
        algo.env.close()
    rows = []
    for name, rate in rates.items():
        against = {base: middle(rate / rates[base]) for base in ("Gymnasium's render()", "our rendering")}
        median, spread = middle(rate)
        row: Row = {"loop": name, "steps/s": median, "±": spread}
        for base, (ratio, half) in against.items():
            row |= {f"against {base}": ratio, f"± {base[0]}": half}
        rows.append(row)
    return rows


def memory(args: Namespace) -> list[Row]:
    """Peak MB of a process of its own (Linux): one rollout of 8 envs x 2048 steps and its update."""
    rows = []
    for name in ("our rendering", "rewards", "rewards, deferred"):
        command = [sys.executable, __file__, "--memory-of", name, *(["--quick"] if args.quick else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        rows.append({"loop": name, "peak MB": float(done.stdout.split()[-1])})
    for row in rows:
        row["over rendering only"] = row["peak MB"] - rows[0]["peak MB"]
    return rows


def peak_of(name: str, quick: bool) -> float:
    n_steps = 32 if quick else 2048
    algo = loops()[name](n_steps=n_steps, n_epochs=1)
    algo.learn(n_steps * N_ENVS)
    # not ru_maxrss, which a child inherits from the process that started it
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def cache(args: Namespace) -> list[Row]:
    """Whole trainings: frames scored over frames encoded. Above: what looking up costs in vain."""
    rows: list[Row] = []
    for config in ("cartpole_ppo", "mountain_car_continuous_sac", "pendulum_ppo", "acrobot_ppo"):
        script = HERE / f"train_{config.rpartition('_')[2]}.py"
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(script), "--config", f"{HERE.parent}/configs/{config}.yaml"]
            command += ["--out", folder, "--name", "run", "--evaluation.episodes", "1", "--evaluation.video", "false"]
            command += ["--total_steps", "4096"] if args.quick else []
            subprocess.run(command, capture_output=True, check=True)
            with Path(folder, "run", "progress.csv").open() as file:
                rates = [
                    float(row["clip/cache_hit_rate"]) for row in csv.DictReader(file) if row["clip/cache_hit_rate"]
                ]
        rows.append({"training": config, "hit rate": rates[-1], "times fewer encodes": 1 / (1 - rates[-1])})
    frames, batches = gpu_check.draw(64, 400, 600), 4 if args.quick else 400

    def score_all(option: Any) -> None:
        model = embedded(cache=option)
        for count in range(batches):  # no frame comes twice: the count stands in its corner
            frames[:, 0, :2] = np.array([count % 256, count // 256, 0], np.uint8)
            model.score(frames)

    times = in_turns({"auto": partial(score_all, "auto"), "off": partial(score_all, False)}, min(args.rounds, 3))
    ratio, spread = middle(times["auto"] / times["off"])
    print(f"{64 * batches} frames that never repeat: {ratio:.3f} (± {spread:.3f}) of the time without the cache")
    return rows


SECTIONS: dict[str, Callable[[Namespace], list[Row]]] = {
    "stages": stages,
    "recipes": recipes,
    "paths": paths,
    "ppo": ppo,
    "memory": memory,
    "cache": cache,
}

# --- the report ----------------------------------------------------------------------------------------------


def markdown(rows: list[Row]) -> str:
    def shown(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

    lines = ["| " + " | ".join(rows[0]) + " |", "| " + " | ".join("---" for _ in rows[0]) + " |"]
    return "\n".join(lines + ["| " + " | ".join(map(shown, row.values())) + " |" for row in rows])


def plot(results: dict[str, list[Row]], path: Path) -> None:
    """Each section's first number, as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(results), figsize=(7, 2.4 * len(results)), layout="constrained", squeeze=False)
    for axis, (section, rows) in zip(axes[:, 0], results.items(), strict=True):
        column = next(name for name, value in rows[0].items() if isinstance(value, float))
        labels = [" ".join(str(value) for value in row.values() if isinstance(value, str)) for row in rows]
        bars = axis.barh(labels, [row[column] for row in rows], color="C0")
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(f"{section}: {column}", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse_args() -> Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all unless given")
    parser.add_argument("--rounds", type=int, default=15, help="timed in turns (15)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, 2 rounds: to see that everything runs")
    parser.add_argument("--json", type=Path, help="write the numbers")
    parser.add_argument("--plot", type=Path, help="write a picture of them")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"unknown sections {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}; required: at least 1")
    args.rounds = 2 if args.quick else args.rounds
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    if args.memory_of:
        print(peak_of(args.memory_of, args.quick))
        return
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    about = f"{machine}, torch {torch.__version__}, one thread, {args.rounds} rounds"
    print(about)
    results: dict[str, list[Row]] = {}
    try:
        for section in args.sections or SECTIONS:
            results[section] = SECTIONS[section](args)
            print(f"\n## {section}\n\n{SECTIONS[section].__doc__}\n\n{markdown(results[section])}", flush=True)
    finally:  # what was measured before an interruption is kept
        if args.json:
            args.json.write_text(json.dumps({"machine": about, "load": os.getloadavg(), **results}, indent=1) + "\n")
        if args.plot and results:
            plot(results, args.plot)


if __name__ == "__main__":
    main()
