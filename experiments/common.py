"""What the experiments share: typed configs, the training env, the checkpoint, the evaluation.

Everything that touches rewards goes through the public API of ``vlmrm_wrap``; the rest is Gymnasium and
Stable-Baselines3. A run folder holds

    config.yaml          every field of the run, readable by --config
    reward_model.json    the recipe of the reward model and its constants |g|, |b|, g.b
    policy.zip           the checkpoint with the best CLIP return   (+ policy.obs.json with obs statistics)
    final_policy.zip     the policy after the last step             (+ final_policy.obs.json)
    progress.csv         both learning curves and PPO's diagnostics; the same in TensorBoard's event file
    learning_curves.png  evaluation.json  video.mp4
    scores.npz           s.g, s.b and the embeddings of the filmed steps: vlmrm-wrap sweep gives them other prompts
"""

import json
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout
if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, which draws in memory, looks for a screen

import gymnasium as gym
import numpy as np
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    unwrap_vec_normalize,
)
from tqdm import tqdm

from vlmrm_wrap import CLIPRewardModel, FrameScores, RewardModel
from vlmrm_wrap.insight.policies import deterministic, rescaled
from vlmrm_wrap.sb3 import CLIPRewardVecEnv, DeferredVecNormalize, make_vec_env

# --- configs: typed, frozen and strict; the docstring under a field is its line in --help --------------------


@dataclass(frozen=True)
class EnvConfig:
    """The environment."""

    id: str
    """Gymnasium id, e.g. LunarLander-v3, or module:id for an env that an import registers."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of gymnasium.make, e.g. '{gravity: -5.0}'; render_mode is set for you."""
    n_envs: PositiveInt = 8
    """Copies that step side by side; the reward model scores their frames as one batch."""
    vec: Literal["dummy", "subproc"] = "dummy"
    """All envs in this process, or one worker process each (for envs that are slow to step or render)."""
    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    """How workers start; null is SB3's choice."""
    horizon: PositiveInt | None = None
    """Training episodes last exactly this long, whatever the env says, because an early end leaks the
    task. null keeps the env's own ends. Evaluation always keeps them."""
    reset_options: dict[str, Any] = field(default_factory=dict)
    """options= of every training reset, e.g. '{low: -1.2, high: 0.6}' starts MountainCar anywhere.
    Evaluation resets without them."""
    rescale_obs: bool = False
    """Map bounded observations to [-1, 1], in training and in evaluation: the same numbers for every run,
    where normalize.obs depends on what has been seen."""

    def __post_init__(self) -> None:
        if "render_mode" in self.kwargs:
            raise ValueError("env.kwargs holds render_mode, which is set for you: leave it out")


@dataclass(frozen=True)
class RewardConfig:
    """The reward: CLIP's, or a constant as a control."""

    goal_prompts: list[str] | str
    """What the agent shall bring about; a sentence or several."""
    baseline_prompts: list[str] | str | None = None
    """What the picture shows anyway; needed where alpha is above 0."""
    encoder: str = "embedded"
    """"embedded", a name of OpenAI's clip ("ViT-B/32"), "open_clip:NAME/TAG", or a path to a checkpoint."""
    alpha: ClosedUnitInterval = 0.5
    """Strength of the goal-baseline regularisation; 0 is the plain cosine."""
    device: str = "auto"
    """Of the reward model, e.g. cpu, cuda:1, mps."""
    dtype: str = "auto"
    """Of the encoder: float32, bfloat16, float16."""
    resize_mode: Literal["squash", "crop", "pad"] | None = None
    """How a frame becomes a square; null is the encoder's own way."""
    normalize_prompt_mean: bool = False
    """Scale the mean embedding of several prompts to length 1."""
    micro_batch_size: PositiveInt = 64
    """Most frames on the device at once."""
    deferred: bool = False
    """Score full micro-batches while the envs step on, for large encoders on a GPU; the same rewards."""
    constant: float | None = None
    """Control: pay this every step in place of CLIP's reward. Nothing can be learnt from it; where a
    policy improves nevertheless, the ends of the episodes have leaked the task."""
    env_reward: bool = False
    """Control: train on the env's own reward, to see what is reached with it under the same settings."""

    def __post_init__(self) -> None:
        if self.env_reward and self.constant is not None:
            raise ValueError("reward.env_reward and reward.constant are both set: a run has one reward")
        if self.deferred and self.control is not None:
            raise ValueError("reward.deferred is set, and a control has nothing to score later: leave one of them out")

    @property
    def control(self) -> str | None:
        """The name of the control, None for CLIP's reward."""
        return "env" if self.env_reward else None if self.constant is None else "constant"


