"""Train PPO on CLIP's reward; the env's own reward is logged and otherwise unused.

    python experiments/train_ppo.py                                      # configs/cartpole_ppo.yaml
    python experiments/train_ppo.py --config configs/pendulum_ppo.yaml --seed 3
    python experiments/train_ppo.py --reward.constant 1                  # the control: must not learn
    python experiments/train_ppo.py --resume runs/CartPole-v1-seed0      # goes on where it was stopped
    python experiments/train_ppo.py --env.id LunarLander-v3 --env.horizon 400 --reward.encoder ViT-B/32 \\
        --reward.goal_prompts "a lander standing between the flags" --reward.baseline_prompts "a lander"

A command line with neither --config nor an env starts from configs/cartpole_ppo.yaml; any field on it wins
over the file, wherever --config stands. Writes runs/NAME and ends with one line, ``true return: 498.3``: the mean
over the evaluation's episodes of the unmodified env. training.py says what is written, and how a run is stopped and
resumed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from stable_baselines3 import PPO

from script import Script
from settings import RunConfig
from training import train


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
class PPORunConfig(RunConfig):
    """The run."""

    ppo: PPOConfig = field(default_factory=PPOConfig)


def _arguments(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.pop("decay"):
        settings |= {name: _falling_from(settings[name]) for name in ("learning_rate", "clip_range")}
    return settings


def _falling_from(start: float) -> Callable[[float], float]:
    """Of SB3's ``progress_remaining``, which falls from 1 to 0."""
    return lambda remaining: start * remaining


SCRIPT = Script(
    "ppo",
    __doc__,
    PPORunConfig,
    PPO,
    default="cartpole_ppo.yaml",
    rollout="n_steps",
    schedule=lambda ppo: "ppo.decay" if ppo.decay else None,
    arguments=_arguments,
)


def main() -> None:
    train(SCRIPT)


if __name__ == "__main__":
    main()
