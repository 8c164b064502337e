"""CLIPRewardVecEnv: Stable-Baselines3's vector envs, all frames in one batch; and make_vec_env."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    unwrap_vec_normalize,
)

from vlmrm_wrap.frames import FrameCapture, FrameReader
from vlmrm_wrap.protocols import RewardModel, as_reward_model, check_num_envs, score_frames, warn_of_held_frames
from vlmrm_wrap.sb3.pending import PendingRewards
from vlmrm_wrap.sb3.scoring import ScoringQueue
from vlmrm_wrap.shared_frames import SharedFrames
from vlmrm_wrap.workers import WorkerWatch
from vlmrm_wrap.wrappers.horizon import FixedHorizon, check_horizon

__all__ = ["CLIPRewardVecEnv", "make_vec_env"]


def make_vec_env(
    env_id: str | Callable[..., gym.Env[Any, Any]],
    n_envs: int,
    *,
    seed: int | None = None,
    vec_env_cls: type[DummyVecEnv] | type[SubprocVecEnv] = DummyVecEnv,
    start_method: str | None = None,
    fixed_horizon: int | None = None,
    wrappers: Sequence[Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]] = (),
    env_kwargs: dict[str, Any] | None = None,
) -> VecEnv:
    """Stable-Baselines3's own ``make_vec_env``, with the wrappers that a CLIP reward needs, in their order.

    From inside: the env (``env_id``, or what a callable returns, with ``env_kwargs``), FixedHorizon if
    ``fixed_horizon`` gives its steps, ``wrappers``, Monitor, FrameCapture. So Monitor's ``info["episode"]``,
    and with it ``rollout/ep_rew_mean``, is the env's own return. ``start_method``: how a SubprocVecEnv starts
    its workers ("fork", "spawn", "forkserver").

    Raises ValueError for a ``start_method`` without SubprocVecEnv, another render mode than "rgb_array", fewer than
    one env, or a horizon below one step.
    """
    kwargs = dict(env_kwargs or {})
    if kwargs.get("render_mode", "rgb_array") != "rgb_array":
        raise ValueError(f"render_mode is {kwargs['render_mode']!r}; required: 'rgb_array', the default here")
    if isinstance(env_id, str):
        kwargs["render_mode"] = "rgb_array"  # a callable knows its own; FrameCapture checks it
    if n_envs < 1:
        raise ValueError(f"n_envs is {n_envs}; required: at least 1")
    if fixed_horizon is not None:
        check_horizon(fixed_horizon, "fixed_horizon")  # here, because a worker could only die of it
    if start_method is not None and not issubclass(vec_env_cls, SubprocVecEnv):
        raise ValueError(f"start_method={start_method!r} needs vec_env_cls=SubprocVecEnv, which starts processes")

    def make(**kwargs: Any) -> gym.Env[Any, Any]:
        env = gym.make(env_id, **kwargs) if isinstance(env_id, str) else env_id(**kwargs)
        if fixed_horizon is not None:
            env = FixedHorizon(env, fixed_horizon)
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return sb3_make_vec_env(
        make,
        n_envs,
        seed=seed,
        env_kwargs=kwargs,
        wrapper_class=FrameCapture,
        vec_env_cls=vec_env_cls,
        vec_env_kwargs={} if start_method is None else {"start_method": start_method},
    )


class CLIPRewardVecEnv(VecEnvWrapper):
    """Replaces the rewards of a VecEnv by those of CLIP, the vision-language *model* (no reward clipping).

    One batch of frames a step. Rewards are float32 ``(n,)``, R(s) of the frame after the step (Rocamonde et al.
    2023, eq. 3), also on an episode's last step, which a VecEnv's own ``get_images()`` no longer shows.

    ``venv``: from :func:`make_vec_env`, or any VecEnv whose sub-envs hold a FrameCapture. VecNormalize,
    VecMonitor and the like go outside. ``reward_model``: as in :class:`~vlmrm_wrap.CLIPRewardWrapper`.
    ``deferred``: see below. ``worker_timeout``: seconds after which a worker without an answer counts as wedged,
    None for never. Attributes: ``latest_rewards`` of the latest step, whatever is made of them outside, and
    ``latest_lengths``, the number of steps of each episode up to then.

    Each info gains ``env_reward``, ``goal_similarity``, ``baseline_similarity`` (Python floats) and, at an
    episode's end, ``clip_episode = {"r": return, "l": length}`` in these rewards;
    :class:`~vlmrm_wrap.sb3.CLIPRewardLogger` logs it. ``info["episode"]`` stays the env's own, from Monitor.

    With ``deferred`` the frames are scored in full micro-batches, in the background where the model can
    (``score_later``), and the buffers of :func:`~vlmrm_wrap.sb3.deferred_kwargs` fill the same rewards in just
    before training reads them. Then a step's rewards can't be read as numbers (a TypeError says what can be done),
    infos hold no similarities, and ``clip_episode`` gets its "r" only when the episode's last frame is scored: on
    policy at the end of the rollout at the latest. A scorer that fails raises RuntimeError in the next step or
    in the buffer.

    Example:
        >>> venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", n_envs=8, fixed_horizon=200), model)
        >>> algo = PPO("MlpPolicy", venv).learn(100_000, callback=CLIPRewardLogger())
        >>> venv = CLIPRewardVecEnv(make_vec_env("CartPole-v1", n_envs=8, fixed_horizon=200), model, deferred=True)
        >>> algo = PPO("MlpPolicy", venv, **deferred_kwargs(PPO, venv)).learn(100_000, callback=CLIPRewardLogger())

    Raises, at construction: ValueError for sub-envs without FrameCapture, or a VecNormalize inside. While
    running: :class:`~vlmrm_wrap.workers.WorkerDied` within 2 seconds when a worker dies, TimeoutError when one
    is wedged.
    """

    def __init__(
        self,
        venv: VecEnv,
        reward_model: RewardModel | Mapping[str, Any],
        *,
        deferred: bool = False,
        worker_timeout: float | None = 60.0,
    ) -> None:
        _refuse_layers(venv)
        self._watch = WorkerWatch(venv.unwrapped, worker_timeout)
        super().__init__(venv)  # asks the sub-envs for their render mode, through get_attr
        with self._watch.operation("construction"):
            _refuse_without_frame_capture(venv)
        self.reward_model = as_reward_model(reward_model)
        check_num_envs(self.reward_model, venv.num_envs)
        self._queue = ScoringQueue(self.reward_model) if deferred else None
        with self._watch.operation("construction"):
            self._frames = FrameReader(
                venv.num_envs,
                call=venv.env_method,
                bind=self._bind,
                across_processes=not isinstance(venv.unwrapped, DummyVecEnv),
            )
        warn_of_held_frames(self.reward_model, self._frames.held)
        self._watch.unanswered = self._frames.unstepped
        self.latest_rewards: NDArray[np.float32] | PendingRewards = np.zeros(venv.num_envs, np.float32)
        self.latest_lengths: NDArray[np.int64] = np.zeros(venv.num_envs, np.int64)
        self._clip_return = np.zeros(venv.num_envs)
        self._clip_length = np.zeros(venv.num_envs, np.int64)

    def reset(self) -> Any:
        with self._watch.operation("reset"):
            obs = self.venv.reset()
        self._clip_return = np.zeros(self.num_envs)  # anew: frames from before that wait count towards the old
        self._clip_length = np.zeros(self.num_envs, np.int64)
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        if self._queue is not None:
            self._queue.settle()
        with self._watch.operation("step"):
            self.venv.step_async(actions)
        if self._queue is not None:
            self._queue.advance()

    def step_wait(self) -> tuple[Any, Any, NDArray[np.bool_], list[dict[str, Any]]]:
        with self._watch.operation("step"):
            obs, env_rewards, dones, env_infos = self.venv.step_wait()
            frames, stepped = self._frames.collect()
        if not stepped.all():
            raise RuntimeError(
                f"sub-envs {np.flatnonzero(~stepped).tolist()} took no step; required: one step of each sub-env "
                f"a step. {type(self.venv.unwrapped).__name__} must call the step of every FrameCapture."
            )
        infos = [{**env_info, "env_reward": float(env_rewards[i])} for i, env_info in enumerate(env_infos)]
        self.latest_lengths = self._clip_length + 1
        ended = {int(i): ClipEpisode(l=int(self.latest_lengths[i])) for i in np.flatnonzero(dones)}
        self._clip_length = np.where(dones, 0, self.latest_lengths)
        for i, episode in ended.items():
            infos[i]["clip_episode"] = episode
        known = partial(_add_to_returns, self._clip_return, ended)
        if self._queue is not None:
            step = self._queue.put(frames)
            step.listen(known)
            self.latest_rewards = PendingRewards(step)
            return obs, self.latest_rewards.copy(), dones, infos
        try:
            scores = score_frames(self.reward_model, frames)
        except Exception:
            known(np.full(self.num_envs, np.nan, np.float32))  # these returns can't be known; the next ones can
            raise
        known(scores.rewards)
        self.latest_rewards = scores.rewards
        for info, goal, baseline in zip(infos, scores.goal_similarity, scores.baseline_similarity, strict=True):
            info |= {"goal_similarity": float(goal), "baseline_similarity": float(baseline)}
        return obs, scores.rewards.copy(), dones, infos

    @property
    def deferred(self) -> bool:
        return self._queue is not None

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        if method_name == "compute_reward":
            raise TypeError(
                "HerReplayBuffer relabels with compute_reward, the env's own reward of a goal, and would mix it with "
                "CLIP's. Use another replay buffer: ReplayBuffer or DictReplayBuffer."
            )
        with self._watch.operation(method_name):
            return self.venv.env_method(method_name, *args, indices=indices, **kwargs)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        with self._watch.operation(f"get_attr {attr_name}"):
            return self.venv.get_attr(attr_name, indices)

    def get_images(self) -> Sequence[Any]:
        with self._watch.operation("get_images"):
            return self.venv.get_images()

    def close(self) -> None:
        self._watch.close(self.venv.close)
        self._frames.close()

    def _bind(self, shared: SharedFrames) -> None:
        for i in range(self.num_envs):
            self.venv.env_method("clip_bind", shared, i, indices=[i])


class ClipEpisode(dict[str, Any]):
    """``info["clip_episode"]``: "l", and "r" as soon as all rewards of the episode are known."""

    def __missing__(self, key: str) -> Any:
        raise KeyError(f"{key!r} of a deferred CLIPRewardVecEnv: not before the episode's frames are scored")


def _add_to_returns(
    returns: NDArray[np.float64], ended: Mapping[int, ClipEpisode], rewards: NDArray[np.float32]
) -> None:
    """Counts one step's ``rewards``; ``ended``: the sub-envs whose episode it closed."""
    returns += rewards
    for i, episode in ended.items():
        episode["r"] = float(returns[i])
        returns[i] = 0.0


