"""The closed form against the paper's projection matrix in float64, and its misreadings."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlmrm_wrap.reward import check_alpha, goal_baseline_reward, reward_from_similarities

Floats = NDArray[np.float64]
ALPHAS = st.floats(0, 1)
SEEDS = st.integers(0, 2**32 - 1)


def unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def draw(seed: int, n: int = 16, d: int = 12, prompts: int = 1, likeness: float = 0.5) -> tuple[Floats, Floats, Floats]:
    """Unit states, and goal and baseline as means of ``prompts`` unit vectors, float64."""
    rng = np.random.default_rng(seed)
    centre = likeness * unit(rng.standard_normal(d))
    state = unit(centre + unit(rng.standard_normal((n, d))))
    goal, baseline = unit(centre + unit(rng.standard_normal((2, prompts, d)))).mean(axis=1)
    return state, goal, baseline


def matrix_form(state: Floats, goal: Floats, baseline: Floats, alpha: float) -> Floats:
    """1 - |(s - g) (alpha dd^T / |d|^2 + (1 - alpha) I)|^2 / 2, as the paper's code computes it."""
    d = goal - baseline
    projection = alpha * np.outer(d, d) / (d @ d) + (1 - alpha) * np.eye(len(d))
    return 1 - (((state - goal) @ projection) ** 2).sum(axis=1) / 2


def regularised(state: Floats, projected: Floats, goal: Floats, alpha: float) -> Floats:
    """Eq. 3 for any idea of what proj_L(s) is."""
    return 1 - ((alpha * projected + (1 - alpha) * state - goal) ** 2).sum(axis=1) / 2


@given(SEEDS, ALPHAS, st.sampled_from([1, 2, 5]), st.integers(2, 40))
def test_equals_the_projection_matrix(seed: int, alpha: float, prompts: int, d: int) -> None:
    state, goal, baseline = draw(seed, d=d, prompts=prompts)
    expected = matrix_form(state, goal, baseline, alpha)
    # the error of either form grows with 1 / |g - b|, which two random directions may make small
    tolerance = 1e-12 / min(1.0, np.linalg.norm(goal - baseline))
    found = goal_baseline_reward(state, goal, baseline, alpha)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("prompts", [1, 4])
def test_equals_eq_3_with_the_affine_projection_written_out(prompts: int) -> None:
    state, goal, baseline = draw(0, prompts=prompts)
    d = goal - baseline
    projected = baseline + ((state - baseline) @ d / (d @ d))[:, None] * d
    expected = regularised(state, projected, goal, 0.7)
    found = goal_baseline_reward(state, goal, baseline, 0.7)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_the_two_misreadings_are_other_rewards() -> None:
    state, goal, baseline = draw(0)
    found = goal_baseline_reward(state, goal, baseline, 0.7)
    d = goal - baseline
    through_origin = (state @ d / (d @ d))[:, None] * d
    assert np.abs(regularised(state, through_origin, goal, 0.7) - found).max() > 0.1
    basis = np.linalg.qr(np.stack([goal, baseline], axis=1))[0]
    onto_plane = state @ basis @ basis.T
    assert np.abs(regularised(state, onto_plane, goal, 0.7) - found).max() > 0.1