@dataclass(frozen=True)
class NormalizeConfig:
    """SB3's VecNormalize, outside the reward wrapper."""

    obs: bool = False
    """Scale observations by their running mean and variance."""
    reward: bool = False
    """Divide rewards by the running standard deviation of their discounted sum."""


@dataclass(frozen=True)
class EvaluationConfig:
    """The true return: the unmodified env, its own ends, no CLIP, a deterministic policy."""

    episodes: PositiveInt = 20
    """Episodes, seeded evaluation.seed, evaluation.seed + 1, ..."""
    seed: NonNegativeInt = 10_000
    """Far from training's seeds."""
    max_steps: PositiveInt = 10_000
    """Where an env that never ends by itself is cut off."""
    video: bool = True
    """Film the first of these episodes, with the reward drawn on every frame."""


def make_parser(config_class: type, prog: str, description: str) -> ArgumentParser:
    """A command line with one option per field of ``config_class``, and ``--config FILE``."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog, f"{prog} [--config FILE] [--FIELD VALUE ...]", description)
    parser.add_argument("--config", action="config", help="YAML file with some or all of the fields")
    parser.add_class_arguments(config_class)
    return parser


def instantiate(parser: ArgumentParser, parsed: Namespace) -> Any:
    """The frozen config of what was parsed; a value out of range leaves by ``parser.error``."""
    try:
        config = parser.instantiate(parsed)
    except ValueError as error:
        parser.error(str(error))
    return config


# --- reward model and training env ---------------------------------------------------------------------------


class ConstantReward:
    """The control: a reward model that pays the same for every frame."""

    def __init__(self, value: float) -> None:
        self.value = value

    def score(self, frames: np.ndarray) -> FrameScores:
        zeros = np.zeros(len(frames), np.float32)
        return FrameScores(np.full_like(zeros, self.value), zeros, zeros)


class ControlVecEnv(VecEnvWrapper):
    """What CLIPRewardVecEnv does, for the controls: a constant, or (None) the env's own reward. Renders nothing."""

    def __init__(self, venv: VecEnv, constant: float | None) -> None:
        super().__init__(venv)
        self._constant = constant
        self._returns = np.zeros(venv.num_envs)
        self._lengths = np.zeros(venv.num_envs, int)

    def reset(self) -> Any:
        self._returns[:], self._lengths[:] = 0, 0
        return self.venv.reset()

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, rewards, dones, infos = self.venv.step_wait()
        if self._constant is not None:
            rewards = np.full_like(rewards, self._constant)
        self._returns += rewards
        self._lengths += 1
        for index in np.flatnonzero(dones):
            infos[index]["clip_episode"] = {"r": float(self._returns[index]), "l": int(self._lengths[index])}
            self._returns[index], self._lengths[index] = 0, 0
        return obs, rewards, dones, infos


def make_reward_model(config: RewardConfig) -> RewardModel:
    if config.control is not None:  # what the video draws
        return ConstantReward(config.constant or 0.0)
    return CLIPRewardModel.from_pretrained(
        config.encoder,
        goal_prompts=config.goal_prompts,
        baseline_prompts=config.baseline_prompts,
        alpha=config.alpha,
        device=config.device,
        dtype=config.dtype,
        resize_mode=config.resize_mode,
        normalize_prompt_mean=config.normalize_prompt_mean,
        micro_batch_size=config.micro_batch_size,
    )


