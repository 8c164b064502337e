"""Repeat the evaluation of a run: the same policy, env and seeds give the same number.

    python experiments/evaluate.py runs/CartPole-v1-seed0
    python experiments/evaluate.py runs/CartPole-v1-seed0 --episodes 100 --seed 0 --policy final

Reads the run's config.yaml and weights, writes nothing, and ends with the line ``true return: 498.3``.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import torch
import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from stable_baselines3.common.vec_env import DummyVecEnv

import train_dqn
import train_ppo
import train_sac
from envs import make_test_env
from runs import evaluate, load_actor, tenths, true_return, user_errors
from settings import RunConfig, instantiate

SCRIPTS = {script.name: script for script in (train_ppo.SCRIPT, train_dqn.SCRIPT, train_sac.SCRIPT)}


def main() -> None:
    parser = ArgumentParser("evaluate.py", "evaluate.py RUN [--OPTION VALUE ...]", __doc__.split("\n\n")[0])
    parser.add_argument("run", type=str, help="a run folder, e.g. runs/CartPole-v1-seed0")
    parser.add_argument("--episodes", type=PositiveInt | None, help="null: as many as the run's own evaluation")
    parser.add_argument("--seed", type=NonNegativeInt | None, help="of the first episode; null: the run's own")
    parser.add_argument(
        "--policy", type=Literal["best", "final"], default="best", help="by CLIP return, or the last one"
    )
    options = parser.parse_args()
    folder = Path(options.run)
    if not (folder / "config.yaml").is_file():
        parser.error(f"{folder} is no run folder: it holds no config.yaml")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    script = next((script for name, script in SCRIPTS.items() if name in settings), None)
    if script is None:
        parser.error(f"{folder}/config.yaml has the settings of none of {', '.join(SCRIPTS)}")
    run = script.parser()
    parsed = run.parse_path(folder / "config.yaml")
    parsed["reward.deferred"] = False  # or the algorithm would wait for rewards that nobody asks for
    config: RunConfig = instantiate(run, parsed)
    chosen = {"episodes": options.episodes, "seed": options.seed}
    evaluation = dataclasses.replace(
        config.evaluation, **{key: value for key, value in chosen.items() if value is not None}
    )
    torch.set_num_threads(config.threads)

    with user_errors():
        env = DummyVecEnv([lambda: make_test_env(config.env)] * config.env.n_envs)
        policy = folder / ("policy.zip" if options.policy == "best" else "final_policy.zip")
        act = load_actor(script.make(config, env), policy)
    result = evaluate(act, config.env, evaluation)
    print(f"{evaluation.episodes} episodes: min {tenths(result['min'])}, max {tenths(result['max'])}")
    print(true_return(result))


if __name__ == "__main__":
    main()
