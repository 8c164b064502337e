"""What the doctor finds, and what it does not."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from insights import CARTPOLE, PROMPTS, Lamp
from PIL import Image

from vlmrm_wrap import load_encoder
from vlmrm_wrap.insight import checks
from vlmrm_wrap.insight.doctor import doctor
from vlmrm_wrap.insight.states import env_states

pytestmark = pytest.mark.usefixtures("lamps")


def test_a_healthy_task(run) -> None:
    status, out, _ = run("doctor", *CARTPOLE, "--horizon", "50", "--steps", "60")
    assert status == 0, out
    assert "0 errors, 0 warnings" in out
    assert "with 8 async envs" in out
    with Image.open("doctor.png") as picture:
        assert picture.size == (600 + 400, 420)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*CARTPOLE, "--steps", "60"], ["ends", "episodes terminated in 60", "--horizon 200"]),
        ([*CARTPOLE[:3], "--baseline", PROMPTS["CartPole-v1"][0].upper()], ["prompts", "the same", "without the goal"]),
        (["CartPole-v1", "--goal", "pole " * 90, "--baseline", "cart"], ["92 tokens", "at most 77", "shorten"]),
        (["Lamp-still-v0", "--goal", "pole upright"], ["frames", "the same to the bit", "turn the camera"]),
        (["Lamp-black-v0", "--goal", "pole upright"], ["frames", "are black"]),
        (["Lamp-grey-v0", "--goal", "pole upright"], ["frames", "one colour"]),
        (["Lamp-floats-v0", "--goal", "pole upright"], ["frames", "float64", "uint8"]),
        (["Lamp-far-v0", "--goal", "pole upright", "--resize-mode", "crop"], ["crop", "100% of what moves", "squash"]),
        (["Lamp-ends-v0", "--goal", "pole upright"], ["ends", "pays, whatever the words say"]),
    ],
)  # fmt: skip
def test_the_doctor_finds(run, arguments: list[str], words: list[str]) -> None:
    status, out, _ = run("doctor", *arguments, *([] if "--steps" in arguments else ["--steps", "12"]))
    assert status == 1
    lines = out.splitlines()
    found = [" ".join(lines[i : i + 2]) for i, line in enumerate(lines) if line.startswith("error")]
    assert any(all(word in finding for word in words) for finding in found), out


@pytest.mark.parametrize("env_id", ["MountainCar-v0", "Acrobot-v1"])
def test_the_doctor_knows_of_an_end_that_random_steps_do_not_reach(run, env_id: str) -> None:
    goal, baseline = PROMPTS[env_id]
    arguments = ("doctor", env_id, "--goal", goal, "--baseline", baseline, "--steps", "12")
    status, out, _ = run(*arguments)
    assert status == 1
    assert "no episode terminated in 12 random steps, but the env does terminate (" in out
    if env_id == "MountainCar-v0":
        assert "position 0.60" in out
        assert run(*arguments, "--horizon", "40")[0] == 0, "FixedHorizon never terminates"


@pytest.mark.parametrize("how", ["moves", "far"])
def test_the_doctor_sees_no_error_where_there_is_none(run, how: str) -> None:
    status, out, _ = run("doctor", f"Lamp-{how}-v0", "--goal", "pole upright", "--steps", "12")
    assert status == 0
    assert "here its rewards mean nothing" in out  # the embedded model has never seen a lamp


def test_the_doctor_names_words_noise_and_a_software_renderer(monkeypatch) -> None:
    embedded = load_encoder("embedded")
    unknown, _ = checks.check_prompts(embedded, ["a humanoid kneeling"], ["a cart"], 0.5)
    assert (unknown.severity, "'humanoid', 'kneeling'" in unknown.message) == ("warning", True)
    rewards = np.array([0.5, 0.6, 0.7])
    assert checks.check_spread(rewards, 1e-7, None, "float32").severity == "ok"
    assert checks.check_spread(rewards, 1e-7, 2e-2, "bfloat16").severity == "warning"
    assert checks.check_spread(rewards, 1e-7, 2e-1, "bfloat16").severity == "error"
    assert checks.check_spread(rewards, 2e-1, None, "float32").severity == "error"
    assert "to survive pays" in checks.check_ends(9, 2, 0.1).message
    assert "to end early pays" in checks.check_ends(9, 2, -0.1).message
    assert checks.check_renderer("llvmpipe", fast=True).severity == "ok"
    assert "to survive, or with negative rewards to end early, pays" in checks.check_ends(9, 2, None).message
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8).repeat(4, axis=0)
    frames[:, 0, 0] = np.arange(0, 200, 50)[:, None]  # one pixel of 4096
    assert "hardly changes" in checks.check_motion(frames, frames).message
    frames[:, 0, :9] = np.arange(0, 200, 50)[:, None, None]
    assert checks.check_motion(frames, frames).severity == "ok"
    assert checks.check_renderer("llvmpipe (LLVM 15.0.6, 256 bits)").severity == "warning"
    assert checks.check_renderer("NVIDIA H100 PCIe/PCIe/SSE2").severity == "ok"


def test_the_doctor_times_and_compares_without_a_cache(run, encoded) -> None:
    run("doctor", *CARTPOLE, "--steps", "12")
    # each frame once more, alone, for the noise of the batch size, and each timing is of an encoding
    assert encoded.count(1) > 12
    assert encoded.count(8) >= 2


def test_the_doctor_asks_mujocos_opengl(run) -> None:
    pytest.importorskip("mujoco")
    _, out, _ = run("doctor", "InvertedPendulum-v5", "--goal", "pole upright", "--baseline", "a pole", "--steps", "8")
    line = next(line for line in out.splitlines() if " renderer " in line)
    assert "OpenGL draws" in line
    assert "unknown" not in line


# --- does the camera see it? ---------------------------------------------------------------------------------


class Seen(gym.Wrapper):
    """CartPole as ``how`` shows it: "clock", a bar that moves every step, "noise", both anew each time, "far" away."""

    def __init__(self, env: gym.Env, how: str, cart: bool = False) -> None:
        super().__init__(env)
        self.how, self.cart, self.time, self.rng = how, cart, 0, np.random.default_rng(0)

    def step(self, action: int):
        self.time += 1
        return self.env.step(action)

    def render(self) -> np.ndarray:
        frame = self.env.render()
        if not self.cart:
            tiny = frame.reshape(10, 40, 15, 40, 3).mean(axis=(1, 3))
            frame = np.full_like(frame, 255)
            if self.how == "far":
                frame[200:210, 300:315] = tiny
        if self.how == "clock":
            frame[20:80, 7 * self.time % 500 :][:, :60] = 0
        elif self.how == "noise":
            frame[:100] = self.rng.integers(0, 256, (100, 600, 3))
        return frame


class Stateless(gym.Env):
    """As :class:`Seen`, with a place that nobody can set: a bar moves, unless ``blind``, and the rest may be noise."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space, action_space, render_mode = gym.spaces.Box(0, 9, (1,)), gym.spaces.Discrete(2), "rgb_array"

    def __init__(self, blind: bool, noise: bool) -> None:
        self.blind, self.noise, self.rng, self.place = blind, noise, np.random.default_rng(0), 0

    def reset(self, *, seed: int | None = None, options: Any = None):
        self.place = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int):
        self.place = (self.place + 1) % 10
        return np.array([self.place], np.float32), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        frame = np.full((64, 64, 3), 200, np.uint8)
        if self.noise:
            frame[:32] = self.rng.integers(0, 256, (32, 64, 3))
        if not self.blind:
            frame[40:50, 6 * self.place :][:, :6] = 0
        return frame


