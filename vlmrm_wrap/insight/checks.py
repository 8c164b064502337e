"""The doctor's single checks: from frames, sentences and rewards to findings, each with its remedy."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.protocols import unknown_words
from vlmrm_wrap.wrappers.mujoco import FastMuJoCoRender

if TYPE_CHECKING:
    from vlmrm_wrap.encoders import Encoder

__all__ = [
    "Finding",
    "check_crop",
    "check_ends",
    "check_env_is_known",
    "check_motion",
    "check_prompts",
    "check_renderer",
    "check_spread",
    "gl_renderer",
    "is_fast",
]

Frames = NDArray[np.uint8]
Severity = Literal["ok", "warning", "error"]

_DARK = 8  # of 255: what a frame without light has at most
_SEEN = 16  # of 255: what a pixel changes by, at least, where CLIP could see it
_TRACE = 3  # of 255: what noise changes a pixel by, at least; a light that flickers may stay below
_FEW_PIXELS = 1e-3  # of what CLIP sees: 4 pixels of 64 x 64, 50 of 224 x 224
_ALIKE = 0.99  # cosine of goal and baseline: between paraphrases
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software", "gdi generic")


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``severity``: "ok"; "warning": may be meant so; "error": the reward can't be trusted.

    ``about``: what was looked at, in a word. ``remedy``: empty only for "ok".
    """

    severity: Severity
    about: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.severity:<8} {self.about:<12} {self.message}"
        return f"{line}\n{'':<21} -> {self.remedy}" if self.remedy else line


def check_motion(
    frames: Frames,
    shown: Frames,
    same: Frames | None = None,
    placed: tuple[Frames, Frames] | None = None,
    far_apart: bool = False,
) -> Finding:
    """Whether the frames of random steps, ``(n, height, width, 3)``, and what CLIP sees of them, show the env's state.

    What CLIP sees is ``shown (n, side, side, 3)`` of ``frames``, and ``same (k, side, side, 3)`` of renders of one of
    their states: what differs between those is noise, and does not count. ``placed``: likewise, of states that were
    set, and of renders of one of them; ``far_apart``: whether those states should look different.
    """
    n, height, width = frames.shape[:3]
    size, pixels = f"{n} frames of {width} x {height}", f"{shown.shape[1]} x {shown.shape[1]} pixels"
    if frames.max() <= _DARK:
        mend = "check the camera and the light, or this machine's OpenGL (MUJOCO_GL=egl)"
        return Finding("error", "frames", f"{size} are black", mend)
    if all(np.ptp(frame.reshape(-1, 3), axis=0).max() == 0 for frame in frames):
        mend = "turn the camera to the scene, or draw something in render()"
        return Finding("error", "frames", f"{size} are of one colour each", mend)
    if (frames == frames[0]).all():
        message = f"{size} over random steps are the same to the bit: the camera does not see what the actions move"
        return Finding("error", "frames", message, "turn the camera to it, or let render() draw the present state")
    moved = _changed(shown, same)
    mend = "turn the camera to what matters, and bring it nearer"
    if placed is not None:
        seen = _changed(*placed)
        if seen < _FEW_PIXELS and (far_apart or moved >= _FEW_PIXELS):
            message = f"the camera does not see the env's state: {seen:.2%} of the {pixels} that CLIP sees differ "
            message += f"between states that were set, {moved:.2%} over random steps"
            message += ", which must be something else" if moved >= _FEW_PIXELS else ""
            return Finding("error", "frames", message, mend)
    elif moved == 0:
        message = f"of the {pixels} that CLIP sees none changes over random steps, noise aside"
        return Finding("error", "frames", message, mend)
    if moved < _FEW_PIXELS:
        message = f"what CLIP sees hardly changes over random steps: {moved:.2%} of its {pixels}"
        return Finding("warning", "frames", message, "bring the camera nearer, or crop render() to what matters")
    return Finding("ok", "frames", f"{size}; over random steps {moved:.1%} of what CLIP sees changes")


