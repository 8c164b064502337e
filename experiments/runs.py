"""A run: how it is asked to stop, where it lives, what it saves, and how its policy is judged."""

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from envs import make_test_env
from settings import EnvConfig, EvaluationConfig
from vlmrm_wrap.insight.saved_policies import SavedPolicy
from vlmrm_wrap.tasks import is_success

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


class Stopped(Exception):
    """The training was asked to stop, and what --resume needs is saved."""


class StopRequest:
    """Ctrl-C and SIGTERM: a training stops where its next rollout would begin; elsewhere the script leaves at once."""

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
        except Stopped:
            pass
        except (EOFError, OSError, RuntimeError) as error:
            if self.signum is None:
                raise
            # Who ends a job often ends its env workers as well, and then no rollout can be finished.
            print(f"stopped at once: {type(error).__name__}: {error}", file=sys.stderr)
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
    return SavedPolicy(algo, path)


def evaluate(act: Callable[[Any], Any], env: EnvConfig, evaluation: EvaluationConfig) -> dict[str, Any]:
    """Returns and lengths of whole episodes of the unmodified env.

    And where its infos tell of success, ``success_rate``: the share of episodes of which half were spent in a goal
    state, of the training horizon where an episode ends before it (Rocamonde et al. 2023, section 4.3).
    """
    test_env = make_test_env(env)
    returns, lengths, ended = [], [], []
    successes: list[bool] = []
    for episode in range(evaluation.episodes):
        obs, _ = test_env.reset(seed=evaluation.seed + episode)
        total, length, over = 0.0, 0, False
        in_goal: list[bool] = []
        while not over and length < evaluation.max_steps:
            obs, reward, terminated, truncated, info = test_env.step(act(obs))
            total, length, over = total + float(reward), length + 1, terminated or truncated
            in_goal += [info["success"]] if "success" in info else []
        returns.append(total)
        lengths.append(length)
        ended.append(bool(terminated))
        successes += [is_success(sum(in_goal), max(length, env.horizon or 0))] if in_goal else []
    test_env.close()
    spread = {"mean": float(np.mean(returns)), "std": float(np.std(returns))}
    spread |= {"min": min(returns), "max": max(returns)}
    success = {"success_rate": float(np.mean(successes))} if successes else {}
    return {
        "env": env.id,
        "seed": evaluation.seed,
        **spread,
        **success,
        "returns": returns,
        "lengths": lengths,
        "terminated": ended,
    }


def rounded(value: float) -> str:
    """To one decimal, and -0.04 to 0.0."""
    return f"{round(value, 1) + 0.0:.1f}"


def true_return(result: dict[str, Any]) -> str:
    """The last line of every script."""
    return f"true return: {rounded(result['mean'])}"
