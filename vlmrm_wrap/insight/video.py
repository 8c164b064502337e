"""Films of episodes: the frame, what CLIP sees of it, and the reward's curve growing underneath."""

import os
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

from vlmrm_wrap.insight.pictures import beside, draw_reward
from vlmrm_wrap.insight.recording import Recording, ScoreRecorder
from vlmrm_wrap.insight.tables import check_output
from vlmrm_wrap.protocols import RewardModel
from vlmrm_wrap.rendering import FrameRenderer, check_renders

__all__ = ["check_film", "video"]

_CAPTIONS = ("the env's frame", "what CLIP sees")
_FPS = 30  # of envs that don't say


def video(
    env: gym.Env[Any, Any],
    reward_model: RewardModel,
    act: Callable[[Any], Any],
    path: str | os.PathLike[str] | None,
    *,
    episodes: int = 1,
    max_steps: int = 500,
    seed: int = 0,
    embeddings: bool = False,
) -> Recording:
    """Films ``episodes`` of ``act`` (from an observation to an action) to an mp4 at ``path``; None films nothing.

    Returns what the rewards are made of, step by step, for :mod:`vlmrm_wrap.insight.sweep`; with ``embeddings``, for
    other prompts too. Episodes are seeded ``seed``, ``seed + 1``, ... and cut off after ``max_steps``. No more than
    one frame is held. Leaves ``env`` open. DependencyNotInstalled without moviepy, ValueError for another suffix or
    an env that does not render.
    """
    check_renders(env, "video")
    check_film(path)
    recorder = ScoreRecorder(reward_model, embeddings=embeddings)
    film = _Film(path, env.metadata.get("render_fps") or _FPS)
    renderer = FrameRenderer(env)
    preview = getattr(reward_model, "preview", None)
    try:
        for episode in range(episodes):
            obs, _ = env.reset(seed=seed + episode)
            rewards: list[float] = []
            own, over = 0.0, False
            while not over and len(rewards) < max_steps:
                obs, env_reward, terminated, truncated, _ = env.step(act(obs))
                over = terminated or truncated
                frame = renderer()
                rewards.append(recorder.add(frame, float(env_reward), episode))
                own += float(env_reward)
                if path is None:
                    continue
                both = frame if preview is None else beside(frame, preview(frame[None])[0], _CAPTIONS)
                text = f"step {len(rewards)}   reward {rewards[-1]:.3f}   CLIP return {sum(rewards):.1f}"
                film.write(draw_reward(both, rewards, f"{text}   env's own {own:.1f}"))
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
    """An mp4 that opens with its first picture, whose size is that of all."""

    def __init__(self, path: str | os.PathLike[str] | None, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: Any = None

    def write(self, picture: np.ndarray[Any, Any]) -> None:
        if self._writer is None:
            assert self._path is not None
            self._writer = _writer_class()(os.fspath(self._path), picture.shape[1::-1], self._fps)
        self._writer.write_frame(picture)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _writer_class() -> Any:
    try:
        from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter
    except ImportError as error:
        raise DependencyNotInstalled('films need moviepy: pip install "vlmrm-wrap[train]"') from error
    return FFMPEG_VideoWriter
