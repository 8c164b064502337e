"""CLIPRewardModel on fakes whose embeddings are known, and on a tiny CLIP for loading and pickling."""

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_clips import tiny_state_dict
from torch import Tensor

from vlmrm_wrap import CLIPRewardModel, FrameScores, UnknownPromptWarning, goal_baseline_reward
from vlmrm_wrap.encoders import openai_clip

GOAL, BASELINE = "pole upright", "pole and cart"


class ColourEncoder:
    """Embeds an image as the direction of its mean colour, a sentence as a seeded direction."""

    name, embed_dim, image_size, context_length = "colours", 3, 4, 77
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    interpolation, resize_mode = "bicubic", "squash"

    def __init__(self, capacity: int = 10**9) -> None:
        self.capacity = capacity
        self.batches: list[int] = []
        self.texts: list[str] = []

    def encode_image(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        if len(images) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)) + 0.1, dim=1)

    def encode_text(self, texts: list[str]) -> Tensor:
        self.texts += texts
        seeds = [torch.Generator().manual_seed(sum(text.encode())) for text in texts]
        return torch.nn.functional.normalize(torch.stack([torch.rand(3, generator=seed) for seed in seeds]))


def colours(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Frames of one colour each, 8 x 12."""
    colour = np.random.default_rng(seed).integers(0, 256, (n, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colour, (n, 8, 12, 3)).copy()


def states(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What ColourEncoder makes of :func:`colours`."""
    raw = frames[:, 0, 0] / 255 + 0.1
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def make(encoder: Any = None, **kwargs: Any) -> CLIPRewardModel:
    arguments = {"goal_prompts": GOAL, "baseline_prompts": BASELINE, **kwargs}
    return CLIPRewardModel(encoder or ColourEncoder(), **arguments)


def text(*prompts: str) -> NDArray[np.float64]:
    return ColourEncoder().encode_text(list(prompts)).double().numpy()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    torch.save(tiny_state_dict(), path)
    return path


# --- scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_scores_are_eq_3_to_1e_6(alpha: float) -> None:
    frames = colours(20)
    scores = make(alpha=alpha).score(frames)
    goal, baseline = text(GOAL)[0], text(BASELINE)[0]
    expected = goal_baseline_reward(states(frames), goal, baseline, alpha)
    np.testing.assert_allclose(scores.rewards, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.goal_similarity, states(frames) @ goal, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.baseline_similarity, states(frames) @ baseline, rtol=0, atol=1e-6)
    assert isinstance(scores, FrameScores)
    assert {(part.dtype, part.shape) for part in scores} == {(np.dtype(np.float32), (20,))}
    np.testing.assert_array_equal(make(alpha=alpha)(frames), scores.rewards)


def test_several_prompts_are_averaged_and_the_mean_only_normalised_on_request() -> None:
    goals, baselines, frames = ["a", "bb", "zz"], ["b", "yy"], colours(6)
    goal, baseline = text(*goals).mean(axis=0), text(*baselines).mean(axis=0)
    prompts = {"goal_prompts": goals, "baseline_prompts": baselines}
    model = make(**prompts)
    expected = goal_baseline_reward(states(frames), goal, baseline, 0.5)
    np.testing.assert_allclose(model(frames), expected, rtol=0, atol=1e-6)
    assert model.constants == pytest.approx(
        {
            "goal_norm": np.linalg.norm(goal),
            "baseline_norm": np.linalg.norm(baseline),
            "goal_dot_baseline": goal @ baseline,
        },
        abs=1e-12,
    )
    goal, baseline = goal / np.linalg.norm(goal), baseline / np.linalg.norm(baseline)
    expected = goal_baseline_reward(states(frames), goal, baseline, 0.5)
    found = make(**prompts, normalize_prompt_mean=True)(frames)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(found - model(frames)).max() > 1e-4


def test_goals_may_be_pictures() -> None:
    pictures, frames = colours(3, seed=7), colours(5)
    goal = states(pictures).mean(axis=0)
    expected = goal_baseline_reward(states(frames), goal, text(BASELINE)[0], 0.5)
    found = make(goal_prompts=pictures, micro_batch_size=2)(frames)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_without_a_baseline_alpha_0_is_the_cosine() -> None:
    frames = colours(5)
    scores = make(baseline_prompts=None, alpha=0).score(frames)
    np.testing.assert_allclose(scores.rewards, states(frames) @ text(GOAL)[0], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(scores.baseline_similarity, np.zeros(5, np.float32))
    np.testing.assert_allclose(scores.rewards, make(alpha=0)(frames), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no baseline"):
        make(baseline_prompts=None, alpha=0).rewards_at(0.5, scores)


def test_rewards_at_another_alpha_encode_nothing() -> None:
    frames, encoder = colours(9), ColourEncoder()
    model = make(encoder, alpha=0.3)
    scores = model.score(frames)
    encoder.batches.clear()
    np.testing.assert_array_equal(model.rewards_at(0.3, scores), scores.rewards)
    other = model.rewards_at(0.9, scores)
    assert encoder.batches == []
    np.testing.assert_allclose(other, make(alpha=0.9)(frames), rtol=0, atol=1e-6)
    assert other.dtype == np.float32


@pytest.mark.parametrize(
    ("n", "micro", "batches"),
    [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, 64, [3]), (1, 1, [1])],
)
def test_micro_batches(n: int, micro: int, batches: list[int]) -> None:
    encoder = ColourEncoder()
    model = make(encoder, micro_batch_size=micro)
    encoder.batches.clear()
    found = model.score(colours(n))
    assert encoder.batches == batches
    for part, expected in zip(found, make().score(colours(n)), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_no_frames_give_no_scores() -> None:
    scores = make().score(np.zeros((0, 8, 12, 3), np.uint8))
    assert {(part.dtype, part.shape) for part in scores} == {(np.dtype(np.float32), (0,))}


def test_frames_are_neither_written_to_nor_kept() -> None:
    frames, model = colours(3), make()
    copy = frames.copy()
    first = model(frames)
    np.testing.assert_array_equal(frames, copy)
    frames[:] = 255  # the caller's buffer is used again
    frames[1] = 0
    assert not np.allclose(model(frames), first)
    np.testing.assert_array_equal(model(copy), first)


def test_scoring_later_is_scoring() -> None:
    encoder = ColourEncoder()
    model, frames = make(encoder, micro_batch_size=2, cache=False), colours(5)
    expected = model.score(frames)
    encoder.batches.clear()
    later = model.score_later(frames)
    assert encoder.batches == [2, 2, 1]  # a CPU does it at once
    frames[:] = 0
    for _ in range(2):
        for part, want in zip(later(), expected, strict=True):
            np.testing.assert_array_equal(part, want)
    assert encoder.batches == [2, 2, 1]
    assert len(model.score_later(frames[:0])().rewards) == 0


def test_scoring_later_remembers_and_mixes_known_frames_with_new_ones() -> None:
    encoder = ColourEncoder()
    model, plain, frames = make(encoder, cache=True), make(cache=False), colours(6)
    first, second = model.score_later(frames[:4]), model.score_later(frames[2:])
    encoder.batches.clear()
    np.testing.assert_array_equal(second().rewards, plain(frames[2:]))  # asked for in the other order
    np.testing.assert_array_equal(first().rewards, plain(frames[:4]))
    np.testing.assert_array_equal(model(frames[::-1]), plain(frames[::-1]))
    assert encoder.batches == []


@pytest.mark.parametrize(
    ("frames", "error", "says"),
    [
        (colours(2).astype(np.float32) / 255, TypeError, "multiply"),
        (colours(2)[0], ValueError, r"pass frames\[None\]"),
        (np.zeros((2, 8, 12, 4), np.uint8), ValueError, "drop the alpha channel"),
        (torch.zeros(2, 8, 12, 3, dtype=torch.uint8), TypeError, "must be a numpy array, got Tensor"),
        (None, TypeError, "must be a numpy array, got NoneType"),
    ],
)
def test_other_frames_are_refused(frames: Any, error: type, says: str) -> None:
    for score in (make().score, make().score_later):
        with pytest.raises(error, match=says):
            score(frames)


def test_embeddings_that_are_not_finite_raise_instead_of_scoring() -> None:
    encoder = ColourEncoder()
    model = make(encoder)
    encoder.encode_image = lambda images: torch.full((len(images), 3), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not finite; if its dtype is float16"):
        model.score(colours(2))


# --- construction ------------------------------------------------------------------------------


def test_prompts_are_encoded_once_and_the_device_is_warm() -> None:
    encoder = ColourEncoder()
    model = make(encoder)
    assert encoder.batches == [1]
    model.score(colours(4))
    assert encoder.texts == [GOAL, BASELINE]


def test_preprocessing_is_the_encoders_unless_overridden() -> None:
    stripe = np.zeros((1, 32, 128, 3), np.uint8)
    stripe[:, :, :16, 0] = 255  # where a crop does not look

    def red(**kwargs: Any) -> float:
        encoder = ColourEncoder()
        encoder.resize_mode = "crop"
        return float(make(encoder, **kwargs)(stripe)[0])

    grey = float(make()(np.zeros_like(stripe))[0])
    assert red() == pytest.approx(grey)
    assert abs(red(resize_mode="squash") - grey) > 1e-3


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"baseline_prompts": GOAL}, ValueError, "goal and baseline are the same"),
    ({"baseline_prompts": " Pole  UPRIGHT"}, ValueError, "goal and baseline are the same"),
    ({"goal_prompts": ["a", "b"], "baseline_prompts": ["b", "a"]}, ValueError, "are the same"),
    ({"goal_prompts": GOAL, "baseline_prompts": GOAL, "alpha": 0}, ValueError, "are the same"),
    ({"alpha": 1.5}, ValueError, r"alpha must be a finite number in \[0, 1\], got 1.5"),
    ({"alpha": float("nan")}, ValueError, "alpha must be a finite number"),
    ({"alpha": "0.5"}, TypeError, "alpha must be a number"),
    ({"baseline_prompts": None}, ValueError, "alpha is 0.5, which needs a baseline"),
    ({"goal_prompts": ""}, ValueError, "goal_prompts has an empty sentence"),
    ({"goal_prompts": []}, ValueError, "goal_prompts is empty"),
    ({"goal_prompts": ["a", "  "]}, ValueError, "goal_prompts has an empty sentence"),
    ({"goal_prompts": [np.zeros((8, 8, 3), np.uint8)]}, TypeError, "a list of arrays; np.stack makes one"),
    ({"goal_prompts": 3}, TypeError, "goal_prompts must be a sentence .* or a uint8 array of frames"),
    ({"goal_prompts": ["a", 3]}, TypeError, "goal_prompts must be a sentence"),
    ({"goal_prompts": np.zeros((8, 8, 3), np.uint8)}, ValueError, "image goals must have shape"),
    ({"goal_prompts": np.zeros((1, 8, 8, 3))}, TypeError, "image goals must be uint8"),
    ({"goal_prompts": np.zeros((0, 8, 8, 3), np.uint8)}, ValueError, "holds no frames"),
    ({"baseline_prompts": ""}, ValueError, "baseline_prompts has an empty sentence"),
    ({"baseline_prompts": colours(1)}, TypeError, "baseline_prompts must be a sentence or a list"),
    ({"resize_mode": "stretch"}, ValueError, "resize_mode must be one of 'squash', 'crop'"),
    ({"micro_batch_size": 0}, ValueError, "micro_batch_size must be at least 1, got 0"),
    ({"micro_batch_size": 2.5}, TypeError, "micro_batch_size must be an integer, got 2.5"),
    ({"normalize_prompt_mean": "no"}, TypeError, "normalize_prompt_mean must be a bool"),
]


@pytest.mark.parametrize(("kwargs", "error", "says"), WRONG)
def test_wrong_arguments_are_refused_before_weights_load(
    kwargs: dict[str, Any], error: type, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrm_wrap.reward_model.load_encoder", lambda *args: pytest.fail("loaded"))
    arguments = {"goal_prompts": GOAL, "baseline_prompts": BASELINE, **kwargs}
    with pytest.raises(error, match=says):
        CLIPRewardModel.from_pretrained("embedded", **arguments)
    with pytest.raises(error, match=says):
        CLIPRewardModel(ColourEncoder(), **arguments)


@pytest.mark.parametrize(
    ("encoder", "kwargs", "error", "says"),
    [
        ("ViT-B/33", {}, ValueError, "unknown encoder 'ViT-B/33'.*'ViT-B/32'"),
        ("nothing.pt", {}, FileNotFoundError, "no weights file"),
        (ColourEncoder(), {}, TypeError, r"CLIPRewardModel\(encoder, ...\) takes an encoder object"),
        ("embedded", {"device": "cuda:99"}, ValueError, "device 'cuda:99' can't be used here"),
        ("embedded", {"dtype": "float64"}, ValueError, "dtype must be"),
    ],
)
def test_the_encoder_is_checked_before_weights_load(
    encoder: Any, kwargs: dict[str, Any], error: type, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrm_wrap.reward_model.load_encoder", lambda *args: pytest.fail("loaded"))
    with pytest.raises(error, match=says):
        CLIPRewardModel.from_pretrained(encoder, goal_prompts=GOAL, baseline_prompts=BASELINE, **kwargs)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_prompts_with_one_embedding_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="goal and baseline are the same embedding"):
        make(goal_prompts="ab", baseline_prompts="ba", alpha=alpha)  # equal sums of bytes


def test_a_prompt_too_long_is_refused_at_construction(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"has 102 tokens.*at most 77"):
        CLIPRewardModel.from_pretrained(checkpoint, goal_prompts="pole " * 100, baseline_prompts="cart", device="cpu")


def test_the_warning_of_unknown_words_points_at_the_users_line() -> None:
    with pytest.warns(UnknownPromptWarning, match="'humanoid'") as caught:
        CLIPRewardModel.from_pretrained("embedded", goal_prompts="a humanoid", baseline_prompts="a cart", device="cpu")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("goal", "match"),
    [
        ({"a": 1}, "got the keys"),
        ({"frames_png_base64": ["no picture"]}, "holds no PNG pictures"),
        ({"frames_png_base64": []}, "holds no PNG pictures"),
    ],
)
def test_a_recipe_with_broken_pictures_is_refused(goal, match) -> None:
    with pytest.raises(ValueError, match=match):
        CLIPRewardModel.from_recipe({"encoder": "embedded", "goal_prompts": goal, "alpha": 0.0})


def test_a_repeated_baseline_is_still_the_goal() -> None:
    with pytest.raises(ValueError, match="goal and baseline are the same"):
        CLIPRewardModel.from_pretrained("embedded", goal_prompts="Pole", baseline_prompts=["pole", "pole "])


def test_unknown_words_are_named_in_one_warning() -> None:
    class Taught(ColourEncoder):
        def unknown_words(self, text: str) -> list[str]:
            return [word for word in text.split() if word not in ("pole", "and", "cart")]

    with pytest.warns(UnknownPromptWarning) as caught:
        make(Taught(), goal_prompts=["pole upright", "robot upright"], baseline_prompts="a cart")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "'colours' has not learnt: 'upright', 'robot', 'a'." in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(Taught(), goal_prompts="pole", baseline_prompts="pole and cart")
        make(Taught(), goal_prompts=colours(1), baseline_prompts="cart")


# --- out of memory -----------------------------------------------------------------------------


def test_out_of_memory_halves_the_micro_batch_for_good_and_warns_once() -> None:
    encoder = ColourEncoder(capacity=3)
    model = make(encoder, micro_batch_size=16)
    encoder.batches.clear()
    with pytest.warns(UserWarning, match="13 frames at once don't fit on cpu") as caught:
        found = model.score(colours(13))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert encoder.batches == [13, 6, 3, 3, 3, 3, 1]
    expected = make().score(colours(13))
    np.testing.assert_array_equal(found.rewards, expected.rewards)
    encoder.batches.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(colours(5, seed=1))
    assert encoder.batches == [3, 2]


def test_out_of_memory_with_one_frame_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="not even one frame fits on cpu beside"):
        make(ColourEncoder(capacity=0))


