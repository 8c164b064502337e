"""Films of episodes: the frame, what CLIP sees of it, and the reward's curve growing underneath."""

import os
from itertools import islice
from typing import Any

import gymnasium as gym
from gymnasium.error import DependencyNotInstalled

from vlmrm_wrap.insight.pictures import Picture, beside, draw_reward
from vlmrm_wrap.insight.policies import Act
from vlmrm_wrap.insight.recording import Recording, ScoreRecorder
from vlmrm_wrap.insight.tables import check_output, rounded
from vlmrm_wrap.insight.visits import episode
from vlmrm_wrap.protocols import RewardModel
from vlmrm_wrap.rendering import FrameRenderer, check_renders

__all__ = ["check_film", "video"]

_CAPTIONS = ("the env's frame", "what CLIP sees")
_FPS = 30  # of envs that don't say
_SHORT, _SHORT_SECONDS, _SLOWEST = 60, 2.0, 4.0  # fewer pictures than that last as long, at so many a second at least
_HOLD_SECONDS = 1.0


def video(
    env: gym.Env[Any, Any],
    reward_model: RewardModel,
    act: Act,
    path: str | os.PathLike[str] | None,
    *,
    episodes: int = 1,
    max_steps: int = 500,
    seed: int = 0,
    embeddings: bool = False,
) -> Recording:
    """Films ``episodes`` of ``act`` (from an observation to an action) to an mp4 at ``path``; None films nothing.

    Returns what the rewards are made of, step by step, for :mod:`vlmrm_wrap.insight.sweep`; with ``embeddings``, for
    other prompts too. Episodes are seeded ``seed``, ``seed + 1``, ... and cut off after ``max_steps``. The last frame
    of each stays for a second, and a film of few steps is slow enough to be seen. Leaves ``env`` open.
    DependencyNotInstalled without moviepy, ValueError for another suffix or an env that does not render.
    """
    check_renders(env, "video")
    check_film(path)
    recorder = ScoreRecorder(reward_model, embeddings=embeddings)
    film = _Film(path, env.metadata.get("render_fps") or _FPS)
    renderer = FrameRenderer(env)
    preview = getattr(reward_model, "preview", None)
    try:
        for number in range(episodes):
            which = f"episode {number + 1}   " if episodes > 1 else ""
            rewards: list[float] = []
            own = 0.0
            for step in islice(episode(env, act, seed + number), max_steps):
                frame = renderer()
                rewards.append(recorder.add(frame, step.reward, number))
                own += step.reward
                if path is None:
                    continue
                both = frame if preview is None else beside(frame, preview(frame[None])[0], _CAPTIONS)
                text = f"{which}step {step.number}   reward {rounded(rewards[-1], 3)}"
                text += f"   CLIP return {rounded(sum(rewards), 1)}   env's own {rounded(own, 1)}"
                film.write(draw_reward(both, rewards, text))
            film.hold()
    finally:
        film.close()
    return recorder.recording()


def check_film(path: str | os.PathLike[str] | None) -> None:
    """Before the work: ValueError unless ``path`` ends in .mp4, OSError for its folder, or moviepy isn't installed."""
    if path is None:
        return
    if not os.fspath(path).lower().endswith(".mp4"):
        raise ValueError(f"a film's file ends in .mp4, got {os.fspath(path)!r}")
    check_output(path)
    _writer_class()


class _Film:
    """An mp4 that opens with its first pictures, whose size is that of all.

    ``_SHORT`` pictures wait until it is known whether more come, for a film of fewer is slowed down.
    """

    def __init__(self, path: str | os.PathLike[str] | None, fps: float) -> None:
        self._path, self._fps = path, fps
        self._waiting: list[Picture] = []
        self._held: set[int] = set()  # which of them are shown for a moment
        self._latest: Picture | None = None
        self._writer: Any = None

    def write(self, picture: Picture) -> None:
        self._latest = picture
        if self._writer is not None:
            self._writer.write_frame(picture)
            return
        self._waiting.append(picture)
        if len(self._waiting) == _SHORT:
            self._open()

    def hold(self) -> None:
        """Show the latest picture, the last one of an episode, for a moment."""
        if self._writer is None:
            self._held.add(len(self._waiting) - 1)
        else:
            self._repeat(self._latest)

    def close(self) -> None:
        if self._waiting:
            self._fps = min(self._fps, max(len(self._waiting) / _SHORT_SECONDS, _SLOWEST))
            self._open()
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        assert self._path is not None
        self._writer = _writer_class()(os.fspath(self._path), self._waiting[0].shape[1::-1], self._fps)
        for index, picture in enumerate(self._waiting):
            self._writer.write_frame(picture)
            if index in self._held:
                self._repeat(picture)
        self._waiting.clear()

    def _repeat(self, picture: Picture | None) -> None:
        for _ in range(round(self._fps * _HOLD_SECONDS)):
            self._writer.write_frame(picture)


def _writer_class() -> Any:
    try:
        from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter
    except ImportError as error:
        raise DependencyNotInstalled('films need moviepy: pip install "vlmrm-wrap[train]"') from error
    return FFMPEG_VideoWriter
