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
from vlmrm_wrap.insight.policies import Act, RunFolder, closing, make_env, random_policy
from vlmrm_wrap.insight.rewards import changed_recipe
from vlmrm_wrap.insight.saved_policies import load_policy
from vlmrm_wrap.insight.tables import check_output, rounded
from vlmrm_wrap.protocols import RewardModel, as_reward_model

if TYPE_CHECKING:
    from vlmrm_wrap.reward_model import CLIPRewardModel

__all__ = ["doctor", "label", "landscape", "similarity", "sweep", "video"]


def similarity(options: Namespace) -> int:
    from vlmrm_wrap.encoders import load_encoder

    if options.output:
        check_plotting(options.output)
    clip = load_encoder(*_encoder(options))
    result = _similarity.similarity(options.images, options.text, clip, resize_mode=options.resize_mode)
    print(result)
    if options.output:
        result.plot(options.output)
        print(f"heat map: {options.output}")
    return 0


def landscape(options: Namespace) -> int:
    check_plotting(options.output)
    check_output(_numbers(options.output))
    alphas = options.alpha or ([0.0, 0.5, 1.0] if options.baseline else [0.0])
    with closing(_env(options)) as env:
        env, policy = (env, None) if options.policy is None else _acting(options.policy, env, options.seed)
        result = _landscape.landscape(
            env,
            _model(options, alpha=max(alphas)),
            alphas=alphas,
            states=options.state,
            policy=policy,
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
    encoder, device, dtype = _encoder(options)
    with closing(_env(options)) as env:
        diagnosis = _doctor.doctor(
            env,
            goal_prompts=options.goal,
            baseline_prompts=options.baseline,
            alpha=_alpha(options),
            encoder=encoder,
            device=device,
            dtype=dtype,
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
        check_output(_numbers(options.output))
    result = _sweep.sweep(options.scores, options.alpha, goal_prompts=options.goal, baseline_prompts=options.baseline)
    print(result)
    if options.output:
        _plot_and_numbers(result, options.output)
    return 0


def video(options: Namespace) -> int:
    _video.check_film(options.output)
    if options.scores:
        check_output(options.scores)
    elif options.embeddings:
        raise ValueError("--embeddings is given without --scores FILE, where they would be kept")
    run = _run_of(options)
    with closing(_env(options, run)) as env:
        env, act = _acting(options.policy, env, options.seed)
        model: RewardModel = _model(options, alpha=_alpha(options)) if run is None else _run_model(run, options)
        recording = _video.video(
            env,
            model,
            act,
            options.output,
            episodes=options.episodes,
            max_steps=options.steps,
            seed=options.seed,
            embeddings=options.embeddings,
        )
    mean = rounded(recording.rewards.mean(), 3)
    print(f"{len(recording.rewards)} steps, mean reward {mean}; film: {options.output}")
    if options.scores:
        recording.save(options.scores)
        print(f"scores: {options.scores}")
    return 0


def label(options: Namespace) -> int:
    from vlmrm_wrap.insight import labels
    from vlmrm_wrap.insight.metrics import goal_epic_distance

    how = {name: value for name in ("count", "every", "seed") if (value := getattr(options, name)) is not None}
    if options.output is not None:
        sheet = labels.label_runs(options.folders, options.output, **how)
        print(f"to fill in: {sheet}, for the pictures beside it")
        return 0
    if len(options.folders) > 1 or how:
        raise ValueError("--output FOLDER is missing: it gets the sheet; without it, one FOLDER whose labels are read")
    rewards, success = labels.read_labels(options.folders[0])
    distance = goal_epic_distance(rewards, success)
    print(f"{len(success)} labels, {int(success.sum())} of them yes; EPIC distance {distance:.3f} (0 to 1; 0 is best)")
    return 0


def _env(options: Namespace, run: RunFolder | None = None) -> gym.Env[Any, Any]:
    """ENV, or the env of ``run`` with what is given beside it."""
    how = {"horizon": options.horizon, "fast_mujoco": options.fast_mujoco}
    if run is not None and options.env is None:
        return make_env(run.env_id, {**run.env_kwargs, **(options.env_kwargs or {})}, **how)
    return make_env(options.env, options.env_kwargs, **how)


def _acting(policy: str, env: gym.Env[Any, Any], seed: int) -> tuple[gym.Env[Any, Any], Act]:
    """``policy``, and ``env`` with the observations that it knows."""
    if policy == "random":
        return env, random_policy(env, seed)
    path = Path(policy)
    saved = load_policy(RunFolder.read(path).policy if path.is_dir() else path)
    return saved.fitted(env), saved


def _encoder(options: Namespace) -> tuple[str, str, str]:
    """Name, device and dtype."""
    return options.encoder or "embedded", options.device or "auto", options.dtype or "auto"


def _alpha(options: Namespace) -> float:
    given: float | None = options.alpha
    return given if given is not None else 0.5 if options.baseline else 0.0


def _model(options: Namespace, *, alpha: float) -> "CLIPRewardModel":
    from vlmrm_wrap.reward_model import CLIPRewardModel

    encoder, device, dtype = _encoder(options)
    return CLIPRewardModel.from_pretrained(
        encoder,
        goal_prompts=options.goal,
        baseline_prompts=options.baseline,
        alpha=alpha,
        device=device,
        dtype=dtype,
        resize_mode=options.resize_mode,
    )


def _run_of(options: Namespace) -> RunFolder | None:
    """The run folder among the arguments; an error where there is none, and what it would know is not given."""
    path = Path(options.policy)
    if path.is_dir():
        return RunFolder.read(path)
    if options.policy != "random" and not path.exists():
        raise FileNotFoundError(f"there is no {path}; required: random, a policy's file, or a run folder")
    if options.env is None:
        raise ValueError(f"ENV is missing, which goes before the sentences of --goal: video {path} ENV --goal ...")
    if options.goal is None:
        raise ValueError("--goal is missing: sentences that say what the picture shows in the end")
    return None


def _run_model(run: RunFolder, options: Namespace) -> RewardModel:
    """The run's reward, with what is given changed; for a control, whose reward was another, all must be given."""
    if run.recipe is None:
        if options.goal is None:
            raise ValueError(f"{run.path} is a control, whose reward was not written in prompts: give --goal")
        return _model(options, alpha=_alpha(options))
    given = {"goal_prompts": options.goal, "baseline_prompts": options.baseline}
    given |= {name: getattr(options, name) for name in ("alpha", "encoder", "device", "dtype", "resize_mode")}
    return as_reward_model(
        changed_recipe(run.recipe, {key: value for key, value in given.items() if value is not None})
    )


def _numbers(output: str) -> Path:
    return Path(output).with_suffix(".csv")


def _plot_and_numbers(result: Any, output: str) -> None:
    result.plot(output)
    result.write_csv(_numbers(output))
    print(f"plot: {output}; numbers: {_numbers(output)}")