def frames_finding(env: gym.Env) -> checks.Finding:
    found = doctor(env, goal_prompts="pole upright", alpha=0.0, steps=12).findings
    return next(finding for finding in found if finding.about == "frames")


@pytest.mark.parametrize("how", ["clock", "noise", "far"])
def test_a_camera_that_does_not_see_the_state_is_an_error_whatever_else_moves(how: str) -> None:
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    found = frames_finding(Seen(env, how))
    assert (found.severity, "0.00% of the 64 x 64 pixels" in found.message) == ("error", True), found
    assert frames_finding(Seen(env, how, cart=True)).severity == "ok"


@pytest.mark.parametrize("noise", [False, True])
def test_where_no_state_can_be_set_noise_is_told_from_what_steps_change(noise: bool) -> None:
    assert frames_finding(Stateless(blind=False, noise=noise)).severity == "ok"
    assert frames_finding(Stateless(blind=True, noise=noise)).severity == "error"


def test_a_state_of_the_users_own_counts_if_the_env_goes_on_from_it() -> None:
    class Clock(Lamp):
        def render(self) -> np.ndarray:
            frame = np.full((64, 64, 3), 90, np.uint8)
            frame[:, 5 * self.time % 60 :][:, :4] = 250
            return frame

    class Copy(Clock):  # its state is a copy for others to read
        def step(self, action: int):
            self.state = np.array([float(self.time), 0.0])
            return np.array([float(self.time), 0.0]), *super().step(action)[1:]

    class Chance(Clock):  # nobody knows what comes of its state
        def step(self, action: int):
            rest = super().step(action)[1:]
            return np.random.default_rng().random(2), *rest

    found = frames_finding(Clock(render_mode="rgb_array"))
    assert (found.severity, "does not see the env's state" in found.message) == ("error", True)
    assert frames_finding(Copy(render_mode="rgb_array")).severity == "ok"
    assert frames_finding(Chance(render_mode="rgb_array")).severity == "ok"


