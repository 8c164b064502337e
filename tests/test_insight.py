"""The command line ``vlmrm-wrap``: what each sub-command prints, draws and keeps, and what it refuses."""

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from insights import CARTPOLE, PROMPTS, cartpole_frame, is_png, rows_of
from PIL import Image
from tiny_clips import OPEN_CLIP_NAME, add_tiny_open_clip, tiny_state_dict

from vlmrm_wrap import CLIPRewardModel, load_encoder
from vlmrm_wrap.__main__ import _parser, main
from vlmrm_wrap.encoders.openai_clip import OpenAICLIPEncoder
from vlmrm_wrap.encoders.protocol import TwoTowers
from vlmrm_wrap.insight.pictures import beside, draw_reward
from vlmrm_wrap.insight.plotting import save_heat_maps
from vlmrm_wrap.insight.recording import Recording
from vlmrm_wrap.insight.similarity import read_image, similarity
from vlmrm_wrap.insight.sweep import sweep

pytestmark = pytest.mark.usefixtures("lamps")


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


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_of_16_bits_is_the_one_of_8(tmp_path: Path, bits: int) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels if bits == 8 else levels.astype(np.uint16) * 257).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), levels[..., None].repeat(3, axis=2))


def test_a_picture_of_32_bits_is_refused(run) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save("floats.tiff")
    status, _, err = run("similarity", "floats.tiff", "--text", "a")
    assert (status, "floats.tiff has pixels of 32 bits" in err) == (2, True)


def test_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder, name in (("a", "x.png"), ("b", "x.png"), ("b", "y.png"))]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    frame = np.zeros((8, 8, 3), np.uint8)
    assert similarity([*paths, frame], ["a"]).names == (str(paths[0]), str(paths[1]), "y.png", "image 4")


@pytest.mark.parametrize(("values", "colour"), [([[1.0]], 0.5), ([[0.3, 0.3]], 0.5), ([[0.1, 0.2]], 0.0)])
def test_a_heat_map_of_one_number_is_of_a_middle_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[list[float]], colour: float
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    shown, imshow = [], Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda *args, **how: shown.append(how) or imshow(*args, **how))
    save_heat_maps(tmp_path / "heat.png", ["a"], ["b"] * len(values[0]), {"cosine": np.array(values)})
    low, high = shown[0]["vmin"], shown[0]["vmax"]
    assert (values[0][0] - low) / (high - low) == colour


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
        (["video", "random", "CartPole-v1"], "--goal is missing"),
        (["video", "random", "--goal", "a pole", "CartPole-v1"], "ENV is missing, which goes before"),
        (["video", "random", *CARTPOLE, "--embeddings"], "--embeddings is given without --scores"),
        (["doctor", "--goal", "a", "--baseline", "b", "CartPole-v1"], "ENV; before options such as --goal"),
        (["doctor", "CartPole-v1"], "are required: --goal (vlmrm-wrap doctor --help)"),
        (["doctor", *CARTPOLE, "--steps", "1"], "required: at least 2"),
        (["landscape", *CARTPOLE, "--fast-mujoco"], "has no mujoco_renderer"),
        (["landscape", "Lamp-types-v0", "--goal", "a lamp"], "TypeError: 'NoneType' object is not subscriptable (vlm"),
        (["landscape", "Lamp-runs-v0", "--goal", "a lamp"], "RuntimeError: no current (vlmrm-wrap --traceback"),
        (["landscape", "Lamp-none-v0", "--goal", "a lamp"], "render() returned NoneType; required: a uint8 array"),
        (["video", "random", *CARTPOLE, "--output", "film.gif"], ".mp4"),
        (["video", __file__, *CARTPOLE], "no policy"),
        (["video", "missing.zip", *CARTPOLE], "there is no missing.zip; required: random, a policy's file, or a run"),
        (["video", "missing"], "there is no missing; required: random"),
        (["video", ".", *CARTPOLE], "no run folder"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    assert err.count("\n") == 1
    assert words in line


def test_a_long_prompt_is_not_told_whole(run) -> None:
    Image.fromarray(cartpole_frame(0)).save("frame.png")
    for command in (["similarity", "frame.png", "--text"], ["landscape", "CartPole-v1", "--goal"]):
        status, _, err = run(*command, "pole " * 90)
        assert (status, "has 92 tokens" in err, len(err) < 200) == (2, True, True), err


def test_options_with_several_values_may_be_repeated() -> None:
    options = _parser().parse_args(["doctor", "CartPole-v1", "--goal", "a", "b", "--goal", "c", "--baseline", "d"])
    assert (options.goal, options.baseline) == (["a", "b", "c"], ["d"])


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
