"""Everything that is drawn with matplotlib, which is an extra and loads on first use.

Figures are made without pyplot: no backend is chosen, no window opens, nothing stays in memory.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from vlmrm_wrap.insight.tables import check_output, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_plotting", "new_figure", "save_curves", "save_heat_maps", "save_maps"]

Array = NDArray[Any]
Path = str | os.PathLike[str]
Pictures = Sequence[tuple[str, NDArray[np.uint8]]]
"""Captions and uint8 frames, shown side by side above a plot."""


def check_plotting(path: Path) -> None:
    """Before the work: DependencyNotInstalled without matplotlib, ValueError for a suffix, OSError for a folder."""
    figure = new_figure(1, 1)
    suffix = os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise ValueError(f"{os.fspath(path)!r} ends in {suffix!r}; a plot's file ends in one of {', '.join(known)}")
    check_output(path)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyNotInstalled('plots need matplotlib: pip install "vlmrm-wrap[train]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def save_heat_maps(path: Path, rows: Sequence[str], columns: Sequence[str], values: Mapping[str, Array]) -> None:
    """Matrices ``(rows, columns)`` side by side under their titles, each number written into its cell.

    Colours span the numbers of a matrix; where all are the same, they are in the middle.
    """
    labels = ["\n".join(textwrap.wrap(text, 24)) for text in columns]
    lines = max(label.count("\n") for label in labels) + 1
    width = max(2.2, 0.9 * len(columns)) * len(values) + 1.2
    figure = new_figure(width, 0.6 * len(rows) + 0.16 * min(24, max(map(len, labels))) * 0.6 + 1.2 + 0.1 * lines)
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (title, matrix) in zip(panels, values.items(), strict=True):
        low, high = float(matrix.min()), float(matrix.max())
        if low == high:
            low, high = low - 1, high + 1
        axes.imshow(matrix, cmap="viridis", aspect="auto", vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(matrix):
            color = "black" if value - low > 0.6 * (high - low) else "white"
            axes.text(column, row, rounded(value, 3), ha="center", va="center", fontsize=9, color=color)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(columns)), labels, fontsize=8, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
    figure.savefig(path, dpi=150)


def save_curves(
    path: Path,
    title: str,
    xlabel: str,
    x: Array,
    curves: Mapping[str, Array],
    pictures: Pictures = (),
    marks: Sequence[float] = (),
    breaks: Sequence[int] = (),
) -> None:
    """``curves`` over ``x`` under ``pictures``, each with a scale of its own: R's range differs much between alphas.

    Grey lines at ``marks``; no line across ``breaks``, the indices where episodes begin; episodes of one step are dots.
    """
    above = 1.6 if pictures else 0.0
    figure = new_figure(8, 0.9 + above + max(2.4, 1.2 * len(curves)))
    grid = figure.add_gridspec(
        len(curves) + bool(pictures), 1, height_ratios=[1.5] * bool(pictures) + [1] * len(curves)
    )
    if pictures:
        _show(figure, grid[0], pictures)
    # a NaN between two episodes is a gap in the line, and a single number between two of them would not be seen
    x, gaps = np.insert(np.asarray(x, np.float64), list(breaks), np.nan), list(breaks)
    no_line = np.isnan(np.pad(x, 1, constant_values=np.nan))
    alone = np.flatnonzero(no_line[:-2] & no_line[2:])
    below: list[Axes] = []
    for row, (label, values) in enumerate(curves.items()):
        axes = figure.add_subplot(grid[row + bool(pictures)], sharex=below[0] if below else None)
        below.append(axes)
        y = np.insert(np.asarray(values, np.float64), gaps, np.nan)
        axes.plot(x, y, color=f"C{row}", linewidth=1.6, marker=".", markevery=alone.tolist())
        axes.set_ylabel(f"R, {label}", fontsize=9)
        axes.margins(x=0.01)
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=row == len(curves) - 1, labelsize=8)
        for mark in marks:
            axes.axvline(mark, color="0.8", zorder=0)
    below[-1].set_xlabel(xlabel)
    if xlabel == "step":
        below[-1].locator_params("x", integer=True)
    figure.suptitle(_wrapped(title), fontsize=10)
    figure.align_ylabels(below)
    figure.savefig(path, dpi=120)


def save_maps(
    path: Path,
    title: str,
    names: tuple[str, str],
    axes_values: tuple[Array, Array],
    maps: Mapping[str, Array],
    pictures: Pictures = (),
) -> None:
    """One coloured map a key, ``(len(first axis), len(second axis))``, each with a scale of its own."""
    figure = new_figure(max(8.0, 3.4 * len(maps)), 5.6 if pictures else 3.4)
    grid = figure.add_gridspec(2 if pictures else 1, 1, height_ratios=(2, 3) if pictures else (1,))
    if pictures:
        _show(figure, grid[0], pictures)
    below = grid[-1].subgridspec(1, len(maps))
    for column, (label, values) in enumerate(maps.items()):
        axes = figure.add_subplot(below[column])
        mesh = axes.pcolormesh(*axes_values, np.asarray(values).T, cmap="viridis", shading="nearest")
        figure.colorbar(mesh, ax=axes, label="R")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel(names[0])
        if column == 0:
            axes.set_ylabel(names[1])
    figure.suptitle(_wrapped(title), fontsize=10)
    figure.savefig(path, dpi=120)


def _show(figure: "Figure", cell: Any, pictures: Pictures) -> None:
    columns = cell.subgridspec(1, len(pictures))
    for column, (caption, picture) in enumerate(pictures):
        axes = figure.add_subplot(columns[column])
        axes.imshow(picture)
        axes.set_title(caption, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])


def _wrapped(title: str) -> str:
    """Each line of the title broken where it gets too long."""
    return "\n".join(part for line in title.splitlines() for part in textwrap.wrap(line, 100))
