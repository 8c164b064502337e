"""The shipped embedded CLIP: its file, its vocabulary, and what it knows about the classic envs.

Frames come from the envs and go through PIL, a road that neither training nor the library takes.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from vlmrm_wrap import goal_baseline_reward
from vlmrm_wrap.encoders.embedded import EmbeddedCLIPEncoder, _expanded, load_embedded
from vlmrm_wrap.encoders.openai_clip import import_clip

REPOSITORY = Path(__file__).parents[1]
ASSET = REPOSITORY / "vlmrm_wrap/encoders/assets/embedded_clip.safetensors"
SCRIPTS = REPOSITORY / "experiments/embedded_clip"

PRESETS = {
    "CartPole-v1": ("pole vertically upright on top of the cart", "pole and cart"),
    "MountainCar-v0": (
        "a car at the peak of the mountain, next to the yellow flag",
        "a car in the mountain",
    ),
    "Pendulum-v1": ("the pendulum pointing straight up", "a pendulum"),
    "Acrobot-v1": ("the two-link arm swung up high above the line", "a two-link arm"),
}
PRESETS["MountainCarContinuous-v0"] = PRESETS["MountainCar-v0"]


@cache
def encoder() -> EmbeddedCLIPEncoder:
    return load_embedded("cpu", "float32")


@cache
def asset() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(ASSET, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def embed_states(env_id: str, states: np.ndarray) -> torch.Tensor:
    """Unit embeddings of the frames that the env draws for these values of its `state`."""
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    images = []
    for state in states:
        env.unwrapped.state = state
        if env_id == "Pendulum-v1":
            env.unwrapped.last_u = 1.0  # after the first step the torque is drawn as an arrow
        picture = Image.fromarray(np.asarray(env.render()))
        images.append(np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR)))
    env.close()
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(encoder().mean), torch.tensor(encoder().std)
    return encoder().encode_image((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))


@cache
def sample(env_id: str) -> tuple[np.ndarray, torch.Tensor]:
    """States drawn at random, and the embeddings of their frames."""
    rng, zeros = np.random.default_rng(0), np.zeros((100, 2))
    if env_id == "CartPole-v1":
        degrees = np.concatenate([rng.uniform(-15, 15, 50), rng.uniform(-180, 180, 50)])
        states = cartpole(rng.uniform(-2.3, 2.3, 100), degrees)
    elif env_id == "Pendulum-v1":
        states = np.stack([rng.uniform(-np.pi, np.pi, 100), zeros[:, 0]], axis=1)
    elif env_id == "Acrobot-v1":
        states = np.concatenate([rng.uniform(-np.pi, np.pi, (100, 2)), zeros], axis=1)
    else:
        states = np.stack([np.linspace(-0.52, 0.45, 100), zeros[:, 0]], axis=1)
    return states, embed_states(env_id, states)


def preset_rewards(env_id: str, embeddings: torch.Tensor, alpha: float) -> np.ndarray:
    goal, baseline = encoder().encode_text(list(PRESETS[env_id]))
    return goal_baseline_reward(embeddings, goal, baseline, alpha).numpy()


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def cartpole(x: np.ndarray | float, degrees: np.ndarray | float) -> np.ndarray:
    x, theta = np.broadcast_arrays(x, np.deg2rad(degrees))
    return np.stack([x, np.zeros_like(x), theta, np.zeros_like(x)], axis=-1).astype(float)


class TestFile:
    def test_is_small_half_precision_and_finite(self):
        tensors, _ = asset()
        assert ASSET.stat().st_size <= 6_000_000
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.int32}
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())

    def test_names_its_preprocessing_and_where_it_comes_from(self):
        _, metadata = asset()
        assert encoder().interpolation == metadata["interpolation"] == "bilinear"
        assert encoder().resize_mode == metadata["resize_mode"] == "squash"
        assert list(encoder().std) == json.loads(metadata["std"])
        assert set(json.loads(metadata["env_ids"])) >= set(PRESETS)
        assert int(metadata["steps"]) > 0
        assert int(metadata["seed"]) >= 0

    def test_openai_derives_the_sizes(self):
        assert encoder().image_size == 64
        assert encoder().embed_dim == 128
        assert encoder().context_length == 77

    def test_unknown_tokens_share_one_embedding_and_known_ones_keep_theirs(self):
        tensors, _ = asset()
        table = encoder()._model.token_embedding.weight
        compact, ids = tensors["token_embedding.weight"].float(), tensors["token_ids"].long()
        assert ids[-1] == 49407
        assert torch.equal(table[ids], compact[1:])
        unknown = torch.ones(49408, dtype=torch.bool)
        unknown[ids] = False
        assert torch.equal(table[unknown], compact[:1].expand(int(unknown.sum()), -1))

    def test_texts_are_read_as_clip_reads_them(self):
        clip = import_clip()
        texts = [sentence for pair in PRESETS.values() for sentence in pair]
        theirs = clip.model.build_model(_expanded(asset()[0])).float()  # the file is in half precision as well
        with torch.inference_mode():
            expected = theirs.encode_text(clip.tokenize(texts))
        expected = expected / expected.norm(dim=1, keepdim=True)
        assert torch.allclose(encoder().encode_text(texts), expected, atol=1e-6)

    def test_another_format_or_a_damaged_table_is_refused(self):
        tensors, metadata = asset()
        with pytest.raises(ValueError, match="format_version '99'"):
            EmbeddedCLIPEncoder(tensors, metadata | {"format_version": "99"}, device="cpu")
        short = tensors | {"token_ids": tensors["token_ids"][:-1]}
        with pytest.raises(ValueError, match="damaged"):
            EmbeddedCLIPEncoder(short, metadata, device="cpu")


class TestWords:
    @pytest.mark.parametrize("sentence", sorted({s for pair in PRESETS.values() for s in pair}))
    def test_presets_are_known(self, sentence: str):
        assert encoder().unknown_words(sentence) == []

    @pytest.mark.parametrize(
        ("text", "unknown"),
        [
            ("", []),
            ("The Pole is UPRIGHT, on top of the cart's wheels!", []),
            ("a pole tilted 30 degrees to the left", []),
            ("a humanoid robot kneeling", ["humanoid", "kneeling"]),
            ("the pole isn't upright, and has not fallen", []),
            ("Xyzzy foo, xyzzy pole", ["xyzzy", "foo"]),
            ("un pôle über dem Wagen", ["un", "pôle", "über", "dem", "wagen"]),
            ("a two-link arm", []),
            ("a seventeen-link arm", ["seventeen"]),
            ("a pole 🚀", ["🚀"]),
        ],
    )
    def test_names_unknown_content_words_in_order(self, text: str, unknown: list[str]):
        assert encoder().unknown_words(text) == unknown

    def test_every_trained_wording_is_known(self, scripts: SimpleNamespace):
        """`taught_words` is written by the training script and read by the package: each has its idea of a word."""
        for family in scripts.FAMILIES:
            trained = scripts.phrases(family).trained
            texts = [re.sub(r"{\w+}", "", wording) for section in trained.values() for wording in section]
            assert [word for text in texts for word in encoder().unknown_words(text)] == []

    def test_unknown_words_are_told_apart_by_nothing(self):
        """Otter and tiger are one token each; a longer word would shift what follows."""
        first, second = encoder().encode_text(["the otter pole", "the tiger pole"])
        assert torch.equal(first, second)
        assert not torch.equal(first, encoder().encode_text(["the upright pole"])[0])


class TestReward:
    """Thresholds lie a little under what the model card reports: these samples are small."""

    @pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize(
        ("env_id", "quantity", "at_least"),
        [
            ("CartPole-v1", lambda s: -np.abs(s[:, 2]), 0.95),
            ("MountainCar-v0", lambda s: s[:, 0], 0.95),
            ("MountainCarContinuous-v0", lambda s: s[:, 0], 0.95),
            ("Pendulum-v1", lambda s: -np.abs(s[:, 0]), 0.96),
            ("Acrobot-v1", lambda s: -np.cos(s[:, 0]) - np.cos(s[:, 0] + s[:, 1]), 0.95),
        ],
    )
    def test_grows_with_what_the_preset_says(
        self, env_id: str, quantity: Callable[[np.ndarray], np.ndarray], at_least: float, alpha: float
    ):
        states, embeddings = sample(env_id)
        assert spearman(preset_rewards(env_id, embeddings, alpha), quantity(states)) >= at_least

    def test_cartpole_falls_all_the_way_and_ignores_the_cart(self):
        degrees = np.repeat([0, 6, 12, 25, 50, 90, 175], 5)
        states = cartpole(np.tile(np.linspace(-2.2, 2.2, 5), 7), degrees)
        embeddings = embed_states("CartPole-v1", states)
        reward = preset_rewards("CartPole-v1", embeddings, 0.5).reshape(7, 5)
        assert (np.diff(reward.mean(axis=1)) < 0).all()
        assert reward[0].min() > reward[2].max()  # upright anywhere beats 12 degrees anywhere

    def test_mountain_car_is_best_at_the_flag_and_flat_on_the_left_hill(self):
        x = np.array([-1.15, -0.95, -0.75, -0.52, 0.0, 0.47, 0.55, 0.6])
        embeddings = embed_states("MountainCarContinuous-v0", np.stack([x, np.zeros(8)], axis=1))
        reward = preset_rewards("MountainCarContinuous-v0", embeddings, 0.5)
        climb = reward[5] - reward[3]
        assert climb > 0.1
        assert reward[5] - reward[6:].min() < 0.1 * climb
        assert np.ptp(reward[:4]) < 0.25 * climb

    @pytest.mark.parametrize(
        ("env_id", "said", "denied", "states"),
        [
            ("CartPole-v1", "the pole is upright", "the pole is not upright", cartpole([-1, 0, 1], [0, 1, -1])),
            ("CartPole-v1", "the stick has fallen over", "the stick has not fallen over", cartpole(0, [80, -90, 95])),
            ("Pendulum-v1", "the rod hangs down", "the rod isn't hanging down", np.array([[3.1, 0], [-3.0, 0]])),
        ],
    )
    def test_negation_turns_the_order_round(self, env_id: str, said: str, denied: str, states: np.ndarray):
        cosine = embed_states(env_id, states) @ encoder().encode_text([said, denied]).T
        assert (cosine[:, 0] > cosine[:, 1] + 0.05).all()

    @pytest.mark.parametrize(
        ("left", "right", "states"),
        [
            ("the cart is on the left", "the cart is on the right", cartpole([-1.6, 1.6], 0)),
            ("pole leaning to the left", "pole leaning to the right", cartpole(0, [-12, 12])),
        ],
    )
    def test_tells_left_from_right(self, left: str, right: str, states: np.ndarray):
        cosine = embed_states("CartPole-v1", states) @ encoder().encode_text([left, right]).T
        assert cosine[0, 0] > cosine[0, 1] + 0.1
        assert cosine[1, 1] > cosine[1, 0] + 0.1

    @pytest.mark.parametrize("env_id", sorted(set(PRESETS) - {"MountainCarContinuous-v0"}))
    def test_knows_which_world_it_sees(self, env_id: str):
        env = gym.make(env_id, render_mode="rgb_array")
        env.reset(seed=3)
        states = np.asarray(env.unwrapped.state)[None]
        env.close()
        names = {"CartPole-v1": "pole and cart", "MountainCar-v0": "a car in the mountain"}
        names |= {"Pendulum-v1": "a pendulum", "Acrobot-v1": "a two-link arm"}
        cosine = embed_states(env_id, states) @ encoder().encode_text(list(names.values())).T
        assert list(names)[int(cosine.argmax())] == env_id


def start(script: str, *arguments: str, hash_seed: int = 0) -> subprocess.Popen[str]:
    """One of the model card's commands, made tiny."""
    return subprocess.Popen(
        [sys.executable, "-B", str(SCRIPTS / script), *arguments],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    return out


def test_training_repeats_itself(tmp_path: Path):
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    tiny = ("--steps", "8", "--frames", "0.001", "--out")
    runs = [start("train.py", *tiny, str(out), hash_seed=i) for i, out in enumerate(files)]
    for output in map(output_of, runs):
        assert "read     6/6" in output
        assert "see     2/2" in output
    first, second = (out.read_bytes() for out in files)
    assert first == second
    _, metadata = asset()
    with safe_open(files[0], framework="pt") as file:  # the shipped words are the grammar's
        assert file.metadata()["taught_words"] == metadata["taught_words"]


def test_the_model_cards_tables_can_be_made():
    report = output_of(start("evaluate.py", "--frames", "20"))
    assert "| Acrobot-v1 | tip height, links | all | 20 |" in report
    assert "Left against right" in report


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the modules about sentences define, all together."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    names = [vars(importlib.import_module(name)) for name in ("bank", "meaning", "synonyms", "captions")]
    return SimpleNamespace(**{key: value for module in names for key, value in module.items()})


class TestSentences:
    def test_every_wording_is_read_about_equally_often(self, scripts: SimpleNamespace):
        """Both sides of a mirrored wording are a sentence each; joined sentences come on top."""
        family = next(f for f in scripts.FAMILIES if f.name == "pendulum")
        writer, trained = scripts.Writer(np.random.default_rng(0)), scripts.phrases(family).trained
        drawn = [writer.caption(family).aims for _ in range(4000)]
        for name, sides in (("upright", 1), ("horizontal left", 2)):
            region = next(region for region in family.regions if region.name == name)
            aims = {region.aims, tuple(scripts._mirrored(aim, family) for aim in region.aims)}
            sentences = sum(len(trained[r.name]) * (2 if r.mirrored else 1) for r in family.regions)
            expected = sides * len(trained[name]) / sentences
            assert sum(said in aims for said in drawn) / len(drawn) == pytest.approx(expected, rel=0.25)

    def test_presets_are_ours_and_never_said(self, scripts: SimpleNamespace):
        texts = set(scripts.write_captions(np.random.default_rng(5), 6000).texts)
        assert len(texts) > 4000
        assert scripts.PRESETS["cartpole"] == PRESETS["CartPole-v1"]
        assert texts.isdisjoint(sentence for pair in scripts.PRESETS.values() for sentence in pair)

    def test_every_region_has_sixty_wordings_and_some_are_held_out(self, scripts: SimpleNamespace):
        few = {"names", "degrees", "degrees left", "more than degrees", "less than degrees", "cart gone", "gone"}
        for family in scripts.FAMILIES:
            _, trained, held_out, _ = scripts.phrases(family)
            for region in family.regions:
                count = len(trained[region.name]) + len(held_out[region.name])
                assert count >= (15 if region.name in few else 60), (family.name, region.name)
            assert sum(map(len, held_out.values())) >= 30

    def test_held_out_wordings_are_never_trained(self, scripts: SimpleNamespace):
        for family in scripts.FAMILIES:
            _, trained, held_out, _ = scripts.phrases(family)
            assert not set().union(*trained.values()) & set().union(*held_out.values())
            words = {word for section in trained.values() for text in section for word in scripts.words_of(text)}
            assert {
                word for section in held_out.values() for text in section for word in scripts.words_of(text)
            } <= words

    @pytest.mark.parametrize(
        ("text", "twin"),
        [
            ("leaning to the left", "leaning to the right"),
            (
                "an upright pole on the left-hand side, not the right",
                "an upright pole on the right-hand side, not the left",
            ),
            ("leftwards", "rightwards"),
        ],
    )
    def test_mirror(self, scripts: SimpleNamespace, text: str, twin: str):
        assert scripts.mirror(text) == twin
        assert scripts.mirror(twin) == text

    def test_likelihood(self, scripts: SimpleNamespace):
        """A target, one side of a threshold, the mirrored region, and another world's sentence, by hand."""
        cartpole, car = (next(f for f in scripts.FAMILIES if f.name == name) for name in ("cartpole", "mountain_car"))
        aim = scripts.Aim
        captions = scripts.as_batch(
            [
                scripts.Caption("at 2", cartpole, (aim("pole_tilt", 2, 1.5, 0),), -0.5),
                scripts.Caption("above 2", cartpole, (aim("pole_tilt", 2, 1.0, 1),)),
                scripts.Caption("below 2", cartpole, (aim("pole_tilt", 2, 1.0, -1),)),
                scripts.Caption("a car", car),
            ]
        )
        states = scripts.attributes_of({"pole_tilt": np.array([2.0, 5.0])}, 2)
        family = np.full(2, scripts.FAMILIES.index(cartpole))
        likelihood = scripts.log_likelihood(states, family, captions)
        at_5 = -0.5 - 1.5 * (np.sqrt(9.02) - np.sqrt(0.02))
        expected = [[-0.5, -np.log(2), -np.log(2), -12], [at_5, -np.log(1 + np.exp(-3)), -np.log(1 + np.exp(3)), -12]]
        np.testing.assert_allclose(likelihood, expected, rtol=1e-5)

    def test_a_denial_is_truest_where_the_sentence_is_false(self, scripts: SimpleNamespace):
        family = next(f for f in scripts.FAMILIES if f.name == "cartpole")
        said = scripts.Caption("at 2", family, (scripts.Aim("pole_tilt", 2, 1.5, 0),))
        batch = scripts.as_batch([said, said._replace(text="not at 2", denied=True)])
        states = scripts.attributes_of({"pole_tilt": np.array([2.0, 2.5, 3.5, 9.0])}, 4)
        true, denied = scripts.log_likelihood(states, np.full(4, scripts.FAMILIES.index(family)), batch).T
        assert (np.diff(true) < 0).all()
        assert (np.diff(denied) > 0).all()
        np.testing.assert_allclose(denied[[0, 3]], [np.log(0.03), np.log(1.03 - np.exp(true[3] / 2))], rtol=1e-5)

    def test_training_denies_and_sets_against_what_cannot_be_so_at_once(self, scripts: SimpleNamespace):
        family = next(f for f in scripts.FAMILIES if f.name == "cartpole")
        regions = {region.name: scripts.Caption("", family, region.aims) for region in family.regions}
        assert scripts.contradict(regions["upright"], regions["fallen"])
        assert scripts.contradict(regions["fallen"], regions["not fallen"])
        assert not scripts.contradict(regions["upright"], regions["cart left"])  # both can be so
        assert not scripts.contradict(regions["upright"], regions["not fallen"])
        writer = scripts.Writer(np.random.default_rng(0))
        drawn = [writer.caption(family) for _ in range(3000)]
        openings = tuple(text.split("{")[0] for text in scripts.DENIED if not text.startswith("{"))
        denied = [caption for caption in drawn if caption.text.startswith(openings)]
        assert len(denied) > 30
        assert sum(caption.denied for caption in drawn) / 3000 == pytest.approx(scripts.DENY_CHANCE, rel=0.3)
        assert {caption.offset for caption in drawn if caption.denied} == {-0.5}
        of_names = regions["names"].aims
        assert not any(caption.denied for caption in drawn if caption.aims == of_names)
        never = scripts.Writer(np.random.default_rng(0), held_out=True)
        assert not any(never.caption(family).denied for _ in range(300))

    @pytest.mark.parametrize(
        ("text", "exchanged"),
        [
            ("it leans to the left", True),
            ("the cart is to the left of the hinge", True),
            ("nearer to the left edge", False),
            ("above the line", True),
            ("the line is above", False),
        ],
    )
    def test_a_phrase_is_exchanged_only_where_it_stays_english(
        self, scripts: SimpleNamespace, text: str, exchanged: bool
    ):
        rng = np.random.default_rng(0)
        results = {scripts.exchanged(text, rng, 1.0) for _ in range(20)}
        unchanged = all("to the left" in result or "above" in result for result in results)
        assert unchanged is not exchanged

    def test_mirrored_captions_aim_at_the_other_side(self, scripts: SimpleNamespace):
        family = next(f for f in scripts.FAMILIES if f.name == "cartpole")
        region = next(region for region in family.regions if region.name == "cart not left")
        writer = scripts.Writer(np.random.default_rng(0))
        wording = scripts.phrases(family).trained[region.name][0]
        left, right = (writer.of_wording(family, region, wording, right=side) for side in (False, True))
        assert [aim.sense for aim in left.aims if aim.attribute == "cart_x"] == [1]
        assert [aim.sense for aim in right.aims if aim.attribute == "cart_x"] == [-1]
        assert "left" in left.text
        assert "right" in right.text


def test_texts_of_all_lengths_are_read_in_their_order(scripts: SimpleNamespace):
    training_model = importlib.import_module("training_model")
    torch.manual_seed(0)
    vocabulary = training_model.Vocabulary()
    model = training_model.TinyCLIP(len(vocabulary)).float()
    texts = [
        "upright",
        "a pole and a cart, and the pole is upright",
        "is the pole upright?",
        "a car",
        "the pole has fallen",
    ]
    with torch.no_grad():
        together = model.embed_tokens(vocabulary.encode(texts))
        alone = torch.cat([model.embed_tokens(vocabulary.encode([text])) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_pictures_and_states_are_mirrored_alike(scripts: SimpleNamespace):
    """Training flips half of the pictures, which is right only if the env draws left and right alike."""
    pictures, worlds = importlib.import_module("pictures"), importlib.import_module("worlds")
    for world in worlds.WORLDS:
        if world.env_id not in ("CartPole-v1", "Pendulum-v1", "Acrobot-v1"):
            continue
        states = world.sample(np.random.default_rng(1), 4)
        twins = {"CartPole-v1": -states, "Acrobot-v1": -states, "Pendulum-v1": states * [-1, np.nan]}[world.env_id]
        states = states * ([1, np.nan] if world.env_id == "Pendulum-v1" else 1)  # the arrow is not drawn symmetrically
        there, mirrored = (scripts.attributes_of(world.measure(s), 4) for s in (states, twins))
        signs = [-1 if name in world.family.signed else 1 for name in scripts.attribute_columns()]
        np.testing.assert_allclose(there * signs, mirrored, atol=1e-5)
        frames, flipped = (np.stack(list(pictures.draw(world, s))).astype(int) for s in (states, twins))
        assert np.abs(frames[:, :, ::-1] - flipped).mean() < 1.0  # antialiasing and pixel centres differ


def test_a_view_keeps_what_matters(scripts: SimpleNamespace):
    pictures = importlib.import_module("pictures")
    frame = np.full((400, 600, 3), 255, np.uint8)
    frame[:, 290:310] = 0
    views = {"scale": {"scale": 0.5}, "lines": {"lines": 2}, "crop": {"crop": True}, "jpeg": {"jpeg": 30}, "plain": {}}
    images = {name: pictures.View(**arguments).show(frame) for name, arguments in views.items()}
    assert {(image.shape, image.dtype) for image in images.values()} == {((3, 64, 64), torch.uint8)}
    dark = {name: float((255 - image.float()).sum()) for name, image in images.items()}
    assert dark["scale"] == pytest.approx(dark["plain"], rel=0.05)
    assert dark["jpeg"] == pytest.approx(dark["plain"], rel=0.05)
    assert dark["lines"] == pytest.approx(1.1 * dark["plain"], rel=0.05)  # 22 pixels in place of 20
    assert dark["crop"] == pytest.approx(1.5 * dark["plain"], rel=0.05)  # of 400 columns in place of 600


def test_a_model_that_knows_the_truth_retrieves_the_truest_frames(scripts: SimpleNamespace):
    """One that embeds the n-th frame as the n-th axis, and a sentence as how true it is of each frame."""
    heldout, measures = importlib.import_module("heldout"), importlib.import_module("measures")
    worlds = importlib.import_module("worlds")
    world = next(world for world in worlds.WORLDS if world.env_id == "Pendulum-v1")
    sample = heldout.held_out(world, 20)
    # Some sentences are said of two worlds: the last of their truths is kept.
    families = sorted(worlds.FAMILIES, key=lambda family: family is world.family)
    everything = [caption for family in families for caption in heldout.speaking(family)]
    truth = scripts.log_likelihood(sample.attributes, heldout.family_rows(sample), scripts.as_batch(everything))
    texts = {caption.text: torch.from_numpy(column) for caption, column in zip(everything, truth.T, strict=True)}
    known = heldout.Known(encoder(), {heldout.name_of(sample): torch.eye(20)}, texts)
    *_, half, one = measures.retrieval_table(known, [sample])["Pendulum-v1",]
    assert (half, one) == (1.0, 1.0)
