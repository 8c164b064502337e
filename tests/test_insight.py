"""The command line ``vlmrm-wrap``: what each sub-command prints, draws and keeps, and what it refuses."""

import csv
import dataclasses
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image
from tiny_clips import OPEN_CLIP_NAME, add_tiny_open_clip, tiny_state_dict

from vlmrm_wrap import CLIPRewardModel, FrameScores, load_encoder
from vlmrm_wrap.__main__ import main
from vlmrm_wrap.encoders.openai_clip import OpenAICLIPEncoder
from vlmrm_wrap.encoders.protocol import TwoTowers
from vlmrm_wrap.insight.checks import check_env_is_known
from vlmrm_wrap.insight.landscape import landscape
from vlmrm_wrap.insight.pictures import beside, draw_reward
from vlmrm_wrap.insight.recording import Recording
from vlmrm_wrap.insight.similarity import similarity
from vlmrm_wrap.insight.sweep import sweep
from vlmrm_wrap.insight.tables import rank_correlation

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
    moves a column that a centre crop loses, "ends" after every third step, "breaks" when it renders.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - gymnasium's convention

    def __init__(self, how: str = "moves", render_mode: str | None = None) -> None:
        self.how, self.render_mode = how, render_mode
        self.observation_space, self.action_space = spaces.Box(0, 255, (2,), np.float64), spaces.Discrete(2)
        self.state, self.time = np.zeros(2), 0

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


@pytest.fixture(autouse=True, scope="module")
def lamps():
    for how in ("moves", "still", "black", "grey", "floats", "far", "ends", "breaks"):
        gym.register(f"Lamp-{how}-v0", entry_point=Lamp, kwargs={"how": how}, disable_env_checker=True)
    gym.register("Lamp-text-v0", entry_point=TextLamp)
    gym.register("Blind-v0", entry_point=Blind)
    yield
    for name in [name for name in gym.registry if name.startswith(("Lamp-", "Blind-"))]:
        del gym.registry[name]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """``run(*arguments)``: exit status, stdout and stderr of ``vlmrm-wrap``, in this process, in a fresh folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as left:  # argparse's
            status = int(left.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the image batches that an encoder is given."""
    from vlmrm_wrap.encoders.protocol import TwoTowers

    sizes: list[int] = []
    encode = TwoTowers.encode_image
    monkeypatch.setattr(
        TwoTowers, "encode_image", lambda self, images: sizes.append(len(images)) or encode(self, images)
    )
    return sizes


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


# --- similarity ----------------------------------------------------------------------------------------------


def test_similarity_is_the_notebooks_softmax(run) -> None:
    frames = {"upright.png": cartpole_frame(0), "lying.png": cartpole_frame(90)[:, 20:-20]}
    for name, frame in frames.items():
        Image.fromarray(frame).save(name)
    texts = ["the pole is upright", "the pole is lying flat", "a car in the valley"]
    status, out, _ = run("similarity", *frames, "--text", *texts, "--output", "heat.png")
    assert status == 0
    assert is_png("heat.png")
    result = similarity(list(frames), texts)
    assert result.cosines.argmax(axis=1).tolist() == [0, 1]

    encoder = load_encoder("embedded")
    model = CLIPRewardModel(encoder, goal_prompts=texts[0], alpha=0.0)
    cosines = (
        np.stack([model.embed(frame[None])[0] for frame in frames.values()]) @ encoder.encode_text(texts).numpy().T
    )
    assert np.abs(result.cosines - cosines).max() < 1e-6
    weights = np.exp(encoder.logit_scale * cosines.astype(np.float64))
    assert np.abs(result.probabilities - weights / weights.sum(axis=1, keepdims=True)).max() < 1e-5
    assert result.first_ms > 0 < result.later_ms
    for name, row in zip(frames, result.cosines, strict=True):
        assert f"{name}" in out
        assert all(f"{value:.3f}" in out for value in row)


def test_similarity_names_words_that_were_not_learnt(run) -> None:
    Image.fromarray(cartpole_frame(0)).save("frame.png")
    _, out, _ = run("similarity", "frame.png", "--text", "a humanoid on the cart")
    assert "has not learnt: humanoid" in out


