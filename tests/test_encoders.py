"""One contract for every encoder, then what is special to each. A new encoder adds a line to FILES."""

import sys
import types
import urllib.error
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.error import DependencyNotInstalled
from PIL import Image
from safetensors.torch import save_file
from tiny_clips import OPEN_CLIP_CONTEXT, OPEN_CLIP_NAME, add_tiny_open_clip, tiny_state_dict
from torch import Tensor

from vlmrm_wrap import CLIPRewardModel, available_encoders, load_encoder
from vlmrm_wrap.encoders import openai_clip, openclip
from vlmrm_wrap.encoders.checkpoints import sha256_of
from vlmrm_wrap.encoders.openai_clip import OPENAI_MEAN, OPENAI_STD, OpenAICLIPEncoder, import_clip
from vlmrm_wrap.encoders.protocol import Encoder, resolve_device, resolve_dtype

TEXTS = ["a pole upright on a cart", "A car!", "a robot standing on one leg, arms up"]
HALVES = ["float16", "bfloat16"]
Load = Callable[..., Encoder]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What to pass to load_encoder, by the name of the kind of encoder."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.save(tiny_state_dict("vit"), folder / "vit.pt")
    save_file(tiny_state_dict("vit"), folder / "vit.safetensors")
    torch.save({"state_dict": tiny_state_dict("resnet")}, folder / "resnet.pt")
    open_clip_file = add_tiny_open_clip(folder)
    return {
        "vit.pt": str(folder / "vit.pt"),
        "vit.safetensors": str(folder / "vit.safetensors"),
        "resnet.pt": str(folder / "resnet.pt"),
        "open_clip": f"open_clip:{OPEN_CLIP_NAME}/{open_clip_file}",
        "embedded": "embedded",
    }


@pytest.fixture(params=["vit.pt", "vit.safetensors", "resnet.pt", "open_clip", "embedded"])
def load(request: pytest.FixtureRequest, files: dict[str, str]) -> Load:
    return lambda dtype="float32": load_encoder(files[request.param], device="cpu", dtype=dtype)


def images(encoder: Encoder, n: int = 5) -> Tensor:
    """Seeded noise of several roughnesses, so that the images differ."""
    generator, size = torch.Generator().manual_seed(0), encoder.image_size
    grids = [torch.randn(1, 3, 2 + i, 2 + i, generator=generator) for i in range(n)]
    return torch.cat([torch.nn.functional.interpolate(grid, (size, size)) for grid in grids])


