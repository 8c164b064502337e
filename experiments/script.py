"""What a training script has of its own, and how its algorithm is built."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from gymnasium import spaces
from jsonargparse import ArgumentParser
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from envs import make_test_env
from settings import EnvConfig, RunConfig, make_parser
from vlmrm_wrap.sb3 import deferred_kwargs

# Which actions they can choose, as SB3 has it.
_ACTIONS: dict[str, tuple[type[spaces.Space], ...]] = {
    "ppo": (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
    "dqn": (spaces.Discrete,),
    "sac": (spaces.Box,),
}
# Settings that SB3 takes as policy_kwargs.
_OF_THE_POLICY = ("net_arch", "log_std_init")


@dataclass(frozen=True)
class Script:
    """What is an algorithm's own."""

    name: str
    """Of its settings in the config; its script is train_NAME.py."""
    doc: str
    config_class: type[RunConfig]
    algorithm: type[BaseAlgorithm]
    """Its arguments are the settings, by the same names."""
    default: str
    """The file in configs/ that a command line without --config and env starts from."""
    rollout: str
    """The setting that says for how many steps each env is stepped between two updates."""
    schedule: Callable[[Any], str | None] = lambda settings: None
    """Of its settings the name of one that follows total_steps; None without."""
    arguments: Callable[[dict[str, Any]], dict[str, Any]] = lambda settings: settings
    """What the algorithm gets of the settings, where that is something else."""

    @property
    def file(self) -> str:
        return f"train_{self.name}.py"

    def parser(self) -> ArgumentParser:
        return make_parser(self.config_class, self.file, self.doc.split("\n\n")[0])

    def settings(self, config: RunConfig) -> Any:
        return getattr(config, self.name)

    def rollout_steps(self, config: RunConfig) -> int:
        """Env steps between two updates, all copies together."""
        return int(getattr(self.settings(config), self.rollout)) * config.env.n_envs

    def check_actions(self, env: EnvConfig) -> None:
        """Makes the env: what is wrong with it is said here; from a worker comes an EOFError. ValueError for actions of
        another algorithm."""
        with closing(make_test_env(env, render_mode="rgb_array")) as test_env:
            actions = test_env.action_space
        if not isinstance(actions, _ACTIONS[self.name]):
            fitting = [f"train_{name}.py" for name, kinds in _ACTIONS.items() if isinstance(actions, kinds)]
            raise ValueError(
                f"the actions of {env.id} are {actions}, which {self.file} can't train; "
                f"{' and '.join(fitting) or 'no script here'} can"
            )

    def make(self, config: RunConfig, venv: VecEnv) -> BaseAlgorithm:
        """The algorithm on the training env."""
        arguments = self.arguments(asdict(self.settings(config)))
        return self.algorithm(
            env=venv,
            policy_kwargs={name: arguments.pop(name) for name in _OF_THE_POLICY if name in arguments},
            stats_window_size=config.window,
            seed=config.seed,
            **arguments,
            **(deferred_kwargs(self.algorithm, venv) if config.reward.deferred else {}),
        )