# --- landscape -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "measure"), [("CartPole-v1", 0.95), ("MountainCar-v0", 0.8), ("Pendulum-v1", 0.95), ("Acrobot-v1", 0.9)]
)
def test_a_classic_env_needs_no_more_than_prompts(run, encoded, env_id: str, measure: float) -> None:
    goal, baseline = PROMPTS[env_id]
    two = env_id == "Acrobot-v1"
    sweeps = ["--state", "theta1=-3:3:6", "theta2=-3:3:5"] if two else []  # 625 frames by default
    status, out, _ = run(
        "landscape", env_id, "--goal", goal, "--baseline", baseline, *sweeps, "--alpha", "0", "0.5", "1"
    )
    assert status == 0
    assert is_png("landscape.png")
    columns = rows_of("landscape.csv")
    n = 30 if two else 61
    assert {len(values) for values in columns.values()} == {n}
    assert sum(encoded) == n + 1  # one warm-up; three alphas cost no more than one
    assert max(encoded) == 16  # frames are not held until the end
    last = out.splitlines()[-2].split()
    assert last[0] == "1"
    assert float(last[-1]) > measure  # R rises with what the env is about

    model = CLIPRewardModel.from_pretrained("embedded", goal_prompts=goal, baseline_prompts=baseline)
    scores = FrameScores(
        *(columns[name].astype(np.float32) for name in ["goal_similarity"] * 2 + ["baseline_similarity"])
    )
    for alpha in (0.0, 0.5, 1.0):
        assert np.allclose(columns[f"reward_alpha_{alpha:g}"], model.rewards_at(alpha, scores), atol=1e-6)


class Brightness:
    """Reads a Lamp's two numbers from its frames; ``alpha`` mixes them."""

    encoder, recipe = None, None

    def score(self, frames: np.ndarray) -> FrameScores:
        left, right = (frames[:, 0, column, 0].astype(np.float32) for column in (0, -1))
        return FrameScores(left, left, right)

    def rewards_at(self, alpha: float, scores: FrameScores) -> np.ndarray:
        return ((1 - alpha) * scores.goal_similarity + alpha * scores.baseline_similarity).astype(np.float32)


def test_each_frame_shows_the_state_that_stands_beside_it() -> None:
    env = Lamp(render_mode="rgb_array")
    result = landscape(env, Brightness(), alphas=[0, 1], states=["0=10:250:5", "1=0:200:3"], against=["1", "0=130"])
    assert result.states.tolist() == [[a, b] for a in (10, 70, 130, 190, 250) for b in (0, 100, 200)]
    assert result.rewards[0].tolist() == result.states[:, 0].tolist()
    assert result.rewards[1].tolist() == result.states[:, 1].tolist()
    assert result.env_rewards.tolist() == [(state + 30) % 256 for state in result.states[:, 0]]
    assert [picture[0, 0, 0] for picture in result.thumbnails] == result.states[:, 0].tolist()
    assert result.correlations["1"][1] == pytest.approx(1)
    assert abs(result.correlations["0=130"][0]) < 1e-9  # symmetric about the target
    assert abs(result.correlations["1"][0]) < 1e-9


def test_the_other_variables_stay_where_the_reset_or_the_user_put_them() -> None:
    env = Lamp(render_mode="rgb_array")
    assert set(landscape(env, Brightness(), alphas=[0], states=["0=0:9:2"]).states[:, 1]) == {200}
    assert set(landscape(env, Brightness(), alphas=[0], states=["0=0:9:2", "1=7"]).scores.baseline_similarity) == {7}


def test_along_a_policy() -> None:
    env = Lamp("ends", render_mode="rgb_array")
    seen = []
    result = landscape(env, Brightness(), alphas=[0], policy=lambda obs: seen.append(obs[0]) or 0, steps=7)
    assert seen == [40, 70, 100, 40, 70, 100, 40]
    assert result.rewards[0].tolist() == [70, 100, 130, 70, 100, 130, 70]  # the frame after the step
    assert result.env_rewards.tolist() == result.rewards[0].tolist()
    assert result.states[:, 0].tolist() == result.rewards[0].tolist()
    assert result.starts == (3, 6)
    assert result.correlations["env reward"][0] == pytest.approx(1)


