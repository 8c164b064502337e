"""The task envs: other pictures and infos, the same states; from an id alone, in worker processes too."""

import sys
import xml.etree.ElementTree as ET
from functools import partial, wraps
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import pytest
from fakes import PaintedEnv
from gymnasium.envs.classic_control import Continuous_MountainCarEnv
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from PIL import Image

from vlmrm_wrap import CLIPRewardVectorWrapper, FixedHorizon, FrameCapture, make_vec
from vlmrm_wrap.protocols import FrameScores
from vlmrm_wrap.sb3 import CLIPRewardVecEnv, make_vec_env
from vlmrm_wrap.tasks import AbsorbingGoal, Success, TexturedMountainCar, textured_mujoco_xml
from vlmrm_wrap.tasks.looks import LOOKS, look, noise

IDS = "vlmrm_wrap.tasks:vlmrm_wrap/"
CONTINUOUS = IDS + "TexturedMountainCarContinuous-v0"


def put(env, position, velocity=0.05):
    env.unwrapped.state = np.array([position, velocity], np.float32)
    return env


def painted(lengths=(3,)):
    """Episodes of three steps, the second of which ends in the goal state."""
    return PaintedEnv(0, lengths)


class TestSuccess:
    def test_is_of_each_step_and_begins_anew_with_each_reset(self):
        env = Success(painted((5,)), lambda env: env.time in (0, 3, 4))
        for _ in range(2):
            _, info = env.reset()
            assert info == {"success": True}
            infos = [env.step(0)[4] for _ in range(5)]
            assert [info["success"] for info in infos] == [False, False, True, True, False]
            # 0/1, 0/2, 1/3, 2/4, 2/5 of the steps so far: half is enough
            assert [info["is_success"] for info in infos] == [False, False, False, True, False]
            assert all(type(value) is bool for info in infos for value in info.values())

    @pytest.mark.parametrize(
        ("state", "success"),
        [((0, 0, 0.2, 0), True), ((0, 0, 0.22, 0), False), ((2.5, 0, 0, 0), False), ((0, 0, 2 * np.pi, 0), True)],
    )
    def test_of_cartpole(self, state, success):
        env = Success(gym.make("CartPole-v1"))
        env.reset()
        env.unwrapped.state = np.array(state, float)
        assert env._goal(env.unwrapped) is success

    @pytest.mark.parametrize("wrapper", [Success, AbsorbingGoal])
    def test_unknown_goals_are_refused(self, wrapper):
        with pytest.raises(ValueError, match=rf"{wrapper.__name__} got .*PaintedEnv.* goal=None; required: goal=, a f"):
            wrapper(painted())
        with pytest.raises(ValueError, match=r"goal='win'; required: .* a bool; this env has no goals known by name"):
            wrapper(painted(), "win")
        with pytest.raises(ValueError, match=r"got .*CartPole.* goal='at_flag'; required: .* one of \['balanced'\]"):
            wrapper(gym.make("CartPole-v1"), "at_flag")


