"""FastMuJoCoRender: MuJoCo's pictures without what makes them slow where a CPU draws them."""

from typing import Any

import gymnasium as gym
import numpy as np

__all__ = ["FastMuJoCoRender"]


class FastMuJoCoRender(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Draws a MuJoCo env about 9 times as fast in software, in slightly other pictures.

    Without a GPU most of a render goes into the shadow map, the mirror image in the floor and four samples a
    pixel. ``shadow_size``: side of the shadow map in texels, 0 for no shadows; Gymnasium's models have MuJoCo's
    4096. ``multisampling``: samples a pixel, 0 or 1 for jagged edges; the models have 4. ``reflections``: False
    for floors that don't mirror. ``FastMuJoCoRender(env, shadow_size=1024, reflections=True)`` changes half a
    percent of the pixels and is about 3 times as fast.

    The pictures differ, and so do rewards: train and evaluate with the same. Physics and observations are
    untouched. The settings are the model's own (``model.vis.quality``, ``model.mat_reflectance``), read when the
    env first renders, so this goes inside FrameCapture and CLIPRewardWrapper.

    Example:
        >>> envs = make_vec("Humanoid-v5", 8, vectorization_mode="async", wrappers=[FastMuJoCoRender])

    Raises TypeError for an env without Gymnasium's MuJoCo renderer; ValueError for a negative number, or an env
    that has rendered before.
    """

    def __init__(
        self, env: gym.Env[Any, Any], *, shadow_size: int = 0, multisampling: int = 0, reflections: bool = False
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, shadow_size=shadow_size, multisampling=multisampling, reflections=reflections
        )
        gym.Wrapper.__init__(self, env)
        for name, number in (("shadow_size", shadow_size), ("multisampling", multisampling)):
            if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 0:
                raise ValueError(f"{name} is {number!r}; required: a whole number, 0 or more")
        drawn: Any = env.unwrapped
        if not hasattr(drawn, "mujoco_renderer"):
            raise TypeError(
                f"FastMuJoCoRender got {env}, which has no mujoco_renderer; required: an env on Gymnasium's MujocoEnv"
            )
        if drawn.mujoco_renderer.viewer is not None:
            raise ValueError(
                f"FastMuJoCoRender got {env} after its first render, when MuJoCo reads these settings no more. "
                "Put it around the env before anything renders."
            )
        drawn.model.vis.quality.shadowsize = shadow_size
        drawn.model.vis.quality.offsamples = multisampling
        if not reflections:
            drawn.model.mat_reflectance[:] = 0.0
