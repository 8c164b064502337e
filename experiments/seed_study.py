"""Does language alone teach it? One configuration, many seeds, CLIP's reward against its controls.

    python experiments/seed_study.py configs/cartpole_ppo.yaml --seeds 10 --jobs 2
    python experiments/seed_study.py configs/*_ppo.yaml --seeds 5 --rewards clip constant env --report docs/study

Trains once for every config, reward and seed: on CLIP's reward, on a constant (the control: nothing may be learnt
from it) and on the env's own reward with the env's own ends (the ceiling). All else is the same. Each run is
evaluated over 100 episodes of the unmodified env. Finished runs are kept in --out and not repeated, so the study can
be stopped (Ctrl-C, SIGTERM) and started again with the same command; a run that was cut short goes on from its last
save, unless its config or the options given have changed since.

Prints a Markdown table of all seeds, the failed ones too, and those that an earlier command with more --seeds has
finished, with the interquartile mean (IQM) over seeds and its 95 % bootstrap interval (Agarwal et al. 2021, arXiv
2108.13264). --report PATH writes it as PATH.md, PATH.json and PATH.png.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml

from settings import algorithm_of, read_settings

REWARDS = {
    "clip": [],
    "constant": ["--reward.constant", "1"],
    # With the env's own ends: it pays nothing after them, which no observation tells.
    "env": ["--reward.env_reward", "true", "--env.horizon", "null"],
}
LABELS = {"clip": "the sentence (CLIP)", "constant": "a constant (control)", "env": "the env's own (ceiling)"}
# What counts as solved, where Gymnasium names no threshold: Pendulum's usual one.
SOLVED = {"Pendulum-v1": -200.0}


@dataclass(frozen=True)
class Run:
    """One training."""

    config: Path
    reward: str
    seed: int
    out: Path

    @property
    def name(self) -> str:
        return f"{self.config.stem}-{self.reward}-seed{self.seed}"

    def result(self) -> dict[str, Any] | None:
        """The evaluation, once there is one."""
        file = self.out / self.name / "evaluation.json"
        return json.loads(file.read_text()) if file.exists() else None

    def start(self, extra: list[str]) -> subprocess.Popen[bytes]:
        """Goes on with a run that was cut short, or begins anew."""
        options = ["--config", str(self.config), "--seed", str(self.seed), "--out", str(self.out), "--name", self.name]
        options += [*REWARDS[self.reward], "--evaluation.episodes", "100", "--evaluation.video", "false", *extra]
        settings = f"{self.config.read_text()}\n{shlex.join(options)}\n"
        folder, begun_with = self.out / self.name, self.out / f"{self.name}.settings"
        if (folder / "resume.zip").exists() and begun_with.exists() and begun_with.read_text() == settings:
            options, mode = ["--resume", str(folder)], "ab"
        else:
            shutil.rmtree(folder, ignore_errors=True)
            self.out.mkdir(parents=True, exist_ok=True)
            begun_with.write_text(settings)
            mode = "wb"
        with (self.out / f"{self.name}.log").open(mode) as log:
            # In a session of its own: the terminal's Ctrl-C reaches this script alone, which passes it on.
            command = [sys.executable, str(script_of(self.config)), *options]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def script_of(config: Path) -> Path:
    """The script whose settings a config has; PPO's without any."""
    return Path(__file__).with_name(f"train_{algorithm_of(read_settings(config)) or 'ppo'}.py")


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        epilog="Further --OPTION VALUE pairs go to every training.",
    )
    parser.add_argument("configs", type=Path, nargs="+", help="YAML files of train_ppo.py, train_dqn.py, train_sac.py")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... of this many (5)")
    parser.add_argument("--control-seeds", type=int, help="another number of seeds for the controls")
    parser.add_argument("--rewards", nargs="+", choices=list(REWARDS), default=list(REWARDS))
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, of one thread each (1)")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="the folder of the run folders")
    parser.add_argument("--report", type=Path, help="write PATH.md, PATH.json and PATH.png")
    args, extra = parser.parse_known_args()
    for config in args.configs:
        if not config.is_file():
            parser.error(f"{config} is no file; required: a configuration of a training script")
        try:
            read_settings(config)
        except ValueError as error:
            parser.error(str(error))
    if args.seeds < 1 or args.jobs < 1:
        parser.error(f"--seeds {args.seeds} --jobs {args.jobs}; required: at least 1 of each")
    return args, extra


