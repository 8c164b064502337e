"""The device's road against CLIP's own PIL pipeline, on what environments really render."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from vlmrm_wrap.encoders.openai_clip import OPENAI_MEAN, OPENAI_STD, import_clip
from vlmrm_wrap.preprocess import FramePreprocessor

Frames = NDArray[np.uint8]
Pipeline = Callable[[Image.Image], torch.Tensor]
MODES = ("squash", "crop", "pad")
ENVS = (
    "CartPole-v1",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Acrobot-v1",
    "FrozenLake-v1",
    "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3",  # wider than high, and not a multiple of 2
)


def render(env_id: str) -> Frames:
    """Three frames of a seeded random episode."""
    env = gym.make(env_id, render_mode="rgb_array")
    env.action_space.seed(0)
    env.reset(seed=0)
    frames = []
    for _ in range(3):
        frames.append(env.render())
        env.step(env.action_space.sample())
    env.close()
    return np.stack(frames)


@pytest.fixture(scope="module", params=ENVS)
def frames(request: pytest.FixtureRequest) -> Frames:
    return render(request.param)


def noise(n: int = 2, height: int = 40, width: int = 61, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def openai(mode: str, size: int, mean: tuple = OPENAI_MEAN, std: tuple = OPENAI_STD) -> FramePreprocessor:
    return FramePreprocessor(size, mean, std, resize_mode=mode)


def pil_pipeline(mode: str, size: int) -> Pipeline:
    if mode == "crop":
        return import_clip().clip._transform(size)
    bicubic = transforms.InterpolationMode.BICUBIC
    resize = [transforms.Resize((size, size), interpolation=bicubic)]
    if mode == "pad":
        open_clip_transform = pytest.importorskip("open_clip.transform")
        resize = [
            open_clip_transform.ResizeKeepRatio(size, longest=1, interpolation=bicubic),
            open_clip_transform.CenterCropOrPad(size),
        ]
    normalize = transforms.Normalize(OPENAI_MEAN, OPENAI_STD)
    return transforms.Compose([*resize, transforms.ToTensor(), normalize])


def levels(images: torch.Tensor) -> torch.Tensor:
    """Normalised images back in levels of 255."""
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (OPENAI_MEAN, OPENAI_STD))
    return 255 * (images * std + mean)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [224, 64])
def test_agrees_with_clips_pil_pipeline_on_renders(frames: Frames, mode: str, size: int) -> None:
    expected = torch.stack([pil_pipeline(mode, size)(Image.fromarray(frame)) for frame in frames])
    apart = (levels(openai(mode, size)(frames)) - levels(expected)).abs()
    assert apart.max() < 1.01
    assert apart.mean() < 1e-2  # and almost everywhere not even that one level


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (32, 32), (33, 64), (300, 33), (1, 1)])
def test_agrees_on_noise_of_any_shape_up_and_down(mode: str, shape: tuple[int, int]) -> None:
    frames = noise(2, *shape)
    expected = torch.stack([pil_pipeline(mode, 32)(Image.fromarray(frame)) for frame in frames])
    assert (levels(openai(mode, 32)(frames)) - levels(expected)).abs().max() < 1.01


def test_bilinear_is_pils_bilinear() -> None:
    frames = noise()
    pil = [Image.fromarray(frame).resize((32, 32), Image.Resampling.BILINEAR) for frame in frames]
    prepare = FramePreprocessor(32, (0, 0, 0), (1, 1, 1), interpolation="bilinear")
    found = 255 * prepare(frames).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - np.stack([np.asarray(image) for image in pil])).max() < 1.01


def test_crop_loses_the_sides_and_squash_and_pad_do_not() -> None:
    frame = np.zeros((1, 40, 60, 3), np.uint8)
    frame[:, :, :8] = 255  # a stripe at the left edge, as wide as the crop is narrow
    brightness = {mode: levels(openai(mode, 32)(frame)).mean().item() for mode in MODES}
    assert brightness["crop"] < 1
    assert brightness["squash"] == pytest.approx(255 * 8 / 60, rel=0.02)
    assert brightness["pad"] == pytest.approx(255 * 8 / 60 * 2 / 3, rel=0.05)


def test_each_channel_has_its_own_mean_and_std() -> None:
    frames = np.broadcast_to(np.uint8([0, 51, 255]), (1, 8, 8, 3))
    found = FramePreprocessor(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.7))(frames)
    for channel, value in enumerate([-0.2, 0.0, 1.0]):
        torch.testing.assert_close(found[0, channel], torch.full((8, 8), value), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_any_batch_size_gives_the_same_images(mode: str) -> None:
    frames, prepare = noise(5), openai(mode, 32)
    together = prepare(frames)
    alone = torch.cat([prepare(frames[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    empty = prepare(frames[:0])
    assert empty.shape == (0, 3, 32, 32)
    assert empty.dtype == torch.float32


@pytest.mark.parametrize("mode", MODES)
def test_memory_layout_and_kind_of_the_input_do_not_matter(mode: str) -> None:
    frames, prepare = noise(3), openai(mode, 32)
    expected = prepare(frames)
    wide = np.zeros((3, 40, 61, 4), np.uint8)
    wide[..., :3] = frames
    read_only = frames.copy()
    read_only.flags.writeable = False
    fortran = np.asfortranarray(frames)
    reversed_twice = frames[:, ::-1].copy()[:, ::-1]
    assert reversed_twice.strides[1] < 0
    for same in (wide[..., :3], read_only, fortran, reversed_twice, torch.from_numpy(frames)):
        torch.testing.assert_close(prepare(same), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [32, 40])  # 40 x 40 frames pass without a resize
def test_the_frames_are_not_written_to(size: int) -> None:
    frames = noise(2, 40, 40)
    copy = frames.copy()
    openai("squash", size)(frames)
    np.testing.assert_array_equal(frames, copy)


def test_dtype_and_memory_of_the_output() -> None:
    prepare = FramePreprocessor(16, OPENAI_MEAN, OPENAI_STD, dtype=torch.float16)
    images = prepare(noise(1, 16, 16))
    assert images.dtype == torch.float16
    torch.testing.assert_close(images.float(), openai("squash", 16)(noise(1, 16, 16)), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("frames", "error", "says"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), TypeError, r"got dtype float32; multiply .* by 255"),
        (np.zeros((2, 8, 8, 3), np.int64), TypeError, "got dtype int64"),
        (torch.zeros(2, 8, 8, 3), TypeError, "got dtype torch.float32"),
        ([np.zeros((8, 8, 3), np.uint8)], TypeError, "got a list of 1; np.stack"),
        (None, TypeError, "got NoneType"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"got \(8, 8, 3\); for one frame, pass frames\["),
        (np.zeros((2, 8, 8, 4), np.uint8), ValueError, r"drop the alpha channel: frames\[\.\.\., :3\]"),
        (np.zeros((2, 8, 8, 1), np.uint8), ValueError, "repeat the grey channel"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, "move the channels last"),
        (np.zeros((2, 0, 8, 3), np.uint8), ValueError, r"got \(2, 0, 8, 3\)"),
        (np.zeros((2, 8), np.uint8), ValueError, r"got \(2, 8\)"),
    ],
)  # fmt: skip
def test_other_frames_are_refused_with_the_mend(frames: object, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        openai("squash", 8)(frames)  # type: ignore[arg-type]


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of 'squash', 'crop', 'pad', got 'stretch'"):
        openai("stretch", 8)
    with pytest.raises(ValueError, match="interpolation must be one of 'bicubic', 'bilinear'"):
        FramePreprocessor(8, OPENAI_MEAN, OPENAI_STD, interpolation="nearest")
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        openai("squash", 0)
    with pytest.raises(ValueError, match="std above 0"):
        FramePreprocessor(8, OPENAI_MEAN, (1, 0, 1))