def _changed(shown: Frames, same: Frames | None) -> float:
    """The share of pixels that differ visibly between ``shown``, and not by more than a trace between the ``same``."""
    changed = _differ(shown, _SEEN) if same is None else _differ(shown, _SEEN) & ~_differ(same, _TRACE)
    return float(changed.mean())


def _differ(frames: Frames, least: int) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = np.ptp(frames, axis=0).max(axis=-1) >= least
    return differ


def check_crop(frames: Frames, resize_mode: str) -> Finding:
    """What ``resize_mode="crop"``, which keeps the centre square, leaves out of the frames."""
    about, (height, width) = "crop", frames.shape[1:3]
    if resize_mode != "crop" or height == width:
        return Finding("ok", about, f"{resize_mode!r}: the whole frame is shown")
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    inside = np.zeros((height, width), np.bool_)
    inside[top : top + side, left : left + side] = True
    moving = _differ(frames, _SEEN)
    colours = frames[0].reshape(-1, 3).astype(np.int32) @ np.array([65536, 256, 1])
    values, counts = np.unique(colours, return_counts=True)
    drawn = (colours != values[counts.argmax()]).reshape(height, width)  # all that is not of the commonest colour
    lost_motion, lost = (float((mask & ~inside).sum() / max(mask.sum(), 1)) for mask in (moving, drawn))
    message = (
        f"'crop' cuts {1 - side * side / (height * width):.0%} of the {width} x {height} frame off: {lost_motion:.0%} "
        f"of what moves, {lost:.0%} of what is drawn"
    )
    if lost_motion <= 0.01 and lost <= 0.01:
        return Finding("ok", about, message)
    severity: Severity = "error" if lost_motion > 0.5 else "warning"
    return Finding(severity, about, message, "resize_mode='squash' or 'pad' keeps the whole frame (--resize-mode)")


def check_prompts(encoder: "Encoder", goal: Sequence[str], baseline: Sequence[str], alpha: float) -> list[Finding]:
    """Sentences that are too long, equal, alike or unknown; encodes text only."""
    findings: list[Finding] = []
    embeddings: dict[str, NDArray[np.float64]] = {}
    for text in dict.fromkeys([*goal, *baseline]):
        try:
            embeddings[text] = encoder.encode_text([text]).double().cpu().numpy()[0]
        except ValueError as error:
            findings.append(Finding("error", "prompts", str(error), "shorten it: say what the picture shows, no more"))
        if unknown := unknown_words(encoder, [text]):
            findings.append(
                Finding(
                    "warning",
                    "prompts",
                    f"{encoder.name!r} has not learnt {', '.join(map(repr, unknown))} in {text!r}",
                    "use other words, or an encoder that knows them",
                )
            )
    if len(embeddings) < len({*goal, *baseline}) or not baseline:
        without = f"no baseline, so alpha is {alpha:g}: the plain cosine with the goal"
        return findings if baseline else [*findings, Finding("ok", "prompts", without)]
    g, b = (np.mean([embeddings[text] for text in side], axis=0) for side in (goal, baseline))
    cosine = float(g @ b / np.sqrt((g @ g) * (b @ b)))
    mend = "describe the scene without the goal in the baseline"
    message = f"cosine of goal and baseline {cosine:.4f}; all fit in {encoder.context_length} tokens"
    if np.linalg.norm(g - b) <= 1e-6 * np.linalg.norm(g):
        findings.append(Finding("error", "prompts", "goal and baseline are the same to the encoder", mend))
    elif cosine > _ALIKE:
        findings.append(Finding("warning", "prompts", f"{message}: they say nearly the same", mend))
    else:
        findings.append(Finding("ok", "prompts", message))
    return findings


def check_env_is_known(clip: "Encoder", env: Any) -> list[Finding]:
    """The embedded model scores any env with confidence, and most without meaning."""
    known = list(dict.fromkeys(json.loads(getattr(clip, "metadata", {}).get("env_ids", "[]"))))
    if not known or (env.spec is not None and env.spec.id in known):
        return []
    message = f"{clip.name!r} knows {', '.join(known)} and nothing else: here its rewards mean nothing"
    return [Finding("warning", "encoder", message, "an encoder that has seen the world: --encoder ViT-B/32, RN50, ...")]


