"""Buffers for sb3-contrib's algorithms; imported only once one of them is used."""

from typing import Any

from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer, RecurrentRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer

from vlmrm_wrap.sb3.buffers import CLIPDictRolloutBuffer, CLIPRolloutBuffer

__all__ = ["recurrent_buffer_for", "rollout_buffer_class"]

# Their add takes (*args, action_masks=...), where Stable-Baselines3's own names each argument: mypy can't have both.


class CLIPMaskableRolloutBuffer(CLIPRolloutBuffer, MaskableRolloutBuffer):  # type: ignore[misc]
    """CLIPRolloutBuffer for MaskablePPO."""


class CLIPMaskableDictRolloutBuffer(CLIPRolloutBuffer, MaskableDictRolloutBuffer):  # type: ignore[misc]
    """The same for Dict observations."""


class CLIPRecurrentRolloutBuffer(CLIPRolloutBuffer, RecurrentRolloutBuffer):  # type: ignore[misc]
    """CLIPRolloutBuffer for RecurrentPPO."""


class CLIPRecurrentDictRolloutBuffer(CLIPRolloutBuffer, RecurrentDictRolloutBuffer):  # type: ignore[misc]
    """The same for Dict observations."""


def rollout_buffer_class(algorithm: type, has_dict: bool) -> type[RolloutBuffer]:
    """TypeError for RecurrentPPO, with the way that works."""
    if issubclass(algorithm, RecurrentPPO):
        raise TypeError(
            f"{algorithm.__name__} takes no rollout_buffer_class. Make it without deferred_kwargs, then give it the "
            'buffer: algo = use_deferred_buffer(RecurrentPPO("MlpLstmPolicy", venv))'
        )
    if issubclass(algorithm, MaskablePPO):
        return CLIPMaskableDictRolloutBuffer if has_dict else CLIPMaskableRolloutBuffer
    return CLIPDictRolloutBuffer if has_dict else CLIPRolloutBuffer


def recurrent_buffer_for(algo: Any) -> RolloutBuffer:
    """A buffer of ``algo``'s sizes; TypeError unless it is a RecurrentPPO."""
    if not isinstance(algo, RecurrentPPO):
        name = type(algo).__name__
        raise TypeError(f"{name} takes its buffer as an argument: {name}(..., **deferred_kwargs({name}, venv))")
    plain: Any = algo.rollout_buffer
    has_dict = isinstance(plain.observation_space, spaces.Dict)
    return (CLIPRecurrentDictRolloutBuffer if has_dict else CLIPRecurrentRolloutBuffer)(
        plain.buffer_size,
        plain.observation_space,
        plain.action_space,
        plain.hidden_state_shape,
        device=plain.device,
        gae_lambda=plain.gae_lambda,
        gamma=plain.gamma,
        n_envs=plain.n_envs,
    )
