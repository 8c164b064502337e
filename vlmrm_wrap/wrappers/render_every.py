"""RenderEvery: one frame, and one reward, for several steps."""

from typing import Any

import gymnasium as gym
import numpy as np

from vlmrm_wrap.rendering import FrameRenderer, check_renders
from vlmrm_wrap.wrappers.horizon import check_horizon

__all__ = ["RenderEvery"]


class RenderEvery(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Draws the first step of an episode, every ``steps``-th after it and the last; the others show the frame before.

    R_t = R(s_k), k the latest step up to t that was drawn: the reward is held. For envs whose frames cost more than
    all else. The steps between draw nothing, whoever asks. Their frame goes to the reward model again, so that what
    counts rewards by steps goes on to; the model's cache knows its score, and nothing is encoded again. With
    ``cache=False`` it is, and the wrapper that scores warns of it.

    Goes inside FrameCapture and CLIPRewardWrapper, outside FixedHorizon, so that episodes end where they do for the
    learner. After a reset and before the first step, render() draws as ever. A video recorded outside shows held
    frames.

    Example:
        >>> env = CLIPRewardWrapper(RenderEvery(gym.make("CartPole-v1", render_mode="rgb_array"), 4), model)
        >>> envs = make_vec("CartPole-v1", 8, wrappers=[partial(RenderEvery, steps=4)])

    Raises ValueError for fewer than one step, or another render mode than "rgb_array".
    """

    holds_frames = True  # for those who score: the same frame will come again

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        check_horizon(steps, "steps")
        check_renders(env, "RenderEvery")
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        self._every, self._step = int(steps), 0
        self._renderer = FrameRenderer(env)  # which mends MuJoCo's frames: a broken one would be held
        self._held: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._step, self._held = 0, None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        _, _, terminated, truncated, _ = result
        if self._step % self._every == 0 or terminated or truncated:
            self._held = None
        self._step += 1
        return result

    def render(self) -> Any:
        if self._held is not None:
            return self._held
        frame = self._renderer.render()
        if self._step > 0 and isinstance(frame, np.ndarray):
            frame = self._held = frame.copy()  # the env may draw on its own array again
        return frame
