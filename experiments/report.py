"""Pictures of a run: its learning curves, and a film of its policy with the reward drawn on it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import EnvConfig, EvaluationConfig, make_test_env

from vlmrm_wrap import CLIPRewardWrapper, RewardModel


def plot_learning_curves(progress: Path, image: Path, title: str, checkpoint: int | None) -> None:
    """CLIP's return and the env's own against env steps, from progress.csv; the checkpoint as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with progress.open() as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    curves = [("rollout/ep_clip_rew_mean", "CLIP return", "C0"), ("rollout/ep_rew_mean", "env's own return", "C1")]
    for axis, (key, label, color) in zip(axes, curves, strict=True):
        points = [(int(row["time/total_timesteps"]), float(row[key])) for row in rows if row.get(key)]
        if points:
            axis.plot(*zip(*points, strict=True), color=color)
        if checkpoint:
            axis.axvline(checkpoint, color="0.7", linewidth=1, zorder=0)
        axis.set_ylabel(f"{label}\nper training episode")
        axis.grid(alpha=0.3)
    axes[0].set_title(title, fontsize=10)
    axes[1].set_xlabel("env steps (grey line: the chosen checkpoint)" if checkpoint else "env steps")
    figure.savefig(image, dpi=120)
    plt.close(figure)


def draw_reward(frame: np.ndarray, rewards: list[float], text: str) -> np.ndarray:
    """uint8 (h, w, 3) -> the frame over a strip with ``text`` and the curve of ``rewards`` so far, 0 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    frame = frame.repeat(factor := -(-320 // frame.shape[1]), axis=0).repeat(factor, axis=1)
    height, width = frame.shape[0] - frame.shape[0] % 2, frame.shape[1] - frame.shape[1] % 2  # for yuv420p
    strip = 72
    canvas = Image.new("RGB", (width, height + strip), "white")
    canvas.paste(Image.fromarray(frame[:height, :width]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.line([(0, height), (width, height)], fill="black")
    draw.text((8, height + 5), text, fill="black", font=ImageFont.load_default(13))
    top, bottom = height + 26, height + strip - 6
    draw.rectangle([(8, top), (width - 8, bottom)], outline="lightgrey")
    shown = rewards[-(width - 16) :]
    points = [(8 + i, bottom - (bottom - top) * min(max(r, 0.0), 1.0)) for i, r in enumerate(shown)]
    draw.line(points, fill="royalblue", width=2)
    draw.ellipse([(points[-1][0] - 3, points[-1][1] - 3), (points[-1][0] + 3, points[-1][1] + 3)], fill="crimson")
    return np.asarray(canvas)


def record_video(
    act: Callable[[Any], Any],
    env: EnvConfig,
    evaluation: EvaluationConfig,
    reward_model: RewardModel,
    path: Path,
    max_frames: int = 500,
) -> None:
    """The evaluation's first episode, frame by frame to an mp4: no more than one frame is held."""
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    film_env = CLIPRewardWrapper(make_test_env(env, render_mode="rgb_array"), reward_model)
    fps = film_env.metadata.get("render_fps") or 30
    obs, _ = film_env.reset(seed=evaluation.seed)
    rewards: list[float] = []
    own, over, writer = 0.0, False, None
    while not over and len(rewards) < max_frames:
        obs, reward, terminated, truncated, info = film_env.step(act(obs))
        rewards.append(float(reward))
        own, over = own + float(info["env_reward"]), terminated or truncated
        text = f"step {len(rewards)}   reward {reward:.3f}   CLIP return {sum(rewards):.1f}   env's own {own:.1f}"
        picture = draw_reward(film_env.render(), rewards, text)
        if writer is None:
            writer = FFMPEG_VideoWriter(str(path), picture.shape[1::-1], fps)
        writer.write_frame(picture)
    writer.close()
    film_env.close()
