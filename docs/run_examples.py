"""The guides' examples, run: what the `console` blocks show is what their commands print.

    python docs/run_examples.py            # runs them and writes what they print; after a change of model or output
    python docs/run_examples.py --check    # exit status 1 where a guide shows something else, numbers aside

Of each guide the `python` and the `console` blocks are run from top to bottom, in one empty folder; `bash` blocks,
which install or train, are not.
"""

import argparse
import contextlib
import io
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from vlmrm_wrap import UnknownPromptWarning
from vlmrm_wrap.__main__ import main as vlmrm_wrap
from vlmrm_wrap.screens import quiet_pygame

GUIDES = sorted(Path(__file__).parent.glob("*.md"))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d.,e-]*|\bnan\b|(?<= )-(?= |$)", re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a Markdown text."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


def run(guide: str) -> str:
    """The Markdown text with what the commands of its console blocks print now, run in the current folder."""
    names: dict[str, object] = {}

    def ran(match: re.Match[str]) -> str:
        language, content = match.groups()
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(content, "guide", "exec"), names)
        if language != "console":
            return match[0]
        return "```console\n" + "".join(f"$ {command}\n{printed(command)}" for command in commands(content)) + "```"

    return _BLOCK.sub(ran, guide)


def commands(console: str) -> list[str]:
    """The commands of a console block, each with the lines that it goes on with."""
    return [match.group(1) for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", console, re.MULTILINE)]


def printed(command: str) -> str:
    """What a `vlmrm-wrap` command prints."""
    name, *arguments = shlex.split(command.replace("\\\n", ""))
    if name != "vlmrm-wrap":
        raise ValueError(f"{command!r} is no vlmrm-wrap command: put it into a bash block")
    out = io.StringIO()
    with contextlib.redirect_stdout(out), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UnknownPromptWarning)
        status = vlmrm_wrap(arguments)
    if status == 2:
        raise ValueError(f"{command!r} failed: {out.getvalue()}")
    first = [f"UnknownPromptWarning: {each.message}\n" for each in told if each.category is UnknownPromptWarning]
    return "".join(first) + re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE)


def masked(text: str) -> list[str]:
    """The lines of a text without its numbers and the width of its columns."""
    return [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]


@contextlib.contextmanager
def empty_folder() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


def main() -> None:
    parser = argparse.ArgumentParser("run_examples.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    check = parser.parse_args().check
    quiet_pygame()
    differ = False
    for path in GUIDES:
        guide = path.read_text()
        with empty_folder():
            new = run(guide)
        if check:
            wrong = [
                f"{path.name}: {old!r}, now {now!r}"
                for old, now in zip(masked(guide), masked(new), strict=False)
                if old != now
            ]
            differ |= bool(wrong)
            print("\n".join(wrong[:3]) or f"{path.name}: as shown")
        elif new != guide:
            path.write_text(new)
            print(f"{path.name}: rewritten")
    sys.exit(int(differ))


if __name__ == "__main__":
    main()
