"""The fast ViT against the towers it stands in for, and what it leaves alone; OpenVINO's form of it."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import DependencyNotInstalled
from tiny_clips import OPEN_CLIP_NAME, add_tiny_open_clip, tiny_state_dict
from torch import Tensor, nn

from vlmrm_wrap import CLIPRewardModel, load_encoder
from vlmrm_wrap.encoders.fast_vit import FastViT, fast_vit
from vlmrm_wrap.encoders.openai_clip import OpenAICLIPEncoder, import_clip

open_clip = pytest.importorskip("open_clip")


def unlike_a_fresh_one(tower: nn.Module) -> nn.Module:
    """Every parameter moved, so that no scale is 1 and no shift 0, in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for parameter in tower.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = parameter.data * (1 + 0.3 * noise) + 0.05 * noise
    return tower.requires_grad_(False).eval()


def openai_vit(size: int = 32, patch: int = 16, width: int = 64, layers: int = 2, heads: int = 1) -> nn.Module:
    return unlike_a_fresh_one(import_clip().model.VisionTransformer(size, patch, width, layers, heads, 24))


def open_clip_vit(**changes: Any) -> nn.Module:
    arguments = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 3, "heads": 4, "mlp_ratio": 3.0}
    return unlike_a_fresh_one(open_clip.transformer.VisionTransformer(**{**arguments, "output_dim": 20, **changes}))


def tanh_gelu() -> nn.GELU:
    return nn.GELU(approximate="tanh")


def wide_eps(width: int) -> nn.LayerNorm:
    return open_clip.transformer.LayerNormFp32(width, eps=0.1)


def images(tower: Any, n: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    size = getattr(tower, "input_resolution", None) or tower.image_size[0]
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm(dim=1).max() / expected.norm(dim=1).min())


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "openai": openai_vit,
    "openai, one layer": lambda: openai_vit(layers=1),
    "openai, two heads": lambda: openai_vit(24, 8, 128, 3, 2),
    "open_clip, gelu": open_clip_vit,
    "open_clip, gelu by tanh": lambda: open_clip_vit(act_layer=tanh_gelu),
    "open_clip, quick gelu": lambda: open_clip_vit(act_layer=open_clip.transformer.QuickGELU),
    "open_clip, another norm": lambda: open_clip_vit(norm_layer=wide_eps),
    "open_clip, norm after the pool": lambda: open_clip_vit(final_ln_after_pool=True),
}


@pytest.fixture(params=PLAIN.values(), ids=PLAIN)
def tower(request: pytest.FixtureRequest) -> nn.Module:
    return request.param()


@torch.inference_mode()
def test_features_are_those_of_the_tower(tower: nn.Module) -> None:
    fast, before = fast_vit(tower), copy.deepcopy(tower.state_dict())
    assert isinstance(fast, FastViT)
    for n in (1, 5):
        batch = images(tower, n)
        expected = tower(batch)
        assert relative_error(fast(batch), expected) < 1e-5
        assert torch.equal(fast(batch.contiguous(memory_format=torch.channels_last)), fast(batch))
    assert all(torch.equal(before[name], value) for name, value in tower.state_dict().items())


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_no_further_off_than_the_towers_own(
    tower: nn.Module, dtype: torch.dtype, limit: float
) -> None:
    expected = tower(images(tower))
    fast = fast_vit(tower).to(dtype)
    found = fast(images(tower, dtype=dtype))
    assert found.dtype == dtype
    assert relative_error(found.float(), expected) < limit
    assert not any(parameter.dtype == dtype for parameter in tower.parameters())


def half(tower: nn.Module) -> nn.Module:
    return tower.half()


class Subclass(import_clip().model.VisionTransformer):
    """May compute anything."""


