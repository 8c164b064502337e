"""The parts of what a training remembers that Stable-Baselines3 does not save: each taken, and put back.

Each as plain data, and nothing is copied: pickle it at once.
"""

import io
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper


def torch_variables(algo: BaseAlgorithm) -> list[torch.Tensor]:
    """SAC's entropy coefficient, which is in no state dict."""
    return [getattr(algo, name) for name in algo._get_torch_save_params()[1]]


def noises(algo: BaseAlgorithm) -> list[StateDependentNoiseDistribution]:
    found = (getattr(module, "action_dist", None) for module in algo.policy.modules())
    return [each for each in found if isinstance(each, StateDependentNoiseDistribution)]


def put_back_noise(algo: BaseAlgorithm, saved: bytes | None) -> None:
    """gSDE draws its noise just before a rollout starts; None was saved after the last one, and draws anew."""
    if saved is None:
        if algo.use_sde:
            getattr(algo, "actor", algo.policy).reset_noise(algo.n_envs)
        return
    for noise, (one, each) in zip(noises(algo), from_bytes(saved), strict=True):
        noise.exploration_mat, noise.exploration_matrices = one.to(algo.device), each.to(algo.device)


def _arrays(buffer: BaseBuffer) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays with a row a step, by name; of dict observations, one a key."""
    for name, value in vars(buffer).items():
        parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        for full_name, part in parts.items():
            if isinstance(part, np.ndarray) and part.ndim and len(part) == buffer.buffer_size:
                yield full_name, part


def buffer_state(buffer: BaseBuffer) -> dict[str, Any]:
    rows = buffer.buffer_size if buffer.full else buffer.pos
    return {"pos": buffer.pos, "full": buffer.full, "arrays": {name: part[:rows] for name, part in _arrays(buffer)}}


def put_back_buffer(buffer: BaseBuffer, state: dict[str, Any]) -> None:
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name, part in _arrays(buffer):
        saved = state["arrays"].pop(name)  # so that memory holds only one of them twice
        part[: len(saved)] = saved


def layers(algo: BaseAlgorithm) -> list[VecEnvWrapper]:
    layer, found = algo.get_env(), []
    while isinstance(layer, VecEnvWrapper):
        found.append(layer)
        layer = layer.venv
    return found


def env_states(venv: VecEnv) -> list[dict[str, Any]] | None:
    """What each sub-env remembers, and its Monitor of the episode that goes on; None if that can't be told."""
    snapshots = venv.env_method("snapshot")
    if None in snapshots:
        return None
    rewards = venv.get_attr("rewards")
    return [{"snapshot": each, "rewards": so_far} for each, so_far in zip(snapshots, rewards, strict=True)]


def put_back_envs(venv: VecEnv, states: list[dict[str, Any]]) -> None:
    for index, state in enumerate(states):
        venv.env_method("put_back", state["snapshot"], indices=[index])
        venv.env_method("set_wrapper_attr", "rewards", state["rewards"], indices=[index])


def random_states(algo: BaseAlgorithm) -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - what SB3 draws from
        "torch": torch.get_rng_state().numpy(),
        "cuda": [each.numpy() for each in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "actions": algo.action_space.np_random.bit_generator.state,
    }


def put_back_random_states(algo: BaseAlgorithm, states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(states["torch"]))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.from_numpy(each) for each in states["cuda"]])
    algo.action_space.np_random.bit_generator.state = states["actions"]


def to_bytes(tensors: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def from_bytes(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