def describe(config: RewardConfig, reward_model: RewardModel) -> dict[str, Any]:
    """What rebuilds the reward model, and |g|, |b|, g.b, which turn s.g and s.b into R for any other alpha."""
    if config.control is not None:
        return {"control": config.control, "constant": config.constant}
    return {"recipe": reward_model.recipe, "constants": reward_model.constants}


class ResetOptions(gym.Wrapper):
    """Resets with fixed ``options``: SB3's vector envs reset a finished env without any."""

    def __init__(self, env: gym.Env, options: dict[str, Any]) -> None:
        super().__init__(env)
        self.options = options

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        return self.env.reset(seed=seed, options={**self.options, **(options or {})})


def make_test_env(env: EnvConfig, **kwargs: Any) -> gym.Env:
    """The unmodified env: its own ends, starts and reward; observations in the units that the policy knows."""
    test_env = gym.make(env.id, **env.kwargs, **kwargs)
    return rescaled(test_env) if env.rescale_obs else test_env


def make_training_env(
    env: EnvConfig,
    reward: RewardConfig,
    reward_model: RewardModel,
    normalize: NormalizeConfig,
    *,
    seed: int,
    gamma: float,
) -> VecEnv:
    """env, FixedHorizon, Monitor, FrameCapture | vector env | the reward | VecNormalize."""
    if env.vec == "subproc":  # what is wrong with the env is said here; from a worker comes an EOFError
        make_test_env(env, render_mode="rgb_array").close()
    wrappers = [partial(ResetOptions, options=env.reset_options)] if env.reset_options else []
    wrappers += [rescaled] if env.rescale_obs else []
    venv = make_vec_env(
        env.id,
        env.n_envs,
        seed=seed,
        vec_env_cls=DummyVecEnv if env.vec == "dummy" else SubprocVecEnv,
        start_method=env.start_method if env.vec == "subproc" else None,
        fixed_horizon=env.horizon,
        wrappers=wrappers,
        env_kwargs=env.kwargs,
    )
    try:
        venv = (
            ControlVecEnv(venv, reward.constant)
            if reward.control
            else CLIPRewardVecEnv(venv, reward_model, deferred=reward.deferred)
        )
        # One step now: a frame that can't be scored speaks up before the run has a folder.
        venv.action_space.seed(seed)
        venv.reset()
        venv.step(np.stack([venv.action_space.sample() for _ in range(env.n_envs)]))
        if normalize.obs and not isinstance(venv.observation_space, gym.spaces.Box):
            raise ValueError(f"normalize.obs needs Box observations, not {venv.observation_space}")
        if normalize.obs or normalize.reward:
            venv = DeferredVecNormalize(venv, norm_obs=normalize.obs, norm_reward=normalize.reward, gamma=gamma)
    except BaseException:
        venv.close()
        raise
    return venv


# --- errors, signals, folders --------------------------------------------------------------------------------


_USER_ERRORS = (gym.error.Error, AssertionError, ImportError, OSError, RuntimeError, TypeError, ValueError)


@contextmanager
def user_errors() -> Iterator[None]:
    """What a user can mend (no such env, a missing package, a bad prompt) is one line, not a traceback."""
    long_format = warnings.formatwarning
    warnings.formatwarning = lambda text, category, *_: f"{category.__name__}: {text}\n"
    try:
        yield
    except _USER_ERRORS as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from error
    finally:
        warnings.formatwarning = long_format


