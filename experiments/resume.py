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

import os
import pickle
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from algorithm_state import (
    buffer_state,
    env_states,
    from_bytes,
    layers,
    noises,
    put_back_buffer,
    put_back_envs,
    put_back_noise,
    put_back_random_states,
    random_states,
    to_bytes,
    torch_variables,
)
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
            "tensors": to_bytes([algo.get_parameters(), [each.detach() for each in torch_variables(algo)]]),
            "noise": to_bytes(
                [(each.exploration_mat.detach(), each.exploration_matrices.detach()) for each in noises(algo)]
            ),
            "buffer": None if buffer is None else buffer_state(buffer),
            "layers": [data_of(layer) for layer in layers(algo)],
            "envs": env_states(algo.get_env()),
            "reward": self.reward_model.state_dict() if hasattr(self.reward_model, "state_dict") else None,
            "others": [data_of(other) for other in self.others],
            "logged": {name: dict(getattr(algo.logger, name)) for name in _LOGGED},
            "random": random_states(algo),
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
        parameters, variables = from_bytes(state["tensors"])
        algo.set_parameters(parameters, device=algo.device)
        for own, value in zip(torch_variables(algo), variables, strict=True):
            own.data.copy_(value)
        if state["buffer"] is not None:
            put_back_buffer(algo.replay_buffer, state["buffer"])
        for layer, data in zip(layers(algo), state["layers"], strict=True):
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
            put_back_envs(algo.get_env(), state["envs"])
        put_back_random_states(algo, state["random"])
        put_back_noise(algo, state["noise"])

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