def test_alpha_0_is_the_cosine_and_alpha_1_the_component_along_the_line() -> None:
    state, goal, baseline = draw(1)
    plain = goal_baseline_reward(state, goal, baseline, 0)
    np.testing.assert_allclose(plain, state @ goal, rtol=0, atol=1e-14)
    direction = unit(goal - baseline)
    along = goal_baseline_reward(state, goal, baseline, 1)
    np.testing.assert_allclose(along, 1 - ((state - goal) @ direction) ** 2 / 2, atol=1e-14)
    sideways = np.linalg.svd(np.stack([goal, baseline]))[2][2:]  # orthogonal to both
    moved = goal_baseline_reward(state + 0.3 * sideways[0], goal, baseline, 1)
    np.testing.assert_allclose(moved, along, rtol=0, atol=1e-14)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_float32_stays_within_1e_6(alpha: float) -> None:
    state, goal, baseline = (part.astype(np.float32) for part in draw(2, n=500, d=1280, prompts=3))
    expected = matrix_form(*(part.astype(float) for part in (state, goal, baseline)), alpha)
    found = goal_baseline_reward(state, goal, baseline, alpha)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6
    tensors = (torch.from_numpy(part) for part in (state, goal, baseline))
    assert np.abs(goal_baseline_reward(*tensors, alpha).numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_and_arrays_agree_and_keep_their_dtype(dtype: type) -> None:
    parts = [part.astype(dtype) for part in draw(3)]
    copies = [part.copy() for part in parts]
    array = goal_baseline_reward(*parts, 0.4)
    tensor = goal_baseline_reward(*map(torch.from_numpy, parts), 0.4)
    assert array.dtype == dtype
    assert array.shape == (16,)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(array, tensor.numpy(), rtol=0, atol=4 * np.finfo(dtype).eps)
    for part, copy in zip(parts, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_a_gradient_flows_to_the_states() -> None:
    state, goal, baseline = map(torch.from_numpy, draw(4, n=3))
    state.requires_grad_()
    goal_baseline_reward(state, goal, baseline, 0.0).sum().backward()
    torch.testing.assert_close(state.grad, goal - state.detach())  # of 1 - |s - g|^2 / 2


@given(SEEDS, ALPHAS, st.sampled_from([1, 3]))
def test_similarities_and_three_constants_suffice(seed: int, alpha: float, prompts: int) -> None:
    state, goal, baseline = draw(seed, prompts=prompts)
    found = reward_from_similarities(
        state @ goal,
        state @ baseline,
        goal_norm=float(np.linalg.norm(goal)),
        baseline_norm=float(np.linalg.norm(baseline)),
        goal_dot_baseline=float(goal @ baseline),
        alpha=alpha,
    )
    expected = matrix_form(state, goal, baseline, alpha)
    tolerance = 1e-12 / min(1.0, np.linalg.norm(goal - baseline) ** 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_without_a_baseline_alpha_0_is_what_any_baseline_gives() -> None:
    state, goal, baseline = draw(5, prompts=3)
    none = {"goal_norm": np.linalg.norm(goal), "baseline_norm": 0.0, "goal_dot_baseline": 0.0}
    similarity, zeros = state @ goal, np.zeros(16)
    found = reward_from_similarities(similarity, zeros, **none, alpha=0)
    expected = goal_baseline_reward(state, goal, baseline, 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"alpha is 0.5, but there is no baseline"):
        reward_from_similarities(similarity, zeros, **none, alpha=0.5)


def test_similarities_keep_their_kind_and_dtype() -> None:
    constants = {"goal_norm": 0.9, "baseline_norm": 1.0, "goal_dot_baseline": 0.3, "alpha": 0.5}
    goal, baseline = np.float32([0.1, 0.6]), np.float32([0.4, 0.2])
    array = reward_from_similarities(goal, baseline, **constants)
    tensors = torch.from_numpy(goal), torch.from_numpy(baseline)
    tensor = reward_from_similarities(*tensors, **constants)
    assert array.dtype == np.float32
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(array, tensor.numpy(), rtol=0, atol=2e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("nudge", [0.0, 1e-8])
def test_equal_goal_and_baseline_are_refused_at_any_alpha(alpha: float, nudge: float) -> None:
    state, goal, _ = draw(6)
    with pytest.raises(ValueError, match="same embedding"):
        goal_baseline_reward(state, goal, goal + nudge, alpha)
    norm = float(np.linalg.norm(goal))
    constants = {"goal_norm": norm, "baseline_norm": norm, "goal_dot_baseline": norm**2}
    with pytest.raises(ValueError, match="same embedding"):
        reward_from_similarities(state @ goal, state @ goal, **constants, alpha=alpha)


@pytest.mark.parametrize("alpha", [-1e-9, 1.1, float("nan"), float("inf")])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    state, goal, baseline = draw(7)
    with pytest.raises(ValueError, match=r"alpha must be a finite number in \[0, 1\], got"):
        goal_baseline_reward(state, goal, baseline, alpha)
    with pytest.raises(ValueError, match=r"alpha must be a finite number in \[0, 1\], got"):
        reward_from_similarities(
            state @ goal, state @ baseline, goal_norm=1, baseline_norm=1, goal_dot_baseline=0,
            alpha=alpha,
        )  # fmt: skip


def test_alpha_may_be_any_real_number_type_and_nothing_else() -> None:
    assert check_alpha(1) == 1.0
    assert type(check_alpha(np.float32(0.5))) is float
    for wrong in ("0.5", None, True, [0.5], 0.5j):
        with pytest.raises(TypeError, match="alpha must be a number"):
            check_alpha(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("culprit", ["state", "goal", "baseline"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(culprit: str, value: float) -> None:
    parts = dict(zip(("state", "goal", "baseline"), draw(8), strict=True))
    parts[culprit][..., 3] = value
    with pytest.raises(ValueError, match=f"{culprit} has values that are not finite"):
        goal_baseline_reward(**parts, alpha=0.5)
    with pytest.raises(ValueError, match=f"{culprit} has values that are not finite"):
        goal_baseline_reward(**{k: torch.from_numpy(v) for k, v in parts.items()}, alpha=0.5)


def test_shapes_dtypes_and_kinds_that_do_not_fit_are_refused() -> None:
    state, goal, baseline = draw(9)
    with pytest.raises(ValueError, match=r"got state \(12,\), goal \(12,\), baseline \(12,\)"):
        goal_baseline_reward(state[0], goal, baseline, 0.5)
    with pytest.raises(ValueError, match=r"goal \(11,\)"):
        goal_baseline_reward(state, goal[1:], baseline, 0.5)
    with pytest.raises(ValueError, match=r"baseline \(1, 12\)"):
        goal_baseline_reward(state, goal, baseline[None], 0.5)
    with pytest.raises(TypeError, match="state float64, goal float32"):
        goal_baseline_reward(state, goal.astype(np.float32), baseline, 0.5)
    with pytest.raises(TypeError, match="float32 or all float64, got state int64"):
        goal_baseline_reward(state.astype(int), goal.astype(int), baseline.astype(int), 0.5)
    with pytest.raises(TypeError, match="got ndarray, Tensor, ndarray"):
        goal_baseline_reward(state, torch.from_numpy(goal), baseline, 0.5)
    with pytest.raises(TypeError, match="got ndarray, list, ndarray"):
        goal_baseline_reward(state, list(goal), baseline, 0.5)


def test_no_states_give_no_rewards() -> None:
    state, goal, baseline = draw(10)
    assert goal_baseline_reward(state[:0], goal, baseline, 0.5).shape == (0,)


def test_numpy_users_load_no_torch() -> None:
    code = (
        "import sys, numpy as np; from vlmrm_wrap import goal_baseline_reward as r;"
        "eye = np.eye(2); print(r(eye, eye[0], eye[1], 0.5).round(6));"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1. 0.]\n"
