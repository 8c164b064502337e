"""Weight files of every kind: tensors come out, or an error; nothing in them ever runs."""

import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmrm_wrap.encoders.checkpoints import read_state_dict, sha256_of

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(2, dtype=torch.float16)}


def assert_read(path: Path, **kwargs: object) -> None:
    found = read_state_dict(path, **kwargs)  # type: ignore[arg-type]
    assert found.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


class RunsCode:
    """Unpickles to a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def torchscript(path: Path) -> Path:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", WEIGHTS["a"])
            self.b = torch.nn.Module()
            self.b.register_buffer("c", WEIGHTS["b.c"])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.a

    torch.jit.script(Module()).save(str(path))
    return path


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_saved_state_dicts(tmp_path: Path, wrap: bool, legacy: bool, prefix: str) -> None:
    named = {prefix + name: tensor for name, tensor in WEIGHTS.items()}
    content = {"epoch": 3, "state_dict": named} if wrap else named
    path = tmp_path / "weights.anything"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_read(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_safetensors_under_any_name(tmp_path: Path, name: str) -> None:
    save_file(WEIGHTS, tmp_path / name)
    assert_read(tmp_path / name)


def test_torchscript_only_if_its_sha256_is_trusted(tmp_path: Path) -> None:
    path = torchscript(tmp_path / "archive.pt")
    with pytest.raises(ValueError, match=r"TorchScript archive, which can run code .* none of OpenAI"):
        read_state_dict(path)
    with pytest.raises(ValueError, match=f"sha256 {sha256_of(path)}"):
        read_state_dict(path, trusted_sha256={"0" * 64})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's deprecation of its loader is no news for our users
        assert_read(path, trusted_sha256={sha256_of(path)})


def test_no_code_in_a_pickle_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for number, content in enumerate([RunsCode(mark), {"a": RunsCode(mark)}]):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(ValueError, match="could run code"):
            read_state_dict(path)
        path.write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(ValueError, match=r"could run code"):
            read_state_dict(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # so the bait does what it threatens


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file at .*nothing\.pt"):
        read_state_dict(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="is a folder"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    weights = {"a": torch.randn(500, 50, generator=torch.Generator().manual_seed(0))}
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"truncated|damaged|not a complete"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        read_state_dict(path)


def test_pickles_of_other_things(tmp_path: Path) -> None:
    for number, content in enumerate([[1, 2], {}, {"a": 3}, WEIGHTS["a"]]):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"not a state dict|not a dict of named tensors"):
            read_state_dict(path)


def test_a_path_may_be_a_string_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    shutil.copy(tmp_path / "weights.safetensors", tmp_path / "w.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_read("~/w.safetensors")  # type: ignore[arg-type]
