"""Frames for people to label, blind to the rewards; and the EPIC distance of a reward to their labels.

    label_runs(run folders), or
    frames_of(env, policy) -> write_label_sheet -> sheet-1.png, labels.csv (to fill in), rewards.csv (to leave shut)
                                                        -> epic_from_labels("labels.csv")

The paper measures its rewards so where no simulator state says what the goal is (Rocamonde et al. 2023, section 4.3).
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from vlmrm_wrap.insight.metrics import goal_epic_distance
from vlmrm_wrap.insight.policies import Act, RunFolder, closing, make_env, random_policy
from vlmrm_wrap.insight.saved_policies import load_policy
from vlmrm_wrap.insight.visits import walk
from vlmrm_wrap.protocols import as_reward_model, score_frames
from vlmrm_wrap.rendering import FrameRenderer

__all__ = ["epic_from_labels", "frames_of", "label_runs", "read_labels", "write_label_sheet"]

Frame = NDArray[np.uint8]
AnyPath = str | os.PathLike[str]

_YES, _NO = {"1", "1.0", "yes", "y", "true"}, {"0", "0.0", "no", "n", "false"}
_COLUMNS, _PER_PAGE = 6, 48
_MARGIN = 4  # pixels between frames
_HERE = ("device", "dtype", "download_root", "backend", "micro_batch_size")  # of a recipe: how it is computed


def frames_of(
    env: gym.Env[Any, Any], policy: Act | None = None, *, count: int = 96, every: int = 10, seed: int | None = None
) -> Iterator[tuple[Frame, float]]:
    """Plays ``env`` and yields ``count`` pairs (frame, reward), of every ``every``-th step.

    ``env``: one that gives the reward to be judged, such as a :class:`~vlmrm_wrap.CLIPRewardWrapper`. ``policy``:
    from an observation to an action; random actions by default. The states should be those that matter: mix the
    frames of policies from several stages of a training. ``seed`` of the first reset and the random actions.
    """
    if count < 1 or every < 1:
        raise ValueError(f"count is {count} and every {every}; required: at least 1 of both")
    act, renderer = policy or random_policy(env, seed), FrameRenderer(env)
    for index, step in enumerate(walk(env, act, count * every, seed), start=1):
        if index % every == 0:
            yield renderer().copy(), step.reward


def label_runs(runs: Sequence[AnyPath], folder: AnyPath, *, count: int = 96, every: int = 10, seed: int = 0) -> Path:
    """:func:`write_label_sheet` of ``count`` frames of the policies of run folders, as many of each as can be.

    The rewards are those of the runs' one reward model; runs without one, which are controls, may be among them.
    ValueError for runs whose rewards differ, and as for :class:`~vlmrm_wrap.insight.policies.RunFolder`.
    """
    if count < len(runs):
        raise ValueError(f"count is {count}; required: a frame of each of the {len(runs)} runs at least")
    read = [RunFolder.read(Path(run)) for run in runs]
    model = as_reward_model(_one_recipe(read))

    def frames() -> Iterator[tuple[Frame, float]]:
        for place, run in enumerate(read):
            policy = load_policy(run.policy)
            share = count // len(read) + (place < count % len(read))
            with closing(make_env(run.env_id, run.env_kwargs)) as env:
                for frame, _ in frames_of(policy.fitted(env), policy, count=share, every=every, seed=seed + place):
                    yield frame, float(score_frames(model, frame[None]).rewards[0])

    return write_label_sheet(folder, frames(), seed=seed)


def _one_recipe(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """The recipe that all runs share, controls aside; how it is computed may differ."""
    known = {str(run.path): run.recipe for run in runs if run.recipe is not None}
    if not known:
        raise ValueError(f"{', '.join(str(run.path) for run in runs)}: controls only, whose reward was not in prompts")
    first, *others = known
    for other in others:
        if _meant(known[other]) != _meant(known[first]):
            raise ValueError(
                f"the rewards of {first} and {other} differ, so one distance would say nothing of either; required: "
                "runs with the same reward, for one sheet"
            )
    return known[first]


def _meant(recipe: dict[str, Any]) -> dict[str, Any]:
    inside = {"model": _meant(recipe["model"])} if "model" in recipe else {}
    return {name: value for name, value in recipe.items() if name not in _HERE} | inside


def write_label_sheet(
    folder: AnyPath,
    frames: Iterable[Frame | tuple[Frame, float]],
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

    Raises ValueError for no frames or frames of another kind, FileExistsError where there are labels already.
    """
    folder = Path(folder)
    labels = folder / "labels.csv"
    if labels.exists():
        raise FileExistsError(f"{labels} may hold somebody's labels; give another folder, or move it away")
    pairs = [each if isinstance(each, tuple) else (each, None) for each in frames]
    if not pairs:
        raise ValueError("there are no frames to label")
    for place, (frame, _) in enumerate(pairs):
        _check_frame(frame, place)
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


