"""Sheets to label: blind, complete, and back to an EPIC distance."""

import csv
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward
from insights import run_folder
from PIL import Image

from vlmrm_wrap import CLIPRewardModel, CLIPRewardWrapper
from vlmrm_wrap.insight.labels import epic_from_labels, frames_of, label_runs, read_labels, write_label_sheet
from vlmrm_wrap.insight.metrics import goal_epic_distance
from vlmrm_wrap.insight.saved_policies import load_policy

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
    fill_in(labels, lambda place: "")
    with pytest.raises(ValueError, match=r"has no labels yet: write 1 \(goal reached\) or 0"):
        epic_from_labels(labels)
    with pytest.raises(FileNotFoundError, match=r"holds no labels\.csv"):
        epic_from_labels(tmp_path / "..")
    labels.write_text("number;label\n1;1\n")
    with pytest.raises(ValueError, match=r"columns \['number;label'\]; required: .* separated by commas"):
        epic_from_labels(labels)
    with pytest.raises(ValueError, match="count is 0"):
        next(frames_of(PaintedEnv(), count=0))


@pytest.mark.parametrize(
    ("added", "words"),
    [("61,1", "has the numbers 61 twice, or they are on no sheet"), ("7,1\n7,0", "7, 7"), ("maybe,1", "maybe twice")],
)
def test_numbers_that_are_on_no_sheet_or_twice_are_refused(tmp_path, added, words):
    labels = sheet(tmp_path)
    labels.write_text(f"number,label\n1,1\n2,0\n{added}\n")
    with pytest.raises(ValueError, match=words):
        epic_from_labels(labels)


def test_what_spreadsheets_make_of_the_table_is_read(tmp_path):
    labels = sheet(tmp_path)
    labels.write_text("number,label,remark\n1,1.0,sure\n2, 0.0 ,\n3\n4,,\n5,0\n,,\n")
    rewards, success = read_labels(tmp_path)
    assert success.tolist() == [True, False, False]
    of_number = {row["number"]: float(row["reward"]) for row in read(tmp_path / "rewards.csv")}
    assert rewards.tolist() == [of_number["1"], of_number["2"], of_number["5"]]


@pytest.mark.parametrize("rewards", [REWARDS[:10], np.r_[REWARDS, REWARDS], REWARDS[:, None], 3.0])
def test_rewards_that_are_not_one_a_frame_are_refused(tmp_path, rewards):
    labels = sheet(tmp_path)
    fill_in(labels, lambda place: place % 2)
    with pytest.raises(ValueError, match=r"rewards has shape .*; required: \(60,\), one for each frame"):
        epic_from_labels(labels, rewards)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((4, 4)), r"frame 1 is float64 of shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 of shape \(4, 4, 4\)"),
        (None, "frame 1 is NoneType"),
    ],
)
def test_frames_of_another_kind_are_refused_before_anything_is_written(tmp_path, frame, words):
    with pytest.raises(ValueError, match=words):
        write_label_sheet(tmp_path / "labels", [(grey(1), 0.5), (frame, 0.5)])
    assert not (tmp_path / "labels").exists()


def test_labels_of_somebody_are_told_of_before_anything_is_played(tmp_path):
    sheet(tmp_path)
    played = []
    with pytest.raises(FileExistsError):
        write_label_sheet(tmp_path, (played.append(frame) or frame for frame in [grey(0)]))
    assert played == []


def test_frames_are_drawn_as_everywhere(monkeypatch):
    """By FrameRenderer, which knows how MuJoCo draws without a display, and whose error says what is wrong."""
    env = PaintedEnv(0, (4,))
    env.render = lambda: None
    with pytest.raises(TypeError, match="returned NoneType; required: a uint8 array"):
        next(frames_of(env, count=1))