# --- recipe, pickle, repr ----------------------------------------------------------------------


@pytest.mark.parametrize("goal", [GOAL, ["a pole", "a stick"], colours(2, seed=3)])
def test_the_recipe_rebuilds_the_model(checkpoint: Path, goal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    model = CLIPRewardModel.from_pretrained(
        checkpoint.name,  # relative: a worker may start elsewhere
        goal_prompts=goal,
        baseline_prompts=BASELINE,
        alpha=0.25,
        device="cpu",
        dtype=torch.float32,
        resize_mode="crop",
        normalize_prompt_mean=True,
        micro_batch_size=5,
    )
    recipe = json.loads(json.dumps(model.recipe))
    assert recipe["encoder"] == str(checkpoint)
    assert (recipe["alpha"], recipe["dtype"], recipe["micro_batch_size"]) == (0.25, "float32", 5)
    monkeypatch.chdir("/")
    frames = np.random.default_rng(0).integers(0, 256, (7, 40, 60, 3), dtype=np.uint8)
    dumped = pickle.dumps(model)
    assert len(dumped) < 10_000
    for again in (
        CLIPRewardModel.from_recipe(recipe),
        pickle.loads(dumped),
        copy.deepcopy(model),
    ):
        assert again.recipe == model.recipe
        for part, expected in zip(again.score(frames), model.score(frames), strict=True):
            np.testing.assert_array_equal(part, expected)


def test_the_recipe_keeps_auto_and_is_a_copy(checkpoint: Path) -> None:
    model = CLIPRewardModel.from_pretrained(checkpoint, goal_prompts=GOAL, alpha=0, download_root=Path("/somewhere"))
    recipe = model.recipe
    assert recipe == {
        "encoder": str(checkpoint),
        "goal_prompts": [GOAL],
        "baseline_prompts": None,
        "alpha": 0.0,
        "device": "auto",
        "dtype": "auto",
        "resize_mode": None,
        "normalize_prompt_mean": False,
        "micro_batch_size": 64,
        "download_root": "/somewhere",
        "backend": "torch",
    }
    recipe["goal_prompts"].append("another")
    assert model.recipe != recipe


def test_a_model_of_a_nameless_encoder_has_no_recipe_and_does_not_pickle() -> None:
    nameless = openai_clip.OpenAICLIPEncoder(tiny_state_dict(), name="x", device="cpu")
    for model in (make(), make(nameless)):
        assert model.recipe is None
        with pytest.raises(TypeError, match="pickles as its recipe, and there is none"):
            pickle.dumps(model)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda recipe: recipe.update(goal="x"), r"unknown keys in the recipe: \['goal'\]"),
        (lambda recipe: recipe.pop("encoder"), "a recipe is a dict with 'encoder'"),
        (lambda recipe: recipe.update(alpha=2), "alpha must be"),
    ],
)
def test_wrong_recipes_are_refused(change: Callable[[dict[str, Any]], Any], says: str) -> None:
    recipe = {"encoder": "embedded", "goal_prompts": ["a"], "baseline_prompts": ["b"]}
    change(recipe)
    with pytest.raises(ValueError, match=says):
        CLIPRewardModel.from_recipe(recipe)


def test_repr_says_what_it_is() -> None:
    class Named(ColourEncoder):
        def __repr__(self) -> str:
            return "Colours()"

    assert repr(make(Named())) == (
        "CLIPRewardModel(Colours(), goal_prompts=['pole upright'], baseline_prompts=['pole and cart'], alpha=0.5)"
    )
    assert "goal_prompts=<2 frames>" in repr(make(goal_prompts=colours(2)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_changes_scores_little_and_their_type_not(checkpoint: Path, dtype: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), dtype=np.uint8)

    def scores(dtype: str) -> FrameScores:
        return CLIPRewardModel.from_pretrained(
            checkpoint, goal_prompts=GOAL, baseline_prompts=BASELINE, device="cpu", dtype=dtype
        ).score(frames)

    for part, expected in zip(scores(dtype), scores("float32"), strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, expected, rtol=0, atol=0.02)
