"""The film: how long it lasts, where it rests, and what it says."""

from typing import Any

import numpy as np
import pytest
from fakes import PaintedEnv, PaintedReward

from vlmrm_wrap.insight import video as module
from vlmrm_wrap.insight.video import video


class Writer:
    """What is filmed: the painted (env, episode, step) of each picture, and the frames a second."""

    made: list["Writer"] = []  # noqa: RUF012

    def __init__(self, path: str, size: tuple[int, int], fps: float) -> None:
        self.fps, self.pictures = fps, []
        self.made.append(self)

    def write_frame(self, picture: np.ndarray) -> None:
        self.pictures.append(tuple(picture[0, 0].tolist()))

    def close(self) -> None:
        pass


@pytest.fixture
def film(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Any:
    """``film(lengths, episodes, fps)``: what was filmed, and the texts on it."""
    texts: list[str] = []
    draw = module.draw_reward
    monkeypatch.setattr(module, "_writer_class", lambda: Writer)
    monkeypatch.setattr(
        module, "draw_reward", lambda picture, rewards, text: texts.append(text) or draw(picture, rewards, text)
    )

    def filmed(lengths: tuple[int, ...], episodes: int = 1, fps: float = 50) -> tuple[Writer, list[str]]:
        env = PaintedEnv(0, lengths)
        env.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        video(env, PaintedReward(), lambda obs: 0, tmp_path / "film.mp4", episodes=episodes)
        return Writer.made[-1], texts

    return filmed


@pytest.mark.parametrize(
    ("steps", "env_fps", "fps"), [(11, 50, 5.5), (3, 50, 4.0), (59, 50, 29.5), (60, 50, 50), (70, 50, 50), (30, 10, 10)]
)
def test_a_short_film_is_slow_enough_and_the_last_picture_stays_a_second(
    film, steps: int, env_fps: float, fps: float
) -> None:
    writer, _ = film((steps,), fps=env_fps)
    assert writer.fps == fps
    assert writer.pictures[:steps] == [(0, 1, step) for step in range(1, steps + 1)]
    assert writer.pictures[steps:] == [(0, 1, steps)] * round(fps)


def test_each_episode_is_named_and_rests_at_its_end(film) -> None:
    writer, texts = film((2, 65, 3), episodes=3)
    rest = 50
    expected = [(0, 1, 1)] + [(0, 1, 2)] * (1 + rest) + [(0, 2, step) for step in range(1, 66)] + [(0, 2, 65)] * rest
    assert writer.pictures == expected + [(0, 3, 1), (0, 3, 2)] + [(0, 3, 3)] * (1 + rest)
    assert [text.split("   ")[0] for text in texts] == ["episode 1"] * 2 + ["episode 2"] * 65 + ["episode 3"] * 3
    assert film((2,))[1][-1].startswith("step 2   reward ")
