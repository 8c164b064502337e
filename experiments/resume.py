"""What --resume needs: everything that a training remembers at the start of a rollout, in one file, resume.zip.

    of the algorithm   weights, optimisers, replay buffer, counters, latest observations, noise of gSDE
    of the env         statistics of VecNormalize, returns so far, the state of each sub-env (classic control only)
    of the reward      the cache: which frames it knows decides which are encoded together, and so their last digits;
                       the statistics of reward.standardize
    of the run         windows of the callbacks, what is logged next, progress.csv, the best policy so far
    of the process     the random states of Python, NumPy, torch, and of the action space

It is taken and put back at the same place, where SB3 calls ``on_rollout_start``. So whatever a fresh process does
before that (it resets envs and draws noise) is undone, and with classic control a resumed training is to the bit the
one that was never interrupted. (Off policy with reward.deferred a stop scores frames that would have waited for
others: then to some 1e-7.) The file is a pickle in a zip: open only your own.
"""

import io
import os
import pickle
import random
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from runs import Stopped, StopRequest
from snapshots import data_of, put_back
from vlmrm_wrap import RewardModel

State = dict[str, Any]

_FILE, _MEMBER, _FORMAT = "resume.zip", "state.pickle", 3
_COUNTERS = ("num_timesteps", "_episode_num", "_n_updates", "_n_calls", "_current_progress_remaining")
_LATEST = ("_last_obs", "_last_original_obs", "_last_episode_starts", "exploration_rate")
_WINDOWS = ("ep_info_buffer", "ep_success_buffer")
_LOGGED = ("name_to_value", "name_to_count", "name_to_excluded")
_FILES = ("progress.csv", "policy.zip", "policy.obs.json")  # as they were: a killed run may have gone on


class Resume(BaseCallback):
    """Saves the state every ``every`` env steps and before a stop; the last of the callbacks.

    ``others``: the other callbacks, and what else remembers plain data. ``config``: the run's, as text, to compare
    with. ``state``: from :func:`read_state`, put back where the first rollout starts; ``seed``: of the new episodes
    where the states of envs can't be restored. ``saved``: env steps of the file.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        every: int,
        stop: StopRequest,
        others: Sequence[object],
        reward_model: RewardModel,
        state: State | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.folder, self.config, self.every, self.stop = folder, config, every, stop
        self.others, self.reward_model, self.seed = others, reward_model, seed
        self.state = state
        self.saved = state["steps"] if state else 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if self.state is not None:
            self.put_back()
        elif steps // self.every > self.saved // self.every or self.stop.signum is not None:
            self.save()
        if self.stop.signum is not None:
            raise Stopped

    def save(self, *, rollout_started: bool = True) -> None:
        """Replaces resume.zip as a whole, or not at all."""
        state = self._state()
        if not rollout_started:
            state["noise"] = None
        temporary = self.folder / f"{_FILE}.tmp"
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive, archive.open(_MEMBER, "w", force_zip64=True) as member:
                pickle.dump(state, member, protocol=5)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / _FILE)
        self.saved = state["steps"]

    def _state(self) -> State:
        algo = self.model
        buffer = getattr(algo, "replay_buffer", None)
        if hasattr(buffer, "score_pending"):
            buffer.score_pending()  # a deferred env's frames are not saved, their rewards are
        files = [self.folder / name for name in _FILES]
        return {
            "format": _FORMAT,
            "config": self.config,
            "steps": algo.num_timesteps,
            "algo": {name: getattr(algo, name) for name in (*_COUNTERS, *_LATEST, *_WINDOWS) if hasattr(algo, name)},
            "tensors": _to_bytes([algo.get_parameters(), [each.detach() for each in _torch_variables(algo)]]),
            "noise": _to_bytes(
                [(each.exploration_mat.detach(), each.exploration_matrices.detach()) for each in _noises(algo)]
            ),
            "buffer": None if buffer is None else _buffer_state(buffer),
            "layers": [data_of(layer) for layer in _layers(algo)],
            "envs": _env_states(algo.get_env()),
            "reward": self.reward_model.state_dict() if hasattr(self.reward_model, "state_dict") else None,
            "others": [data_of(other) for other in self.others],
            "logged": {name: dict(getattr(algo.logger, name)) for name in _LOGGED},
            "random": _random_states(algo),
            "files": {file.name: file.read_bytes() for file in files if file.exists()},
        }

    def put_back(self) -> None:
        """The state into the algorithm, its envs, the reward model, the callbacks and this process."""
        state, algo = self.state, self.model
        assert state is not None
        self.state = None
        for name, value in state["algo"].items():
            setattr(algo, name, value)
        algo._num_timesteps_at_start = algo.num_timesteps  # time/fps counts from here
        parameters, variables = _from_bytes(state["tensors"])
        algo.set_parameters(parameters, device=algo.device)
        for own, value in zip(_torch_variables(algo), variables, strict=True):
            own.data.copy_(value)
        if state["buffer"] is not None:
            _put_back_buffer(algo.replay_buffer, state["buffer"])
        for layer, data in zip(_layers(algo), state["layers"], strict=True):
            put_back(layer, data)
        if state["reward"] is not None:
            self.reward_model.load_state_dict(state["reward"])
        for other, data in zip(self.others, state["others"], strict=True):
            put_back(other, data)
        for name, values in state["logged"].items():
            getattr(algo.logger, name).update(values)
        if state["envs"] is None:
            self._begin_new_episodes(algo)
        else:
            _put_back_envs(algo.get_env(), state["envs"])
        _put_back_random_states(algo, state["random"])
        _put_back_noise(algo, state["noise"])

    def _begin_new_episodes(self, algo: BaseAlgorithm) -> None:
        print("the state of this env can't be restored: each copy begins a new episode", file=sys.stderr)
        venv = algo.get_env()
        venv.seed(self.seed + algo.num_timesteps)  # with the run's own seed it would begin as at the run's beginning
        algo._last_obs = venv.reset()
        algo._last_episode_starts = np.ones(venv.num_envs, bool)
        if algo.get_vec_normalize_env() is not None:
            algo._last_original_obs = algo.get_vec_normalize_env().get_original_obs()


def read_state(folder: Path) -> State:
    """The state saved in a run folder; ValueError if there is none, or it is damaged. Unpickles: open only your own."""
    path = folder / _FILE
    if not path.is_file():
        raise ValueError(f"{folder} can't be resumed: it holds no {_FILE}, for it was stopped before its first save")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("its checksum is wrong")
            state = pickle.load(archive.open(_MEMBER))
        if state["format"] != _FORMAT:
            raise ValueError(f"format {state['format']}, required: {_FORMAT}")
    except Exception as error:  # unpickling can raise anything
        raise ValueError(f"{path} is damaged, or of another version ({error}); the run can only be repeated") from error
    return state


def write_files(folder: Path, state: State) -> None:
    """The run's files as they were when the state was saved."""
    for name, content in state["files"].items():
        (folder / name).write_bytes(content)


