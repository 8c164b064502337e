"""Numbers as text, as CSV, and how alike two of them are ordered."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.metrics import spearman

__all__ = ["check_output", "prompts_of", "rank_correlation", "rounded", "table", "write_csv"]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns aligned: the first to the left, numbers, with three decimals if they are floats, to the right."""
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float | np.floating):
        return str(value)
    return "-" if np.isnan(value) else rounded(value, 3)


def rounded(value: float | np.floating[Any], digits: int) -> str:
    """``value`` with so many digits after the point, and none of them -0.00."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def write_csv(path: str | os.PathLike[str], columns: dict[str, Sequence[Any] | NDArray[Any]]) -> None:
    """One column for each key; all of one length."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's, in [-1, 1]; NaN if either is the same everywhere, or not finite, and correlates with nothing."""
    if not all(np.isfinite(each).all() and np.ptp(each) > 0 for each in (first, second)):
        return float("nan")
    return spearman(first, second)


def prompts_of(recipe: Mapping[str, Any]) -> str:
    """Goal and baseline of a reward model, for a title."""
    goal, baseline = recipe.get("goal_prompts"), recipe.get("baseline_prompts")
    shown = " / ".join(goal) if isinstance(goal, list) else "pictures"
    return f"goal “{shown}”" + (f", baseline “{' / '.join(baseline)}”" if baseline else "")


def check_output(path: str | os.PathLike[str]) -> None:
    """Before the work whose result goes to ``path``: OSError unless a file can be written there."""
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; required: the name of a file")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file} can't be written: there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise PermissionError(f"{file} can't be written: this user has no right to")