# --- of runs -------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    """Two runs on one sentence, one on a constant, and one on another sentence."""
    pytest.importorskip("stable_baselines3")
    model, other = (
        CLIPRewardModel.from_pretrained("embedded", goal_prompts=goal, alpha=0.0) for goal in ("a pole", "a cart")
    )
    made = {"one": model, "two": model, "constant": None, "other": other}
    return {name: run_folder(tmp_path / name, "{id: CartPole-v1}", each) for name, each in made.items()}


def test_a_sheet_of_runs_holds_frames_of_each_with_their_reward(runs, tmp_path):
    folders = [runs[name] for name in ("one", "constant", "two")]
    labels = label_runs(folders, tmp_path / "labels", count=8, every=2, seed=5)
    kept = sorted(read(tmp_path / "labels" / "rewards.csv"), key=lambda row: int(row["frame"]))
    expected = []
    for place, (folder, count) in enumerate(zip(folders, (3, 3, 2), strict=True)):
        env = CLIPRewardWrapper(
            gym.make("CartPole-v1", render_mode="rgb_array"),
            CLIPRewardModel.from_pretrained("embedded", goal_prompts="a pole", alpha=0.0),
        )
        policy = load_policy(folder / "policy.zip")
        expected += [reward for _, reward in frames_of(env, policy, count=count, every=2, seed=5 + place)]
    assert [float(row["reward"]) for row in kept] == pytest.approx(expected, abs=1e-6)
    assert [row["number"] for row in read(labels)] == [str(number) for number in range(1, 9)]


def test_runs_whose_rewards_differ_get_no_common_sheet(runs, tmp_path):
    with pytest.raises(ValueError, match=r"the rewards of .*one and .*other differ"):
        label_runs([runs["one"], runs["other"]], tmp_path / "labels")
    with pytest.raises(ValueError, match="controls only"):
        label_runs([runs["constant"]], tmp_path / "labels")
    with pytest.raises(ValueError, match="count is 1; required: a frame of each of the 2 runs"):
        label_runs([runs["one"], runs["two"]], tmp_path / "labels", count=1)
    described = json.loads((runs["one"] / "reward_model.json").read_text())
    described["recipe"] |= {"device": "cpu", "micro_batch_size": 8}  # trained elsewhere
    (runs["two"] / "reward_model.json").write_text(json.dumps(described))
    assert label_runs([runs["one"], runs["two"]], tmp_path / "labels", count=2, every=1).exists()


def test_from_runs_to_a_distance_on_the_command_line(runs, run):
    status, out, err = run("label", runs["one"], runs["two"], "--output", "sheets", "--count", "12", "--every", "3")
    assert (status, out) == (0, "to fill in: sheets/labels.csv, for the pictures beside it\n"), err
    assert Path("sheets/sheet-1.png").exists()
    status, _, err = run("label", "sheets")
    assert (status, "has no labels yet" in err) == (2, True)
    rewards = [float(row["reward"]) for row in sorted(read(Path("sheets/rewards.csv")), key=lambda r: int(r["frame"]))]
    fill_in(Path("sheets/labels.csv"), lambda place: int(rewards[place] > np.median(rewards)) if place else "")
    status, out, _ = run("label", "sheets")
    distance = goal_epic_distance(rewards[1:], np.array(rewards[1:]) > np.median(rewards))
    yes = int((np.array(rewards[1:]) > np.median(rewards)).sum())
    assert (status, out) == (0, f"11 labels, {yes} of them yes; EPIC distance {distance:.3f} (0 to 1; 0 is best)\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one"], "one holds no labels.csv"),
        (["one", "two"], "--output FOLDER is missing"),
        (["one", "--count", "5"], "--output FOLDER is missing"),
        (["missing", "--output", "sheets"], "missing is no run folder"),
    ],
)
def test_what_the_command_line_can_not_mean(run, arguments, words):
    Path("one").mkdir()
    status, _, err = run("label", *arguments)
    assert (status, err.count("\n"), words in err) == (2, 1, True), err