class StopRequest:
    """Ctrl-C and SIGTERM: during training the next step is the last, elsewhere the script leaves at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.polite = False
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, _frame: object) -> None:
        if not self.polite or self.signum is not None:  # a second signal means it
            raise SystemExit(128 + signum)
        self.signum = signum

    @contextmanager
    def during_training(self) -> Iterator[None]:
        self.polite = True
        try:
            yield
        except (EOFError, OSError, RuntimeError):
            if self.signum is None:  # else: the terminal's Ctrl-C reached the workers as well
                raise
        finally:
            self.polite = False


def new_run_folder(out: str, name: str | None, default: str) -> Path:
    """``out/name``, which must not exist; without a name ``out/default``, or the first free -2, -3, ..."""
    if name and Path(name).name != name:
        raise ValueError(f"--name is {name!r}; required: the name of one folder, --out says where")
    for count in range(1, 10_000):
        folder = Path(out, name or (default if count == 1 else f"{default}-{count}"))
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if name:
                raise ValueError(f"{folder} exists; a run is never overwritten: take another --name") from None
    raise ValueError(f"{out} holds too many runs named {default}: give a --name")


# --- policies: chosen by CLIP return, saved with the statistics their observations need ----------------------


def save_policy(algo: BaseAlgorithm, path: Path) -> None:
    algo.save(path)
    stats = unwrap_vec_normalize(algo.get_env())
    if stats is not None and stats.norm_obs:
        values = {"mean": stats.obs_rms.mean.tolist(), "var": stats.obs_rms.var.tolist()}
        values |= {"epsilon": stats.epsilon, "clip": stats.clip_obs}
        path.with_suffix(".obs.json").write_text(json.dumps(values))


def load_actor(algo: BaseAlgorithm, path: Path) -> Callable[[Any], Any]:
    """``act(obs)``: the deterministic policy at ``path``. Reads weights and numbers only, unpickles nothing."""
    algo.set_parameters(path, device=algo.device)
    return deterministic(algo, path)


class TrainingWatch(BaseCallback):
    """The progress bar, the checkpoint with the best CLIP return, and the stop.

    The CLIP return of a policy is the mean over the latest ``window`` finished training episodes; among
    equals the later one wins. The env's own return is shown and logged, and chooses nothing.
    """

    def __init__(self, path: Path, window: int, stop: StopRequest) -> None:
        super().__init__()
        self.path, self.stop = path, stop
        self.clip_episodes: deque[dict[str, float]] = deque(maxlen=window)  # deferred returns come by the rollout's end
        self.env_returns: deque[float] = deque(maxlen=window)
        self.best, self.best_step = -np.inf, 0
        self._judged = 0
        self._finished = 0

    def _on_training_start(self) -> None:
        quiet = {} if sys.stderr.isatty() else {"mininterval": 15.0}
        self.bar = tqdm(total=self.locals["total_timesteps"], unit=" steps", smoothing=0.05, **quiet)

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "clip_episode" in info:
                self.clip_episodes.append(info["clip_episode"])
                self.env_returns.append(info["episode"]["r"])
                self._finished += 1
        self.bar.update(self.training_env.num_envs)
        return self.stop.signum is None

    def _on_rollout_end(self) -> None:  # the policy here is the one that has just finished the episodes
        if self._finished == self._judged:
            return
        self._judged = self._finished
        mean = float(np.mean([episode["r"] for episode in self.clip_episodes]))
        self.bar.set_postfix_str(f"CLIP return {mean:.1f}, env's own {np.mean(self.env_returns):.1f}", False)
        if len(self.clip_episodes) == self.clip_episodes.maxlen and mean >= self.best:
            self.best, self.best_step = mean, self.num_timesteps
            save_policy(self.model, self.path)

    def _on_training_end(self) -> None:
        self.bar.close()


# --- what is reported ----------------------------------------------------------------------------------------


def evaluate(act: Callable[[Any], Any], env: EnvConfig, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Returns and lengths of whole episodes of the unmodified env."""
    test_env = make_test_env(env)
    returns, lengths, ended = [], [], []
    for episode in range(evaluation.episodes):
        obs, _ = test_env.reset(seed=evaluation.seed + episode)
        total, length, over = 0.0, 0, False
        while not over and length < evaluation.max_steps:
            obs, reward, terminated, truncated, _ = test_env.step(act(obs))
            total, length, over = total + float(reward), length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
        ended.append(bool(terminated))
    test_env.close()
    spread = {"mean": float(np.mean(returns)), "std": float(np.std(returns))}
    spread |= {"min": min(returns), "max": max(returns)}
    return {
        "env": env.id,
        "seed": evaluation.seed,
        **spread,
        "returns": returns,
        "lengths": lengths,
        "terminated": ended,
    }


def true_return(result: dict[str, Any]) -> str:
    """The last line of every script; rounded first, because -0.04 would print as -0.0."""
    return f"true return: {round(result['mean'], 1) + 0.0:.1f}"
