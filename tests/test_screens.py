"""Packed screens: the pixels of the env's own render, or the env's own render."""

import os

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.toy_text import FrozenLakeEnv

from vlmrm_wrap import CLIPRewardWrapper, FixedHorizon, screens
from vlmrm_wrap.protocols import FrameScores

pygame = pytest.importorskip("pygame")

KEPT_SCREENS = {
    "Acrobot-v1": "screen",
    "CartPole-v1": "screen",
    "MountainCar-v0": "screen",
    "MountainCarContinuous-v0": "screen",
    "Pendulum-v1": "screen",
    "Blackjack-v1": "screen",
    "CliffWalking-v1": "window_surface",
    "FrozenLake-v1": "window_surface",
    "Taxi-v3": "window",
}


class Keep:
    """Remembers the last frame."""

    def score(self, frames):
        self.frame = frames[0].copy()
        return FrameScores(*np.zeros((3, 1), np.float32))


def newest(name):
    """Taxi has had several versions."""
    family = name.rpartition("-")[0]
    return max((i for i in gym.registry if i.rpartition("-")[0] == family), key=lambda i: int(i.rpartition("v")[2]))


@pytest.mark.parametrize("display", [{}, {"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}])
def test_scripts_without_a_screen(monkeypatch, display):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.environ", {**display, "OTHER": "1"})
    screens.quiet_pygame()
    quiet = {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    assert os.environ == {**display, "OTHER": "1", **quiet, **({} if display else {"SDL_VIDEODRIVER": "dummy"})}
    monkeypatch.setattr("os.environ", own := {"SDL_VIDEODRIVER": "x11", "PYGAME_HIDE_SUPPORT_PROMPT": "0"})
    screens.quiet_pygame()
    assert own == {"SDL_VIDEODRIVER": "x11", "PYGAME_HIDE_SUPPORT_PROMPT": "0"}


def assert_same_frames(env, plain, steps):
    """``env`` wrapped shows, after each step and across resets, what ``plain`` renders."""
    keep = Keep()
    wrapped = CLIPRewardWrapper(env, keep)
    plain.action_space.seed(0)
    assert np.array_equal(wrapped.reset(seed=0)[0], plain.reset(seed=0)[0])
    for step in range(steps):
        action = plain.action_space.sample()
        obs, _, terminated, truncated, _ = plain.step(action)
        assert np.array_equal(wrapped.step(action)[0], obs)
        assert np.array_equal(keep.frame, plain.render()), f"step {step}"
        if terminated or truncated or step % 15 == 14:
            assert np.array_equal(wrapped.reset()[0], plain.reset()[0])


def assert_packed(screen):
    """Its pixels lie as those of a frame."""
    assert pygame.surfarray.pixels3d(screen).transpose(1, 0, 2).flags.c_contiguous


def make(env_id):
    return gym.make(env_id, render_mode="rgb_array")


@pytest.mark.parametrize("name", KEPT_SCREENS)
def test_frames_are_the_envs_own_to_the_bit(name):
    env = make(newest(name))
    assert_same_frames(env, make(newest(name)), 40)
    assert_packed(getattr(env.unwrapped, KEPT_SCREENS[name]))


@pytest.mark.parametrize("name", ["LunarLander-v3", "BipedalWalker-v3"])
def test_envs_with_a_new_surface_for_each_frame_stay_as_they_are(name):
    pytest.importorskip("Box2D")
    assert_same_frames(make(name), make(name), 20)


def test_fixed_horizons_frames_are_packed_too():
    env = make("CartPole-v1")
    assert_same_frames(FixedHorizon(env, 20), FixedHorizon(make("CartPole-v1"), 20), 30)
    assert_packed(env.unwrapped.screen)


class Negative(CartPoleEnv):
    def render(self):
        return 255 - super().render()


class NegativeLake(FrozenLakeEnv):
    def _render_gui(self, mode):
        return 255 - super()._render_gui(mode)


class ScreenReader(gym.Wrapper):
    """Knows that the screen has four bytes a pixel."""

    def render(self):
        self.env.render()
        screen = self.unwrapped.screen
        width, height = screen.get_size()
        return np.frombuffer(screen.get_buffer(), np.uint8).reshape(height, width, 4)[..., 2::-1].copy()


def with_render_of_its_own():
    env = CartPoleEnv(render_mode="rgb_array")
    env.render = lambda: 255 - CartPoleEnv.render(env)
    return env


@pytest.mark.parametrize(
    "make_env",
    [
        lambda: Negative(render_mode="rgb_array"),
        lambda: NegativeLake(render_mode="rgb_array"),
        lambda: ScreenReader(make("CartPole-v1")),
        with_render_of_its_own,
    ],
    ids=["subclass", "toy text subclass", "wrapper", "instance"],
)
def test_whoever_renders_in_a_way_of_their_own_keeps_the_screen(make_env):
    env = make_env()
    assert_same_frames(env, make_env(), 10)
    name = "window_surface" if isinstance(env, NegativeLake) else "screen"
    assert getattr(env.unwrapped, name).get_bitsize() == 32


def clipped(own):
    """A packed screen on which one pixel can't be drawn."""
    packed = packed_like(own)
    packed.fill((1, 2, 3))
    packed.set_clip(pygame.Rect(0, 0, 600, 399))
    return packed


def without_pixels(own):
    return pygame.Surface(own.get_size(), 0, 8)


packed_like = screens._packed_like


@pytest.mark.parametrize("broken", [clipped, without_pixels, lambda own: pygame.Surface((3, 2))])
@pytest.mark.parametrize("trial", [1, 3])
def test_other_pixels_on_any_trial_give_the_env_its_screen_back(monkeypatch, broken, trial):
    tries = []

    def pack(own):
        tries.append(own)
        return (broken if len(tries) == trial else packed_like)(own)

    monkeypatch.setattr(screens, "_packed_like", pack)
    env = make("CartPole-v1")
    assert_same_frames(env, make("CartPole-v1"), 6)
    assert len(tries) == trial
    assert env.unwrapped.screen is tries[0]


def test_a_screen_of_another_kind_is_left_alone():
    env = make("CartPole-v1")
    env.reset()
    env.render()
    own = env.unwrapped.screen = pygame.Surface((600, 400), pygame.SRCALPHA)
    assert_same_frames(env, make("CartPole-v1"), 5)
    assert env.unwrapped.screen is own