class TestAbsorbingGoal:
    def test_nothing_moves_after_the_goal_and_the_next_episode_does(self):
        env = AbsorbingGoal(painted(), lambda env: env.time == 2)
        for episode in (1, 2):
            env.reset()
            steps = [env.step(0) for _ in range(5)]
            assert [list(obs) for obs, *_ in steps] == [[0, episode, time] for time in (1, 2, 2, 2, 2)]
            assert [reward for _, reward, *_ in steps] == [1, 2, 0, 0, 0]
            assert not any(terminated or truncated for _, _, terminated, truncated, _ in steps)
            assert env.unwrapped.time == 2

    def test_the_step_that_gets_there_is_no_end_but_another_end_is_one(self):
        for goal_time, ends in ((3, [False, False, False]), (9, [False, False, True])):
            env = AbsorbingGoal(painted(), lambda env, time=goal_time: env.time == time)
            env.reset()
            assert [env.step(0)[2] for _ in range(3)] == ends

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
    def test_who_starts_in_the_goal_stays_there(self, mode):
        """Episodes of the env would last a step; the time limit outside gives them two."""

        def make():
            return gym.wrappers.TimeLimit(AbsorbingGoal(painted((1,)), lambda env: env.time == 0), 2)

        envs = gym.vector.SyncVectorEnv([make, make], autoreset_mode=AutoresetMode(mode))
        envs.reset()
        for episode in (1, 2):
            for step in (1, 2):
                obs, rewards, terminations, truncations, infos = envs.step(np.zeros(2, int))
                last = infos["final_obs"] if mode == "SameStep" and step == 2 else obs
                assert [list(each) for each in last] == [[0, episode, 0]] * 2
                assert [*rewards, *terminations, *truncations] == [0, 0, False, False, step == 2, step == 2]
            if mode == "NextStep":
                envs.step(np.zeros(2, int))
            elif mode == "Disabled":
                envs.reset(options={"reset_mask": np.ones(2, bool)})
        envs.close()

    def test_of_mountain_car_by_its_reset_options(self):
        env = gym.make(CONTINUOUS)
        obs, info = env.reset(options={"low": 0.5, "high": 0.5})
        assert info == {"success": True}
        again, reward, *_, info = env.step(np.array([-1.0], np.float32))
        np.testing.assert_array_equal(again, obs)
        assert (reward, info["success"]) == (0, True)
        env.reset()
        assert env.step(np.array([-1.0], np.float32))[1] != 0

    def test_of_mountain_car_pays_what_the_env_pays(self):
        plain, task = gym.make("MountainCarContinuous-v0"), gym.make(CONTINUOUS)
        returns = []
        for env in (plain, task):
            env.reset(seed=0)
            put(env, 0.42)
            rewards = []
            while len(rewards) < 5:
                _, reward, terminated, _, info = env.step(np.array([1.0], np.float32))
                rewards.append(reward)
                if terminated:
                    break
            returns.append((len(rewards), sum(rewards)))
        assert returns == [(1, pytest.approx(99.9)), (5, pytest.approx(99.9))]
        assert info == {"success": True, "is_success": True}
        assert task.reset()[1] == {"success": False}


class TestTexturedMountainCar:
    @pytest.mark.parametrize("name", ["MountainCar-v0", "MountainCarContinuous-v0"])
    def test_the_car_is_where_the_state_says(self, name):
        env = TexturedMountainCar(gym.make(name, render_mode="rgb_array"))
        env.reset(seed=0)
        for position in (-0.9, -0.52, -0.5, 0.0, 0.45):
            frame = put(env, position).render()
            assert frame.dtype == np.uint8
            assert frame.shape == (400, 600, 3)
            red = (frame[..., 0] > 150) & (frame[..., 1] < 60) & (frame[..., 2] < 60)
            rows, columns = np.nonzero(red)
            slope = np.arctan(1.35 * np.cos(3 * position))
            # The red body's middle lies some 17 pixels above the wheels' foot, at right angles to the hill.
            x = (position + 1.2) * 600 / 1.8 - 17 * np.sin(slope)
            y = 400 - (np.sin(3 * position) * 0.45 + 0.55) * 600 / 1.8 - 17 * np.cos(slope)
            assert (columns.mean(), rows.mean()) == (pytest.approx(x, abs=3), pytest.approx(y, abs=3))
            assert red.sum() > 300

    def test_small_moves_show_and_a_state_has_one_picture(self):
        env = TexturedMountainCar(gym.make("MountainCarContinuous-v0", render_mode="rgb_array"))
        env.reset(seed=0)
        elsewhere = put(env, 0.3).render().astype(int)
        first, near, again = (put(env, position).render() for position in (-0.5, -0.4985, -0.5))
        np.testing.assert_array_equal(first, again)
        weights = [np.abs(frame - elsewhere)[:, 180:290].sum((0, 2)) for frame in (first, near)]
        centres = [(weight * np.arange(110)).sum() / weight.sum() for weight in weights]
        # Half a pixel along the hill, less a tenth because the hill there turns the roof back.
        assert centres[1] - centres[0] == pytest.approx(0.0015 * 600 / 1.8 - 0.1, abs=0.1)
        for edge in (-1.2, 0.6):
            assert put(env, edge).render().shape == (400, 600, 3)

    def test_the_flag_is_yellow(self):
        env = TexturedMountainCar(gym.make("MountainCarContinuous-v0", render_mode="rgb_array"))
        env.reset(seed=0)
        red, green, blue = env.render()[20:40, 553:575].reshape(-1, 3).astype(int).T
        assert ((red > 220) & (green > 170) & (blue < 60)).mean() > 0.5

    def test_gymnasiums_own_picture_is_never_drawn(self, monkeypatch):
        drawn = Mock(side_effect=AssertionError)
        own = Continuous_MountainCarEnv.render
        monkeypatch.setattr(Continuous_MountainCarEnv, "render", wraps(own)(lambda self: drawn()))
        env = FrameCapture(TexturedMountainCar(gym.make("MountainCarContinuous-v0", render_mode="rgb_array")))
        env.clip_arm(False)
        env.reset(seed=0)
        for _ in range(4):
            env.step(np.zeros(1, np.float32))
        assert not drawn.called

    def test_other_envs_and_modes_are_refused(self):
        with pytest.raises(ValueError, match=r"got .*CartPole.*; required: MountainCar-v0 or"):
            TexturedMountainCar(gym.make("CartPole-v1", render_mode="rgb_array"))
        with pytest.raises(ValueError, match="render_mode='rgb_array'"):
            TexturedMountainCar(gym.make("MountainCar-v0"))