def _refuse_layers(venv: VecEnv) -> None:
    if not isinstance(venv, VecEnv):
        raise TypeError(
            f"CLIPRewardVecEnv wraps a Stable-Baselines3 VecEnv, got {type(venv).__name__}. "
            "vlmrm_wrap.sb3.make_vec_env(env_id, n_envs) makes one; a Gymnasium env goes into CLIPRewardWrapper, "
            "a Gymnasium vector env into CLIPRewardVectorWrapper."
        )
    if unwrap_vec_normalize(venv) is not None:
        raise ValueError(
            "VecNormalize is inside CLIPRewardVecEnv, where off-policy algorithms would train on the env's own "
            "rewards. Put it outside: VecNormalize(CLIPRewardVecEnv(venv, model))."
        )
    layer: Any = venv
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, CLIPRewardVecEnv):
            raise ValueError("this VecEnv has a CLIPRewardVecEnv already; two would take each other's frames")
        layer = layer.venv


def _refuse_without_frame_capture(venv: VecEnv) -> None:
    if not venv.has_attr("clip_arm"):
        raise ValueError(
            "the sub-envs hold no FrameCapture, and a VecEnv's get_images() shows the next episode's first frame "
            "after an end. Make them with vlmrm_wrap.sb3.make_vec_env(env_id, n_envs), or pass "
            "wrapper_class=vlmrm_wrap.FrameCapture to Stable-Baselines3's, with env_kwargs={'render_mode': "
            "'rgb_array'}."
        )
