"""The cache of scores: exact, bounded, the same decisions in every run, and believed from disk only if intact."""

import copy
import gc
import os
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_reward_model import BASELINE, GOAL, ColourEncoder, checkpoint, colours, make  # noqa: F401 - a fixture
from torch import Tensor

from vlmrm_wrap import CLIPRewardModel
from vlmrm_wrap.cache import FrameCache, frame_key
from vlmrm_wrap.cache_files import ScoreFile

Frames = NDArray[np.uint8]


class Weighted(ColourEncoder):
    """ColourEncoder with a weight to tell it by, and a dtype."""

    def __init__(self, weight: float = 1.0, dtype: str = "float32") -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.layer.weight, weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.dtype = dtype


class Drifting(ColourEncoder):
    """Another answer each time it is asked, as a batch of another size may give in the last bits."""

    def encode_image(self, images: Tensor) -> Tensor:
        images = images + 0.01 * len(self.batches)
        return super().encode_image(images)


def encodes(model: CLIPRewardModel, frames: Frames) -> int:
    """Frames that reached the encoder while these were scored."""
    batches = model.encoder.batches  # type: ignore[attr-defined]
    before = sum(batches)
    model.score(frames)
    return sum(batches) - before


def noise(n: int, seed: int = 0, side: int = 64) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def row(*numbers: float) -> NDArray[np.float32]:
    return np.array([[number, -number] for number in numbers], np.float32).reshape(-1, 2)


# --- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (2, 4, 3), (5, 7, 3), (8, 8, 3), (9, 16, 3)])
@pytest.mark.parametrize("kind", ["flat", "textured"])
def test_every_bit_of_a_frame_is_in_its_key(shape: tuple[int, int, int], kind: str) -> None:
    frame = np.full(shape, 200, np.uint8) if kind == "flat" else noise(1)[0, : shape[0], : shape[1]].copy()
    keys = {frame_key(frame)[0]}
    for place in range(frame.size):
        for bit in range(8):
            other = frame.copy()
            other.reshape(-1)[place] ^= 1 << bit
            keys.add(frame_key(other)[0])
    assert len(keys) == 1 + 8 * frame.size
    assert {len(key) for key in keys} == {16}


def test_moved_colours_have_other_keys() -> None:
    """Sums and differences along the frame would agree."""
    keys = set()
    for place in range(60):
        for length in (1, 8, 16):
            frame = np.zeros((20, 80, 3), np.uint8)
            frame[7, place : place + length] = 255
            keys.add(frame_key(frame)[0])
    assert len(keys) == 180


def test_equal_bytes_of_another_shape_are_another_frame() -> None:
    frame = noise(1)[0]
    shapes = [(64, 64, 3), (32, 128, 3), (128, 32, 3), (1, 4096, 3)]
    for pixels in (frame, np.zeros_like(frame)):
        assert len({frame_key(pixels.reshape(shape))[0] for shape in shapes}) == 4


def test_a_key_is_of_the_pixels_not_of_their_layout() -> None:
    frame = noise(1)[0]
    key = frame_key(frame)[0]
    assert frame_key(np.asfortranarray(frame))[0] == key
    assert frame_key(frame[::-1].copy()[::-1])[0] == key
    odd = np.zeros(frame.size + 1, np.uint8)[1:].reshape(frame.shape)  # an address that is no multiple of 8
    odd[:] = frame
    assert frame_key(odd)[0] == key


# --- scores ------------------------------------------------------------------------------------