def test_mujoco_by_joint(run) -> None:
    pytest.importorskip("mujoco")
    status, out, _ = run(
        "landscape", "InvertedPendulum-v5", "--goal", "pole upright", "--baseline", "a pole", "--state", "hinge=-1:1:5",
        "slider=0.5", "--against", "hinge=0",
    )  # fmt: skip
    assert status == 0
    columns = rows_of("landscape.csv")
    assert columns["hinge"].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert set(columns["slider"]) == {0.5}
    assert len(set(columns["goal_similarity"])) == 5
    assert "~ hinge=0" in out
    assert "nothing else" not in out  # the embedded model has been taught it


def test_an_env_that_the_embedded_model_was_not_taught_is_told() -> None:
    clip = SimpleNamespace(name="embedded", metadata={"env_ids": '["CartPole-v1"]'})
    known, unknown = (SimpleNamespace(spec=SimpleNamespace(id=name)) for name in ("CartPole-v1", "Hopper-v5"))
    assert check_env_is_known(clip, known) == []
    assert "knows CartPole-v1 and nothing else" in check_env_is_known(clip, unknown)[0].message


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 8, 27, 64])) == pytest.approx(1)
    # ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(np.array([0, 5, 5, 9]), np.array([1, 3, 2, 4])) == pytest.approx((4.5 / 5) ** 0.5)
    assert np.isnan(rank_correlation(np.array([1, 2]), np.array([3, 3])))


# --- doctor --------------------------------------------------------------------------------------------------


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
    from vlmrm_wrap.insight import checks

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


# --- video and sweep -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scores.npz and video.mp4 of two short random episodes of CartPole."""
    folder = tmp_path_factory.mktemp("recorded")
    pytest.importorskip("moviepy")
    film = ["--output", str(folder / "video.mp4"), "--scores", str(folder / "scores.npz"), "--embeddings"]
    assert main(["video", "random", *CARTPOLE, "--episodes", "2", "--steps", "6", "--seed", "3", *film]) == 0
    return folder


def frames_of_the_recording() -> np.ndarray:
    with gym.make("CartPole-v1", render_mode="rgb_array") as env:
        env.action_space.seed(3)
        frames = []
        for seed in (3, 4):
            env.reset(seed=seed)
            for _ in range(6):
                env.step(env.action_space.sample())
                frames.append(env.render())
    return np.stack(frames)


def model_of(goal: str, baseline: str, alpha: float) -> CLIPRewardModel:
    return CLIPRewardModel.from_pretrained("embedded", goal_prompts=goal, baseline_prompts=baseline, alpha=alpha)


def test_a_recording_holds_the_episodes(recorded: Path) -> None:
    assert (recorded / "video.mp4").read_bytes()[4:8] == b"ftyp"
    recording = Recording.load(recorded / "scores.npz")
    model = model_of(*PROMPTS["CartPole-v1"], alpha=0.5)
    assert recording.episode.tolist() == [0] * 6 + [1] * 6
    assert recording.env_reward.tolist() == [1] * 12
    assert np.abs(recording.rewards - model(frames_of_the_recording())).max() < 1e-6
    assert recording.recipe == model.recipe
    assert recording.constants == model.constants


def test_a_sweep_over_alpha_encodes_nothing(recorded: Path, run, encoded) -> None:
    status, out, _ = run("sweep", recorded, "--alpha", "0", "0.5", "1", "--output", "sweep.png")
    assert (status, encoded) == (0, [])
    assert is_png("sweep.png")
    columns = rows_of("sweep.csv")
    assert np.allclose(columns["reward_alpha_0.5"], columns["reward_as_run"], atol=1e-6)
    frames = frames_of_the_recording()
    for alpha in (0, 1):
        assert np.abs(columns[f"reward_alpha_{alpha}"] - model_of(*PROMPTS["CartPole-v1"], alpha)(frames)).max() < 1e-6
    assert f"{columns['reward_alpha_1'].sum() / 2:.3f}" in out  # the return of an episode