OTHERS: dict[str, Callable[[], Any]] = {
    "resnet": lambda: import_clip().model.ModifiedResNet([1, 1, 1, 1], 32, 4, 64, 16),
    "subclass": lambda: Subclass(32, 16, 64, 2, 1, 24),
    "half": lambda: half(openai_vit()),
    "average pooling": lambda: open_clip_vit(pool_type="avg"),
    "attention pooling": lambda: open_clip_vit(attentional_pool=True, attn_pooler_heads=4),
    "tokens as well": lambda: open_clip_vit(output_tokens=True),
    "patch dropout": lambda: open_clip_vit(patch_dropout=0.5),
    "layer scale": lambda: open_clip_vit(ls_init_value=0.1),
    "no first norm": lambda: open_clip_vit(no_ln_pre=True),
    "norms of queries": lambda: open_clip_vit(qk_norm=True),
    "another activation": lambda: open_clip_vit(act_layer=nn.SiLU),
    "a norm without its shift": lambda: open_clip_vit(norm_layer=lambda width: nn.LayerNorm(width, bias=False)),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_any_other_tower_keeps_its_own_forward(make: Callable[[], Any]) -> None:
    tower = make()
    assert fast_vit(tower) is tower


def test_a_changed_part_is_noticed() -> None:
    def with_mask(block: Any) -> None:
        block.attn_mask = torch.zeros(5, 5)

    def with_dropout(block: Any) -> None:
        block.mlp.add_module("dropout", nn.Dropout())

    def without_bias(block: Any) -> None:
        block.attn.in_proj_bias = None

    def of_another_type(block: Any) -> None:
        block.__class__ = type("Block", (type(block),), {})

    for change in (with_mask, with_dropout, without_bias, of_another_type):
        tower: Any = openai_vit()
        assert fast_vit(tower) is not tower
        change(tower.transformer.resblocks[1])
        assert fast_vit(tower) is tower


@torch.inference_mode()
def test_the_reward_models_own_encoders_use_it(tmp_path: Any) -> None:
    path = add_tiny_open_clip(tmp_path)
    torch.save(tiny_state_dict("resnet"), tmp_path / "resnet.pt")
    for name in ("embedded", f"open_clip:{OPEN_CLIP_NAME}/{path}"):
        assert isinstance(load_encoder(name, device="cpu")._model.visual, FastViT)  # type: ignore[attr-defined]
    resnet = load_encoder(tmp_path / "resnet.pt", device="cpu")
    assert type(resnet._model.visual).__name__ == "ModifiedResNet"  # type: ignore[attr-defined]


# --- OpenVINO ----------------------------------------------------------------------------------


@pytest.fixture
def openvino_tower(tower: nn.Module) -> nn.Module:
    pytest.importorskip("openvino")
    from vlmrm_wrap.encoders.openvino_vit import OpenVINOTower

    return OpenVINOTower(fast_vit(tower), "tiny")


@torch.inference_mode()
def test_openvino_computes_the_same(tower: nn.Module, openvino_tower: nn.Module) -> None:
    batch = images(tower, 7)
    expected = tower(batch)
    found = openvino_tower(batch)
    assert relative_error(found, expected) < 1e-5
    for n in (1, 3):  # and any batch size, in memory of its own
        assert relative_error(openvino_tower(batch[:n]), found[:n]) < 1e-6
    assert relative_error(found, expected) < 1e-5


def test_rewards_by_openvino_are_torchs() -> None:
    pytest.importorskip("openvino")
    settings: dict[str, Any] = {"goal_prompts": "pole upright", "baseline_prompts": "pole and cart", "device": "cpu"}
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
    model = CLIPRewardModel.from_pretrained("embedded", **settings, backend="openvino")
    assert type(model.encoder._model.visual).__name__ == "OpenVINOTower"  # type: ignore[attr-defined]
    expected = CLIPRewardModel.from_pretrained("embedded", **settings).score(frames)
    for part, other in zip(model.score(frames), expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=0, atol=1e-5)
    assert model.recipe is not None
    assert model.recipe["backend"] == "openvino"
    again = CLIPRewardModel.from_recipe(model.recipe)
    np.testing.assert_array_equal(again(frames), model(frames))
    old = {key: value for key, value in model.recipe.items() if key != "backend"}  # recorded before there was a choice
    np.testing.assert_array_equal(CLIPRewardModel.from_recipe(old)(frames), expected.rewards)


def test_openvino_refuses_what_it_does_not_run() -> None:
    pytest.importorskip("openvino")
    resnet = OpenAICLIPEncoder(tiny_state_dict("resnet"), name="tiny", device="cpu")
    with pytest.raises(ValueError, match=r"image tower of 'tiny' is another \(ModifiedResNet\); backend='torch'"):
        resnet.use_openvino()
    with pytest.raises(ValueError, match="device 'cpu' and dtype 'bfloat16'"):
        OpenAICLIPEncoder(tiny_state_dict(), name="tiny", device="cpu", dtype="bfloat16").use_openvino()


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"backend": "onnx"}, ValueError, "backend must be 'torch' or 'openvino', got 'onnx'"),
        ({"backend": "openvino", "dtype": "float16"}, ValueError, "got device 'cpu' and dtype 'float16'; pass device"),
        ({"backend": "openvino", "device": "cuda"}, ValueError, "got device 'cuda' and dtype 'float16'"),
        ({"backend": "openvino"}, DependencyNotInstalled, r'pip install "vlmrm-wrap\[openvino\]"'),
    ],
)
def test_a_backend_is_refused_before_weights_load(
    kwargs: dict[str, str], error: type, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmrm_wrap.encoders.embedded._read", lambda *args: pytest.fail("loaded"))
    monkeypatch.setattr("vlmrm_wrap.encoders.protocol.find_spec", lambda name: None)
    for module in ("vlmrm_wrap.encoders", "vlmrm_wrap.reward_model"):
        monkeypatch.setattr(f"{module}.resolve_device", torch.device)
    arguments = {"device": "cpu", **kwargs}
    with pytest.raises(error, match=says):
        load_encoder("embedded", **arguments)
    monkeypatch.setattr("vlmrm_wrap.reward_model.load_encoder", lambda *args: pytest.fail("loaded"))
    with pytest.raises(error, match=says):
        CLIPRewardModel.from_pretrained("embedded", goal_prompts="pole", baseline_prompts="cart", **arguments)
