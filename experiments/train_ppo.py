"""Train PPO on CLIP's reward; the env's own reward is logged and otherwise unused.

    python experiments/train_ppo.py                                      # configs/cartpole_ppo.yaml
    python experiments/train_ppo.py --config configs/pendulum_ppo.yaml --seed 3
    python experiments/train_ppo.py --reward.constant 1                  # the control: must not learn
    python experiments/train_ppo.py --env.id LunarLander-v3 --env.horizon 400 --reward.encoder ViT-B/32 \\
        --reward.goal_prompts "a lander standing between the flags" --reward.baseline_prompts "a lander"

A command line with neither --config nor an env starts from configs/cartpole_ppo.yaml; any field on it wins
over the file. Writes runs/NAME (listed in common.py) and ends with one line, ``true return: 498.3``: the mean
over the evaluation's episodes of the unmodified env. Ctrl-C or SIGTERM ends the training at the next step,
writes everything but the evaluation and the video, and leaves with 130 or 143.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from common import (
    EnvConfig,
    EvaluationConfig,
    NormalizeConfig,
    RewardConfig,
    StopRequest,
    TrainingWatch,
    describe,
    evaluate,
    instantiate,
    load_actor,
    make_parser,
    make_reward_model,
    make_training_env,
    new_run_folder,
    save_policy,
    true_return,
    user_errors,
)
from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from report import plot_learning_curves, record_video
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from vlmrm_wrap.sb3 import CLIPRewardLogger, deferred_kwargs

CARTPOLE = Path(__file__).parent.parent / "configs" / "cartpole_ppo.yaml"


@dataclass(frozen=True)
class PPOConfig:
    """PPO, by SB3's names."""

    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"] = "MlpPolicy"
    """MultiInputPolicy for dict observations, CnnPolicy for pictures."""
    learning_rate: PositiveFloat = 3e-4
    """Adam's step."""
    clip_range: PositiveFloat = 0.2
    """How far one update may move the ratio of the policies."""
    decay: bool = False
    """learning_rate and clip_range fall linearly to 0 at the last step, so that the policy settles."""
    n_steps: PositiveInt = 2048
    """Steps of each env between two updates."""
    batch_size: PositiveInt = 64
    """Of a gradient step; n_steps times env.n_envs should be a multiple."""
    n_epochs: PositiveInt = 10
    """Passes over the data of one update."""
    gamma: ClosedUnitInterval = 0.99
    """Discount."""
    gae_lambda: ClosedUnitInterval = 0.95
    """Bias against variance of the advantage."""
    ent_coef: NonNegativeFloat = 0.0
    """Bonus for entropy."""
    vf_coef: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_grad_norm: PositiveFloat = 0.5
    """Gradient clipping."""
    net_arch: list[PositiveInt] = field(default_factory=lambda: [64, 64])
    """Hidden layers of policy and value function, each."""
    use_sde: bool = False
    """State-dependent exploration, for continuous actions."""
    sde_sample_freq: int = -1
    """Steps between two draws of its noise; -1 draws once per rollout."""
    log_std_init: float = 0.0
    """Logarithm of the initial standard deviation of continuous actions."""
    device: str = "cpu"
    """Of the policy; small networks are fastest on the CPU."""


@dataclass(frozen=True)
class RunConfig:
    """The run."""

    env: EnvConfig
    reward: RewardConfig
    ppo: PPOConfig = field(default_factory=PPOConfig)
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: NonNegativeInt = 0
    """Of envs, policy and exploration: the same seed repeats the run on the same machine."""
    total_steps: PositiveInt = 100_000
    """Env steps, all copies together; rounded up to whole rollouts of ppo.n_steps x env.n_envs."""
    window: PositiveInt = 16
    """Finished episodes over which returns are averaged, for the curves and the choice of the checkpoint."""
    threads: PositiveInt = 1
    """Of torch; with small networks one is fastest."""
    out: str = "runs"
    """The folder of the run folders."""
    name: str | None = None
    """The run folder, which must not exist yet; null: ENV-seedN, with -2, -3, ... where that exists."""


def run_parser() -> ArgumentParser:
    return make_parser(RunConfig, "train_ppo.py", __doc__.split("\n\n")[0])