def test_a_sweep_over_prompts_encodes_sentences_only(recorded: Path, encoded) -> None:
    result = sweep(recorded / "scores.npz", goal_prompts="the pole is lying flat")
    assert set(encoded) == {1}  # warm-ups
    expected = model_of("the pole is lying flat", PROMPTS["CartPole-v1"][1], 0.5)(frames_of_the_recording())
    assert np.abs(result.rewards[0.5] - expected).max() < 1e-6
    assert result.encoded == "sentences"


def test_embeddings_of_other_weights_are_refused(recorded: Path, tmp_path: Path) -> None:
    recording = Recording.load(recorded / "scores.npz")
    dataclasses.replace(recording, embeddings=recording.embeddings[:, ::-1]).save(tmp_path / "old.npz")
    with pytest.raises(ValueError, match="recorded with other weights of 'embedded'"):
        sweep(tmp_path / "old.npz", goal_prompts="the pole is lying flat")
    assert len(sweep(tmp_path / "old.npz").rewards) == 5  # alphas don't ask


def test_a_run_folder_acts_in_its_own_env_with_its_own_prompts(run, monkeypatch) -> None:
    """With statistics of observations and rescaled ones; random weights, for an untrained policy is one as well."""
    sb3 = pytest.importorskip("stable_baselines3")
    from vlmrm_wrap.insight.policies import load_policy, rescaled

    Path("run").mkdir()
    env = rescaled(gym.make("Pendulum-v1"))
    algo = sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu", clip_range=lambda left: 0.2 * left)
    algo.save("run/policy.zip")
    Path("run/policy.obs.json").write_text('{"mean": [0.5, 0, 0], "var": [4, 1, 1], "epsilon": 0, "clip": 0.2}')
    Path("run/config.yaml").write_text("env: {id: Pendulum-v1, kwargs: {g: 5.0}, rescale_obs: true}")
    model = model_of(*PROMPTS["Pendulum-v1"], alpha=0.25)
    Path("run/reward_model.json").write_text(json.dumps({"recipe": model.recipe, "constants": model.constants}))
    act = load_policy(Path("run/policy.zip"))
    scaled = np.array([0.2, -0.2, 0.1], np.float32)  # (0.9 - 0.5) / 2, clipped, as it is
    assert np.allclose(act(np.array([0.9, -0.3, 0.1])), algo.predict(scaled, deterministic=True)[0])

    status, _, err = run("video", "run", "--steps", "4", "--scores", "run/scores.npz")
    assert status == 0, err
    recording = Recording.load("run/scores.npz")
    assert recording.recipe == model.recipe
    with rescaled(gym.make("Pendulum-v1", g=5.0)) as own:
        obs, _ = own.reset(seed=0)
        paid = []
        for _ in range(4):
            obs, reward, *_ = own.step(act(obs))
            paid.append(reward)
    assert recording.env_reward.tolist() == pytest.approx(paid)
    status, _, err = run("sweep", "run", "--goal", "the pendulum hanging down")
    assert (status, "stores no embeddings" in err) == (2, True)