@pytest.mark.parametrize(("env_id", "count"), [("CartPole-v1", 3), ("Acrobot-v1", 9), ("InvertedPendulum-v5", 3)])
def test_states_that_are_far_apart(env_id: str, count: int) -> None:
    if env_id.endswith("-v5"):
        pytest.importorskip("mujoco")
    env = gym.make(env_id)
    env.reset(seed=0)
    space = env_states(env)
    assert space.far_apart.shape == (count, len(space.names))
    assert np.ptp(space.far_apart, axis=0).max() > 0.9


# --- it looks at everything ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["CartPole-v1", "--goal", "pole " * 90, "--baseline", "cart", "--steps", "60"], {"reward"}),
        (["Lamp-floats-v0", "--goal", "pole upright"], {"crop", "reward"}),
        (["Lamp-still-v0", "--goal", "pole upright"], {"reward"}),
    ],
)
def test_an_error_does_not_end_the_looking(run, arguments: list[str], missing: set[str]) -> None:
    _, out, _ = run("doctor", *arguments)
    about = {line.split()[1] for line in out.splitlines() if line.startswith(("ok ", "warning ", "error "))}
    assert {"prompts", "frames", "crop", "renderer", "reward", "ends"} - about == missing
    times = next(line for line in out.splitlines() if line.startswith("ms "))
    assert ("encode_batch" in times) == (missing == {"reward"})
    if "CartPole-v1" in arguments:
        assert "terminated in 60 random steps: to survive, or with negative rewards" in out


@pytest.mark.parametrize(("steps", "frames"), [(2, 2), (31, 31), (33, 32), (200, 32)])
def test_as_many_frames_as_it_says_from_the_first_step_to_the_last(steps: int, frames: int) -> None:
    env = Lamp(render_mode="rgb_array")
    render, times = env.render, []
    env.render = lambda: times.append(env.time) or render()
    found = doctor(env, goal_prompts="pole upright", alpha=0.0, steps=steps).findings
    assert any(f"{frames} frames of 80 x 40" in finding.message for finding in found)
    seen = times[:frames]
    assert (seen[0], seen[-1]) == (1, steps)
    assert set(np.diff(seen)) <= {steps // frames, -(-steps // frames)}


def test_one_step_is_too_few() -> None:
    with pytest.raises(ValueError, match="steps is 1; required: at least 2"):
        doctor(Lamp(render_mode="rgb_array"), goal_prompts="pole upright", alpha=0.0, steps=1)
