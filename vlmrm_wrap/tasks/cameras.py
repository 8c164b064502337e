"""Where a MuJoCo env of Gymnasium is seen from: a camera in one place, or one that goes along with the robot."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

__all__ = ["TrackingCamera", "camera"]

_SHADOWS = 1.5  # metres around the body that have shadows: far ones are broken in MuJoCo's own pictures


def camera(
    *,
    distance: float = 3.5,
    azimuth: float = 180.0,
    elevation: float = -10.0,
    lookat: Sequence[float] = (0.0, 0.0, 1.0),
    trackbodyid: int = 1,
) -> dict[str, Any]:
    """Arguments of ``gym.make`` that place the camera of a MuJoCo env; by default the paper's for Humanoid.

    ``distance`` in metres from the point ``lookat`` (x, y, z); ``azimuth`` and ``elevation`` in degrees, negative
    elevations look down. ``trackbodyid``: the body that :class:`TrackingCamera` follows, by its number in the model
    (1: of most models the whole robot), -1 for none; Gymnasium 1.4 alone does nothing with it. (Rocamonde et al. 2023,
    section 4.3: kneeling 91 % without this camera, 100 % with it.)

    Example:
        >>> env = TrackingCamera(gym.make("Humanoid-v5", render_mode="rgb_array", **camera(distance=5)))
    """
    config = {"distance": distance, "azimuth": azimuth, "elevation": elevation, "trackbodyid": trackbodyid}
    # camera_id -1 is the free camera: before 1.4 Gymnasium preferred one named "track" that ignores the rest.
    return {"camera_id": -1, "default_camera_config": {**config, "lookat": np.array(lookat, float)}}


class TrackingCamera(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Moves a MuJoCo env's camera along with a body before each picture, so that who walks stays in it.

    The body is the ``trackbodyid`` of the env's ``default_camera_config``, followed by the centre of mass of all that
    hangs on it, as MuJoCo's own tracking camera does, which Gymnasium 1.4 never uses; but over the floor only. So
    ``lookat`` is (x, y) from the body and z above the floor: who falls is seen to fall. Sunlight comes along. Physics
    and observations are untouched. Goes inside FrameCapture and CLIPRewardWrapper.

    Example:
        >>> env = TrackingCamera(gym.make("HalfCheetah-v5", render_mode="rgb_array", **camera(azimuth=90, distance=3)))

    Raises TypeError for an env without Gymnasium's MuJoCo renderer, ValueError where no body or ``lookat`` is given.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        drawn: Any = env.unwrapped
        if not hasattr(drawn, "mujoco_renderer"):
            raise TypeError(
                f"TrackingCamera got {env}, which has no mujoco_renderer; required: an env on Gymnasium's MujocoEnv"
            )
        config = drawn.mujoco_renderer.default_cam_config or {}
        body, bodies = config.get("trackbodyid", -1), range(1, drawn.model.nbody)
        if body not in bodies or "lookat" not in config or drawn.mujoco_renderer.camera_id != -1:
            raise ValueError(
                f"TrackingCamera got {env} with camera_id {drawn.mujoco_renderer.camera_id} and {config}; required: "
                f"-1, the free camera, and a lookat and a trackbodyid of 1 to {bodies[-1]}: "
                "gym.make(..., **camera(trackbodyid=1))"
            )
        self._body, self._offset = int(body), np.array(config["lookat"], float)
        shadows = drawn.model.vis.map  # read when the env first renders
        shadows.shadowclip = min(shadows.shadowclip, _SHADOWS / drawn.model.stat.extent)

    def render(self) -> Any:
        import mujoco

        drawn: Any = self.env.unwrapped
        model, data, renderer = drawn.model, drawn.data, drawn.mujoco_renderer
        where = data.subtree_com[self._body, :2]
        lookat = self._offset + np.append(where, 0)
        renderer.default_cam_config = {**renderer.default_cam_config, "lookat": lookat}  # of a viewer yet to come
        if renderer.viewer is not None:
            renderer.viewer.cam.lookat[:] = lookat
            # An endless floor is drawn around the camera of the frame before, which a reset may have left far away.
            mujoco.mjv_updateCamera(model, data, renderer.viewer.cam, renderer.viewer.scn)
        # The world's suns come along, for they cast shadows around their place only.
        suns = (model.light_bodyid == 0) & (model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        data.light_xpos[suns, :2] = model.light_pos[suns, :2] + where
        return self.env.render()
