"""What is trained on and tested on: the reward model or its control, the training env, the unmodified env.

Everything that touches rewards goes through the public API of ``vlmrm_wrap``; the rest is Gymnasium and
Stable-Baselines3.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout
if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, which draws in memory, looks for a screen

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from env_workers import before_workers_start, leaving_signals_to_the_parent
from settings import EnvConfig, NormalizeConfig, RewardConfig
from snapshots import Snapshots
from vlmrm_wrap import (
    CLIPRewardModel,
    FrameScores,
    MixEnvReward,
    PotentialDifference,
    RenderEvery,
    RewardModel,
    ScaledReward,
    SoftmaxReward,
    Standardize,
    WeightedGoals,
    transform_reward,
)
from vlmrm_wrap.insight.policies import rescaled
from vlmrm_wrap.sb3 import CLIPRewardVecEnv, DeferredVecNormalize, make_vec_env
from vlmrm_wrap.wrappers.transform import Transform


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


# Of RewardConfig: what the model itself is made of, by its own names.
_MODEL = (
    "encoder",
    "goal_prompts",
    "baseline_prompts",
    "alpha",
    "device",
    "download_root",
    "dtype",
    "resize_mode",
    "normalize_prompt_mean",
    "micro_batch_size",
)


def make_reward_model(config: RewardConfig) -> RewardModel:
    """What a frame is worth, whatever came before: R of the env's infos, of the logs and of the film."""
    if config.control is not None:  # what the video draws
        return ConstantReward(config.constant or 0.0)
    recipe = {name: getattr(config, name) for name in _MODEL}  # options refuse bad prompts before its weights load
    model: RewardModel
    if config.goal_weights is not None:
        goals = [config.goal_prompts] if isinstance(config.goal_prompts, str) else config.goal_prompts
        model = WeightedGoals(recipe, goals, config.goal_weights)
    elif config.negative_prompts is not None:
        model = SoftmaxReward(recipe, config.negative_prompts, config.temperature)
    else:
        model = CLIPRewardModel.from_recipe(recipe)
    return model if (config.scale, config.shift) == (1.0, 0.0) else ScaledReward(model, config.scale, config.shift)


def describe(config: RewardConfig, reward_model: RewardModel) -> dict[str, Any]:
    """What rebuilds the reward model, and where it has them |g|, |b|, g.b: s.g and s.b give R for other alphas then."""
    if config.control is not None:
        return {"control": config.control, "constant": config.constant}
    constants = {"constants": reward_model.constants} if hasattr(reward_model, "constants") else {}
    return {"recipe": reward_model.recipe, **constants}


def reward_transforms(config: RewardConfig, gamma: float) -> list[Transform]:
    """What is made of the reward model's rewards, from inside; ``gamma``: the algorithm's."""
    standardized = [Standardize()] if config.standardize else []
    shaped = [PotentialDifference(gamma)] if config.potential else []
    mixed = [MixEnvReward(config.env_weight)] if config.env_weight else []
    return [*standardized, *shaped, *mixed]


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
    transforms: Sequence[Transform],
    normalize: NormalizeConfig,
    *,
    seed: int,
    gamma: float,
) -> VecEnv:
    """env, FixedHorizon, Snapshots, Monitor, FrameCapture | vector env | the reward | transforms of it | VecNormalize.

    ``transforms``: from :func:`reward_transforms`; ``gamma``: VecNormalize's.
    """
    if env.vec == "subproc":
        before_workers_start(env.start_method)
    wrappers = [partial(ResetOptions, options=env.reset_options)] if env.reset_options else []
    wrappers += [rescaled] if env.rescale_obs else []
    wrappers += [partial(RenderEvery, steps=reward.render_every)] if reward.render_every > 1 else []
    wrappers += [leaving_signals_to_the_parent, Snapshots]
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
        # One step now: a frame that can't be scored speaks up before the run has a folder. No transform remembers it.
        venv.action_space.seed(seed)
        venv.reset()
        _, rewards, _, _ = venv.step(np.stack([venv.action_space.sample() for _ in range(env.n_envs)]))
        if reward.deferred:
            rewards.numbers()  # scored now, not with the first frames of the training
        for transform in transforms:
            venv = transform_reward(venv, transform)
        if normalize.obs and not isinstance(venv.observation_space, gym.spaces.Box):
            raise ValueError(f"normalize.obs needs Box observations, not {venv.observation_space}")
        if normalize.obs or normalize.reward:
            venv = DeferredVecNormalize(venv, norm_obs=normalize.obs, norm_reward=normalize.reward, gamma=gamma)
    except BaseException:
        venv.close()
        raise
    return venv