class BluePixels:
    """Remembers the frames; the reward is the mean of the blue channel."""

    def __init__(self):
        self.frames = []

    def score(self, frames):
        self.frames.append(frames.copy())
        blue = frames[..., 2].mean((1, 2)).astype(np.float32)
        return FrameScores(blue, blue, blue)


class TestIds:
    def test_all_paths_show_the_same_pictures_and_tell_of_success(self):
        """One env, Gymnasium's workers (spawned: they know the id only from its string), Stable-Baselines3."""
        action = np.ones(1, np.float32)
        single = FixedHorizon(gym.make(CONTINUOUS, render_mode="rgb_array"), 3)
        single.reset(seed=5)
        expected = []
        for _ in range(3):
            *_, truncated, info = single.step(action)
            expected.append(single.render())
        assert truncated
        assert info["success"] is False

        scorer = BluePixels()
        wrappers = [partial(FixedHorizon, max_episode_steps=3)]
        spawn = {"context": "spawn"}
        envs = make_vec(CONTINUOUS, 2, vectorization_mode="async", wrappers=wrappers, vector_kwargs=spawn)
        envs = CLIPRewardVectorWrapper(envs, scorer)
        envs.reset(seed=[5, 6])
        for _ in range(3):
            *_, infos = envs.step(np.stack([action, action]))
        envs.close()
        np.testing.assert_array_equal([frames[0] for frames in scorer.frames], expected)
        assert infos["success"].tolist() == [False, False]

        scorer = BluePixels()
        venv = CLIPRewardVecEnv(make_vec_env(CONTINUOUS, 1, seed=5, fixed_horizon=3), scorer)
        venv.reset()
        for _ in range(3):
            *_, infos = venv.step(np.stack([action]))
        venv.close()
        np.testing.assert_array_equal([frames[0] for frames in scorer.frames], expected)
        assert infos[0]["is_success"] is False

    @pytest.mark.parametrize("name", ["CartPole-v0", "TexturedMountainCar-v0", "TexturedMountainCarContinuous-v0"])
    def test_the_spec_rebuilds_it_with_the_plain_envs_states(self, name):
        plain_id = {"CartPole-v0": "CartPole-v1"}.get(name, name.removeprefix("Textured"))
        env = gym.make(gym.make(IDS + name, render_mode="rgb_array").spec)
        plain = gym.make(plain_id)
        assert env.spec.max_episode_steps == plain.spec.max_episode_steps
        np.testing.assert_array_equal(env.reset(seed=3)[0], plain.reset(seed=3)[0])
        env.action_space.seed(3)
        for _ in range(8):
            action = env.action_space.sample()
            for mine, theirs in zip(env.step(action)[:4], plain.step(action)[:4], strict=True):
                np.testing.assert_array_equal(mine, theirs)
        assert env.render().shape == (400, 600, 3)


@pytest.mark.filterwarnings("ignore:.*(different from the unwrapped version|Box observation space)")
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v0", {}),
        ("TexturedMountainCar-v0", {}),
        ("TexturedMountainCarContinuous-v0", {}),
        ("TexturedHumanoid-v0", {"goal": "kneeling"}),
        ("TexturedMuJoCo-v0", {"env_id": "HalfCheetah-v5", "camera": {}}),
    ],
)
def test_gymnasiums_check_passes(name, kwargs, render_mode):
    """The check renders in every mode that an env has: not those whose modes have a window among them."""
    if kwargs:
        pytest.importorskip("mujoco")
    check_env(gym.make(IDS + name, render_mode=render_mode, **kwargs), skip_render_check="MountainCar" not in name)


