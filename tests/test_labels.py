"""Sheets to label: blind, complete, and back to an EPIC distance."""

import csv

import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward
from PIL import Image

from vlmrm_wrap import CLIPRewardWrapper
from vlmrm_wrap.insight.labels import epic_from_labels, frames_of, write_label_sheet
from vlmrm_wrap.insight.metrics import goal_epic_distance

REWARDS = np.linspace(0.2, 0.9, 60) ** 2


def grey(level):
    return np.full((20, 30, 3), level, np.uint8)


def sheet(folder, rewards=REWARDS):
    """Frame i is grey with level 100 + i."""
    return write_label_sheet(folder, [(grey(100 + place), reward) for place, reward in enumerate(rewards)], tile=30)


def read(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill_in(labels, label_of):
    """``label_of(place)`` for each frame, as somebody does who knows the frames."""
    places = {row["number"]: int(row["frame"]) for row in read(labels.with_name("rewards.csv"))}
    rows = [f"{row['number']},{label_of(places[row['number']])}" for row in read(labels)]
    labels.write_text("\n".join(["number,label", *rows]), encoding="utf-8-sig")


def test_frames_of_a_run_are_those_that_were_scored():
    env = CLIPRewardWrapper(PaintedEnv(0, (4, 3)), PaintedReward())
    seen = [(tuple(frame[0, 0].tolist()), reward) for frame, reward in frames_of(env, lambda obs: 0, count=4, every=2)]
    assert seen == [((0, 1, 2), 102), ((0, 1, 4), 104), ((0, 2, 2), 202), ((0, 3, 1), 301)]


def test_a_seed_repeats_a_random_run():
    def play(seed):
        actions = []
        env = PaintedEnv(0, (100,))
        step = env.step
        env.step = lambda action: (actions.append(int(action)), step(action))[1]
        list(frames_of(env, count=10, every=3, seed=seed))
        return actions

    assert play(1) == play(1) != play(2)


def test_the_table_to_fill_in_tells_nothing(tmp_path):
    labels = sheet(tmp_path)
    assert labels == tmp_path / "labels.csv"
    rows = read(labels)
    assert [row["number"] for row in rows] == [str(number) for number in range(1, 61)]
    assert {row["label"] for row in rows} == {""}
    kept = read(tmp_path / "rewards.csv")
    assert [row["number"] for row in kept] == [row["number"] for row in rows]
    places = [int(row["frame"]) for row in kept]
    assert sorted(places) == list(range(60))
    assert abs(np.corrcoef(places, np.arange(60))[0, 1]) < 0.5  # not in the order of the run
    assert [float(row["reward"]) for row in kept] == [REWARDS[place] for place in places]


def test_the_sheet_shows_each_frame_under_its_number(tmp_path):
    sheet(tmp_path)
    pages = [np.asarray(Image.open(tmp_path / f"sheet-{page}.png")) for page in (1, 2)]
    assert not (tmp_path / "sheet-3.png").exists()
    for row in read(tmp_path / "rewards.csv"):
        place = int(row["number"]) - 1
        page, place = pages[place // 48], place % 48
        top, left = place // 6 * 38, place % 6 * 34
        assert (page[top + 14 : top + 34, left : left + 30] == 100 + int(row["frame"])).all()
        assert (page[top : top + 14, left : left + 30] < 128).any()  # a number


def test_labels_give_the_epic_distance(tmp_path):
    labels = sheet(tmp_path)
    fill_in(labels, lambda place: int(place >= 40))
    assert epic_from_labels(labels) == pytest.approx(goal_epic_distance(REWARDS, np.arange(60) >= 40))
    other = np.sin(np.arange(60))  # another model, the same frames
    assert epic_from_labels(labels, other) == pytest.approx(goal_epic_distance(other, np.arange(60) >= 40))


def test_rows_left_empty_do_not_count_and_words_do(tmp_path):
    labels = sheet(tmp_path)
    fill_in(labels, lambda place: {0: "", 1: " ", 2: "Yes"}.get(place, "no"))
    assert epic_from_labels(labels) == pytest.approx(goal_epic_distance(REWARDS[2:], np.arange(2, 60) == 2))


def test_what_goes_wrong_is_told(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_label_sheet(tmp_path, [])
    labels = write_label_sheet(tmp_path, [grey(level) for level in range(3)])
    with pytest.raises(FileExistsError, match="somebody's labels"):
        write_label_sheet(tmp_path, [grey(0)])
    fill_in(labels, lambda place: place % 2)
    with pytest.raises(ValueError, match=r"no rewards for the numbers 1, 2, 3: pass rewards="):
        epic_from_labels(labels)
    assert epic_from_labels(labels, [0, 1, 0]) == 0
    fill_in(labels, lambda place: "maybe")
    with pytest.raises(ValueError, match="other than 1, 0 and empty: 1: 'maybe'"):
        epic_from_labels(labels)
    labels.write_text("number;label\n1;1\n")
    with pytest.raises(ValueError, match=r"columns \['number;label'\]; required: .* separated by commas"):
        epic_from_labels(labels)
    with pytest.raises(ValueError, match="count is 0"):
        next(frames_of(PaintedEnv(), count=0))
