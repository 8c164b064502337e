"""experiments/gpu_check.py on a CPU with tiny towers: the code that a GPU will run, by its command line."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("open_clip")
SCRIPT = Path(__file__).parent.parent / "experiments" / "gpu_check.py"
TINY = ["--device", "cpu", "--tiny", "--json"]


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_is_checked_and_timed(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *TINY, str(path)])
    assert script.main() == 0
    found, printed = json.loads(path.read_text()), capsys.readouterr().out
    assert len(found["checks"]) == 18
    assert all(check["ok"] and check["value"] <= check["limit"] for check in found["checks"])
    assert [(row["tower"], row["batch"]) for row in found["rows"]] == [
        (tower, batch) for tower in ("tiny", "tiny, open_clip") for batch in (1, 8)
    ]
    assert all(value > 0 for row in found["rows"] for value in row.values() if isinstance(value, float))
    assert printed.count("ok    ") == 18
    assert printed.count("| tiny | 8 | torch |") == 2  # as it comes, and in the table


def test_another_result_fails(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = script.fast_vit

    def wrong(tower: torch.nn.Module) -> torch.nn.Module:
        fast = right(tower)
        fast.positions.data = fast.positions * 1.1  # not in place: the tower has the same memory
        return fast

    monkeypatch.setattr(script, "fast_vit", wrong)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *TINY, str(tmp_path / "out.json"), "--models", "tiny"])
    assert script.main() == 1
    failed = [check["check"] for check in json.loads((tmp_path / "out.json").read_text())["checks"] if not check["ok"]]
    assert failed == ["tiny: against the own encoder and the matrix form, CPU"]


def test_no_cuda_is_said_before_anything_starts(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "no CUDA device here; --device cpu --tiny runs the same code" in capsys.readouterr().err
