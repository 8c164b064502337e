"""README's pictures, from the library itself: rewards over states, along episodes, and while PPO trains on them.

    python experiments/gallery.py docs/gallery RUN...    # half a minute, and the learning curves of these run folders
    python experiments/gallery.py docs/gallery           # trains configs/cartpole_ppo.yaml for them: two minutes more

Offline, with the embedded model. Writes FOLDER/cartpole.png (the reward over the pole's angle), landscapes.png (all
four classic envs), film_strips.png (episodes of hand-written controllers) and learning_curves.png, 256 colours each.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from PIL import Image

from vlmrm_wrap import CLIPRewardModel
from vlmrm_wrap.insight.landscape import Landscape, landscape
from vlmrm_wrap.insight.plotting import new_figure
from vlmrm_wrap.insight.policies import RunFolder, closing, make_env
from vlmrm_wrap.screens import quiet_pygame

GOALS = {  # env -> goal, baseline: the paper's for the first two, and all kept from the embedded model's training
    "CartPole-v1": ("pole vertically upright on top of the cart", "pole and cart"),
    "MountainCar-v0": ("a car at the peak of the mountain, next to the yellow flag", "a car in the mountain"),
    "Pendulum-v1": ("the pendulum pointing straight up", "a pendulum"),
    "Acrobot-v1": ("the two-link arm swung up high above the line", "a two-link arm"),
}
GOALS["MountainCarContinuous-v0"] = GOALS["MountainCar-v0"]
STATES = {"CartPole-v1": ("x=-2.4:2.4", "theta=-1.57:1.57")}  # the others as `vlmrm-wrap landscape` sweeps them
ALPHAS = {0.0: ":", 0.5: "-", 1.0: "--"}
ALPHA = 0.5  # of maps and film strips
FRAMES = 7  # of a film strip
SEED = 10  # of its episode: the pendulum hangs nearly straight down


def look(env_id: str, **kwargs: Any) -> Landscape:
    """The landscape of the env's goal, from the embedded model."""
    goal, baseline = GOALS[env_id]
    model = CLIPRewardModel.from_pretrained("embedded", goal_prompts=goal, baseline_prompts=baseline)
    with closing(make_env(env_id)) as env:
        return landscape(env, model, alphas=list(ALPHAS), **kwargs)


def cartpole(path: Path, points: int) -> None:
    """The reward over the pole's angle, for three alphas, under five of the frames."""
    result = look("CartPole-v1", states=[f"theta=-1.57:1.57:{points}"])
    angles = np.rad2deg(result.grid.axes[0])
    shown = [int(np.abs(angles - angle).argmin()) for angle in (-60, -20, 0, 20, 60)]
    figure = new_figure(8, 4)
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 2))
    strip(figure, grid[0], result, shown, [f"R = {result.rewards[ALPHA][index]:.2f}" for index in shown])
    axes = figure.add_subplot(grid[1])
    curves(axes, angles, result, "pole's angle, degrees")
    for index in shown:
        axes.axvline(angles[index], color="0.85", zorder=0)
    axes.set_xlim(-90, 90)
    axes.set_title("goal “{}”, baseline “{}”".format(*GOALS["CartPole-v1"]), fontsize=10)
    save(figure, path)


