"""What a run does otherwise than the preset of the paper that it began from."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from settings import RunConfig, differences, instantiate

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PRESETS = CONFIGS / "paper"
NOTE = "preset.txt"
"""The file in a run folder with the preset's file name."""

# Where a run lies and which of its seeds it is: no departures.
_OF_THE_RUN = ("out", "name", "seed")


def preset_of(configs: Sequence[str]) -> Path | None:
    """The preset that the last of these --config files is, or that the run began from whose config.yaml it is."""
    for config in reversed(configs):
        file = Path(config).resolve()
        if file.name == "config.yaml" and file.with_name(NOTE).is_file():
            file = PRESETS / file.with_name(NOTE).read_text().strip()
        if file.parent == PRESETS and file.is_file():
            return file
    return None


def departures(parser: ArgumentParser, preset: Path, config: RunConfig) -> list[str]:
    """One line a field that ``config`` has otherwise: ``departs from FILE: reward.encoder: RN50 -> embedded``."""
    begun = instantiate(parser, parser.parse_path(preset))
    return [
        f"departs from configs/paper/{preset.name}: {name}: {before} -> {now}"
        for name, before, now in differences(begun, config)
        if name not in _OF_THE_RUN
    ]