@pytest.mark.parametrize("name", ["A2C", "DQN", "SAC", "TD3"])
def test_the_algorithm_of_a_policy_is_found_out(name: str, tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from vlmrm_wrap.insight.policies import load_policy

    env = gym.make("CartPole-v1" if name in ("A2C", "DQN") else "Pendulum-v1")
    algo = getattr(sb3, name)("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    algo.save(tmp_path / "policy.zip")
    obs = env.observation_space.sample()
    assert np.allclose(load_policy(tmp_path / "policy.zip")(obs), algo.predict(obs, deterministic=True)[0])


def test_the_curve_ends_at_the_latest_reward() -> None:
    def dot(rewards: list[float]) -> tuple[float, float]:
        picture = draw_reward(np.zeros((41, 401, 3), np.uint8), rewards, "text")
        assert (picture.shape[0] % 2, picture.shape[1] % 2) == (0, 0)  # for the film's pixel format
        y, x = np.nonzero((picture == (220, 20, 60)).all(axis=-1))
        return x.mean(), y.mean()

    rising, falling, longer = dot([0.1, 0.5]), dot([0.5, 0.1]), dot([0.1] * 50 + [0.5])
    assert rising[1] == pytest.approx(longer[1])
    assert rising[1] < falling[1] - 20
    assert rising[0] < longer[0]


def test_what_clip_sees_stands_beside_the_frame() -> None:
    frame, shown = np.zeros((400, 600, 3), np.uint8), np.full((4, 4, 3), 200, np.uint8)
    shown[0, 0] = (1, 2, 3)
    picture = beside(frame, shown)
    assert picture.shape == (400, 1000, 3)
    assert (picture[:400, :600] == 0).all()
    assert (picture[50, 650] == (1, 2, 3)).all()
    assert (picture[350, 950] == 200).all()
    assert beside(np.zeros((40, 80, 3), np.uint8), None).shape == (160, 320, 3)  # wide enough for the text


# --- what encoders and models show of themselves --------------------------------------------------------------


def test_the_scale_of_logits_is_the_checkpoints(tmp_path: Path) -> None:
    weights = tiny_state_dict()
    weights["logit_scale"].fill_(np.log(37.0))
    assert OpenAICLIPEncoder(weights, name="tiny").logit_scale == pytest.approx(37)
    assert TwoTowers.logit_scale == 100
    pytest.importorskip("open_clip")
    path = add_tiny_open_clip(tmp_path)
    state = torch.load(path, weights_only=True)
    state["logit_scale"].fill_(np.log(23.0))
    torch.save(state, path)
    assert load_encoder(f"open_clip:{OPEN_CLIP_NAME}/{path}").logit_scale == pytest.approx(23)


def test_embeddings_score_as_their_frames_do() -> None:
    model = model_of(*PROMPTS["CartPole-v1"], alpha=0.5)
    frames = np.stack([cartpole_frame(degrees) for degrees in (0, 20, -50)])
    embeddings = model.embed(frames)
    assert (embeddings.shape, embeddings.dtype) == ((3, 128), np.float32)
    for ours, theirs in zip(model.score_embeddings(embeddings), model.score(frames), strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"\(n, 128\).*\(3, 7\)"):
        model.score_embeddings(embeddings[:, :7])


def test_a_preview_is_what_the_encoder_gets(monkeypatch) -> None:
    model = CLIPRewardModel.from_pretrained("embedded", goal_prompts="a pole", alpha=0, resize_mode="crop")
    frames = np.stack([cartpole_frame(degrees) for degrees in (0, 70)])
    given = []
    monkeypatch.setattr(model.encoder, "encode_image", lambda images: given.append(images) or torch.zeros(2, 128))
    model.embed(frames)
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (model.encoder.mean, model.encoder.std))
    pixels = ((given[0].numpy() * std + mean) * 255).round().astype(np.uint8)
    assert np.array_equal(model.preview(frames), pixels.transpose(0, 2, 3, 1))


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["landscape", "CartPoel-v1", *CARTPOLE[1:]], "CartPole"),
        (["landscape", "Blind-v0", *CARTPOLE[1:]], "takes no render_mode"),
        (["landscape", *CARTPOLE, "--env-kwargs", '{"gravitas": 1}'], "gravitas"),
        (["landscape", "CartPole-v1", "--goal", " ", "--baseline", "cart"], "empty sentence"),
        (["landscape", "CartPole-v1", "--goal", "a cart", "--baseline", "A  cart"], "goal and baseline are the same"),
        (["landscape", *CARTPOLE, "--alpha", "1.5"], "[0, 1]"),
        (["landscape", *CARTPOLE, "--state", "angle=0:1"], "x, x_dot, theta, theta_dot"),
        (["landscape", *CARTPOLE, "--state", "theta=0.1"], "required: one or two"),
        (["landscape", *CARTPOLE, "--state", "theta=low:1"], "finite number"),
        (["landscape", *CARTPOLE, "--state", "theta=0:1:1"], "NAME=LOW:HIGH:COUNT"),
        (["landscape", *CARTPOLE, "--state", "theta=0:1", "--policy", "random"], "one of them"),
        (["landscape", *CARTPOLE, "--output", "picture.doc"], "'doc'"),
        (["landscape", *CARTPOLE, "--output", "missing/picture.png"], "there is no folder missing"),
        (["landscape", *CARTPOLE, "--alpha", "half"], "'half' (vlmrm-wrap landscape --help)"),
        (["landscape", *CARTPOLE, "--seed", "-1"], "a whole number of at least 0"),
        (["landscape", "Lamp-text-v0", "--goal", "a lamp"], "renders 'ansi'; required: 'rgb_array'"),
        (["landscape", "Lamp-breaks-v0", "--goal", "a lamp"], "KeyError: 'bulb' (vlmrm-wrap --traceback"),
        (["doctor", *CARTPOLE, "--output", "missing/doctor.png"], "there is no folder missing"),
        (["doctor", *CARTPOLE, "--output", "doctor.doc"], "no name of a picture"),
        (["doctor", *CARTPOLE, "--output", "."], "no name of a picture"),
        (["video", "random", *CARTPOLE, "--output", "missing/film.mp4"], "there is no folder missing"),
        (["video", "random", *CARTPOLE, "--scores", "missing/s.npz"], "there is no folder missing"),
        (["similarity", "missing.png", "--text", "a", "--output", "missing/heat.png"], "there is no folder missing"),
        (["doctor", "CartPole-v1", "--goal", ""], "required: a goal"),
        (["doctor", *CARTPOLE, "--encoder", "ViT-B/23"], "ViT-B/32"),
        (["similarity", "missing.png", "--text", "a"], "missing.png can't be read"),
        (["similarity", __file__, "--text", "a"], "not a picture"),
        (["sweep", "missing"], "no recorded scores"),
        (["sweep", "."], "no run folder"),
        (["landscape", *CARTPOLE, "--env-kwargs", '{"render_mode": "human"}'], "is set for you"),
        (["sweep", __file__], "holds no recorded scores"),
        (["video", "random", "CartPole-v1"], "--goal"),
        (["video", "random", *CARTPOLE, "--output", "film.gif"], ".mp4"),
        (["video", __file__, *CARTPOLE], "no policy"),
        (["video", "missing.zip", *CARTPOLE], "missing.zip"),
        (["video", ".", *CARTPOLE], "no run folder"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    assert err.count("\n") == 1 or "Warning" in err
    assert words in line


def test_ctrl_c_is_one_word(run, monkeypatch) -> None:
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmrm_wrap.insight.commands.landscape", interrupted)
    assert run("landscape", *CARTPOLE) == (130, "", "interrupted\n")


def test_without_matplotlib_or_moviepy_the_pip_line_is_told(run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ffmpeg_writer", None)
    for command in (["landscape", *CARTPOLE], ["video", "random", *CARTPOLE]):
        status, _, err = run(*command)
        assert (status, 'pip install "vlmrm-wrap[train]"' in err) == (2, True)


def test_a_bug_keeps_its_traceback_on_request(run) -> None:
    with pytest.raises(gym.error.NameNotFound):
        main(["--traceback", "landscape", "CartPoel-v1", *CARTPOLE[1:]])


def test_the_command_line_itself() -> None:
    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"] == {"vlmrm-wrap": "vlmrm_wrap.__main__:main"}
    command = [sys.executable, "-m", "vlmrm_wrap"]
    done = subprocess.run(
        [*command, "landscape", "CartPoel-v1", "--goal", "a"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: Environment `CartPoel` doesn't exist. Did you mean: `CartPole`?\n"
    helped = subprocess.run([*command, "doctor", "--help"], capture_output=True, text=True, check=True).stdout
    assert "the exit status is 1 if there are errors" in " ".join(helped.split())
