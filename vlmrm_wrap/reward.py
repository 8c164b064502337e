"""The goal-baseline regularised reward of VLM-RM, as pure functions of arrays or tensors.

Source: Rocamonde et al. 2023, arXiv 2310.12921, Definition 1 and eq. 3. With s the frame's unit
embedding, g the goal's, b the baseline's and L the *affine* line through g and b,

    R(s) = 1 - ½ ‖ α proj_L(s) + (1 - α) s - g ‖².                                    (eq. 3)

g lies on L, so proj_L(s) - g is the part of v = s - g along L. With u = (g - b) / ‖g - b‖,

    R(s) = 1 - ½ [ (v·u)² + (1 - α)² ( ‖v‖² - (v·u)² ) ]:

two dot products a frame instead of the paper's d x d projection matrix. Projecting on span(g - b)
through the origin, or on the plane of g and b, would be other rewards.
"""

import math
import numbers
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_alpha", "goal_baseline_reward", "reward_from_similarities"]

Array = TypeVar("Array", NDArray[np.floating[Any]], "Tensor")

_TOLERANCE = 1e-6  # of ‖g - b‖ relative to g and b: about 10 roundings of a float32 embedding


def goal_baseline_reward(state: Array, goal: Array, baseline: Array, alpha: float) -> Array:
    """R(s) of eq. 3 for every row of ``state``, in its dtype.

    ``state``: shape ``(n, d)``, unit rows; ``goal``, ``baseline``: shape ``(d,)``, unit vectors or
    means of unit vectors. All numpy arrays or all tensors, float32 or float64. Returns shape
    ``(n,)``, values in [-1, 1] for unit or shorter g. Differentiable for tensors.

    >>> state, goal, baseline = np.array([[0.6, 0.8]]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> goal_baseline_reward(state, goal, baseline, alpha=0.5)
    array([0.63])

    ValueError if goal and baseline coincide (whatever alpha: there is no line), if alpha is outside
    [0, 1], if anything is not finite, or if the shapes don't fit. TypeError for other types.
    """
    α = check_alpha(alpha)
    _check_embeddings(state, goal, baseline)
    g, d = goal, goal - baseline
    norm_d = _norm(d)
    _check_line(norm_d.item(), max(_norm(g).item(), _norm(baseline).item()))
    v, u = state - g, d / norm_d
    # products and sums, not @: a matrix product of tensors may run in TF32, with 3 digits
    along = (v * u).sum(-1)
    reward: Array = _combine(along, (v * v).sum(-1), α)
    return reward


def reward_from_similarities(
    goal_similarity: Array,
    baseline_similarity: Array,
    *,
    goal_norm: float,
    baseline_norm: float,
    goal_dot_baseline: float,
    alpha: float,
) -> Array:
    """R(s) of eq. 3 from s·g and s·b, any shape, in their dtype: any α without encoding again.

    ``goal_norm``, ``baseline_norm``, ``goal_dot_baseline``: ‖g‖, ‖b‖ and g·b. The states are taken
    to be unit vectors. A model without a baseline has ‖b‖ = 0, s·b = 0 and R at α = 0 only: that is
    the cosine s·g for a unit g, and s·g + ½ (1 - ‖g‖²) for any g, with or without a baseline.

    >>> constants = dict(goal_norm=1.0, baseline_norm=1.0, goal_dot_baseline=0.0)
    >>> reward_from_similarities(np.array([0.6]), np.array([0.8]), **constants, alpha=0.5)
    array([0.63])

    ValueError as for :func:`goal_baseline_reward`.
    """
    α = check_alpha(alpha)
    for name, value in (("goal", goal_similarity), ("baseline", baseline_similarity)):
        _check_finite(f"{name}_similarity", value, _namespace(value))
    gg, bb, gb = goal_norm**2, baseline_norm**2, goal_dot_baseline
    if not all(map(math.isfinite, (gg, bb, gb))):
        raise ValueError(f"the norms and g·b must be finite, got {goal_norm, baseline_norm, gb}")
    if baseline_norm == 0 and α > 0:
        raise ValueError(f"alpha is {α}, but there is no baseline (its norm is 0): alpha must be 0")
    norm_d = math.sqrt(max(gg + bb - 2 * gb, 0.0))
    _check_line(norm_d, max(goal_norm, baseline_norm))
    # v·d = (s - g)·(g - b) and ‖v‖² = 1 + ‖g‖² - 2 s·g
    along = (goal_similarity - baseline_similarity - (gg - gb)) / norm_d
    reward: Array = _combine(along, (1 + gg) - 2 * goal_similarity, α)
    return reward


def check_alpha(alpha: float) -> float:
    """``alpha`` as a Python float; ValueError outside [0, 1] or NaN, TypeError if no number."""
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real):
        raise TypeError(f"alpha must be a number in [0, 1], got {alpha!r}")
    if not 0 <= alpha <= 1:  # also catches NaN
        raise ValueError(f"alpha must be a finite number in [0, 1], got {alpha!r}")
    return float(alpha)


def _combine(along: Any, squared: Any, α: float) -> Any:
    """R(s) from v·u and ‖v‖²."""
    return 1 - 0.5 * (along * along + (1 - α) ** 2 * (squared - along * along))


def _norm(vector: Any) -> Any:
    return (vector * vector).sum() ** 0.5


def _check_line(norm_d: float, scale: float) -> None:
    if norm_d <= _TOLERANCE * scale:
        raise ValueError(
            f"goal and baseline are the same embedding (|g - b| is {norm_d:.1e}), so there is no "
            "line through them; describe the scene without the goal in the baseline"
        )


def _check_embeddings(state: Any, goal: Any, baseline: Any) -> None:
    """TypeError or ValueError, naming the culprit, unless types, shapes and values are right."""
    xp = _namespace(state, goal, baseline)
    named = {"state": state, "goal": goal, "baseline": baseline}
    for name, value in named.items():
        if value.dtype not in (xp.float32, xp.float64) or value.dtype != state.dtype:
            dtypes = ", ".join(f"{key} {value.dtype}" for key, value in named.items())
            raise TypeError(f"embeddings must all be float32 or all float64, got {dtypes}")
        _check_finite(name, value, xp)
    if state.ndim != 2 or goal.shape != state.shape[1:] or baseline.shape != goal.shape:
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in named.items())
        raise ValueError(f"shapes must be state (n, d), goal (d,), baseline (d,), got {shapes}")


def _check_finite(name: str, value: Any, xp: Any) -> None:
    if not bool(xp.isfinite(value).all()):
        raise ValueError(f"{name} has values that are not finite (NaN or infinity)")


def _namespace(*arrays: Any) -> Any:
    """numpy or torch, whichever all of ``arrays`` come from; numpy users never load torch."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    torch = sys.modules.get("torch")  # whoever holds a tensor has loaded it
    if torch is not None and all(isinstance(array, torch.Tensor) for array in arrays):
        return torch
    kinds = ", ".join(type(array).__name__ for array in arrays)
    raise TypeError(f"need numpy arrays or torch tensors, all of one kind, got {kinds}")
