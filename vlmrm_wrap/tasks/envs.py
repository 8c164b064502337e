"""The entry points of the ids that :mod:`vlmrm_wrap.tasks` registers; their arguments are ``gym.make``'s."""

from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym

from vlmrm_wrap.rendering import FrameRenderer
from vlmrm_wrap.tasks.cameras import TrackingCamera
from vlmrm_wrap.tasks.cameras import camera as camera_arguments
from vlmrm_wrap.tasks.goals import AbsorbingGoal, Goal, Success
from vlmrm_wrap.tasks.mountain_car import TexturedMountainCar
from vlmrm_wrap.tasks.mujoco_xml import textured_mujoco_xml
from vlmrm_wrap.wrappers.mujoco import FastMuJoCoRender

__all__ = ["CLOTHES", "cartpole", "humanoid", "mountain_car", "mountain_car_continuous", "mujoco"]

_Env = gym.Env[Any, Any]

# Humanoid's geoms -> looks: a blue shirt, dark trousers, brown shoes.
CLOTHES = {
    "head|larm|hand": "skin",
    "torso|waist|uarm": "#2c62b4",
    "foot": "#5a3a22",
    "": "#525a6c",
}


def cartpole(**kwargs: Any) -> _Env:
    """CartPole-v1 with Success; its time limit is the id's."""
    return Success(_unwrapped("CartPole-v1", kwargs))


def mountain_car(*, textured: bool = True, **kwargs: Any) -> _Env:
    """MountainCar-v0, textured, with an absorbing goal and Success."""
    return _mountain_car("MountainCar-v0", textured, kwargs)


def mountain_car_continuous(*, textured: bool = True, **kwargs: Any) -> _Env:
    """MountainCarContinuous-v0, textured, with an absorbing goal and Success."""
    return _mountain_car("MountainCarContinuous-v0", textured, kwargs)


def _mountain_car(env_id: str, textured: bool, kwargs: dict[str, Any]) -> _Env:
    env = _unwrapped(env_id, kwargs)
    if textured:
        env.metadata = {**env.metadata, "render_modes": ["rgb_array"]}  # before it is asked to render, too
        if env.render_mode is not None:
            env = TexturedMountainCar(env)
    return Success(AbsorbingGoal(env))


def humanoid(*, body: str | Mapping[str, str] | None = CLOTHES, **kwargs: Any) -> _Env:
    """:func:`mujoco` of Humanoid-v5 in :data:`CLOTHES`, with the camera of the paper; its time limit is the id's."""
    return mujoco("Humanoid-v5", **{"camera": {}, "body": body, "time_limit": -1, **kwargs})


def mujoco(
    env_id: str,
    *,
    floor: str | None = "wood",
    sky: str | None = "day",
    body: str | Mapping[str, str] | None = "metal",
    camera: Mapping[str, Any] | None = None,
    goal: Goal | str | None = None,
    fast_render: bool = False,
    time_limit: int | None = None,
    **kwargs: Any,
) -> _Env:
    """A MuJoCo env of Gymnasium with the looks of :func:`~vlmrm_wrap.tasks.textured_mujoco_xml`.

    ``camera``: arguments of :func:`~vlmrm_wrap.tasks.camera`, which goes along with the robot unless its
    ``trackbodyid`` is -1; None for the env's own. ``goal``: of :class:`~vlmrm_wrap.tasks.Success`, without which there
    is no ``info["success"]``. ``fast_render``: put :class:`~vlmrm_wrap.FastMuJoCoRender` around it. ``time_limit``:
    steps of an episode, None for those of ``env_id``, -1 for no end; ``gym.make``'s ``max_episode_steps`` comes on top
    and can make them fewer only. ``kwargs`` go to the env. Rendering needs no display and no variables.
    """
    if "xml_file" in kwargs:
        raise ValueError("xml_file is the model that gets the textures: call textured_mujoco_xml on your own instead")
    view = {} if camera is None else camera_arguments(**camera)
    with TemporaryDirectory(prefix="vlmrm_wrap_") as folder:  # MuJoCo reads it once, when the env is made
        xml = textured_mujoco_xml(env_id, folder, floor=floor, sky=sky, body=body)
        env: _Env = CarefulRender(_unwrapped(env_id, {**view, **kwargs, "xml_file": str(xml)}))
    if view and not view.keys() & kwargs.keys() and view["default_camera_config"]["trackbodyid"] != -1:
        env = TrackingCamera(env)
    limit = gym.spec(env_id).max_episode_steps if time_limit is None else time_limit
    if limit is not None and limit != -1:
        env = gym.wrappers.TimeLimit(env, limit)
    if fast_render:
        env = FastMuJoCoRender(env)
    return env if goal is None else Success(env, goal)


class CarefulRender(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Renders a MuJoCo env as FrameCapture does: without a display, and in peace with others of its process."""

    def __init__(self, env: _Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._renderer = FrameRenderer(env)

    def render(self) -> Any:
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
        self.env.close()


def _unwrapped(env_id: str, kwargs: dict[str, Any]) -> _Env:
    """The env class of an id, made; Gymnasium's make puts its usual wrappers around what we return."""
    spec = gym.spec(env_id)
    make: Callable[..., Any] = gym.envs.registration.load_env_creator(str(spec.entry_point))
    env: _Env = make(**{**spec.kwargs, **kwargs})
    return env
