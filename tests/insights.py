"""What the tests of insight/ share: prompts, an env whose frames show its state, and readers of what is written."""

import csv
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

PROMPTS = {
    "CartPole-v1": ("pole vertically upright on top of the cart", "pole and cart"),
    "MountainCar-v0": ("a car at the peak of the mountain, next to the yellow flag", "a car in the mountain"),
    "Pendulum-v1": ("the pendulum pointing straight up", "a pendulum"),
    "Acrobot-v1": ("the two-link arm swung up high above the line", "a two-link arm"),
}
CARTPOLE = ["CartPole-v1", "--goal", PROMPTS["CartPole-v1"][0], "--baseline", PROMPTS["CartPole-v1"][1]]


class Lamp(gym.Env[np.ndarray, int]):
    """Its ``state``, two numbers in [0, 255], are the brightness of a frame's left and right half.

    ``how``: "moves" the left half every step, "still" never changes, "black", "grey", "floats" in its frames, "far"
    moves a column that a centre crop loses, "ends" after every third step, "none": no frame; "breaks", "types" and
    "runs" raise a KeyError, a TypeError and a RuntimeError when it renders.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's convention

    def __init__(self, how: str = "moves", render_mode: str | None = None) -> None:
        self.how, self.render_mode = how, render_mode
        self.observation_space, self.action_space = spaces.Box(0, 255, (2,), np.float64), spaces.Discrete(2)
        self.state, self.time, self.bulb = np.zeros(2), 0, None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.state, self.time = np.array([40.0, 200.0]), 0
        return self.state.copy(), {}

    def step(self, action: int):
        self.time += 1
        self.state[0] = (self.state[0] + 30) % 256
        return self.state.copy(), float(self.state[0]), self.how == "ends" and self.time == 3, False, {}

    def render(self) -> np.ndarray:
        if self.how == "breaks":
            raise KeyError("bulb")
        if self.how == "types":
            return self.bulb[0]
        if self.how == "runs":
            raise RuntimeError("no current")
        if self.how == "none":
            return None
        frame = np.full((40, 80, 3), 0 if self.how == "black" else 90, np.uint8)
        if self.how in ("black", "grey"):
            return frame
        if self.how == "far":
            frame[:, 2:8] = self.state[0]
            return frame
        frame[:, :40], frame[:, 40:] = 40 if self.how == "still" else self.state[0], self.state[1]
        return frame / 255 if self.how == "floats" else frame


class TextLamp(Lamp):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


class Blind(gym.Env[np.ndarray, int]):
    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)


def is_png(path: str) -> bool:
    return Path(path).read_bytes()[1:4] == b"PNG"


def cartpole_frame(degrees: float) -> np.ndarray:
    with gym.make("CartPole-v1", render_mode="rgb_array") as env:
        env.reset(seed=0)
        env.unwrapped.state = np.array([0.0, 0.0, np.deg2rad(degrees), 0.0])
        return env.render()


def rows_of(path: str) -> dict[str, np.ndarray]:
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def run_folder(folder: Path, env: str, model: Any, algo: Any = None) -> Path:
    """What a training leaves behind, as far as insight/ reads it; an untrained policy is one, too."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"env: {env}")
    described = {"control": "constant"} if model is None else {"recipe": model.recipe}
    (folder / "reward_model.json").write_text(json.dumps(described))
    if algo is None:
        import stable_baselines3 as sb3

        algo = sb3.PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=8, batch_size=8, seed=0, device="cpu")
    algo.save(folder / "policy.zip")
    return folder