def make_ppo(config: RunConfig, venv: VecEnv) -> PPO:
    ppo = config.ppo
    fall = (lambda start: lambda remaining: start * remaining) if ppo.decay else (lambda start: start)
    return PPO(
        ppo.policy,
        venv,
        learning_rate=fall(ppo.learning_rate),
        clip_range=fall(ppo.clip_range),
        n_steps=ppo.n_steps,
        batch_size=ppo.batch_size,
        n_epochs=ppo.n_epochs,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        ent_coef=ppo.ent_coef,
        vf_coef=ppo.vf_coef,
        max_grad_norm=ppo.max_grad_norm,
        use_sde=ppo.use_sde,
        sde_sample_freq=ppo.sde_sample_freq,
        policy_kwargs={"net_arch": list(ppo.net_arch), "log_std_init": ppo.log_std_init},
        stats_window_size=config.window,
        seed=config.seed,
        device=ppo.device,
        **(deferred_kwargs(PPO, venv) if config.reward.deferred else {}),
    )


def main() -> None:
    stop = StopRequest()
    arguments = sys.argv[1:]
    if not any(argument.split("=")[0] in ("--config", "--env", "--env.id") for argument in arguments):
        arguments = ["--config", str(CARTPOLE), *arguments]
    parser = run_parser()
    parsed = parser.parse_args(arguments)
    config: RunConfig = instantiate(parser, parsed)
    torch.set_num_threads(config.threads)
    rollout = config.ppo.n_steps * config.env.n_envs
    if config.total_steps % rollout and config.total_steps < 10 * rollout:
        rounded = -(-config.total_steps // rollout) * rollout
        print(
            f"total_steps={config.total_steps} is trained as {rounded}, in whole rollouts of "
            f"ppo.n_steps={config.ppo.n_steps} x env.n_envs={config.env.n_envs}",
            file=sys.stderr,
        )
    if config.env.horizon is None:
        print("env.horizon is null: where the env ends episodes early, mere survival pays", file=sys.stderr)

    with user_errors():
        reward_model = make_reward_model(config.reward)
        venv = make_training_env(
            config.env, config.reward, reward_model, config.normalize, seed=config.seed, gamma=config.ppo.gamma
        )
        ppo = make_ppo(config, venv)
        control = f"-{config.reward.control}" if config.reward.control else ""
        default_name = f"{config.env.id}{control}-seed{config.seed}".replace("/", "_").replace(":", "_")
        folder = new_run_folder(config.out, config.name, default_name)
    print(f"run folder: {folder}")
    (folder / "config.yaml").write_text(parser.dump(parsed, skip_unset=False))
    (folder / "reward_model.json").write_text(json.dumps(describe(config.reward, reward_model), indent=2))

    # Train. SB3 averages the env's own return (rollout/ep_rew_mean), CLIPRewardLogger ours.
    ppo.set_logger(configure(str(folder), ["csv", "tensorboard"]))
    updates = config.total_steps // rollout
    watch = TrainingWatch(folder / "policy.zip", config.window, stop)
    try:
        with stop.during_training():
            ppo.learn(
                config.total_steps,
                callback=CallbackList([CLIPRewardLogger(), watch]),
                log_interval=max(1, updates // 200),  # about 200 rows in progress.csv
            )
        ppo.dump_logs()  # a last row: log_interval leaves the latest updates out, or a short run's all
    finally:
        save_policy(ppo, folder / "final_policy.zip")
        ppo.logger.close()
        venv.close()
    if watch.best_step:
        print(f"policy.zip: step {watch.best_step} of {ppo.num_timesteps}, CLIP return {watch.best:.1f}")
    else:
        print(f"policy.zip: the last policy, for fewer than window={config.window} episodes have ended")
        save_policy(ppo, folder / "policy.zip")
    plot_learning_curves(folder / "progress.csv", folder / "learning_curves.png", folder.name, watch.best_step)
    if stop.signum is not None:
        print(f"stopped after {ppo.num_timesteps} steps; the policy is saved, not evaluated")
        sys.exit(128 + stop.signum)

    # Report on the checkpoint with the best CLIP return.
    act = load_actor(ppo, folder / "policy.zip")
    result = evaluate(act, config.env, config.evaluation)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=2))
    if config.evaluation.video:
        try:
            filmed = record_video(act, config.env, config.evaluation, reward_model, folder / "video.mp4")
            filmed.save(folder / "scores.npz")
        except Exception as error:  # the film is the one thing here that a run can do without
            print(f"no video: {type(error).__name__}: {error}", file=sys.stderr)
    print(true_return(result))


if __name__ == "__main__":
    main()