def _torch_variables(algo: BaseAlgorithm) -> list[torch.Tensor]:
    """SAC's entropy coefficient, which is in no state dict."""
    return [getattr(algo, name) for name in algo._get_torch_save_params()[1]]


def _noises(algo: BaseAlgorithm) -> list[StateDependentNoiseDistribution]:
    found = (getattr(module, "action_dist", None) for module in algo.policy.modules())
    return [each for each in found if isinstance(each, StateDependentNoiseDistribution)]


def _put_back_noise(algo: BaseAlgorithm, saved: bytes | None) -> None:
    """gSDE draws its noise just before a rollout starts; None was saved after the last one, and draws anew."""
    if saved is None:
        if algo.use_sde:
            getattr(algo, "actor", algo.policy).reset_noise(algo.n_envs)
        return
    for noise, (one, each) in zip(_noises(algo), _from_bytes(saved), strict=True):
        noise.exploration_mat, noise.exploration_matrices = one.to(algo.device), each.to(algo.device)


def _arrays(buffer: BaseBuffer) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays with a row a step, by name; of dict observations, one a key."""
    for name, value in vars(buffer).items():
        parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        for full_name, part in parts.items():
            if isinstance(part, np.ndarray) and part.ndim and len(part) == buffer.buffer_size:
                yield full_name, part


def _buffer_state(buffer: BaseBuffer) -> State:
    rows = buffer.buffer_size if buffer.full else buffer.pos
    return {"pos": buffer.pos, "full": buffer.full, "arrays": {name: part[:rows] for name, part in _arrays(buffer)}}


def _put_back_buffer(buffer: BaseBuffer, state: State) -> None:
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name, part in _arrays(buffer):
        saved = state["arrays"].pop(name)  # so that memory holds only one of them twice
        part[: len(saved)] = saved


def _layers(algo: BaseAlgorithm) -> list[VecEnvWrapper]:
    layer, found = algo.get_env(), []
    while isinstance(layer, VecEnvWrapper):
        found.append(layer)
        layer = layer.venv
    return found


def _env_states(venv: VecEnv) -> list[State] | None:
    """What each sub-env remembers, and its Monitor of the episode that goes on; None if that can't be told."""
    snapshots = venv.env_method("snapshot")
    if None in snapshots:
        return None
    rewards = venv.get_attr("rewards")
    return [{"snapshot": each, "rewards": so_far} for each, so_far in zip(snapshots, rewards, strict=True)]


def _put_back_envs(venv: VecEnv, states: list[State]) -> None:
    for index, state in enumerate(states):
        venv.env_method("put_back", state["snapshot"], indices=[index])
        venv.env_method("set_wrapper_attr", "rewards", state["rewards"], indices=[index])


def _random_states(algo: BaseAlgorithm) -> State:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - what SB3 draws from
        "torch": torch.get_rng_state().numpy(),
        "cuda": [each.numpy() for each in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "actions": algo.action_space.np_random.bit_generator.state,
    }


def _put_back_random_states(algo: BaseAlgorithm, states: State) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(states["torch"]))
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.from_numpy(each) for each in states["cuda"]])
    algo.action_space.np_random.bit_generator.state = states["actions"]


def _to_bytes(tensors: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def _from_bytes(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
