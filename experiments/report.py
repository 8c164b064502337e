"""Pictures of a run: its learning curves, and a film of its policy with the reward drawn on it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs import make_test_env
from settings import EnvConfig, EvaluationConfig
from vlmrm_wrap import RewardModel
from vlmrm_wrap.insight.plotting import new_figure
from vlmrm_wrap.insight.policies import closing
from vlmrm_wrap.insight.recording import Recording
from vlmrm_wrap.insight.video import video


def plot_learning_curves(progress: Path, image: Path, title: str, checkpoint: int | None) -> None:
    """CLIP's return and the env's own against env steps, from progress.csv; the checkpoint as a line."""
    with progress.open() as file:
        rows = list(csv.DictReader(file))
    figure = new_figure(7, 5)
    axes = figure.subplots(2, sharex=True)
    curves = [("rollout/ep_clip_rew_mean", "CLIP return", "C0"), ("rollout/ep_rew_mean", "env's own return", "C1")]
    for axis, (key, label, color) in zip(axes, curves, strict=True):
        points = [(int(row["time/total_timesteps"]), float(row[key])) for row in rows if row.get(key)]
        if points:
            axis.plot(*zip(*points, strict=True), color=color, marker="." if len(points) == 1 else None)
        if checkpoint:
            axis.axvline(checkpoint, color="0.7", linewidth=1, zorder=0)
        axis.set_ylabel(f"{label}\nper training episode")
        axis.grid(alpha=0.3)
    axes[0].set_title(title, fontsize=10)
    axes[1].set_xlabel("env steps (grey line: the chosen checkpoint)" if checkpoint else "env steps")
    figure.savefig(image, dpi=120)


def record_video(
    act: Callable[[Any], Any], env: EnvConfig, evaluation: EvaluationConfig, reward_model: RewardModel, path: Path
) -> Recording:
    """The evaluation's first episode, all of it, as an mp4, and what its rewards are made of."""
    seed, steps = evaluation.seed, evaluation.max_steps
    with closing(make_test_env(env, render_mode="rgb_array")) as film_env:
        return video(film_env, reward_model, act, path, max_steps=steps, seed=seed, embeddings=True)
