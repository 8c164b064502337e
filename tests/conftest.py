"""One thread for torch: two cores run the tests, their env workers and, often, a neighbour. And the command line."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from insights import Blind, Lamp, TextLamp

from vlmrm_wrap.__main__ import main

torch.set_num_threads(1)


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


@pytest.fixture(scope="module")
def lamps():
    """Lamp, in each of its ways, under an id of its own."""
    for how in ("moves", "still", "black", "grey", "floats", "far", "ends", "breaks", "types", "runs", "none"):
        gym.register(f"Lamp-{how}-v0", entry_point=Lamp, kwargs={"how": how}, disable_env_checker=how != "none")
    gym.register("Lamp-text-v0", entry_point=TextLamp)
    gym.register("Blind-v0", entry_point=Blind)
    yield
    for name in [name for name in gym.registry if name.startswith(("Lamp-", "Blind-"))]:
        del gym.registry[name]
