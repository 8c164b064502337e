"""CLIPRewardVectorWrapper: Gymnasium vector envs, all sub-envs' frames in one batch; and make_vec."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from vlmrm_wrap.frames import FrameCapture, FrameReader
from vlmrm_wrap.protocols import RewardModel, as_reward_model, check_num_envs, score_frames, warn_of_held_frames
from vlmrm_wrap.rendering import check_frame
from vlmrm_wrap.workers import WorkerWatch

__all__ = ["CLIPRewardVectorWrapper", "make_vec"]


def make_vec(
    env_id: str | gym.envs.registration.EnvSpec,
    /,  # an env may have an argument of that name
    num_envs: int,
    *,
    vectorization_mode: str = "sync",
    wrappers: Sequence[Callable[[gym.Env[Any, Any]], Any]] = (),
    autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = None,
    vector_kwargs: Mapping[str, Any] | None = None,
    **env_kwargs: Any,
) -> VectorEnv[Any, Any, Any]:
    """:func:`gymnasium.make_vec` with ``render_mode="rgb_array"`` and a FrameCapture around every sub-env.

    ``vectorization_mode``: "sync" or "async"; a ``vector_entry_point`` takes no wrappers and is never used.
    ``wrappers``: put around each sub-env, inside FrameCapture. ``max_episode_steps``: None for the env's own,
    -1 for none. ``vector_kwargs``: more for SyncVectorEnv or AsyncVectorEnv, such as ``{"context": "forkserver"}``,
    which MuJoCo's workers need once something has rendered in this process, or ``{"shared_memory": False}``, which
    observations of custom spaces need (MiniGrid's). ``env_kwargs`` go to the env.

    Raises ValueError for another vectorization or render mode, or fewer than one env.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; required: at least 1")
    if vectorization_mode not in ("sync", "async"):
        raise ValueError(
            f"vectorization_mode is {vectorization_mode!r}; required: 'sync' or 'async'. (An env's own "
            "vector_entry_point takes no wrappers, so its frames can't be captured: make it with "
            "gymnasium.make_vec, and CLIPRewardVectorWrapper uses its render().)"
        )
    if env_kwargs.setdefault("render_mode", "rgb_array") != "rgb_array":
        raise ValueError(f"render_mode is {env_kwargs['render_mode']!r}; required: 'rgb_array', the default here")
    if max_episode_steps is not None:
        env_kwargs["max_episode_steps"] = max_episode_steps
    return gym.make_vec(
        env_id,
        num_envs=num_envs,
        vectorization_mode=vectorization_mode,
        vector_kwargs={"autoreset_mode": autoreset_mode, **(vector_kwargs or {})},
        wrappers=[*wrappers, FrameCapture],
        **env_kwargs,
    )


class CLIPRewardVectorWrapper(VectorWrapper[Any, Any, Any, Any, Any]):
    """Replaces the rewards of a vector env by those of CLIP, the vision-language *model* (no reward clipping).

    One batch of frames a step, in every autoreset mode, in one process or many. Rewards are float64 ``(n,)``,
    R(s) of the frame after the step (Rocamonde et al. 2023, eq. 3), also on an episode's last step. A NEXT_STEP
    reset step has reward 0, and its frame is never scored.

    ``envs``: from :func:`vlmrm_wrap.make_vec`, or any vector env whose sub-envs hold a
    :class:`~vlmrm_wrap.FrameCapture`; or one with an entry point of its own (CartPole's native vector env),
    whose ``render()`` is used where autoreset leaves the right frame. ``reward_model``: as in
    :class:`~vlmrm_wrap.CLIPRewardWrapper`. ``worker_timeout``: seconds after which a worker without an answer
    counts as wedged, None for never.

    ``infos`` gains ``env_reward``, ``goal_similarity`` and ``baseline_similarity``, float64 ``(n,)``, with the
    usual masks ``_env_reward``, ...: False, and the value 0, on a reset step.

    Example:
        >>> envs = CLIPRewardVectorWrapper(make_vec("CartPole-v1", 8, vectorization_mode="async"), model)
        >>> obs, infos = envs.reset(seed=0)
        >>> obs, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
        >>> rewards.shape, rewards.dtype
        ((8,), dtype('float64'))

    Raises, at construction: ValueError for sub-envs without FrameCapture or another render mode. While running:
    :class:`~vlmrm_wrap.workers.WorkerDied` within 2 seconds when a worker dies, TimeoutError when one is wedged.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        reward_model: RewardModel | Mapping[str, Any],
        *,
        worker_timeout: float | None = 60.0,
    ) -> None:
        super().__init__(envs)
        _refuse_second_reward(envs)
        self._watch = WorkerWatch(envs.unwrapped, worker_timeout)
        if envs.render_mode != "rgb_array":
            raise ValueError(
                f"CLIPRewardVectorWrapper needs envs made with render_mode='rgb_array'; these have "
                f"{envs.render_mode!r}. vlmrm_wrap.make_vec(env_id, num_envs) makes them right."
            )
        with self._watch.operation("construction"):
            captured = _holds_frame_captures(envs)
        self.reward_model = as_reward_model(reward_model)
        check_num_envs(self.reward_model, envs.num_envs)
        with self._watch.operation("construction"):
            self._frames = _CapturedFrames(envs) if captured else _RenderedFrames(envs)
        warn_of_held_frames(self.reward_model, self._frames.held)
        self._watch.unanswered = self._frames.unstepped
        self._gathered: NDArray[np.uint8] | None = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        options = None if options is None else dict(options)  # gymnasium pops reset_mask from what it is given
        mask = None if options is None else options.get("reset_mask")
        with self._watch.operation("reset"):
            result = self.env.reset(seed=seed, options=options)
        self._frames.after_reset(mask)
        return result

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        with self._watch.operation("step"):
            obs, env_rewards, terminations, truncations, infos = self.env.step(actions)
            frames, stepped = self._frames.collect(terminations | truncations)
        rewards = np.zeros(self.num_envs)
        goal_similarity, baseline_similarity = np.zeros((2, self.num_envs))
        if stepped.any():
            envs = None if stepped.all() else np.flatnonzero(stepped)
            scores = score_frames(self.reward_model, self._frames_of(stepped, frames), envs)
            rewards[stepped], goal_similarity[stepped], baseline_similarity[stepped] = scores
        env_rewards = np.where(stepped, env_rewards, 0.0)
        infos = dict(infos)
        for key, values in (
            ("env_reward", env_rewards),
            ("goal_similarity", goal_similarity),
            ("baseline_similarity", baseline_similarity),
        ):
            infos[key], infos[f"_{key}"] = values, stepped.copy()
        return obs, rewards, terminations, truncations, infos

    def _frames_of(self, stepped: NDArray[np.bool_], frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``frames[stepped]``, valid until the next call: new memory for each would cost 3 times the copy."""
        if stepped.all():
            return frames
        if self._gathered is None:
            self._gathered = np.empty_like(frames)
        which = np.flatnonzero(stepped)
        for place, index in enumerate(which):
            self._gathered[place] = frames[index]
        return self._gathered[: len(which)]

    def render(self) -> Any:
        with self._watch.operation("render"):
            return self.env.render()

    def close(self, **kwargs: Any) -> None:
        self._watch.close(lambda: self.env.close(**kwargs))
        self._frames.close()


class _CapturedFrames:
    """Frames that FrameCapture took inside the sub-envs: right in every autoreset mode."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        base: Any = envs.unwrapped
        self._reader = FrameReader(
            envs.num_envs,
            call=base.call,
            bind=lambda shared: base.set_attr("clip_slot", [(shared, i) for i in range(envs.num_envs)]),
            across_processes=not isinstance(base, SyncVectorEnv),
        )
        self.held = self._reader.held
        self.unstepped = self._reader.unstepped
        self.close = self._reader.close

    def after_reset(self, mask: NDArray[np.bool_] | None) -> None:
        pass  # who steps is counted

    def collect(self, ended: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return self._reader.collect()


class _RenderedFrames:
    """Frames from the ``render()`` of a vector env that has no sub-envs of its own to wrap.

    After a NEXT_STEP or DISABLED step it shows the terminal frame, as it should; who made a reset step must be
    deduced from who ended before.
    """

    held = False

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.check(envs)
        self._envs = envs
        self._next_step = envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        self._ended = np.zeros(envs.num_envs, np.bool_)
        self._was_reset = False
        self._shape: tuple[int, ...] | None = None

    @staticmethod
    def check(envs: VectorEnv[Any, Any, Any]) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
            raise ValueError(
                f"{envs} has autoreset mode {getattr(mode, 'value', mode)!r}, in which its render() shows the next "
                "episode's first frame after an end; required: NEXT_STEP or DISABLED, or sub-envs with FrameCapture: "
                "vlmrm_wrap.make_vec(env_id, num_envs)."
            )

    def after_reset(self, mask: NDArray[np.bool_] | None) -> None:
        self._ended[slice(None) if mask is None else mask] = False
        self._was_reset = self._was_reset or mask is None

    def collect(self, ended: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if not self._was_reset:
            raise gym.error.ResetNeeded(
                f"step came before a reset through CLIPRewardVectorWrapper, which can't tell whose episodes in "
                f"{self._envs} had ended; call reset() first"
            )
        stepped = ~self._ended if self._next_step else np.ones_like(self._ended)
        self._ended = np.asarray(ended, np.bool_).copy()
        images = self._envs.render()
        if images is None or len(images) != len(ended):
            got = "None" if images is None else f"{len(images)} frames"
            raise ValueError(f"{self._envs}.render() returned {got}; required: {len(ended)}, one a sub-env")
        for image in images:
            self._shape = check_frame(image, self._shape, self._envs).shape
        return np.asarray(images), stepped

    def unstepped(self) -> list[int]:
        return []

    def close(self) -> None:
        pass


def _holds_frame_captures(envs: VectorEnv[Any, Any, Any]) -> bool:
    """False for a vector env without sub-envs of its own; ValueError if its sub-envs lack FrameCapture."""
    base: Any = envs.unwrapped
    if not hasattr(base, "call"):
        _RenderedFrames.check(envs)
        return False
    if not all(base.call("has_wrapper_attr", "clip_arm")):
        raise ValueError(
            "the sub-envs hold no FrameCapture, and after an autoreset render() shows the wrong episode. Make "
            "them with vlmrm_wrap.make_vec(env_id, num_envs, vectorization_mode=...), or add wrappers="
            "[vlmrm_wrap.FrameCapture] to gymnasium.make_vec, or wrap each env outermost: "
            "lambda: FrameCapture(gym.make(env_id, render_mode='rgb_array'))."
        )
    return True


def _refuse_second_reward(envs: Any) -> None:
    while isinstance(envs, VectorWrapper):
        if isinstance(envs, CLIPRewardVectorWrapper):
            raise ValueError("these envs have a CLIPRewardVectorWrapper already; two would take each other's frames")
        envs = envs.env
