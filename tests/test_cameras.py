"""The cameras of MuJoCo envs: where they stand, and that the tracking one goes along and changes nothing else."""

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv

pytest.importorskip("mujoco")

from test_mujoco import pytestmark as needs_gl
from test_mujoco import run_in_fresh_process

from vlmrm_wrap.tasks import TrackingCamera, camera

IDS = "vlmrm_wrap.tasks:vlmrm_wrap/"


def wrappers_of(env):
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return names


class TestCamera:
    def test_the_papers(self):
        view = camera()
        assert view["camera_id"] == -1
        config = view["default_camera_config"]
        assert (config["distance"], config["elevation"], config["azimuth"]) == (3.5, -10, 180)
        assert config["lookat"].tolist() == [0, 0, 1]
        env = gym.make(IDS + "TexturedHumanoid-v0")
        assert env.unwrapped.mujoco_renderer.default_cam_config.keys() == config.keys()

    @pytest.mark.parametrize(("view", "tracks"), [(None, False), ({}, True), ({"trackbodyid": -1}, False)])
    def test_of_the_task_envs(self, view, tracks):
        env = gym.make(IDS + "TexturedMuJoCo-v0", env_id="HalfCheetah-v5", camera=view)
        assert ("TrackingCamera" in wrappers_of(env)) is tracks
        seen = env.unwrapped.model
        assert seen.vis.map.shadowclip * seen.stat.extent == pytest.approx(1.5 if tracks else 8)  # metres

    @pytest.mark.parametrize(
        ("argument", "attribute", "value"),
        [("camera_id", "camera_id", 0), ("default_camera_config", "default_cam_config", {"distance": 5})],
    )
    def test_gymnasiums_own_arguments_go_before(self, argument, attribute, value):
        env = gym.make(IDS + "TexturedHumanoid-v0", **{argument: value})
        assert getattr(env.unwrapped.mujoco_renderer, attribute) == value
        assert "TrackingCamera" not in wrappers_of(env)


class TestTrackingCamera:
    def test_what_it_looks_at(self):
        """Beside the centre of mass, at a height of its own."""
        env = TrackingCamera(gym.make("Humanoid-v5", render_mode="rgb_array", **camera(lookat=(1, -2, 0.5))))
        env.reset(seed=0)
        inner = env.unwrapped
        own = inner.mujoco_renderer.default_cam_config["lookat"]
        inner.render = lambda: np.zeros((480, 480, 3), np.uint8)
        for x, y in ((0, 0), (7, -3)):
            qpos = inner.init_qpos.copy()
            qpos[:2] += x, y
            inner.set_state(qpos, inner.init_qvel)
            env.render()
            seen = inner.mujoco_renderer.default_cam_config["lookat"]
            np.testing.assert_allclose(seen - own, inner.data.subtree_com[1] * (1, 1, 0))
            np.testing.assert_allclose(seen[:2] - (x, y), (1, -2), atol=0.1)
        assert gym.make(env.spec).get_wrapper_attr("_body") == 1

    def test_who_cannot_be_followed_is_refused(self):
        with pytest.raises(TypeError, match=r"PaintedEnv.* which has no mujoco_renderer"):
            TrackingCamera(PaintedEnv())
        for settings in (
            {},  # HalfCheetah's own: a distance
            camera(trackbodyid=-1),
            camera(trackbodyid=0),
            camera(trackbodyid=8),
            {**camera(), "camera_id": 0},
        ):
            with pytest.raises(ValueError, match=r"HalfCheetah.* a trackbodyid of 1 to 7: gym.make\(..., \*\*camera"):
                TrackingCamera(gym.make("HalfCheetah-v5", **settings))

    @needs_gl
    def test_on_every_road_a_robot_elsewhere_looks_as_at_home(self):
        """Moved by whole tiles of the floor, with shadows or not. To a camera that stays, it is out of sight."""
        out = run_in_fresh_process(
            f"""
            import gymnasium as gym, numpy as np
            from vlmrm_wrap import CLIPRewardVectorWrapper, CLIPRewardWrapper, make_vec
            from vlmrm_wrap.protocols import FrameScores
            from vlmrm_wrap.sb3 import CLIPRewardVecEnv, make_vec_env

            class Keep:
                def __init__(self):
                    self.frames = []
                def score(self, frames):
                    self.frames.append(frames.copy())
                    return FrameScores(*np.zeros((3, len(frames)), np.float32))

            class Moved(gym.Wrapper):
                "1000 m away after the second step."
                def step(self, action):
                    result = super().step(action)
                    self.by(self.next)
                    self.next = 1000
                    return result
                def reset(self, **kwargs):
                    self.next = 0
                    return super().reset(**kwargs)
                def by(self, metres):
                    inner = self.unwrapped
                    inner.set_state(inner.data.qpos + metres * (np.arange(inner.model.nq) == 0), inner.data.qvel)

            class Still(Moved):
                def by(self, metres):
                    super().by(0)

            def single(wrapper, keep, **kwargs):
                env = CLIPRewardWrapper(wrapper(gym.make(ID, render_mode="rgb_array", **kwargs)), keep)
                return env, env.action_space.sample() * 0

            def vector(wrapper, keep, **kwargs):
                envs = CLIPRewardVectorWrapper(make_vec(ID, 1, wrappers=[wrapper], **kwargs), keep)
                return envs, envs.action_space.sample() * 0

            def sb3(wrapper, keep, **kwargs):
                venv = CLIPRewardVecEnv(make_vec_env(ID, 1, seed=0, wrappers=[wrapper], env_kwargs=kwargs), keep)
                return venv, np.zeros((1, 6), np.float32)

            ID = "{IDS}TexturedMuJoCo-v0"
            def frames(road, wrapper, body=1, **kwargs):
                keep = Keep()
                kwargs |= dict(env_id="HalfCheetah-v5", body="#ff00ff", floor="grass", width=64, height=64)
                env, action = road(wrapper, keep, camera=dict(azimuth=90, trackbodyid=body), **kwargs)
                env.reset() if road is sb3 else env.reset(seed=0)
                for _ in range(2):
                    env.step(action)
                env.close()
                return keep.frames[-1][0].astype(int)

            def pink(picture):
                return int(((picture[..., 0] > 100) & (picture[..., 1] < 60)).sum())

            for road, fast in ((single, False), (vector, True), (sb3, True)):
                home, away = (frames(road, wrapper, fast_render=fast) for wrapper in (Still, Moved))
                print(pink(home) > 50, np.abs(home - away).mean() < 0.1)
            print(pink(frames(single, Still, -1)) > 50, pink(frames(single, Moved, -1)))
            """
        )
        assert out.splitlines() == ["True True"] * 3 + ["True 0"]

    @needs_gl
    def test_the_physics_are_the_same_to_the_bit(self):
        out = run_in_fresh_process(
            f"""
            import gymnasium as gym, numpy as np
            plain = gym.make("Humanoid-v5")
            env = gym.make("{IDS}TexturedHumanoid-v0", render_mode="rgb_array", width=32, height=32, fast_render=True)
            same = [np.array_equal(plain.reset(seed=1)[0], env.reset(seed=1)[0])]
            env.action_space.seed(1)
            for _ in range(20):
                action = env.action_space.sample()
                same += [np.array_equal(*both) for both in zip(env.step(action)[:4], plain.step(action)[:4])]
                env.render()
            same.append(np.array_equal(env.unwrapped.state_vector(), plain.unwrapped.state_vector()))
            print(len(same), all(same))
            """
        )
        assert out.strip() == "82 True"
