"""Repeat the evaluation of a run: the same policy, env and seeds give the same number.

    python experiments/evaluate.py runs/CartPole-v1-seed0
    python experiments/evaluate.py runs/CartPole-v1-seed0 --episodes 100 --seed 0 --policy final

Reads the run's config.yaml and weights, writes nothing, and ends with the line ``true return: 498.3``.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from common import evaluate, instantiate, load_actor, make_test_env, true_return, user_errors
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt
from stable_baselines3.common.vec_env import DummyVecEnv
from train_ppo import RunConfig, make_ppo, run_parser


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
    run = run_parser()
    config: RunConfig = instantiate(run, run.parse_path(folder / "config.yaml"))
    chosen = {"episodes": options.episodes, "seed": options.seed}
    evaluation = dataclasses.replace(
        config.evaluation, **{key: value for key, value in chosen.items() if value is not None}
    )
    torch.set_num_threads(config.threads)

    with user_errors():
        env = DummyVecEnv([lambda: make_test_env(config.env)] * config.env.n_envs)
        policy = folder / ("policy.zip" if options.policy == "best" else "final_policy.zip")
        act = load_actor(make_ppo(config, env), policy)
    result = evaluate(act, config.env, evaluation)
    print(f"{evaluation.episodes} episodes: min {result['min']:.1f}, max {result['max']:.1f}")
    print(true_return(result))


if __name__ == "__main__":
    main()