def test_cached_scores_are_those_without_a_cache_to_the_bit() -> None:
    frames = colours(12)
    plain, model = make(cache=False), make()
    for batch in ([0, 1, 2], [2, 3, 0, 3, 4], [4, 4, 4], [5], [11, 0, 6, 1, 7, 11, 6], [0, 1, 2], []):
        for found, expected in zip(model.score(frames[batch]), plain.score(frames[batch]), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.float32
    assert model.cache_info[:2] == (13, 9)  # type: ignore[index]
    assert plain.cache_info is None


def test_a_frame_is_encoded_once() -> None:
    model, frames = make(), colours(6)
    assert encodes(model, frames[[0, 1, 0, 0]]) == 2
    assert encodes(model, frames[[1, 2, 1, 0, 3]]) == 2
    assert encodes(model, frames[:4]) == 0
    assert model.encoder.batches == [1, 2, 2]  # type: ignore[attr-defined] # the first is the warm-up
    info = model.cache_info
    assert info is not None
    assert (info.hits, info.misses, info.currsize, info.skipped, info.stepped_aside) == (9, 4, 4, 0, False)
    assert info.hit_rate == 9 / 13
    plain = make(cache=False)
    assert [encodes(plain, frames[[0, 0]]) for _ in range(2)] == [2, 2]


def test_a_hit_has_the_bits_of_the_first_scoring() -> None:
    model, frames = make(Drifting()), colours(4)
    first = model.score(frames[:2])
    second = model.score(frames[[2, 1, 0, 2]])
    third = model.score(frames[[2, 0, 1]])
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(b[[2, 1]], a)
        assert b[0] == b[3]
        np.testing.assert_array_equal(c, b[[0, 2, 1]])
    assert np.abs(make(Drifting(), cache=False).score(frames[:2]).rewards - model(frames[:2])).max() == 0
    drifted = make(Drifting(), cache=False)
    drifted(frames[:2])
    assert np.abs(drifted(frames[:2]) - first.rewards).min() > 0


def test_another_alpha_needs_no_new_entry() -> None:
    model, frames = make(alpha=0.2), colours(5)
    scores = model.score(frames)
    model.alpha = 0.9
    assert encodes(model, frames) == 0
    np.testing.assert_array_equal(model(frames), model.rewards_at(0.9, scores))
    np.testing.assert_array_equal(model(frames), make(alpha=0.9)(frames))


def test_the_callers_frames_may_change_afterwards() -> None:
    model, frames = make(), colours(2)
    first = model(frames)
    frames[0] = 255 - frames[0]
    assert encodes(model, frames) == 1
    assert model(frames)[0] != first[0]
    assert model(frames)[1] == first[1]


def test_scores_that_are_not_finite_are_not_remembered() -> None:
    encoder, frames = ColourEncoder(), colours(2)
    model = make(encoder)
    encoder.encode_image = lambda images: torch.full((len(images), 3), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not finite"):
        model(frames)
    del encoder.encode_image  # type: ignore[method-assign]
    np.testing.assert_array_equal(model(frames), make()(frames))


def test_a_copy_starts_empty(checkpoint: Path) -> None:  # noqa: F811
    model = CLIPRewardModel.from_pretrained(checkpoint, goal_prompts=GOAL, alpha=0, device="cpu", cache=True)
    model(noise(2))
    again = copy.deepcopy(model)
    assert again.cache_info == (0, 0, 2**17, 0, 0, False)
    assert model.cache_info[1] == 2  # type: ignore[index]
    assert "cache" not in model.recipe  # type: ignore[operator]


# --- bounds ------------------------------------------------------------------------------------


def test_the_frames_used_last_stay() -> None:
    cache, frames = FrameCache(maxsize=3), noise(5)

    def ask(*places: int) -> list[int]:
        lookup = cache.look_up(frames[list(places)])
        cache.complete(lookup, row(*[places[at] for at in lookup.missing]))
        assert cache.info.currsize <= 3
        return [places[at] for at in lookup.missing]

    assert ask(0, 1, 2) == [0, 1, 2]
    assert ask(0) == []  # now 1 is the oldest
    assert ask(3) == [3]
    assert ask(0, 2, 3) == []
    assert ask(1) == [1]
    assert ask(4, 3, 2, 1, 0) == [4, 0]  # it held 1, 2 and 3 until the batch was complete
    assert ask(4, 0, 1) == []


def test_more_new_frames_in_a_batch_than_the_cache_holds() -> None:
    cache, frames = FrameCache(maxsize=2, steps_aside=False), noise(6)
    batch = frames[[0, 1, 2, 3, 0, 4, 5]]
    lookup = cache.look_up(batch)
    np.testing.assert_array_equal(cache.complete(lookup, row(0, 1, 2, 3, 4, 5)), row(0, 1, 2, 3, 0, 4, 5))
    assert cache.info.currsize == 2
    assert cache.look_up(frames[[4, 5]]).missing == []


def test_an_entry_takes_some_180_bytes() -> None:
    cache, frames = FrameCache(maxsize=2000, steps_aside=False), noise(100, side=8)
    tracemalloc.start()
    try:
        for start in range(40):
            batch = frames + np.uint8(start)
            lookup = cache.look_up(batch)
            cache.complete(lookup, np.ones((len(lookup.missing), 2), np.float32))
            del batch, lookup
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert cache.info.currsize == 2000
    assert used < 2000 * 260


# --- stepping aside ----------------------------------------------------------------------------


def play(frames: Frames, repeats: Callable[[int], int], steps: int, batch: int = 8) -> tuple[FrameCache, list[Any]]:
    """A cache after ``steps`` batches; ``repeats(i)`` gives the seed of the i-th frame's pixels."""
    cache, history = FrameCache(), []
    for step in range(steps):
        numbers = [repeats(step * batch + i) for i in range(batch)]
        pixels = frames[: len(numbers)].copy()
        pixels[:, 0, 0] = np.array(numbers)[:, None] // [1, 256, 65536] % 256
        lookup = cache.look_up(pixels)
        scores = cache.complete(lookup, row(*[numbers[at] for at in lookup.missing]))
        np.testing.assert_array_equal(scores, row(*numbers))
        history.append((tuple(lookup.missing), cache.info))
    return cache, history


@pytest.mark.parametrize("kind", ["flat", "textured"])
def test_where_nothing_repeats_look_ups_cost_one_percent(kind: str) -> None:
    frames = np.zeros((8, 64, 64, 3), np.uint8) if kind == "flat" else noise(8)
    cache, history = play(frames, lambda i: i, 2000)
    info = cache.info
    assert info.hits == 0
    assert info.misses + info.skipped == 16_000
    price = frame_key(frames[0])[1]
    looked_up_at_first = next(step for step, (_, info) in enumerate(history) if info.skipped) * 8
    encoding = 500_000  # ns a frame, of which 1 % comes in meanwhile
    assert looked_up_at_first == pytest.approx(16 * encoding / (price - 0.01 * encoding), rel=0.05)
    assert price * info.misses <= (16 + 0.01 * 16_000) * encoding
    aside = [info.stepped_aside for _, info in history]
    assert 5 <= sum(was and not now for was, now in pairwise(aside)) <= 8  # it looks again


def test_frames_that_begin_to_repeat_are_noticed() -> None:
    cache, _ = play(noise(8), lambda i: i if i < 16_000 else i % 40, 4000)
    info = cache.info
    assert not info.stepped_aside
    assert info.hits > 8_000
    assert info.misses < 4_000


def test_it_stays_where_frames_repeat_and_goes_when_they_stop() -> None:
    cache, history = play(np.zeros((8, 64, 64, 3), np.uint8), lambda i: i if i % 4 else i // 400, 1000)
    assert cache.info.skipped == 0
    assert cache.info.hit_rate > 0.2
    cache, history = play(noise(8), lambda i: i % 10 if i < 8000 else i, 2000)
    gone = next(step for step, (_, info) in enumerate(history) if info.stepped_aside)
    assert 1000 < gone < 1600


def test_what_it_decides_is_the_same_in_every_run() -> None:
    def mixed(i: int) -> int:
        return i if (i // 3000) % 2 else i % 17

    first, second = (play(noise(8), mixed, 1500)[1] for _ in range(2))
    assert first == second
    assert len({info.stepped_aside for _, info in first}) == 2


def test_cache_true_never_steps_aside() -> None:
    model = make(cache=True)
    for seed in range(20):
        model(noise(64, seed))
    assert model.cache_info[:2] == (0, 1280)  # type: ignore[index]
    assert model.cache_info.skipped == 0  # type: ignore[union-attr]
    model = make()
    for seed in range(20):
        model(noise(64, seed))
    assert model.cache_info.skipped > 0  # type: ignore[union-attr]


def test_two_batches_may_be_under_way_at_once() -> None:
    cache, frames = FrameCache(), noise(3)
    first, second = cache.look_up(frames[:2]), cache.look_up(frames[1:])
    assert (first.missing, second.missing) == ([0, 1], [0, 1])
    np.testing.assert_array_equal(cache.complete(second, row(7, 8)), row(7, 8))
    np.testing.assert_array_equal(cache.complete(first, row(1, 2)), row(1, 2))
    third = cache.look_up(frames)
    assert third.missing == []
    np.testing.assert_array_equal(cache.complete(third, row()), row(1, 7, 8))


# --- on disk -----------------------------------------------------------------------------------


def weighted(folder: Path, encoder: Weighted | None = None, **kwargs: Any) -> CLIPRewardModel:
    return make(encoder or Weighted(), cache=folder, **kwargs)


def test_scores_come_back_from_disk_with_their_bits(tmp_path: Path) -> None:
    frames, folder = colours(7), tmp_path / "new" / "scores"
    model = weighted(folder, alpha=0.3)
    scores = model.score(frames)
    model.save_cache()
    again = weighted(folder, alpha=0.3)
    assert encodes(again, frames) == 0
    for found, expected in zip(again.score(frames), scores, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert encodes(weighted(folder, alpha=0.8, micro_batch_size=2), frames) == 0


@pytest.mark.parametrize(
    ("encoder", "kwargs"),
    [
        ({}, {"goal_prompts": "another"}),
        ({}, {"goal_prompts": [GOAL, "another"]}),
        ({}, {"goal_prompts": colours(1)}),
        ({}, {"baseline_prompts": "another"}),
        ({}, {"resize_mode": "crop"}),
        ({}, {"normalize_prompt_mean": True}),
        ({"weight": 1.0000001}, {}),
        ({"dtype": "bfloat16"}, {}),
    ],
)
def test_scores_of_another_model_are_never_taken(
    encoder: dict[str, Any], kwargs: dict[str, Any], tmp_path: Path
) -> None:
    frames = colours(3)
    weighted(tmp_path)(frames)
    gc.collect()
    assert encodes(weighted(tmp_path, resize_mode="squash"), frames) == 0  # the encoder's own
    assert encodes(weighted(tmp_path, Weighted(**encoder), **kwargs), frames) == 3
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 2


def test_real_encoders_are_told_apart_by_their_weights(checkpoint: Path, tmp_path: Path) -> None:  # noqa: F811
    def misses(path: Path, dtype: str = "float32") -> int:
        model = CLIPRewardModel.from_pretrained(
            path, goal_prompts=GOAL, baseline_prompts=BASELINE, device="cpu", dtype=dtype, cache=tmp_path / "scores"
        )
        model(noise(2))
        model.save_cache()
        return model.cache_info.misses  # type: ignore[union-attr]

    weights = torch.load(checkpoint, weights_only=True)
    torch.save(weights, tmp_path / "same.pt")
    weights["visual.proj"] = weights["visual.proj"].clone()
    weights["visual.proj"][0, 0] += 1
    torch.save(weights, tmp_path / "other.pt")
    assert misses(checkpoint) == 2
    assert misses(tmp_path / "same.pt") == 0
    assert misses(tmp_path / "other.pt") == 2
    assert misses(checkpoint, "bfloat16") == 2
    assert misses(checkpoint) == 0


def test_scores_are_saved_when_the_model_ends(tmp_path: Path) -> None:
    model = weighted(tmp_path)
    model(colours(3))
    assert list(tmp_path.iterdir()) == []
    del model
    gc.collect()
    assert encodes(weighted(tmp_path), colours(3)) == 0


def test_a_forked_copy_does_not_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = weighted(tmp_path)
    model(colours(3))
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    del model
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_two_models_add_to_one_file(tmp_path: Path) -> None:
    frames = colours(6)
    first, second = weighted(tmp_path), weighted(tmp_path)
    first(frames[:4])
    second(frames[2:])
    first.save_cache()
    second.save_cache()
    assert len(list(tmp_path.iterdir())) == 1
    assert encodes(weighted(tmp_path), frames) == 0


def test_the_file_is_bounded_and_keeps_the_latest(tmp_path: Path) -> None:
    file = ScoreFile(tmp_path, b"digest")
    file.write({bytes([i]) * 16: bytes(8) for i in range(5)}, 4)
    file.write({b"a" * 16: bytes(8)}, 3)
    assert [key[0] for key in file.read()] == [3, 4, ord("a")]
    cache = FrameCache(maxsize=2, file=file)
    assert cache.info.currsize == 2


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[:-5],
    "half": lambda data: data[: len(data) // 2],
    "an entry less": lambda data: data[:-40] + data[-16:],
    "one bit": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "empty": lambda data: b"",
    "something else": lambda data: b"PK\x03\x04" * 30,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_ignored_with_a_warning_and_replaced(how: str, tmp_path: Path) -> None:
    frames = colours(3)
    weighted(tmp_path)(frames)
    gc.collect()
    (path,) = tmp_path.iterdir()
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged and is not used"):
        model = weighted(tmp_path)
    assert encodes(model, frames) == 3
    model.save_cache()
    assert encodes(weighted(tmp_path), frames) == 0


def test_a_file_under_another_models_name_is_not_believed(tmp_path: Path) -> None:
    ScoreFile(tmp_path, b"one").write({bytes(16): bytes(8)}, 9)
    ScoreFile(tmp_path, b"one").path.rename(ScoreFile(tmp_path, b"two").path)
    with pytest.warns(UserWarning, match="is damaged"):
        assert ScoreFile(tmp_path, b"two").read() == {}


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_crash_while_saving_leaves_the_old_file(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ScoreFile(tmp_path, b"digest")
    file.write({bytes(16): bytes(8)}, 9)

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="no space left"):
        file.write({b"a" * 16: bytes(8)}, 9)
    assert list(tmp_path.iterdir()) == [file.path]
    assert list(file.read()) == [bytes(16)]
    cache = FrameCache(file=file)
    cache.complete(cache.look_up(noise(1)), row(1))
    with pytest.warns(UserWarning, match="scores were not saved to .*no space left"):
        del cache


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "error", "says"),
    [
        (None, TypeError, "cache must be 'auto', True, False or the path of a folder, got None"),
        (1, TypeError, "cache must be 'auto'"),
        ("", ValueError, "cache is '': give"),
        (__file__, ValueError, "test_cache.py', a file; required: a folder"),
    ],
)
def test_wrong_caches_are_refused_before_weights_load(
    cache: Any, error: type, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrm_wrap.reward_model.load_encoder", lambda *args: pytest.fail("loaded"))
    with pytest.raises(error, match=says):
        CLIPRewardModel.from_pretrained("embedded", goal_prompts=GOAL, alpha=0, cache=cache)
    with pytest.raises(error, match=says):
        make(cache=cache)


def test_an_encoder_without_weights_has_no_scores_on_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no torch module among its attributes; cache=True keeps"):
        make(cache=tmp_path)


@pytest.mark.parametrize(("cache", "says"), [(True, "kept in memory only"), (False, "there is no cache to save")])
def test_without_a_folder_nothing_is_saved(cache: bool, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(cache=cache).save_cache()