class TestConformance:
    """What any encoder must do."""

    def test_attributes(self, load: Load) -> None:
        encoder = load()
        assert isinstance(encoder, Encoder)
        assert encoder.name in repr(encoder)
        assert encoder.image_size > 0
        assert len(encoder.mean) == len(encoder.std) == 3
        assert encoder.interpolation in ("bicubic", "bilinear")
        assert encoder.resize_mode in ("squash", "crop", "pad")
        assert encoder.context_length > 2

    def test_unit_float32_embeddings_of_images_and_texts(self, load: Load) -> None:
        encoder = load()
        for found in (encoder.encode_image(images(encoder)), encoder.encode_text(TEXTS)):
            assert found.dtype == torch.float32
            assert found.shape[1] == encoder.embed_dim
            torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)), atol=1e-6, rtol=0)

    def test_different_inputs_have_different_embeddings(self, load: Load) -> None:
        encoder = load()
        for found in (encoder.encode_image(images(encoder)), encoder.encode_text(TEXTS)):
            similar = (found @ found.T).triu(1)
            assert similar.max() < 1 - 1e-4

    def test_the_batch_does_not_matter(self, load: Load) -> None:
        encoder = load()
        batch = images(encoder)
        alone = torch.cat([encoder.encode_image(image[None]) for image in batch])
        torch.testing.assert_close(encoder.encode_image(batch), alone, atol=1e-6, rtol=0)
        single = torch.cat([encoder.encode_text([text]) for text in TEXTS])
        torch.testing.assert_close(encoder.encode_text(TEXTS), single, atol=1e-6, rtol=0)

    def test_deterministic_also_across_loads_and_leaves_the_random_state(self, load: Load) -> None:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first, second = load(), load()
        assert torch.equal(before, torch.get_rng_state())
        batch = images(first)
        for encoder in (first, second):
            assert torch.equal(first.encode_image(batch), encoder.encode_image(batch))
            assert torch.equal(first.encode_text(TEXTS), encoder.encode_text(TEXTS))

    @pytest.mark.parametrize("dtype", ["float32", *HALVES])
    def test_empty_batches(self, load: Load, dtype: str) -> None:
        encoder = load(dtype)
        empty = (0, encoder.embed_dim)
        assert encoder.encode_image(images(encoder)[:0]).shape == empty
        assert encoder.encode_text([]).shape == empty
        assert encoder.encode_image(images(encoder)[:0]).dtype == torch.float32

    def test_wrong_inputs_raise(self, load: Load) -> None:
        encoder = load()
        batch = images(encoder)
        with pytest.raises(TypeError, match=r"float tensor, .* got a torch.uint8 tensor"):
            encoder.encode_image(batch.to(torch.uint8))
        with pytest.raises(TypeError, match="got ndarray"):
            encoder.encode_image(batch.numpy())  # type: ignore[arg-type]
        size = encoder.image_size
        for wrong in (batch[0], batch[:, :2], batch[..., :-1]):
            with pytest.raises(ValueError, match=rf"shape \(n, 3, {size}, {size}\), got"):
                encoder.encode_image(wrong)
        for texts in ("a pole", [1], None):
            with pytest.raises(TypeError, match="list of strings"):
                encoder.encode_text(texts)  # type: ignore[arg-type]

    @pytest.mark.parametrize("dtype", HALVES)
    def test_half_precision_images_are_close_and_texts_stay_float32(self, load: Load, dtype: str) -> None:
        full, half = load(), load(dtype)
        found = half.encode_image(images(half))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)
        expected = full.encode_image(images(full))
        assert (found * expected).sum(dim=1).min() > (0.9999 if dtype == "float16" else 0.998)
        assert not torch.equal(found, expected)  # so the image tower did change its dtype
        assert torch.equal(half.encode_text(TEXTS), full.encode_text(TEXTS))

    def test_a_prompt_too_long_is_refused_naming_both_lengths(self, load: Load) -> None:
        encoder = load()
        limit = encoder.context_length
        fits = " ".join(["pole"] * (limit - 2))
        assert encoder.encode_text([fits]).shape == (1, encoder.embed_dim)
        says = rf"has {limit + 1} tokens.* at most {limit}"
        with pytest.raises(ValueError, match=says):
            encoder.encode_text(["short", fits + " pole"])

    def test_no_gradients_no_training(self, load: Load) -> None:
        encoder = load()
        assert not encoder.encode_image(images(encoder).requires_grad_()).requires_grad
        model = encoder._model  # type: ignore[attr-defined]
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


# --- OpenAI's layout ---------------------------------------------------------------------------


