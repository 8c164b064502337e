"""The sub-commands of ``vlmrm-wrap``: from parsed arguments to a function's call, its report and its files.

Each returns the exit status. What is wrong with the arguments is raised, and told by :mod:`vlmrm_wrap.__main__`.
"""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from vlmrm_wrap.insight import doctor as _doctor
from vlmrm_wrap.insight import landscape as _landscape
from vlmrm_wrap.insight import similarity as _similarity
from vlmrm_wrap.insight import sweep as _sweep
from vlmrm_wrap.insight import video as _video
from vlmrm_wrap.insight.plotting import check_plotting
from vlmrm_wrap.insight.policies import Act, RunFolder, closing, load_policy, make_env, random_policy
from vlmrm_wrap.insight.tables import check_output
from vlmrm_wrap.protocols import RewardModel, as_reward_model
from vlmrm_wrap.wrappers.horizon import FixedHorizon

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["doctor", "landscape", "similarity", "sweep", "video"]


def similarity(options: Namespace) -> int:
    from vlmrm_wrap.encoders import load_encoder

    if options.output:
        check_plotting(options.output)
    clip = load_encoder(options.encoder, options.device, options.dtype)
    result = _similarity.similarity(options.images, options.text, clip, resize_mode=options.resize_mode)
    print(result)
    if options.output:
        result.plot(options.output)
        print(f"heat map: {options.output}")
    return 0


def landscape(options: Namespace) -> int:
    check_plotting(options.output)
    alphas = options.alpha or ([0.0, 0.5, 1.0] if options.baseline else [0.0])
    with closing(_env(options)) as env:
        result = _landscape.landscape(
            env,
            _model(options, alpha=max(alphas)),
            alphas=alphas,
            states=options.state,
            policy=None if options.policy is None else _policy(options.policy, env, options.seed),
            steps=options.steps,
            against=options.against,
            seed=options.seed,
        )
    print(result)
    _plot_and_numbers(result, options.output)
    return 0


def doctor(options: Namespace) -> int:
    from PIL import Image

    if Path(options.output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{options.output!r} is no name of a picture; required: one that ends in .png, .jpg, ...")
    check_output(options.output)
    with closing(_env(options)) as env:
        diagnosis = _doctor.doctor(
            env,
            goal_prompts=options.goal,
            baseline_prompts=options.baseline,
            alpha=_alpha(options),
            encoder=options.encoder,
            device=options.device,
            dtype=options.dtype,
            resize_mode=options.resize_mode,
            steps=options.steps,
            seed=options.seed,
        )
    print(diagnosis)
    if diagnosis.picture is not None:
        Image.fromarray(diagnosis.picture).save(options.output)
        print(f"what CLIP sees: {options.output}")
    return 0 if diagnosis.healthy else 1


def sweep(options: Namespace) -> int:
    if options.output:
        check_plotting(options.output)
    result = _sweep.sweep(options.scores, options.alpha, goal_prompts=options.goal, baseline_prompts=options.baseline)
    print(result)
    if options.output:
        _plot_and_numbers(result, options.output)
    return 0


def video(options: Namespace) -> int:
    _video.check_film(options.output)
    if options.scores:
        check_output(options.scores)
    run = RunFolder.read(Path(options.policy)) if Path(options.policy).is_dir() else None
    if run is None and (options.env is None or options.goal is None):
        raise ValueError(
            f"{options.policy} is no run folder, which would know its env and its prompts: give ENV and --goal"
        )
    env = run.make_env() if run is not None and options.env is None else _env(options)
    with closing(env):
        model: RewardModel = _model(options, alpha=_alpha(options)) if options.goal is not None else _model_of(run)
        recording = _video.video(
            env,
            model,
            _policy(options.policy if run is None else run.policy, env, options.seed),
            options.output,
            episodes=options.episodes,
            max_steps=options.steps,
            seed=options.seed,
            embeddings=options.embeddings,
        )
    print(f"{len(recording.rewards)} steps, mean reward {recording.rewards.mean():.3f}; film: {options.output}")
    if options.scores:
        recording.save(options.scores)
        print(f"scores: {options.scores}")
    return 0


def _env(options: Namespace) -> gym.Env[Any, Any]:
    env = make_env(options.env, options.env_kwargs)
    return env if options.horizon is None else FixedHorizon(env, options.horizon)


def _alpha(options: Namespace) -> float:
    given: float | None = options.alpha
    return given if given is not None else 0.5 if options.baseline else 0.0


def _model(options: Namespace, *, alpha: float) -> "CLIPRewardModel":
    from vlmrm_wrap.reward_model import CLIPRewardModel

    return CLIPRewardModel.from_pretrained(
        options.encoder,
        goal_prompts=options.goal,
        baseline_prompts=options.baseline,
        alpha=alpha,
        device=options.device,
        dtype=options.dtype,
        resize_mode=options.resize_mode,
    )


def _model_of(run: RunFolder | None) -> RewardModel:
    assert run is not None
    if run.recipe is None:
        raise ValueError(f"{run.path} is a control, whose reward was not written in prompts: give --goal")
    return as_reward_model(run.recipe)


def _policy(policy: str | Path, env: gym.Env[Any, Any], seed: int) -> Act:
    return random_policy(env, seed) if policy == "random" else load_policy(Path(policy))


def _plot_and_numbers(result: Any, output: str) -> None:
    numbers = Path(output).with_suffix(".csv")
    result.plot(output)
    result.write_csv(numbers)
    print(f"plot: {output}; numbers: {numbers}")