def epic_from_labels(labels: AnyPath, rewards: ArrayLike | None = None) -> float:
    """EPIC distance of the rewards to people's labels, in [0, 1] (:func:`~.metrics.goal_epic_distance`).

    Arguments and errors are those of :func:`read_labels`; ValueError too for labels that are all the same.
    """
    return goal_epic_distance(*read_labels(labels, rewards))


def read_labels(labels: AnyPath, rewards: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rewards and labels, ``(n,)`` each, of the ``n`` frames that are labelled.

    ``labels``: the ``labels.csv`` of :func:`write_label_sheet`, or its folder, filled in with 1 or 0 (yes, no, true and
    false will do); rows left empty, where nobody could tell, don't count. ``rewards``: of another reward model for the
    same frames, in the order in which they were handed to write_label_sheet; by default those of ``rewards.csv`` there.

    Raises ValueError for other labels or numbers (naming them), no labels, and rewards that are missing, or not one
    for each frame; FileNotFoundError for a folder without labels.
    """
    labels = Path(labels)
    if labels.is_dir():
        labels = labels / "labels.csv"
        if not labels.exists():
            raise FileNotFoundError(
                f"{labels.parent} holds no labels.csv; write_label_sheet, or `label --output`, does"
            )
    table = _read(labels.with_name("rewards.csv"), {"number", "frame", "reward"})
    rows = _read(labels, {"number", "label"})
    numbers = [row["number"] for row in rows]
    wrong = [
        number for number in numbers if numbers.count(number) > 1 or number not in {row["number"] for row in table}
    ]
    if wrong:
        raise ValueError(f"{labels} has the numbers {', '.join(wrong[:5])} twice, or they are on no sheet")
    meant = {row["number"]: row["label"].lower() for row in rows if row["label"]}
    strange = [f"{number}: {label!r}" for number, label in meant.items() if label not in _YES | _NO]
    if strange:
        raise ValueError(f"{labels} has labels other than 1, 0 and empty: {', '.join(strange[:5])}")
    if not meant:
        raise ValueError(f"{labels} has no labels yet: write 1 (goal reached) or 0 behind each number, as in 7,1")
    if rewards is None:
        missing = [row["number"] for row in table if row["number"] in meant and not row["reward"]]
        if missing:
            raise ValueError(f"rewards.csv has no rewards for the numbers {', '.join(missing[:5])}: pass rewards=")
        known = {row["number"]: float(row["reward"]) for row in table if row["reward"]}
    else:
        values = np.asarray(rewards, np.float64)
        if values.shape != (len(table),):
            raise ValueError(f"rewards has shape {values.shape}; required: ({len(table)},), one for each frame")
        known = {row["number"]: float(values[int(row["frame"])]) for row in table}
    return np.array([known[number] for number in meant]), np.array([label in _YES for label in meant.values()])


def _check_frame(frame: Any, place: int) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        what = f"{frame.dtype} of shape {frame.shape}" if isinstance(frame, np.ndarray) else f"{type(frame).__name__}"
        raise ValueError(f"frame {place} is {what}; required: uint8 of shape (height, width, 3)")


def _page(numbered: list[tuple[int, Frame]], tile: int) -> Image.Image:
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
    """The rows of a table, without spaces around; what a row leaves out is empty, and so are no rows."""
    with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark at the front
        table = csv.DictReader(file, restval="")
        if not columns <= set(table.fieldnames or ()):
            found = list(table.fieldnames or ())
            raise ValueError(f"{path} has columns {found}; required: {sorted(columns)}, separated by commas")
        rows = [{column: row[column].strip() for column in columns} for row in table]
    return [row for row in rows if any(row.values())]