def clip_model(kind: str) -> torch.nn.Module:
    """What clip itself makes of the weights, as the tutorial uses it on a CPU."""
    model: torch.nn.Module = import_clip().model.build_model(tiny_state_dict(kind)).float()
    return model


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_embeddings_are_those_of_clip(files: dict[str, str], kind: str) -> None:
    encoder, model = load_encoder(files[f"{kind}.pt"], device="cpu"), clip_model(kind)
    batch = images(encoder)
    with torch.no_grad():
        expected_image = torch.nn.functional.normalize(model.encode_image(batch))
        expected_text = model.encode_text(import_clip().tokenize(TEXTS))
    torch.testing.assert_close(encoder.encode_image(batch), expected_image, atol=1e-6, rtol=0)
    expected_text = torch.nn.functional.normalize(expected_text)
    torch.testing.assert_close(encoder.encode_text(TEXTS), expected_text, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_scores_equal_the_tutorial_recipe(files: dict[str, str], kind: str, alpha: float) -> None:
    """PIL preprocessing, one frame at a time, clip's own model, the matrix form of the reward."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    frames = coarse.repeat(20, axis=1).repeat(20, axis=2)  # 400 x 600
    clip, model = import_clip(), clip_model(kind)
    prepare = clip.clip._transform(model.visual.input_resolution)
    with torch.no_grad():
        state = torch.cat([model.encode_image(prepare(Image.fromarray(frame))[None]) for frame in frames])
        goal, baseline = model.encode_text(clip.tokenize(TEXTS[:2])).split(1)
    state, goal, baseline = (x / x.norm(dim=-1, keepdim=True) for x in (state, goal, baseline))
    direction = goal - baseline
    projection = direction.T @ direction / direction.norm() ** 2
    matrix = alpha * projection + (1 - alpha) * torch.eye(len(projection))
    expected = 1 - ((state - goal) @ matrix).norm(dim=-1) ** 2 / 2

    reward_model = CLIPRewardModel.from_pretrained(
        files[f"{kind}.pt"],
        goal_prompts=TEXTS[0],
        baseline_prompts=TEXTS[1],
        alpha=alpha,
        device="cpu",
        resize_mode="crop",
    )
    np.testing.assert_allclose(reward_model(frames), expected.numpy(), rtol=0, atol=2e-4)
    assert expected.std() > 1e-3  # the frames do differ


def test_the_state_dict_is_not_written_to() -> None:
    weights = {**tiny_state_dict(), "input_resolution": torch.tensor(32)}
    copies = {name: tensor.clone() for name, tensor in weights.items()}
    OpenAICLIPEncoder(weights, name="tiny", device="cpu", dtype="float16")
    assert weights.keys() == copies.keys()
    assert all(torch.equal(weights[name], copies[name]) for name in copies)


def test_image_settings_are_openais_unless_given() -> None:
    encoder = OpenAICLIPEncoder(tiny_state_dict(), name="tiny", device="cpu")
    assert (encoder.mean, encoder.std) == (OPENAI_MEAN, OPENAI_STD)
    assert (encoder.interpolation, encoder.resize_mode) == ("bicubic", "squash")
    half = (0.5, 0.5, 0.5)
    other = OpenAICLIPEncoder(
        tiny_state_dict(), name="tiny", device="cpu", mean=half, std=half, interpolation="bilinear"
    )
    assert (other.mean, other.std, other.interpolation) == (half, half, "bilinear")


def broken(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Tensor]:
    weights = tiny_state_dict()
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("text_projection"), "missing: text_projection"),
        (lambda w: w.pop("visual.proj"), r"missing: visual.proj or visual.attnpool"),
        (lambda w: w.pop("visual.ln_post.weight"), r"does not fit .*visual.ln_post.weight"),
        (lambda w: w.update({"visual.ln_post.bias": torch.zeros(3)}), "does not fit .*size mismatch"),
        (lambda w: w.update(extra=torch.zeros(3)), "does not fit .*extra"),
        (
            lambda w: w.update({"token_embedding.weight": torch.zeros(300, 64)}),
            "has 300 token embeddings; OpenAI's tokenizer needs 49408",
        ),
        (lambda w: w["visual.proj"].fill_(float("nan")), "weights that are not finite"),
        (lambda w: w["visual.proj"].fill_(1e6), "not finite in float16, e.g. 'visual.proj'"),
    ],
)
def test_weights_that_are_no_clip_are_refused(change: Callable, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=says):
        OpenAICLIPEncoder(broken(change), name="tiny", device="cpu")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # clip's, when it checks sums
def test_a_torchscript_release_is_known_by_its_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = import_clip()
    model = clip_model("vit")
    path = tmp_path / "ViT-T-32.pt"
    images, tokens = torch.zeros(1, 3, 32, 32), clip.tokenize("a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, (images, tokens)).save(str(path))
    with pytest.raises(ValueError, match="TorchScript archive"):
        load_encoder(path, device="cpu")
    url = f"https://openai.example/{sha256_of(path)}/{path.name}"
    monkeypatch.setitem(clip.clip._MODELS, "ViT-T/32", url)
    by_path = load_encoder(path, device="cpu")
    # found in download_root, where clip checks its sum again; nothing is fetched
    by_name = load_encoder("ViT-T/32", device="cpu", download_root=tmp_path)
    for encoder in (by_path, by_name):
        with torch.no_grad():
            expected = torch.nn.functional.normalize(model.encode_image(images))
        torch.testing.assert_close(encoder.encode_image(images), expected, atol=1e-6, rtol=0)


def test_no_network_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(OSError, match="no weights for 'ViT-B/32'") as caught:
        load_encoder("ViT-B/32", device="cpu", download_root=tmp_path)
    for part in ("no route to host", str(tmp_path / "ViT-B-32.pt"), "download_root", "embedded"):
        assert part in str(caught.value)


def without_clip(monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "clip", module)
    monkeypatch.setattr(openai_clip, "import_clip", openai_clip.import_clip.__wrapped__)


def test_the_wrong_clip_package_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    clipboard = types.ModuleType("clip")
    clipboard.__path__ = []  # type: ignore[attr-defined]
    clipboard.__file__ = "/site-packages/clip/__init__.py"
    without_clip(monkeypatch, clipboard)
    with pytest.raises(DependencyNotInstalled, match="pip uninstall clip, then pip install openai-clip"):
        openai_clip.import_clip()
    monkeypatch.setitem(sys.modules, "clip.model", types.ModuleType("clip.model"))
    with pytest.raises(DependencyNotInstalled, match=r"is not OpenAI's \(it has no 'available_models'\)"):
        openai_clip.import_clip()


def test_a_missing_clip_is_said_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_clip(monkeypatch, None)
    with pytest.raises(DependencyNotInstalled, match="pip install openai-clip"):
        openai_clip.import_clip()


# --- open_clip ---------------------------------------------------------------------------------


def test_open_clip_brings_its_own_settings(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    tag = {
        "file": files["open_clip"].partition("/")[2],
        "mean": (0.5, 0.4, 0.3),
        "std": (0.5, 0.6, 0.7),
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, OPEN_CLIP_NAME, {"tag": tag})
    name = f"open_clip:{OPEN_CLIP_NAME}/tag"
    assert name in available_encoders()
    encoder = load_encoder(name, device="cpu")
    assert (encoder.mean, encoder.std) == (tag["mean"], tag["std"])
    assert (encoder.interpolation, encoder.resize_mode) == ("bilinear", "squash")
    assert encoder.context_length == OPEN_CLIP_CONTEXT
    assert encoder.image_size == 32
    by_path = load_encoder(files["open_clip"], device="cpu")
    assert (by_path.mean, by_path.resize_mode) == (OPENAI_MEAN, "crop")  # open_clip's defaults
    batch = images(encoder)
    assert torch.equal(by_path.encode_image(batch), encoder.encode_image(batch))


def test_open_clip_embeddings_are_its_own(files: dict[str, str]) -> None:
    import open_clip

    path = files["open_clip"].partition("/")[2]
    model = open_clip.create_model(OPEN_CLIP_NAME, pretrained=path).eval()
    encoder = load_encoder(files["open_clip"], device="cpu")
    batch, tokens = images(encoder), open_clip.get_tokenizer(OPEN_CLIP_NAME)(TEXTS)
    with torch.no_grad():
        expected_image = model.encode_image(batch, normalize=True)
        expected_text = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(encoder.encode_image(batch), expected_image, atol=1e-6, rtol=0)
    torch.testing.assert_close(encoder.encode_text(TEXTS), expected_text, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("open_clip:ViT-B-32", ValueError, "lacks its weights.*laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32/", ValueError, "lacks its weights"),
        ("open_clip:ViT-B-32/nonsense", ValueError, "no weights 'nonsense' for 'ViT-B-32'; it has"),
        ("open_clip:ViT-B-33/openai", ValueError, "no model 'ViT-B-33'; did you mean 'open_clip:ViT"),
        ("open_clip:ViT-B-32//no/file.pt", FileNotFoundError, "no weights file at /no/file.pt"),
    ],
)  # fmt: skip
def test_open_clip_never_scores_with_random_weights(name: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        load_encoder(name, device="cpu")


def test_open_clip_refuses_the_weights_of_another_model(files: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "resnet.pt"
    torch.save(tiny_state_dict("resnet"), path)
    with pytest.raises(ValueError, match=f"is not a checkpoint of '{OPEN_CLIP_NAME}'"):
        load_encoder(f"open_clip:{OPEN_CLIP_NAME}/{path}", device="cpu")


def test_open_clip_without_a_network(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", offline)
    with pytest.raises(OSError, match=r"no weights for 'open_clip:ViT.*no route to host"):
        load_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k", device="cpu")


def test_open_clip_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openclip, "find_spec", lambda name: None)
    monkeypatch.setattr("vlmrm_wrap.encoders.find_spec", lambda name: None)
    monkeypatch.setattr(openclip, "import_open_clip", openclip.import_open_clip.__wrapped__)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "vlmrm-wrap\[open-clip\]"'):
        load_encoder("open_clip:ViT-B-32/openai")
    assert not [name for name in available_encoders() if name.startswith("open_clip:")]


# --- names, devices, dtypes --------------------------------------------------------------------


def test_available_encoders() -> None:
    names = available_encoders()
    assert names[0] == "embedded"
    assert set(import_clip().available_models()) < set(names)
    assert "open_clip:ViT-bigG-14/laion2b_s39b_b160k" in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("ViT-B/33", ValueError, "unknown encoder 'ViT-B/33'.*did you mean .*'ViT-B/32'"),
        ("vit-b-32", ValueError, "did you mean 'ViT-B/"),
        ("embeded", ValueError, "did you mean 'embedded'"),
        ("", ValueError, "unknown encoder ''.*there is 'embedded'"),
        ("qqqq", ValueError, "there is 'embedded', 'RN50'"),
        ("nothing.pt", FileNotFoundError, "no weights file at nothing.pt"),
        ("./nothing", FileNotFoundError, "no weights file at nothing"),
        (Path("nothing"), FileNotFoundError, "no weights file at nothing"),
        (None, TypeError, "by a name or a path, got NoneType"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        load_encoder(name, device="cpu")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        load_encoder(tmp_path, device="cpu")


def test_devices_and_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for missing in ("cuda:99", "nonsense", "meta"):
        with pytest.raises(ValueError, match=rf"device '{missing}' can't be used here .*there is:.*cpu"):
            resolve_device(missing)
    with pytest.raises(TypeError, match="device must be a string"):
        resolve_device(0)  # type: ignore[arg-type]
    cpu, cuda, mps = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
    assert [resolve_dtype("auto", d) for d in (cpu, mps)] == [torch.float32] * 2
    assert resolve_dtype("auto", cuda) == torch.float16
    assert resolve_dtype("bfloat16", cpu) == resolve_dtype(torch.bfloat16, cpu) == torch.bfloat16
    for wrong in ("float64", torch.int8, "half", None):
        with pytest.raises(ValueError, match="dtype must be 'auto', 'float32'"):
            resolve_dtype(wrong, cpu)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(("device", "dtype"), [("cuda:99", "auto"), ("cpu", "float64")])
def test_device_and_dtype_are_refused_before_weights_load(
    device: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_clip, "read_state_dict", lambda *args, **kwargs: pytest.fail("read"))
    monkeypatch.setattr(openai_clip, "_download", lambda *args: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=r"device|dtype"):
        load_encoder("RN50", device=device, dtype=dtype)
