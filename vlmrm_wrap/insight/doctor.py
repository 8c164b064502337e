"""What is wrong with an env, its frames, the prompts and the reward, before anything is trained on them."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from vlmrm_wrap.insight.checks import (
    Finding,
    check_crop,
    check_ends,
    check_env_is_known,
    check_motion,
    check_prompts,
    check_renderer,
    check_spread,
    gl_renderer,
    is_fast,
)
from vlmrm_wrap.insight.pictures import beside
from vlmrm_wrap.insight.policies import random_policy
from vlmrm_wrap.insight.states import EnvStates, env_states
from vlmrm_wrap.insight.visits import frames_of_states, terminal_state, walk
from vlmrm_wrap.protocols import UnknownPromptWarning
from vlmrm_wrap.rendering import FrameRenderer, check_renders
from vlmrm_wrap.shared_frames import SharedFrames

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["Diagnosis", "doctor"]

Frames = NDArray[np.uint8]

_FRAMES = 32  # looked at, spread evenly over the random steps
_PLACED = 8  # of their states, at most, are set again
_SAME = 6  # renders of one state, which show the noise
_BATCH = 8  # envs of the training whose speed is estimated
_REPEATS, _SECONDS = 5, 2.0  # of each timing: so often, or so long


@dataclass
class Diagnosis:
    """``findings`` in the order of looking; ``picture``: a frame and what CLIP sees of it, uint8, None without one.

    ``times``: milliseconds, medians: "step", "render" and "transport" (into shared memory) of a frame, "encode" of one
    frame alone and "encode_batch" of 8 at once. ``steps_per_second``: of one env, of 8 in this process, and of 8 in
    worker processes on this machine's cores, all without the learner's own time.
    """

    findings: list[Finding] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    steps_per_second: dict[str, float] = field(default_factory=dict)
    picture: Frames | None = None

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings]
        if self.times:
            lines.append("ms       " + ", ".join(f"{name} {value:.2f}" for name, value in self.times.items()))
        if self.steps_per_second:
            speeds = ", ".join(f"{value:.0f} {name}" for name, value in self.steps_per_second.items())
            lines.append(f"steps/s  {speeds}; the learner's own time comes on top")
        count = {name: sum(each.severity == name for each in self.findings) for name in ("error", "warning")}
        return "\n".join([*lines, f"{count['error']} errors, {count['warning']} warnings"])


def doctor(
    env: gym.Env[Any, Any],
    *,
    goal_prompts: str | Sequence[str],
    baseline_prompts: str | Sequence[str] | None = None,
    alpha: float = 0.5,
    encoder: str = "embedded",
    device: str = "auto",
    dtype: str = "auto",
    resize_mode: str | None = None,
    steps: int = 200,
    seed: int = 0,
) -> Diagnosis:
    """Looks at ``steps`` random steps of ``env`` and at the reward that the prompts give 32 frames of them.

    The arguments are those of :meth:`vlmrm_wrap.CLIPRewardModel.from_pretrained`. What is wrong with frames, prompts
    and reward becomes a finding; what makes looking impossible (an unknown encoder, an env without a render mode, an
    empty prompt) raises ValueError or TypeError. Leaves ``env`` open.
    """
    from vlmrm_wrap.encoders import load_encoder
    from vlmrm_wrap.reward_model import CLIPRewardModel

    check_renders(env, "doctor")
    if steps < 2:
        raise ValueError(f"steps is {steps}; required: at least 2, for the doctor compares frames")
    goal, baseline = (_listed(prompts) for prompts in (goal_prompts, baseline_prompts))
    if not goal or not all(text.strip() for text in [*goal, *baseline]):
        raise ValueError(f"the prompts are {goal} and {baseline}; required: a goal at least, and none empty")
    clip = load_encoder(encoder, device, dtype)
    seen = _random_steps(env, steps, seed)
    diagnosis = Diagnosis(times=seen.times)
    found = diagnosis.findings
    found += check_prompts(clip, goal, baseline, alpha)
    found += check_env_is_known(clip, env)
    scored = not _wrong(found, "prompts")
    settings: dict[str, Any] = {"goal_prompts": goal, "baseline_prompts": baseline or None, "alpha": alpha}
    if not scored:  # what CLIP sees can be shown all the same
        settings = {"goal_prompts": "a", "alpha": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownPromptWarning)  # it is a finding already
        # without a cache, which would time itself, and give one frame's bits in every batch size
        model = CLIPRewardModel(clip, **settings, resize_mode=resize_mode, cache=False)
    if seen.refused is None:
        shown = model.preview(seen.frames)
        captions = ("the env's frame", f"what CLIP sees: {shown.shape[1]} x {shown.shape[2]}")
        diagnosis.picture = beside(seen.frames[-1], shown[-1], captions)
        found.append(_check_view(env, model, seen, shown, seed))
        found.append(check_crop(seen.frames, resize_mode or clip.resize_mode))
        _time_encoding(model, seen.frames, diagnosis)
    else:
        found.append(Finding("error", "frames", seen.refused, "mend render(), or wrap the env"))
    found.append(check_renderer(gl_renderer(env), is_fast(env)))
    if scored and not _wrong(found, "frames"):
        found.append(_check_reward(model, seen.frames))
    mean_reward = float(model(seen.frames).mean()) if scored and seen.refused is None else None
    place = None if seen.terminations else terminal_state(env, seed)
    found.append(check_ends(steps, seen.terminations, mean_reward, place))
    return diagnosis


def _wrong(findings: list[Finding], about: str) -> bool:
    return any(finding.about == about and finding.severity == "error" for finding in findings)


def _listed(prompts: str | Sequence[str] | None) -> list[str]:
    return [] if prompts is None else [prompts] if isinstance(prompts, str) else list(prompts)


@dataclass
class _Seen:
    """Of random steps. ``frames`` and ``states`` of some of them; ``same``: of the last one, drawn again and again.

    ``refused``: what is wrong with the frames, and then there are none. ``space``: None where no state is known.
    """

    frames: Frames
    same: Frames
    states: list[NDArray[np.float64]]
    space: EnvStates | None
    terminations: int
    times: dict[str, float]
    refused: str | None


def _random_steps(env: gym.Env[Any, Any], steps: int, seed: int) -> _Seen:
    """Milliseconds of step, render and transport are in ``times``."""
    renderer = FrameRenderer(env)
    chosen = set(np.linspace(0, steps - 1, min(_FRAMES, steps)).round().astype(int).tolist())
    way = walk(env, random_policy(env, seed), steps, seed)
    frames: list[Frames] = []
    states: list[NDArray[np.float64]] = []
    stepping: list[float] = []
    rendering: list[float] = []
    terminations, space, refused = 0, None, None
    for index in range(steps):
        start = time.perf_counter()
        terminations += next(way).terminated
        stepping.append(time.perf_counter() - start)
        if index not in chosen or refused is not None:
            continue
        start = time.perf_counter()
        unchecked = renderer.render()  # an exception of the env's own goes its own way
        rendering.append(time.perf_counter() - start)
        try:
            frames.append(renderer.checked(unchecked).copy())
        except (TypeError, ValueError) as error:
            refused = str(error)
            continue
        space = space or env_states(env)
        states += [] if space is None else [space.read()]
    times = {"step": 1000 * float(np.median(stepping))}
    if refused is not None:
        nothing = np.zeros((0, 1, 1, 3), np.uint8)
        return _Seen(nothing, nothing, states, space, terminations, times, refused)
    # the first renders open a window or a context, and try out a faster screen
    times["render"] = 1000 * float(np.median(rendering[min(4, len(rendering) - 1) :]))
    times["transport"] = _transport_ms(frames[-1])
    same = np.stack([frames[-1], *(renderer().copy() for _ in range(_SAME - 1))])
    return _Seen(np.stack(frames), same, states, space, terminations, times, None)


def _transport_ms(frame: Frames) -> float:
    shared = SharedFrames(1, frame.shape, across_processes=True)
    try:
        return _median_ms(lambda: np.copyto(shared.frames[0], frame))
    finally:
        shared.unlink()


def _check_view(env: gym.Env[Any, Any], model: "CLIPRewardModel", seen: _Seen, shown: Frames, seed: int) -> Finding:
    """Whether the camera sees the env's state: over the random steps, and where states can be set, by that."""
    same, placed, far_apart = model.preview(seen.same), None, False
    if seen.space is not None:
        far_apart = len(seen.space.far_apart) > 0
        states = seen.space.far_apart if far_apart else np.stack(seen.states[:: -(-len(seen.states) // _PLACED)])
        frames = frames_of_states(env, seen.space, np.concatenate([states, *[states[:1]] * _SAME]), seed)
        if frames is not None:
            placed = model.preview(frames[: len(states)]), model.preview(frames[len(states) :])
    return check_motion(seen.frames, shown, same, placed, far_apart)


def _check_reward(model: "CLIPRewardModel", frames: Frames) -> Finding:
    """The spread of R over the frames, against the noise of batch size and dtype."""
    rewards = model(frames)
    alone = np.concatenate([model(frame[None]) for frame in frames])
    batch_noise, dtype_noise = float(np.abs(rewards - alone).max()), None
    dtype = str(getattr(model.encoder, "dtype", "float32")).removeprefix("torch.")
    if dtype != "float32" and model.recipe is not None:
        precise = type(model).from_recipe({**model.recipe, "dtype": "float32"})
        dtype_noise = float(np.abs(rewards - precise(frames)).max())
    return check_spread(rewards, batch_noise, dtype_noise, dtype)


def _time_encoding(model: "CLIPRewardModel", frames: Frames, diagnosis: Diagnosis) -> None:
    batch = np.stack([frames[index % len(frames)] for index in range(_BATCH)])
    model(batch)  # the first batch of a size may compile or allocate
    times = diagnosis.times
    times["encode"], times["encode_batch"] = _median_ms(lambda: model(batch[:1])), _median_ms(lambda: model(batch))
    alone = times["step"] + times["render"]
    workers = min(_BATCH, os.cpu_count() or 1)
    diagnosis.steps_per_second = {
        "with 1 env": 1000 / (alone + times["encode"]),
        f"with {_BATCH} envs": 1000 / (alone + times["transport"] + times["encode_batch"] / _BATCH),
        f"with {_BATCH} async envs": 1000 / ((alone + times["transport"]) / workers + times["encode_batch"] / _BATCH),
    }


def _median_ms(work: Callable[[], object]) -> float:
    """Wall time of ``work``, milliseconds."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