def landscapes(path: Path, points: int) -> None:
    """Each classic env: the frames with the lowest, the median and the highest reward, over a curve or a map."""
    figure = new_figure(8.6, 9)
    for part, env_id in zip(figure.subfigures(2, 2, wspace=0.03, hspace=0.03).flat, list(GOALS)[:4], strict=True):
        states = STATES.get(env_id, ())
        result = look(env_id, states=[f"{state}:{points}" for state in states])
        rewards, grid = result.rewards[ALPHA], part.add_gridspec(2, 1, height_ratios=(1, 2.2))
        order = np.argsort(rewards, kind="stable")
        chosen = {"lowest": order[0], "median": order[len(order) // 2], "highest": order[-1]}
        captions = [f"{name}: {rewards[index]:.2f}" for name, index in chosen.items()]
        strip(part, grid[0], result, list(chosen.values()), captions)
        axes = part.add_subplot(grid[1])
        if len(result.grid.names) == 1:
            curves(axes, result.grid.axes[0], result, result.grid.names[0])
        else:
            first, second = result.grid.axes
            values = rewards.reshape(len(first), len(second)).T
            mesh = axes.pcolormesh(first, second, values, cmap="viridis", shading="nearest", rasterized=True)
            part.colorbar(mesh, ax=axes, label=f"R, alpha = {ALPHA:g}")
            axes.set_xlabel(result.grid.names[0])
            axes.set_ylabel(result.grid.names[1])
        measure, agreement = list(result.correlations.items())[-1]
        goal = "\n".join(textwrap.wrap(f"“{GOALS[env_id][0]}”", 48))
        part.suptitle(f"{env_id} (rank correlation of R with {measure}: {agreement[ALPHA]:.2f})\n{goal}", fontsize=9)
    save(figure, path)


def film_strips(path: Path, steps: int) -> None:
    """What the sentence pays along an episode, frame by frame."""
    films = {"MountainCarContinuous-v0": (push_along, steps), "Pendulum-v1": (swing_up, steps // 2)}
    figure = new_figure(8.6, 6.4)
    for part, (env_id, (act, longest)) in zip(figure.subfigures(2, 1, hspace=0.03), films.items(), strict=True):
        result = look(env_id, policy=act, steps=longest, seed=SEED)
        length = result.starts[0] if result.starts else longest  # the first episode
        grid = part.add_gridspec(2, 1, height_ratios=(1, 1.6))
        shown = np.linspace(0, length - 1, FRAMES).round().astype(int).tolist()
        strip(part, grid[0], result, shown, [f"step {index + 1}" for index in shown])
        axes = part.add_subplot(grid[1])
        axes.plot(np.arange(1, length + 1), result.rewards[ALPHA][:length], color="C1")
        axes.plot([index + 1 for index in shown], result.rewards[ALPHA][shown], "o", color="C3", markersize=5)
        axes.set_xlabel("step")
        axes.set_ylabel(f"R, alpha = {ALPHA:g}")
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
        part.suptitle(f"{env_id}, {act.__doc__}: “{GOALS[env_id][0]}”", fontsize=9)
    save(figure, path)


def push_along(obs: Any) -> np.ndarray:
    """full throttle the way the car rolls"""
    return np.array([1.0 if obs[1] >= 0 else -1.0], np.float32)


def swing_up(obs: Any) -> np.ndarray:
    """swung up by its energy"""
    cos, sin, speed = map(float, obs)
    if cos > 0.9:  # nearly upright: held there
        torque = -12 * np.arctan2(sin, cos) - 3 * speed
    else:  # m = l = 1, g = 10, a rod: standing still at the top has the energy 0
        energy = speed**2 / 6 + 5 * (cos - 1)
        torque = -2 * np.sign(energy) * (np.sign(speed) or 1)
    return np.clip([torque], -2, 2).astype(np.float32)


def learning_curves(path: Path, runs: list[Path]) -> None:
    """CLIP's return and the env's own against env steps: a line a run, a column those that differ in the seed only."""
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault(re.sub(r"-?seed\d+", "", run.name), []).append(run)
    seeds = sorted({seed_of(run) for run in runs}, key=lambda seed: (len(seed), seed))
    colors = {seed: f"C{index % 10}" for index, seed in enumerate(seeds)}
    figure = new_figure(min(9.0, 3 + 3 * len(groups)), 4.6)
    panels = figure.subplots(2, len(groups), squeeze=False, sharex="col")
    rows = [("rollout/ep_clip_rew_mean", "CLIP return"), ("rollout/ep_rew_mean", "env's own return")]
    for row, (key, label) in zip(panels, rows, strict=True):
        for axes, (name, folders) in zip(row, groups.items(), strict=True):
            for folder in folders:
                seed = seed_of(folder)
                axes.plot(*column(folder / "progress.csv", key), label=seed, color=colors[seed], linewidth=1.4)
            title = f"{RunFolder.read(folders[0]).env_id.split('/')[-1]}\n{name}"
            axes.set_title(title if label == rows[0][1] else "", fontsize=7)
            axes.grid(alpha=0.3)
            axes.locator_params(nbins=4)
            axes.tick_params(labelsize=8)
        row[0].set_ylabel(f"{label}\nper training episode", fontsize=9)
    for axes in panels[1]:
        axes.set_xlabel("env steps", fontsize=9)
    lines = {str(line.get_label()): line for axes in panels[0] for line in axes.lines}
    figure.legend([lines[seed] for seed in seeds], seeds, loc="outside lower center", ncols=10, fontsize=8)
    save(figure, path)


def column(progress: Path, key: str) -> np.ndarray:
    """Env steps and values, ``(2, n)``."""
    with progress.open() as file:
        points = [(int(row["time/total_timesteps"]), float(row[key])) for row in csv.DictReader(file) if row.get(key)]
    return np.array(points, np.float64).reshape(-1, 2).T


def seed_of(run: Path) -> str:
    found = re.search(r"seed\d+", run.name)
    return found.group() if found else run.name


def trained(folder: Path) -> Path:
    """A run of configs/cartpole_ppo.yaml."""
    script = Path(__file__).with_name("train_ppo.py")
    options = ["--out", str(folder), "--name", "CartPole-v1-seed0", "--evaluation.video", "false"]
    subprocess.run([sys.executable, str(script), *options], check=True)
    return folder / "CartPole-v1-seed0"


def strip(figure: Any, cell: Any, result: Landscape, shown: list[int], captions: list[str]) -> None:
    """Frames side by side, without the white around what is drawn in any of them."""
    pictures = np.stack([result.thumbnails[index] for index in shown])
    drawn = (pictures != 255).any(axis=(0, 3))
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    box = tuple(slice(max(0, each[0] - 12), each[-1] + 12) for each in (rows, columns))
    cells = cell.subgridspec(1, len(shown), wspace=0.05)
    for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        axes = figure.add_subplot(cells[column])
        axes.imshow(picture[box])
        axes.set_title(caption, fontsize=8.5)
        axes.set_xticks([])
        axes.set_yticks([])


def curves(axes: Any, x: np.ndarray, result: Landscape, xlabel: str) -> None:
    for alpha, style in ALPHAS.items():
        axes.plot(x, result.rewards[alpha], style, label=f"alpha = {alpha:g}")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("reward R")
    axes.legend(fontsize=8)


def save(figure: Any, path: Path) -> None:
    """As a PNG of 256 colours, a third of the size, by a rename: a reader never finds half a picture."""
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=100)
    with Image.open(partial) as picture:
        picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(partial, optimize=True)
    os.replace(partial, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("gallery.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures go, e.g. docs/gallery")
    parser.add_argument("runs", type=Path, nargs="*", help="run folders for the learning curves; default: train one")
    parser.add_argument("--points", type=int, default=41, help="of each swept variable; default: %(default)s")
    parser.add_argument("--steps", type=int, default=150, help="of a film strip; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet_pygame()
    try:
        for run in options.runs:  # before anything is drawn
            RunFolder.read(run)
        options.folder.mkdir(parents=True, exist_ok=True)
        cartpole(options.folder / "cartpole.png", 4 * options.points + 1)
        landscapes(options.folder / "landscapes.png", options.points)
        film_strips(options.folder / "film_strips.png", options.steps)
        with tempfile.TemporaryDirectory() as scratch:
            learning_curves(options.folder / "learning_curves.png", options.runs or [trained(Path(scratch))])
    except (gym.error.Error, OSError, ValueError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    main()
