"""How honest a reward is: correlations, and the EPIC distance to what is meant. Imports numpy only.

Sources: Gleave et al. 2021, "Quantifying Differences in Reward Functions", arXiv 2006.13900 (EPIC);
Rocamonde et al. 2023, arXiv 2310.12921, Lemma 1 (goal tasks).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["epic_distance", "goal_epic_distance", "pearson", "spearman"]

Floats = NDArray[np.float64]

_MEND = {
    "success": ": goal states, and others",
    "reward_a": " beyond potential shaping",
    "reward_b": " beyond potential shaping",
}
_ROUNDING = 1e-12  # a spread of less than this, of the largest value, is what rounding left of a constant


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's correlation of two sequences of ``n >= 2`` numbers, in [-1, 1].

    ValueError for other shapes, values that are not finite, or a constant sequence, which correlates with nothing.

    >>> round(pearson([1, 2, 3], [1, 2, 4]), 4)
    0.982
    """
    first, second = _pair(a, b, "the first sequence", "the second sequence")
    weights = np.full(len(first), 1 / len(first))
    units = (_unit(first, weights, "the first sequence"), _unit(second, weights, "the second sequence"))
    return float(np.clip(units[0] @ units[1], -1.0, 1.0))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, where equal values share their mean rank.

    ValueError as for :func:`pearson`.

    >>> round(spearman([1, 2, 3], [1, 2, 400]), 4)
    1.0
    """
    return pearson(*(_ranks(values) for values in _pair(a, b, "the first sequence", "the second sequence")))


def goal_epic_distance(rewards: ArrayLike, success: ArrayLike) -> float:
    """EPIC distance of a reward to a goal task, in [0, 1]; 0 is best. Lemma 1 of Rocamonde et al. 2023.

    D = sqrt((1 - rho) / 2), rho the Pearson correlation of ``rewards`` ``(n,)`` with ``success`` ``(n,)``: True (or
    1) where the state is a goal state. The states should be spread as those that an agent will visit.

    ValueError as for :func:`pearson` (no goal states, or nothing else, is a constant), or for other labels.

    >>> goal_epic_distance([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) < 0.1
    True
    """
    values, labels = _pair(rewards, success, "rewards", "success")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError(f"success must be bools, or 0 and 1, got {sorted(set(labels.tolist()))[:5]}")
    return _distance(values, labels, np.full(len(values), 1 / len(values)), ("rewards", "success"))


def epic_distance(
    reward_a: ArrayLike,
    reward_b: ArrayLike,
    *,
    gamma: float = 0.99,
    state_weights: ArrayLike | None = None,
    transition_weights: ArrayLike | None = None,
) -> float:
    """EPIC distance of two rewards on ``n`` sampled states, in [0, 1].

    The Equivalent-Policy Invariant Comparison of Gleave et al. 2021, section 4: the Pearson distance, sqrt((1 - rho)
    / 2), of the two rewards once they are canonically shaped.

    A reward is a matrix R[s, s'] of shape ``(n, n)``, or a vector r[s'] of shape ``(n,)``: paid for the state
    reached, as ours is. 0 for rewards that differ by a positive factor, a constant and potential shaping with
    ``gamma``; 1 for a reward and its negation.

    ``state_weights`` ``(n,)``: D_S, the distribution that canonicalisation takes S and S' from; uniform by
    default. ``transition_weights`` ``(n, n)``: the coverage distribution of (s, s'); by default both are drawn from
    D_S, independently. Neither needs to sum to 1.

    Actions don't matter here, so with m[x] = E[R(x, S')] the canonically shaped reward
    C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')] is

        C[s, s'] = R[s, s'] + gamma m[s'] - m[s] - gamma E[m(S)].

    For R[s, s'] = r[s'], m is E[r] everywhere, and C[s, s'] = r[s'] - E[r]. A constant makes no difference to a
    correlation, so for two such rewards D = sqrt((1 - rho) / 2), rho the Pearson correlation of r_a and r_b on
    the states reached. With r_b the indicator of goal states this is :func:`goal_epic_distance`.

    ValueError for other shapes, values or weights that are not finite, negative weights, ``gamma`` outside [0, 1],
    or a reward that is constant once shaped: nothing but potential shaping.

    >>> round(epic_distance([0, 1, 2], [0, 1, 4]), 4)
    0.1401
    """
    if not 0 <= gamma <= 1:  # also catches NaN
        raise ValueError(f"gamma is {gamma}; required: a number in [0, 1]")
    a, b = _reward("reward_a", reward_a), _reward("reward_b", reward_b)
    n = len(a)
    if len(b) != n:
        raise ValueError(f"reward_a is of {n} states and reward_b of {len(b)}; required: the same states for both")
    states = np.full(n, 1 / n) if state_weights is None else _weights("state_weights", state_weights, (n,))
    pairs = None if transition_weights is None else _weights("transition_weights", transition_weights, (n, n))
    if a.ndim == b.ndim == 1:  # n numbers, where the matrices would hold n * n
        return _distance(a, b, states if pairs is None else pairs.sum(axis=0), ("reward_a", "reward_b"))
    coverage = np.outer(states, states) if pairs is None else pairs
    shaped_a, shaped_b = (_canonical(np.broadcast_to(reward, (n, n)), gamma, states).ravel() for reward in (a, b))
    scales = float(np.abs(a).max()), float(np.abs(b).max())
    return _distance(shaped_a, shaped_b, coverage.ravel(), ("reward_a", "reward_b"), scales)


def _canonical(reward: Floats, gamma: float, states: Floats) -> Floats:
    mean = reward @ states
    shaped: Floats = reward + gamma * mean[None, :] - mean[:, None] - gamma * (states @ mean)
    return shaped


def _distance(
    a: Floats, b: Floats, weights: Floats, names: tuple[str, str], scales: tuple[float, float] = (0.0, 0.0)
) -> float:
    """sqrt((1 - rho) / 2) as half the distance of the two unit vectors, which keeps its digits near 0."""
    difference = _unit(a, weights, names[0], scales[0]) - _unit(b, weights, names[1], scales[1])
    return min(0.5 * float(np.linalg.norm(difference)), 1.0)


def _unit(values: Floats, weights: Floats, name: str, scale: float = 0.0) -> Floats:
    """``values`` centred, times the root of their weights, at norm 1: two such vectors' product is rho.

    ``scale``: size of the numbers that they were computed from, and rounded with.
    """
    centred = (values - weights @ values) * np.sqrt(weights)
    norm = float(np.linalg.norm(centred))
    covered = np.abs(values[weights > 0])
    if norm <= _ROUNDING * max(scale, float(covered.max())):
        raise ValueError(f"{name} is constant; required: at least two different values{_MEND.get(name, '')}")
    unit: Floats = centred / norm
    return unit


def _ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _pair(a: ArrayLike, b: ArrayLike, name_a: str, name_b: str) -> tuple[Floats, Floats]:
    first, second = _finite(name_a, a), _finite(name_b, b)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"{name_a} has shape {first.shape} and {name_b} {second.shape}; required: (n,) for both, n at least 2"
        )
    return first, second


def _reward(name: str, reward: ArrayLike) -> Floats:
    values = _finite(name, reward)
    if values.ndim not in (1, 2) or values.shape[0] < 2 or values.shape != values.shape[:1] * values.ndim:
        raise ValueError(
            f"{name} has shape {values.shape}; required: (n,) for r[s'], or (n, n) for R[s, s'], n at least 2"
        )
    return values


def _weights(name: str, weights: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Weights that sum to 1."""
    values = _finite(name, weights)
    if values.shape != shape or (values < 0).any() or values.sum() == 0:
        raise ValueError(f"{name} has shape {values.shape}; required: {shape}, no weight negative, not all of them 0")
    normalised: Floats = values / values.sum()
    return normalised


def _finite(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} values that are not finite (NaN or infinity)")
    return array