def check_spread(rewards: NDArray[Any], batch_noise: float, dtype_noise: float | None, dtype: str) -> Finding:
    """The rewards of different frames against how far one frame's reward depends on batch size and precision."""
    spread, noise = float(np.std(rewards)), max(batch_noise, dtype_noise or 0.0)
    message = (
        f"R is {rewards.min():.3f} to {rewards.max():.3f}, standard deviation {spread:.1e}; noise {batch_noise:.0e} of "
        "the batch size"
    )
    message += "" if dtype_noise is None else f", {dtype_noise:.0e} of {dtype} against float32"
    mend = "make goal and baseline differ more in what the picture shows"
    mend += "" if dtype_noise is None else ", or take dtype='float32'"
    if noise >= spread:
        return Finding("error", "reward", f"{message}: noise is all there is", mend)
    if noise >= 0.1 * spread:
        return Finding("warning", "reward", f"{message}: a tenth of it or more is noise", mend)
    return Finding("ok", "reward", message)


def check_ends(steps: int, terminations: int, mean_reward: float | None, place: str | None = None) -> Finding:
    """Whether ending an episode, or not ending it, pays whatever the words say.

    ``terminations``: episodes that terminated in random ``steps``. ``mean_reward``: None where it is not known.
    ``place``: a state that terminates, if one is known.
    """
    seen = f"{terminations or 'no'} episode{'s' * (terminations > 1)} terminated in {steps} random steps"
    if not terminations and place is None:
        return Finding("ok", "ends", seen)
    where = "" if terminations else f", but the env does terminate ({place})"
    if mean_reward is None:
        what = ": to survive, or with negative rewards to end early,"
    else:
        what = f", and the mean reward is {mean_reward:.2f}: {'to survive' if mean_reward > 0 else 'to end early'}"
    return Finding(
        "error",
        "ends",
        f"{seen}{where}{what} pays, whatever the words say",
        "episodes of one length: FixedHorizon(env, 200), make_vec_env(..., fixed_horizon=200), --horizon 200 here",
    )


def check_renderer(name: str | None, fast: bool = False) -> Finding:
    """The name that OpenGL gives the renderer of a MuJoCo env; None where none was found out.

    ``fast``: whether FastMuJoCoRender is around the env.
    """
    if name is None:
        return Finding("ok", "renderer", "not MuJoCo: no OpenGL renderer to look at")
    if not any(word in name.lower() for word in _SOFTWARE):
        return Finding("ok", "renderer", f"OpenGL draws with {name}")
    message = f"OpenGL draws in software, with {name}"
    if fast:
        return Finding("ok", "renderer", f"{message}, and FastMuJoCoRender leaves out what takes longest")
    mend = (
        "FastMuJoCoRender (--fast-mujoco here) draws several times as fast, slightly differently; with a GPU, install"
    )
    return Finding("warning", "renderer", message, f"{mend} its EGL driver and set MUJOCO_GL=egl")


def is_fast(env: Any) -> bool:
    """Whether FastMuJoCoRender is around ``env``."""
    while isinstance(env, gym.Wrapper) and not isinstance(env, FastMuJoCoRender):
        env = env.env
    return isinstance(env, FastMuJoCoRender)


def gl_renderer(env: Any) -> str | None:
    """What GL_RENDERER says in the context of a MuJoCo env that has rendered; None for other envs."""
    viewer = getattr(getattr(env.unwrapped, "mujoco_renderer", None), "viewer", None)
    if viewer is None:
        return None
    try:
        from OpenGL import GL  # MuJoCo depends on it

        viewer.make_context_current()
        return bytes(GL.glGetString(GL.GL_RENDERER)).decode()
    except Exception as error:  # a diagnosis must not die of what it looks for
        return f"an unknown renderer ({type(error).__name__}: {error})"
