"""What a training script is asked for: a new run, or one that goes on; and in a line why not, where it can't be."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from presets import CONFIGS, departures, preset_of
from resume import State, read_state
from runs import user_errors
from script import Script
from settings import RunConfig, algorithm_of, differences, instantiate, read_settings, usage

# An entry of a dict inside a dict: --env.kwargs.camera.distance
_INNER = re.compile(r"--(env\.(?:kwargs|reset_options))\.[^.=]+\..+")


@dataclass(frozen=True)
class Asked:
    """The run that a command line asks for."""

    config: RunConfig
    text: str
    """All of the config, as YAML."""
    preset: Path | None
    """The file of the paper's that it began from."""
    folder: Path | None
    """Of a run that goes on."""


def read_command_line(script: Script, arguments: Sequence[str]) -> tuple[Asked, State | None]:
    """The run, and of one that goes on its state; leaves by SystemExit if it can't be.

    Every field wins over --config, wherever that stands. Prints how the run departs from a preset of the paper.
    """
    first = argparse.ArgumentParser(script.file, usage(script.file), add_help=False, allow_abbrev=False)
    first.add_argument("--resume", type=Path)
    first.add_argument("--config", action="append", default=[])
    given, fields = first.parse_known_args(arguments)
    folder: Path | None = given.resume
    files: list[str] = given.config
    if folder is not None:
        files = [str(folder / "config.yaml"), *files]
    elif not files and not any(field.split("=")[0] in ("--env", "--env.id") for field in fields):
        files = [str(CONFIGS / script.default)]
    with user_errors():
        if folder is not None and not Path(files[0]).is_file():
            raise ValueError(f"{folder} is no run folder: it holds no config.yaml")
        for file in filter(Path.is_file, map(Path, files)):  # the parser names those that aren't there
            _check_script(script, file)
    parser = script.parser()
    fields = _with_inner_entries(parser, [*(f"--config={file}" for file in files), *fields])
    text: str = parser.dump(parser.parse_args(fields), skip_unset=False)
    # From the text, as when the run is resumed: a number that was given is of a type of jsonargparse's own, one that
    # was left out a plain float, and NumPy multiplies float32 by the former in double precision.
    config: RunConfig = instantiate(parser, parser.parse_string(text))
    asked = Asked(config, text, preset_of(files), folder)
    with user_errors():
        state = None if folder is None else _state_to_go_on_from(script, folder, config)
    if asked.preset is not None:
        for line in departures(parser, asked.preset, config):
            print(line)
    return asked, state


def _check_script(script: Script, file: Path) -> None:
    algorithm = algorithm_of(read_settings(file))
    if algorithm not in (None, script.name):
        raise ValueError(f"{file} is a configuration for train_{algorithm}.py, and this is {script.file}")


def _with_inner_entries(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """``--env.kwargs.camera.distance 5`` as an ``--env.kwargs`` with that entry changed.

    jsonargparse does so for ``--env.kwargs.width``; of ``camera`` it would leave nothing but the distance.
    """
    plain, inner = [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        match = _INNER.fullmatch(name)
        value = None if equals or match is None else next(rest, None)
        if match is None or not (equals or value is not None):
            plain.append(argument)
        else:
            inner.append((match[1], argument if equals else f"{argument}={value}"))
    if not inner:
        return plain
    quiet = [argument for argument in plain if not argument.startswith("--print_config")]
    kwargs = {field: parser.parse_args(quiet)[field] for field, _ in inner}
    for field, argument in inner:
        kwargs[field] = _merged(kwargs[field], parser.parse_args([*quiet, f"--{field}={{}}", argument])[field])
    return [*plain, *(f"--{field}={json.dumps(value)}" for field, value in kwargs.items())]


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def _state_to_go_on_from(script: Script, folder: Path, config: RunConfig) -> State:
    """ValueError if a setting is another than the state was reached with, or nothing is left to do."""
    state = read_state(folder)
    parser = script.parser()
    then: RunConfig = instantiate(parser, parser.parse_string(state["config"]))
    changed = [
        f"{name} was {before} and is {now}" for name, before, now in differences(then, config) if name != "total_steps"
    ]
    if changed:
        raise ValueError(
            f"{folder} goes on with the settings that it had, and only total_steps may be another, but "
            f"{'; '.join(changed)}. Leave them out, or begin a new run."
        )
    if state["steps"] >= config.total_steps and (folder / "evaluation.json").exists():
        raise ValueError(
            f"{folder} is finished: {state['steps']} steps are trained, and total_steps is {config.total_steps}. "
            "A larger --total_steps goes on."
        )
    schedule = script.schedule(script.settings(config))
    if schedule is not None and then.total_steps != config.total_steps:
        print(
            f"total_steps was {then.total_steps} and is {config.total_steps}: {schedule} follows it, so this is not "
            f"the run that was begun with {config.total_steps}",
            file=sys.stderr,
        )
    return state
