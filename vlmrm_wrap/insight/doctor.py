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
)
from vlmrm_wrap.insight.pictures import beside
from vlmrm_wrap.insight.policies import random_policy
from vlmrm_wrap.insight.visits import terminal_state
from vlmrm_wrap.protocols import UnknownPromptWarning
from vlmrm_wrap.rendering import FrameRenderer, check_renders
from vlmrm_wrap.shared_frames import SharedFrames

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["Diagnosis", "doctor"]

Frames = NDArray[np.uint8]

_FRAMES = 32  # looked at, spread evenly over the random steps
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
    goal, baseline = (_listed(prompts) for prompts in (goal_prompts, baseline_prompts))
    if not goal or not all(text.strip() for text in [*goal, *baseline]):
        raise ValueError(f"the prompts are {goal} and {baseline}; required: a goal at least, and none empty")
    clip = load_encoder(encoder, device, dtype)
    diagnosis = Diagnosis()
    found = diagnosis.findings
    frames, terminations = _random_steps(env, steps, seed, diagnosis)
    found += check_prompts(clip, goal, baseline, alpha)
    found += check_env_is_known(clip, env)
    # without a cache, which would time itself, and give one frame's bits in every batch size
    scored = all(finding.about != "prompts" or finding.severity != "error" for finding in found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownPromptWarning)  # it is a finding already
        if scored:
            both: dict[str, Any] = {"goal_prompts": goal, "baseline_prompts": baseline or None, "alpha": alpha}
            model = CLIPRewardModel(clip, **both, resize_mode=resize_mode, cache=False)
        else:  # what CLIP sees can be shown all the same
            model = CLIPRewardModel(clip, goal_prompts="a", alpha=0.0, resize_mode=resize_mode, cache=False)
    if not len(frames):
        return diagnosis
    shown = model.preview(frames)
    diagnosis.picture = beside(
        frames[-1], shown[-1], ("the env's frame", f"what CLIP sees: {shown.shape[1]} x {shown.shape[2]}")
    )
    motion = check_motion(frames, shown)
    found += [motion, check_crop(frames, resize_mode or clip.resize_mode), check_renderer(gl_renderer(env))]
    _time_encoding(model, frames, diagnosis)
    if scored and motion.severity != "error":
        found.append(_check_reward(model, frames))
    if scored:
        place = None if terminations else terminal_state(env, seed)
        found.append(check_ends(steps, terminations, float(model(frames).mean()), place))
    return diagnosis


def _listed(prompts: str | Sequence[str] | None) -> list[str]:
    return [] if prompts is None else [prompts] if isinstance(prompts, str) else list(prompts)


def _random_steps(env: gym.Env[Any, Any], steps: int, seed: int, diagnosis: Diagnosis) -> tuple[Frames, int]:
    """Frames of some of the steps, and how many episodes terminated; times of step, render and transport."""
    act, renderer = random_policy(env, seed), FrameRenderer(env)
    frames: list[Frames] = []
    stepping, rendering = [], []
    terminations, over = 0, True
    every = -(-steps // _FRAMES)
    for step in range(steps):
        if over:
            obs, _ = env.reset(seed=seed if step == 0 else None)
        start = time.perf_counter()
        obs, _, terminated, truncated, _ = env.step(act(obs))
        stepping.append(time.perf_counter() - start)
        terminations, over = terminations + bool(terminated), bool(terminated or truncated)
        if step % every:
            continue
        start = time.perf_counter()
        unchecked = renderer.render()
        try:
            frame = renderer.checked(unchecked)
        except (TypeError, ValueError) as error:
            diagnosis.findings.append(Finding("error", "frames", str(error), "mend render(), or wrap the env"))
            return np.zeros((0, 1, 1, 3), np.uint8), terminations
        rendering.append(time.perf_counter() - start)
        frames.append(frame.copy())
    shared = SharedFrames(1, frames[0].shape, across_processes=True)
    try:
        transport = _median_ms(lambda: np.copyto(shared.frames[0], frames[-1]))
    finally:
        shared.unlink()
    # the first renders open a window or a context, and try out a faster screen
    late = rendering[min(4, len(rendering) - 1) :]
    diagnosis.times = {
        "step": 1000 * float(np.median(stepping)),
        "render": 1000 * float(np.median(late)),
        "transport": transport,
    }
    return np.stack(frames), terminations


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
