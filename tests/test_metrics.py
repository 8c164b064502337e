"""EPIC and correlations: against definitions written out in loops, and the properties that EPIC is for."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vlmrm_wrap.insight.metrics import epic_distance, goal_epic_distance, pearson, spearman

NUMBERS = st.integers(-50, 50).map(float)
VECTORS = hnp.arrays(np.float64, 6, elements=NUMBERS)
MATRICES = hnp.arrays(np.float64, (5, 5), elements=NUMBERS)
WEIGHTS = hnp.arrays(np.float64, 5, elements=st.integers(1, 9).map(float))
# on a busy machine no time limit holds
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GAMMAS = st.sampled_from([0.0, 0.5, 0.99, 1.0])


def canonical_by_definition(reward, gamma, p):
    """C(R)(s, s') with every expectation a sum over all states, as definition 4.1 has it."""
    n = len(p)
    shaped = np.empty((n, n))
    for s, s2 in itertools.product(range(n), repeat=2):
        expected = 0.0
        for x, y in itertools.product(range(n), repeat=2):
            expected += p[x] * p[y] * (gamma * reward[s2, y] - reward[s, y] - gamma * reward[x, y])
        shaped[s, s2] = reward[s, s2] + expected
    return shaped


def rho_by_definition(a, b, weights):
    w = weights / weights.sum()
    a, b = a - (w * a).sum(), b - (w * b).sum()
    return (w * a * b).sum() / np.sqrt((w * a * a).sum() * (w * b * b).sum())


def tells_states_apart(reward, gamma):
    """Whether it is more than shaping: R[s, s'] + gamma m[s'] - m[s] varies."""
    mean = reward.mean(axis=1)
    return np.std(reward + gamma * mean - mean[:, None]) > 1e-6


@FEW
@given(VECTORS, VECTORS)
def test_pearson_is_numpys(a, b):
    assume(a.std() > 0 and b.std() > 0)
    assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)


@FEW
@given(VECTORS, VECTORS)
def test_spearman_ranks_by_counting(a, b):
    """A value's rank: how many are below, and half of those that equal it."""
    assume(a.std() > 0 and b.std() > 0)
    ranks = [[(value > x).sum() + ((value == x).sum() + 1) / 2 for value in x] for x in (a, b)]
    assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


def test_spearman_of_ties_by_hand():
    """Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: rho = 4.5 / sqrt(4.5 * 5)."""
    assert spearman([1, 2, 2, 3], [10, 20, 30, 40]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1)
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)


@settings(FEW, max_examples=10)
@given(MATRICES, MATRICES, GAMMAS, WEIGHTS, hnp.arrays(np.float64, (5, 5), elements=st.integers(0, 9).map(float)))
def test_epic_is_its_definition(a, b, gamma, weights, pairs):
    assume(pairs.sum() > 0)
    p = weights / weights.sum()
    shaped = [canonical_by_definition(reward, gamma, p) for reward in (a, b)]
    covered = [reward[pairs > 0] for reward in shaped]
    assume(all(np.ptp(reward) > 1e-6 for reward in covered))
    rho = rho_by_definition(*(reward.ravel() for reward in shaped), pairs.ravel())
    expected = np.sqrt(max(0, 1 - rho) / 2)
    found = epic_distance(a, b, gamma=gamma, state_weights=weights, transition_weights=pairs)
    assert found == pytest.approx(expected, abs=1e-6)


@FEW
@given(MATRICES, GAMMAS, st.floats(0.01, 100), st.floats(-100, 100))
def test_a_positive_affine_transform_is_at_0_and_the_negation_at_1(reward, gamma, factor, shift):
    assume(tells_states_apart(reward, gamma))
    assert epic_distance(reward, reward, gamma=gamma) == 0
    assert epic_distance(reward, factor * reward + shift, gamma=gamma) < 1e-9
    assert epic_distance(reward, -reward, gamma=gamma) == pytest.approx(1, abs=1e-9)


@FEW
@given(MATRICES, MATRICES, hnp.arrays(np.float64, 5, elements=NUMBERS), GAMMAS, WEIGHTS)
def test_potential_shaping_changes_nothing(a, b, potential, gamma, weights):
    assume(tells_states_apart(a, gamma) and tells_states_apart(b, gamma))
    shaped = a + gamma * potential[None, :] - potential[:, None]
    plain = epic_distance(a, b, gamma=gamma, state_weights=weights)
    assert epic_distance(shaped, b, gamma=gamma, state_weights=weights) == pytest.approx(plain, abs=1e-9)
    assert epic_distance(shaped, a, gamma=gamma, state_weights=weights) < 1e-9


