"""Train SAC on CLIP's reward; the env's own reward is logged and otherwise unused. For continuous actions.

    python experiments/train_sac.py                       # configs/mountain_car_continuous_sac.yaml
    python experiments/train_sac.py --sac.ent_coef auto --seed 3
    python experiments/train_sac.py --resume runs/MountainCarContinuous-v0-seed0
    python experiments/train_sac.py --env.id Pendulum-v1 --env.horizon 200 --env.n_envs 1 \\
        --reward.goal_prompts "the pendulum pointing straight up" --reward.baseline_prompts "a pendulum"

All else is as in train_ppo.py: training.py says what is written, and how a run is stopped and resumed.
"""

from dataclasses import dataclass, field
from typing import Literal

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from stable_baselines3 import SAC

from script import Script
from settings import OffPolicyConfig, RunConfig
from training import train


@dataclass(frozen=True)
class SACConfig(OffPolicyConfig):
    """SAC, by SB3's names."""

    learning_rate: PositiveFloat = 3e-4
    """Adam's step, of policy, Q networks and ent_coef."""
    batch_size: PositiveInt = 256
    """Transitions of a gradient step."""
    tau: ClosedUnitInterval = 0.005
    """How far the target networks move towards the Q networks at an update of them."""
    target_update_interval: PositiveInt = 1
    """Gradient steps between two updates of the target networks."""
    train_freq: PositiveInt = 1
    """Steps of each env between two updates."""
    ent_coef: PositiveFloat | Literal["auto"] = "auto"
    """Weight of the policy's entropy; auto learns it."""
    use_sde: bool = False
    """State-dependent exploration."""
    sde_sample_freq: int = -1
    """Steps between two draws of its noise; -1 draws once per rollout."""
    use_sde_at_warmup: bool = False
    """Before learning_starts too, in place of random actions."""
    log_std_init: float = -3.0
    """Logarithm of its initial standard deviation."""
    net_arch: list[PositiveInt] = field(default_factory=lambda: [256, 256])
    """Hidden layers of policy and Q networks, each."""


@dataclass(frozen=True)
class SACRunConfig(RunConfig):
    """The run."""

    sac: SACConfig = field(default_factory=SACConfig)


SCRIPT = Script("sac", __doc__, SACRunConfig, SAC, default="mountain_car_continuous_sac.yaml", rollout="train_freq")


def main() -> None:
    train(SCRIPT)


if __name__ == "__main__":
    main()
