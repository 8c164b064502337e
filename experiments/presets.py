"""What a run does otherwise than the preset of the paper that it names with --config."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from jsonargparse import ArgumentParser

from settings import flat

PRESETS = Path(__file__).resolve().parent.parent / "configs" / "paper"

# Where a run lies and which of its seeds it is: no departures.
_OF_THE_RUN = ("config", "out", "name", "seed")


def departures(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """One line a field that a command line changes: ``departs from FILE: reward.encoder: RN50 -> embedded``.

    ``arguments`` are what ``parser`` has accepted. Nothing departs from a --config outside of configs/paper.
    """
    files = [after for before, after in pairwise(arguments) if before == "--config"]
    files += [argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config=")]
    lines = []
    for file in files:
        if Path(file).resolve().parent == PRESETS:
            preset = flat(parser.parse_args(["--config", file]).as_dict())
            asked = flat(parser.parse_args(list(arguments)).as_dict())
            lines += [
                f"departs from {file}: {name}: {preset.get(name, 'not set')} -> {asked.get(name, 'not set')}"
                for name in {**preset, **asked}
                if name.split(".")[0] not in _OF_THE_RUN and preset.get(name) != asked.get(name)
            ]
    return lines