def main() -> None:
    args, extra = parse_args()
    runs = [
        Run(config, reward, seed, args.out)
        for config in args.configs
        for reward in args.rewards
        for seed in range(args.seeds if reward == "clip" else args.control_seeds or args.seeds)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed: list[Run] = []
    stopped = False
    try:
        failed = train([run for run in runs if run.result() is None], args.jobs, extra)
    except KeyboardInterrupt:
        stopped = True
    shown = with_further_seeds(runs)
    text = table(shown)
    print(f"\n{text}")
    if args.report:
        write_report(shown, text, args.report)
    for run in failed:
        print(f"failed: {run.name}, see {run.out / run.name}.log", file=sys.stderr)
    if stopped:
        print("stopped; the same command goes on with the runs that are missing", file=sys.stderr)
    sys.exit(130 if stopped else bool(failed))


def with_further_seeds(runs: list[Run]) -> list[Run]:
    """``runs``, and further seeds of theirs that other commands have finished in the same folder."""
    shown = {run.name: run for run in runs}
    for run in runs:
        if run.seed == 0:
            before_seed = run.name.removesuffix("0")
            for file in run.out.glob(f"{before_seed}*/evaluation.json"):
                seed = file.parent.name.removeprefix(before_seed)
                if seed.isdecimal():
                    shown.setdefault(file.parent.name, Run(run.config, run.reward, int(seed), run.out))
    return sorted(shown.values(), key=lambda run: run.seed)


def train(waiting: list[Run], jobs: int, extra: list[str]) -> list[Run]:
    """Runs all, `jobs` at a time; returns those that failed. Leaves no process behind."""
    active: dict[subprocess.Popen[bytes], Run] = {}
    failed: list[Run] = []
    total, start = len(waiting), time.monotonic()
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop(0)
                active[run.start(extra)] = run
            process = next_ended(active)
            run = active.pop(process)
            result = run.result()
            if process.returncode or result is None:
                failed.append(run)
            done = total - len(waiting) - len(active)
            minutes = (time.monotonic() - start) / 60
            outcome = f"true return {result['mean']:.1f}" if result else f"exit status {process.returncode}"
            left = minutes / done * (total - done)
            print(f"[{done}/{total}] {run.name}: {outcome}  ({minutes:.0f} min, {left:.0f} left)", flush=True)
    finally:
        for process in active:
            process.terminate()
        for process in active:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
    return failed


def next_ended(active: dict[subprocess.Popen[bytes], Run]) -> subprocess.Popen[bytes]:
    """Waits for a child to end, without reaping it behind its Popen's back."""
    while True:
        for process in active:
            if process.poll() is not None:
                return process
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)


def iqm(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the last axis; with n not divisible by 4, the outermost count in part."""
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    # Each value stands for an interval of length 1/n; what of it lies between the quartiles is its weight.
    edges = np.clip(np.arange(n + 1) / n, 0.25, 0.75)
    return (ordered * np.diff(edges)).sum(-1) / 0.5


def interval(values: np.ndarray, samples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap of the IQM over seeds."""
    rows = np.random.default_rng(0).integers(len(values), size=(samples, len(values)))
    low, high = np.percentile(iqm(values[rows]), [2.5, 97.5])
    return float(low), float(high)


def groups(runs: list[Run]) -> Iterator[tuple[Path, str, str, list[dict[str, Any]]]]:
    """(config, env id, reward, the results there are), in the order of the study."""
    for config in dict.fromkeys(run.config for run in runs):
        env_id = yaml.safe_load(config.read_text())["env"]["id"]
        for reward in dict.fromkeys(run.reward for run in runs):
            results = [run.result() for run in runs if (run.config, run.reward) == (config, reward)]
            yield config, env_id, reward, [result for result in results if result]


def threshold(env_id: str) -> float | None:
    return SOLVED.get(env_id, gym.spec(env_id).reward_threshold)


def table(runs: list[Run]) -> str:
    lines = [
        "| config | reward | IQM of the true return | 95 % | seeds solved | episodes ended by the env | each seed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for config, env_id, reward, results in groups(runs):
        if not results:
            continue
        means = np.array([result["mean"] for result in results])
        low, high = interval(means)
        solved = threshold(env_id)
        count = "-" if solved is None else f"{(means >= solved).sum()} of {len(means)} at {solved:g} or more"
        ended = np.array([sum(result["terminated"]) / len(result["terminated"]) for result in results])
        each = ", ".join(f"{mean:.1f}" for mean in means)
        lines.append(
            f"| {config.stem} | {LABELS[reward]} | {iqm(means):.1f} | {low:.1f} to {high:.1f} | {count} "
            f"| {100 * ended.min():.0f} to {100 * ended.max():.0f} % | {each} |"
        )
    return "\n".join(lines)


def write_report(runs: list[Run], text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text + "\n")
    results = [
        {"config": run.config.stem, "reward": run.reward, "seed": run.seed, "result": run.result()} for run in runs
    ]
    path.with_suffix(".json").write_text(json.dumps(results, indent=1))
    plot(runs, path.with_suffix(".png"))


def plot(runs: list[Run], path: Path) -> None:
    """One panel per config: every seed a dot, the IQM a bar with its interval, "solved" a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [group for group in groups(runs) if group[3]]
    configs = list(dict.fromkeys(config for config, *_ in shown))
    if not configs:
        return
    figure, axes = plt.subplots(1, len(configs), figsize=(3.2 * len(configs), 3), layout="constrained", squeeze=False)
    colors = {"clip": "C0", "constant": "0.5", "env": "C2"}
    for axis, config in zip(axes[0], configs, strict=True):
        rewards = [group for group in shown if group[0] == config]
        env_id = rewards[0][1]
        for place, (_, _, reward, results) in enumerate(rewards):
            means = np.array([result["mean"] for result in results])
            low, high = interval(means)
            axis.plot(
                place + np.linspace(-0.2, 0.2, len(means)), means, "o", color=colors[reward], alpha=0.6, markersize=4
            )
            axis.hlines(iqm(means), place - 0.3, place + 0.3, color=colors[reward])
            axis.fill_between([place - 0.3, place + 0.3], low, high, color=colors[reward], alpha=0.2, linewidth=0)
        if (solved := threshold(env_id)) is not None:
            axis.axhline(solved, color="crimson", linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(rewards)), [{"clip": "sentence"}.get(reward, reward) for _, _, reward, _ in rewards])
        axis.set_title(f"{env_id}\n{config.stem}", fontsize=9)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel("true return")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
