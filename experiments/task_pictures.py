"""Draws the task envs side by side.

python experiments/task_pictures.py docs/task_envs.jpg
"""

import argparse

import gymnasium as gym
import numpy as np
from PIL import Image

from vlmrm_wrap import FrameCapture
from vlmrm_wrap.rendering import FrameRenderer

TASKS = "vlmrm_wrap.tasks:vlmrm_wrap/"
CHEETAH = {"env_id": "HalfCheetah-v5", "floor": "grass", "body": {"foot": "#333333", "": "#c08040"}}
PICTURES = [
    # id, arguments, steps of random actions
    (TASKS + "TexturedMountainCarContinuous-v0", {}, 0),
    (TASKS + "TexturedHumanoid-v0", {}, 20),
    (TASKS + "TexturedMuJoCo-v0", {**CHEETAH, "camera": {"azimuth": 90, "distance": 3, "lookat": [0, 0, 0.6]}}, 8),
]
HEIGHT = 360  # pixels of the strip


def frame(env_id: str, arguments: dict, steps: int) -> Image.Image:
    env = FrameCapture(gym.make(env_id, render_mode="rgb_array", **arguments))
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        env.step(env.action_space.sample())
    picture = Image.fromarray(FrameRenderer(env)())
    env.close()
    return picture.resize((picture.width * HEIGHT // picture.height, HEIGHT), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("output", help="a JPEG file")
    output = parser.parse_args().output
    strip = np.hstack([np.asarray(frame(*picture)) for picture in PICTURES])
    Image.fromarray(strip).save(output, quality=85)
    print(output)


if __name__ == "__main__":
    main()