class TestLooks:
    @pytest.mark.parametrize("name", [*LOOKS, "#2a5caa"])
    def test_pictures_tile_and_repeat(self, name):
        picture = look(name, 64)
        assert picture.dtype == np.uint8
        assert picture.shape == (64, 64, 3)
        look.cache_clear()
        np.testing.assert_array_equal(picture, look(name, 64))
        assert picture.std() > 1  # a texture, not a colour

    def test_noise_is_periodic(self):
        field = noise((64, 64), roughness=2)
        assert field.std() == pytest.approx(1)
        inside, seam = np.abs(np.diff(field, axis=1)).mean(), np.abs(field[:, 0] - field[:, -1]).mean()
        assert seam < 2 * inside

    @pytest.mark.parametrize("name", ["silk", "#12", "#gggggg", "", None])
    def test_unknown_ones_are_refused(self, name):
        with pytest.raises(ValueError, match=r"required: one of \['earth', .*, or a colour such as"):
            look(name, 8)


class TestMuJoCo:
    @pytest.fixture(autouse=True)
    def _mujoco(self):
        pytest.importorskip("mujoco")

    @pytest.mark.parametrize("name", ["Humanoid-v5", "Hopper-v5", "Pusher-v5"])
    def test_the_physics_are_the_same_to_the_bit(self, name):
        plain = gym.make(name)
        env = gym.make(IDS + "TexturedMuJoCo-v0", env_id=name, body={"torso": "skin", "": "#334455"}, floor="grass")
        np.testing.assert_array_equal(env.reset(seed=1)[0], plain.reset(seed=1)[0])
        env.action_space.seed(1)
        for _ in range(30):
            action = env.action_space.sample()
            for mine, theirs in zip(env.step(action)[:4], plain.step(action)[:4], strict=True):
                np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(env.unwrapped.state_vector(), plain.unwrapped.state_vector())
        assert gym.make(env.spec).spec.max_episode_steps == plain.spec.max_episode_steps

    def test_what_is_dressed_in_what(self, tmp_path):
        path = textured_mujoco_xml(
            "Humanoid-v5",
            tmp_path,
            floor="tiles",
            sky=None,
            body={"head|hand": "skin", "^torso": "#102030", "o": "metal"},
        )
        root = ET.parse(path).getroot()
        materials = {geom.get("name"): geom.get("material") for geom in root.iter("geom") if geom.get("name")}
        assert materials["floor"] == "vlmrm_2d_tiles"
        assert materials["head"] == materials["left_hand"] == "vlmrm_cube_skin"
        assert materials["torso1"] == "vlmrm_cube_102030"
        assert materials["left_foot"] == "vlmrm_cube_metal"  # as torso1 would be, if the first match didn't count
        assert materials["left_thigh1"] is None
        assert not list(tmp_path.glob("sky*"))
        assert np.asarray(Image.open(tmp_path / "vlmrm_2d_tiles.png")).shape == (512, 512, 3)

    @pytest.mark.parametrize(
        ("body", "dressed"),
        [
            ("metal", {"link0", "link1", "fingertip"}),
            ({"": "metal"}, {"link0", "link1", "fingertip"}),
            ({"target": "#22cc22", "link": "skin"}, {"target", "link0", "link1"}),
            ({".*": "metal"}, {"link0", "link1", "fingertip", "target"}),
        ],
    )
    def test_goals_are_dressed_by_their_names_only(self, tmp_path, body, dressed):
        geoms = list(ET.parse(textured_mujoco_xml("Reacher-v5", tmp_path, body=body)).getroot().iter("geom"))
        assert {geom.get("name") for geom in geoms if "cube" in geom.get("material", "")} == dressed

    def test_what_a_tendon_moves_is_a_robot(self, tmp_path):
        (tmp_path / "own.xml").write_text(
            "<mujoco><worldbody><geom type='plane' size='1 1 1'/>"
            "<body name='arm'><joint name='shoulder'/><geom size='.1'/>"
            "<body name='hand'><geom size='.1'/></body></body>"
            "<body name='ball'><freejoint/><geom size='.1'/></body></worldbody>"
            "<tendon><fixed name='cord'><joint joint='shoulder' coef='1'/></fixed></tendon>"
            "<actuator><motor tendon='cord'/></actuator></mujoco>"
        )
        bodies = ET.parse(textured_mujoco_xml(tmp_path / "own.xml", tmp_path / "out")).getroot().iter("body")
        dressed = [each.get("name") for each in bodies if each.find("geom").get("material")]
        assert dressed == ["arm", "hand"]

    @pytest.mark.parametrize("name", ["HalfCheetah-v5", "Swimmer-v5", "Pusher-v5"])
    def test_the_floor_has_no_end_and_the_view_is_the_same(self, name):
        plain, textured = gym.make(name), gym.make(IDS + "TexturedMuJoCo-v0", env_id=name)
        mine, theirs = textured.unwrapped.model, plain.unwrapped.model
        planes = theirs.geom_type == 0
        assert planes.any()
        assert not mine.geom_size[planes, :2].any()
        np.testing.assert_array_equal(mine.geom_size[~planes], theirs.geom_size[~planes])
        assert mine.stat.extent == theirs.stat.extent
        np.testing.assert_array_equal(mine.stat.center, theirs.stat.center)

    @pytest.mark.parametrize(
        ("name", "arguments", "limits"),
        [
            ("TexturedHumanoid-v0", {}, [1000]),
            ("TexturedHumanoid-v0", {"max_episode_steps": 1500}, [1500]),
            ("TexturedHumanoid-v0", {"max_episode_steps": -1}, []),
            ("TexturedMuJoCo-v0", {"env_id": "Reacher-v5"}, [50]),
            ("TexturedMuJoCo-v0", {"env_id": "Reacher-v5", "time_limit": 60}, [60]),
            ("TexturedMuJoCo-v0", {"env_id": "Reacher-v5", "time_limit": -1}, []),
        ],
    )
    def test_time_limits_are_those_asked_for(self, name, arguments, limits):
        env, found = gym.make(IDS + name, **arguments), []
        while isinstance(env, gym.Wrapper):
            found += [env._max_episode_steps] if isinstance(env, gym.wrappers.TimeLimit) else []
            env = env.env
        assert found == limits

    def test_an_env_id_is_an_argument_of_make_vec_too(self):
        envs = make_vec(IDS + "TexturedMuJoCo-v0", 2, env_id="Reacher-v5")
        assert envs.single_action_space.shape == (2,)
        envs.close()

    def test_no_clothes(self):
        plain, bare = (gym.make(name).unwrapped.model for name in ("Humanoid-v5", IDS + "TexturedHumanoid-v0"))
        assert not np.array_equal(plain.geom_rgba[1:], bare.geom_rgba[1:])
        bare = gym.make(IDS + "TexturedHumanoid-v0", body=None).unwrapped.model
        np.testing.assert_array_equal(plain.geom_rgba[1:], bare.geom_rgba[1:])

    def test_plain_rendering_needs_no_variables(self):
        """Two of them, because it is the first render that chooses and the second that finds its own picture again."""
        from test_mujoco import pytestmark, run_in_fresh_process

        if pytestmark.args[0]:
            pytest.skip(pytestmark.kwargs["reason"])
        out = run_in_fresh_process(
            f"""
            import gc, os, gymnasium as gym
            import vlmrm_wrap.tasks, vlmrm_wrap.tasks.envs

            def make(env_id):
                env = gym.make("{IDS}TexturedMuJoCo-v0", env_id=env_id, render_mode="rgb_array", width=32, height=32)
                env.reset(seed=0)
                return env

            hopper, ant = make("Hopper-v5"), make("Ant-v5")
            before = dict(os.environ)
            first = hopper.render()
            print("MUJOCO_GL" in before, set(os.environ) - set(before) - {{"PYOPENGL_PLATFORM"}})
            ant.render()
            viewer = hopper.unwrapped.mujoco_renderer.viewer
            print((hopper.render() == first).all())
            ant.close()
            del ant
            gc.collect()
            print((hopper.render() == first).all(), first.any(), hopper.unwrapped.mujoco_renderer.viewer is viewer)
            """
        )
        assert out.splitlines() == ["False {'MUJOCO_GL'}", "True", "True True True"]

    def test_a_model_of_ones_own_keeps_its_files(self, tmp_path):
        """Includes, a mesh folder beside the model, and a translucent geom, which stays as it is."""
        import mujoco

        (tmp_path / "model" / "parts").mkdir(parents=True)
        (tmp_path / "model" / "parts" / "bone.obj").write_text(
            "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
        )
        (tmp_path / "model" / "body.xml").write_text(
            "<mujoco><body name='arm'><freejoint/><geom type='mesh' mesh='bone'/>"
            "<geom name='ghost' size='.1' rgba='1 0 0 .2'/></body></mujoco>"
        )
        own = tmp_path / "model" / "own.xml"
        own.write_text(
            "<mujoco><compiler assetdir='parts'/><asset><mesh name='bone' file='bone.obj'/></asset>"
            "<worldbody><geom type='plane' size='1 1 1'/><include file='body.xml'/></worldbody></mujoco>"
        )
        model = mujoco.MjModel.from_xml_path(str(textured_mujoco_xml(own, tmp_path / "out")))
        assert (model.ntex, model.nmat, model.nmesh) == (3, 2, 1)  # sky, floor, metal
        assert (model.geom_matid >= 0).tolist() == [True, True, False]
        assert own.read_text().count("material") == 0

    def test_mistakes_are_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"CartPole-v1 takes no xml_file"):
            textured_mujoco_xml("CartPole-v1", tmp_path)
        with pytest.raises(FileNotFoundError, match="there is no model"):
            textured_mujoco_xml("nowhere.xml", tmp_path)
        with pytest.raises(ValueError, match=r"sky is 'green'; required: one of \['day', 'evening'\]"):
            textured_mujoco_xml("Ant-v5", tmp_path, sky="green")
        with pytest.raises(ValueError, match="call textured_mujoco_xml on your own"):
            gym.make(IDS + "TexturedHumanoid-v0", xml_file="humanoid.xml")

    def test_standing_is_what_the_env_calls_healthy(self):
        env = gym.make(IDS + "TexturedHumanoid-v0", goal="standing")
        assert env.reset(seed=0)[1]["success"] is True
        env.unwrapped.data.qpos[2] = 0.4
        assert env.step(np.zeros(env.action_space.shape, np.float32))[4]["success"] is False
        assert "success" not in gym.make(IDS + "TexturedHumanoid-v0").reset()[1]

    def test_a_goal_of_another_env_is_refused_when_it_is_made(self):
        with pytest.raises(ValueError, match=r"HalfCheetah.* goal='standing'; required: goal=, a function"):
            gym.make(IDS + "TexturedMuJoCo-v0", env_id="HalfCheetah-v5", goal="standing")
        with pytest.raises(ValueError, match=r"goal='sitting'; required: .*'kneeling', 'one_leg', 'splits', 'st"):
            gym.make(IDS + "TexturedHumanoid-v0", goal="sitting")

    def test_planks_below_and_sky_above(self):
        """In a fresh process, where headless OpenGL can be chosen; one frame."""
        from test_mujoco import pytestmark, run_in_fresh_process

        if sys.platform == "linux" and pytestmark.args[0]:
            pytest.skip(pytestmark.kwargs["reason"])
        out = run_in_fresh_process(
            f"""
            import gymnasium as gym, numpy as np
            from vlmrm_wrap import make_vec, CLIPRewardVectorWrapper
            from vlmrm_wrap.protocols import FrameScores

            class Show:
                def score(self, frames):
                    print(*frames[0, 4:20].mean((0, 1)).round(), *frames[0, -20:].mean((0, 1)).round())
                    zeros = np.zeros(len(frames), np.float32)
                    return FrameScores(zeros, zeros, zeros)

            envs = make_vec("{IDS}TexturedHumanoid-v0", 1, width=96, height=96, fast_render=True)
            envs = CLIPRewardVectorWrapper(envs, Show())
            envs.reset(seed=0)
            envs.step(envs.action_space.sample())
            envs.close()
            """
        )
        sky_red, _, sky_blue, floor_red, floor_green, floor_blue = map(float, out.split())
        assert sky_blue > sky_red + 40
        assert floor_red > floor_green > floor_blue
