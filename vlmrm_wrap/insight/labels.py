"""Frames for people to label, blind to the rewards; and the EPIC distance of a reward to their labels.

    frames_of(env, policy) -> write_label_sheet -> sheet-1.png, labels.csv (to fill in), rewards.csv (to leave shut)
                                                        -> epic_from_labels("labels.csv")

The paper measures its rewards so where no simulator state says what the goal is (Rocamonde et al. 2023, section 4.3).
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from vlmrm_wrap.insight.metrics import goal_epic_distance

__all__ = ["epic_from_labels", "frames_of", "write_label_sheet"]

_YES, _NO = {"1", "yes", "y", "true"}, {"0", "no", "n", "false"}
_COLUMNS, _PER_PAGE = 6, 48
_MARGIN = 4  # pixels between frames


def frames_of(
    env: gym.Env[Any, Any],
    policy: Callable[[Any], Any] | None = None,
    *,
    count: int = 96,
    every: int = 10,
    seed: int | None = None,
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Plays ``env`` and yields ``count`` pairs (frame, reward), of every ``every``-th step.

    ``env``: one that gives the reward to be judged, such as a :class:`~vlmrm_wrap.CLIPRewardWrapper`. ``policy``:
    from an observation to an action; random actions by default. The states should be those that matter: mix the
    frames of policies from several stages of a training. ``seed`` of the first reset and the random actions.
    """
    if count < 1 or every < 1:
        raise ValueError(f"count is {count} and every {every}; required: at least 1 of both")
    obs, _ = env.reset(seed=seed)
    if policy is None:
        env.action_space.seed(seed)
    for step in range(1, count * every + 1):
        action = env.action_space.sample() if policy is None else policy(obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        if step % every == 0:
            frame: Any = env.render()
            yield np.array(frame, np.uint8), float(reward)
        if terminated or truncated:
            obs, _ = env.reset()


def write_label_sheet(
    folder: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8] | tuple[NDArray[np.uint8], float]],
    *,
    seed: int = 0,
    tile: int = 200,
) -> Path:
    """Writes numbered frames for people to label, and returns the path of the table that they fill in.

    ``frames``: uint8 ``(height, width, 3)``, or pairs of a frame and its reward, as from :func:`frames_of`. They are
    shuffled by ``seed``, so that neither order nor reward shows what the reward model thinks. Into ``folder``:

    - ``sheet-1.png``, ...: the frames, each at most ``tile`` pixels wide, 48 a page, with their numbers;
    - ``labels.csv``: columns number, label; labels are empty, and to be 1 (goal reached) or 0;
    - ``rewards.csv``: columns number, frame (its place in ``frames``, from 0), reward (empty if there is none).

    Raises ValueError for no frames, FileExistsError where there are labels already.
    """
    pairs = [each if isinstance(each, tuple) else (each, None) for each in frames]
    if not pairs:
        raise ValueError("there are no frames to label")
    folder = Path(folder)
    labels = folder / "labels.csv"
    if labels.exists():
        raise FileExistsError(f"{labels} may hold somebody's labels; give another folder, or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    numbered = list(enumerate(order, start=1))
    for page, start in enumerate(range(0, len(numbered), _PER_PAGE), start=1):
        shown = [(number, pairs[place][0]) for number, place in numbered[start : start + _PER_PAGE]]
        _page(shown, tile).save(folder / f"sheet-{page}.png")
    rewards = [(number, place, pairs[place][1]) for number, place in numbered]
    _write(folder / "rewards.csv", ("number", "frame", "reward"), rewards)
    _write(labels, ("number", "label"), [(number, "") for number, _ in numbered])
    return labels


def epic_from_labels(labels: str | os.PathLike[str], rewards: ArrayLike | None = None) -> float:
    """EPIC distance of the rewards to people's labels, in [0, 1] (:func:`~.metrics.goal_epic_distance`).

    ``labels``: the ``labels.csv`` of :func:`write_label_sheet`, filled in with 1 or 0 (yes, no, true and false will
    do); rows left empty, where nobody could tell, don't count. ``rewards``: of another reward model for the same
    frames, in the order in which they were handed to write_label_sheet; by default those of ``rewards.csv`` beside it.

    Raises ValueError for other labels (naming their numbers), missing rewards, or labels that are all the same.
    """
    labels = Path(labels)
    meant = {row["number"]: row["label"].strip().lower() for row in _read(labels, {"number", "label"})}
    strange = [f"{number}: {label!r}" for number, label in meant.items() if label not in _YES | _NO | {""}]
    if strange:
        raise ValueError(f"{labels} has labels other than 1, 0 and empty: {', '.join(strange[:5])}")
    table = _read(labels.with_name("rewards.csv"), {"number", "frame", "reward"})
    rows = [row for row in table if meant.get(row["number"])]
    if rewards is not None:
        values = np.asarray(rewards, np.float64)
        known = [values[int(row["frame"])] for row in rows]
    else:
        missing = [row["number"] for row in rows if not row["reward"]]
        if missing:
            raise ValueError(f"rewards.csv has no rewards for the numbers {', '.join(missing[:5])}: pass rewards=")
        known = [float(row["reward"]) for row in rows]
    return goal_epic_distance(known, [meant[row["number"]] in _YES for row in rows])


def _page(numbered: list[tuple[int, NDArray[np.uint8]]], tile: int) -> Image.Image:
    """One picture of up to 48 frames, each under its number."""
    pictures = [(number, Image.fromarray(frame)) for number, frame in numbered]
    for _, picture in pictures:
        picture.thumbnail((tile, tile))
    font = ImageFont.load_default()
    strip = 14  # height of the default font, and some
    width = max(picture.width for _, picture in pictures) + _MARGIN
    height = max(picture.height for _, picture in pictures) + strip + _MARGIN
    rows = -(-len(pictures) // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * width, rows * height), "lightgrey")
    draw = ImageDraw.Draw(page)
    for place, (number, picture) in enumerate(pictures):
        left, top = place % _COLUMNS * width, place // _COLUMNS * height
        draw.text((left + 2, top + 1), str(number), fill="black", font=font)
        page.paste(picture, (left, top + strip))
    return page


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _read(path: Path, columns: set[str]) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark at the front
        table = csv.DictReader(file)
        if not columns <= set(table.fieldnames or ()):
            found = list(table.fieldnames or ())
            raise ValueError(f"{path} has columns {found}; required: {sorted(columns)}, separated by commas")
        return list(table)
