"""README's picture: what the sentence pays CartPole for, frame by frame.

python experiments/picture.py docs/cartpole_reward.png
"""

import sys

import gymnasium as gym
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from vlmrm_wrap import CLIPRewardModel

GOAL, BASELINE = "pole vertically upright on top of the cart", "pole and cart"
SHOWN = (-60, -20, 0, 20, 60)  # degrees


def frame_at(env: gym.Env, degrees: float) -> np.ndarray:
    env.unwrapped.state = np.array([0.0, 0.0, np.deg2rad(degrees), 0.0])
    return env.render()


def main(path: str) -> None:
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=0)
    model = CLIPRewardModel.from_pretrained("embedded", goal_prompts=GOAL, baseline_prompts=BASELINE)
    angles = np.arange(-90, 91)
    scores = model.score(np.stack([frame_at(env, angle) for angle in angles]))

    figure = plt.figure(figsize=(8, 4), layout="constrained")
    grid = figure.add_gridspec(2, len(SHOWN), height_ratios=(1, 2))
    for column, angle in enumerate(SHOWN):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frame_at(env, angle)[120:360, 120:480])
        axes.set_title(f"R = {scores.rewards[list(angles).index(angle)]:.2f}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    axes = figure.add_subplot(grid[1, :])
    for alpha, style in ((0.0, ":"), (0.5, "-"), (1.0, "--")):
        axes.plot(angles, model.rewards_at(alpha, scores), style, label=f"alpha = {alpha:g}")
    for angle in SHOWN:
        axes.axvline(angle, color="0.85", zorder=0)
    axes.set(xlabel="pole's angle, degrees", ylabel="reward R", xlim=(-90, 90))
    axes.set_title(f"goal “{GOAL}”, baseline “{BASELINE}”", fontsize=10)
    axes.legend()
    figure.savefig(path, dpi=110)
    env.close()


if __name__ == "__main__":
    main(sys.argv[1])