def test_shaping_with_another_gamma_does_change_it():
    reward, potential = np.arange(9.0).reshape(3, 3) ** 2, np.array([5.0, 0.0, 90.0])
    shaped = reward + 0.9 * potential[None, :] - potential[:, None]
    assert epic_distance(reward, shaped, gamma=0.9) < 1e-9
    assert epic_distance(reward, shaped, gamma=0.5) > 0.01


@FEW
@given(VECTORS, hnp.arrays(np.bool_, 6), GAMMAS)
def test_lemma_1_is_the_general_distance_on_goal_tasks(rewards, success, gamma):
    assume(rewards.std() > 0 and success.any() and not success.all())
    lemma = goal_epic_distance(rewards, success)
    matrices = [np.tile(np.asarray(reward, float), (6, 1)) for reward in (rewards, success)]  # R[s, s'] = r[s']
    assert epic_distance(*matrices, gamma=gamma) == pytest.approx(lemma, abs=1e-9)
    assert epic_distance(rewards, success, gamma=gamma) == pytest.approx(lemma, abs=1e-9)
    assert epic_distance(matrices[0], success, gamma=gamma) == pytest.approx(lemma, abs=1e-9)
    rho = np.corrcoef(rewards, success)[0, 1]
    assert lemma == pytest.approx(np.sqrt(max(0, 1 - rho) / 2), abs=1e-7)


def test_coverage_of_transitions_weighs_the_states_reached():
    rewards, other = [0.0, 1.0, 5.0], [0.0, 1.0, -5.0]
    pairs = np.zeros((3, 3))
    pairs[2, 0] = pairs[0, 1] = 1.0  # the third state is never reached
    assert epic_distance(rewards, other, transition_weights=pairs) == 0
    assert epic_distance(rewards, other) > 0.5
    assert epic_distance(rewards, np.tile(other, (3, 1)), transition_weights=pairs) < 1e-9


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: pearson([1, 2], [1, 2, 3]), r"shape \(2,\) and the second sequence \(3,\)"),
        (lambda: pearson([[1, 2]], [[1, 2]]), r"required: \(n,\)"),
        (lambda: spearman([1], [1]), "at least 2"),
        (lambda: spearman([1, np.nan], [1, 2]), "the first sequence has 1 values that are not finite"),
        (
            lambda: pearson([1, 2], [0.1, 0.1]),
            "the second sequence is constant; required: at least two different values$",
        ),
        (lambda: spearman([3, 3, 3], [1, 2, 3]), "the first sequence is constant"),
        (lambda: goal_epic_distance([1, 2, 3], [0, 1, 2]), r"bools, or 0 and 1, got \[0.0, 1.0, 2.0\]"),
        (lambda: goal_epic_distance([1, 2, 3], [True, True, True]), "success is constant.*: goal states, and others"),
        (lambda: goal_epic_distance([0.1, 0.1, 0.1], [True, False, True]), "rewards is constant"),
        (lambda: epic_distance([1, 2], [1, 2, 3]), "same states"),
        (lambda: epic_distance(np.ones((2, 3)), np.ones((2, 3))), r"shape \(2, 3\); required: \(n,\)"),
        (lambda: epic_distance([1, 2], [1, np.inf]), "reward_b has 1 values"),
        (lambda: epic_distance([1, 2], [1, 2], gamma=1.5), "gamma is 1.5"),
        (lambda: epic_distance([1, 2], [1, 2], state_weights=[1, -1]), "no weight negative"),
        (lambda: epic_distance([1, 2], [1, 2], state_weights=[1, 1, 1]), r"shape \(3,\); required: \(2,\)"),
        (lambda: epic_distance([1, 2], [1, 2], transition_weights=np.zeros((2, 2))), "not all of them 0"),
    ],
)
def test_what_can_not_be_meant_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_reward_that_is_only_shaping_counts_as_constant():
    potential = np.array([0.1, 0.7, 0.3])
    shaping = 0.9 * potential[None, :] - potential[:, None]
    with pytest.raises(ValueError, match=r"reward_a is constant.* beyond potential shaping"):
        epic_distance(shaping, np.arange(9.0).reshape(3, 3) ** 2, gamma=0.9)
