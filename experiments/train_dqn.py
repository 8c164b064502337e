"""Train DQN on CLIP's reward; the env's own reward is logged and otherwise unused. For discrete actions.

    python experiments/train_dqn.py                                      # configs/cartpole_dqn.yaml
    python experiments/train_dqn.py --dqn.learning_rate 1e-3 --seed 3
    python experiments/train_dqn.py --resume runs/CartPole-v1-seed0      # goes on where it was stopped
    python experiments/train_dqn.py --env.id MountainCar-v0 --env.horizon 200 --env.n_envs 1 \\
        --reward.goal_prompts "a car at the peak of the mountain, next to the yellow flag" \\
        --reward.baseline_prompts "a car in the mountain"

All else is as in train_ppo.py: training.py says what is written, and how a run is stopped and resumed.
"""

from dataclasses import dataclass, field

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from stable_baselines3 import DQN

from script import Script
from settings import OffPolicyConfig, RunConfig
from training import train


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """DQN, by SB3's names."""

    learning_rate: PositiveFloat = 1e-4
    """Adam's step."""
    batch_size: PositiveInt = 32
    """Transitions of a gradient step."""
    tau: ClosedUnitInterval = 1.0
    """How far the target network moves towards the network at an update of it; 1 copies it."""
    target_update_interval: PositiveInt = 10_000
    """Env steps between two updates of the target network."""
    train_freq: PositiveInt = 4
    """Steps of each env between two updates."""
    exploration_fraction: ClosedUnitInterval = 0.1
    """Share of the training over which the chance of a random action falls."""
    exploration_initial_eps: ClosedUnitInterval = 1.0
    """That chance at first ..."""
    exploration_final_eps: ClosedUnitInterval = 0.05
    """... and from then on."""
    max_grad_norm: PositiveFloat = 10.0
    """Gradient clipping."""
    net_arch: list[PositiveInt] = field(default_factory=lambda: [64, 64])
    """Hidden layers of the Q network."""


@dataclass(frozen=True)
class DQNRunConfig(RunConfig):
    """The run."""

    dqn: DQNConfig = field(default_factory=DQNConfig)


SCRIPT = Script(
    "dqn",
    __doc__,
    DQNRunConfig,
    DQN,
    default="cartpole_dqn.yaml",
    rollout="train_freq",
    schedule=lambda dqn: (
        None if dqn.exploration_initial_eps == dqn.exploration_final_eps else "dqn.exploration_fraction"
    ),
)


def main() -> None:
    train(SCRIPT)


if __name__ == "__main__":
    main()
