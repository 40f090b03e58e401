"""Calibration recovers what was planted, and few studies cannot ruin it."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from csfd_core.evaluation.calibration import (
    Calibration,
    correct_prior,
    fit_temperature,
    overall_from_levels,
)
from csfd_core.evaluation.metrics import auroc, calibration_error, log_loss

Vector = npt.NDArray[np.float64]
level_tables = arrays(np.float64, (3, 7), elements=st.floats(0, 1) | st.just(math.nan))


def simulate(
    n: int, temperature: float = 1.0, bias: float = 0.0, seed: int = 0
) -> tuple[Vector, Vector]:
    """Logits whose true probability is sigmoid(logit / temperature + bias)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2.5, n)
    labels = rng.random(n) < expit(logits / temperature + bias)
    return logits, labels.astype(np.float64)


# The prior


def test_prior_is_corrected_by_the_logarithm_of_the_weight() -> None:
    logits = np.array([[-1.0, 0.0], [2.0, math.nan]])
    corrected = correct_prior(logits, 2.0)
    np.testing.assert_allclose(corrected, logits - math.log(2))
    np.testing.assert_array_equal(correct_prior(logits, 1.0), logits)


@pytest.mark.parametrize("weight", [0.5, 2.0, 12.0])
def test_corrected_prior_is_what_the_weighted_loss_hides(weight: float) -> None:
    # The constant that minimises w * y * -log p + (1 - y) * -log(1 - p) at 15 %.
    def loss(z: Vector) -> float:
        p = expit(z[0])
        return float(-weight * 0.15 * np.log(p) - 0.85 * np.log(1 - p))

    trained = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-9}).x
    assert expit(correct_prior(trained, weight))[0] == pytest.approx(0.15, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"Received: positive_weight={weight}"):
        correct_prior([0.0], weight)


# Temperature and bias


@pytest.mark.parametrize(
    ("temperature", "bias"), [(1.0, 0.0), (2.5, 0.0), (0.5, 0.7), (1.5, -1.0)]
)
def test_calibration_recovers_a_planted_temperature_and_bias(
    temperature: float, bias: float
) -> None:
    found = fit_temperature(*simulate(20_000, temperature, bias))
    assert found.temperature == pytest.approx(temperature, rel=0.06)
    assert found.bias == pytest.approx(bias, abs=0.08)
    assert (found.n, found.is_fitted) == (20_000, True)


def test_calibration_of_many_rows_agrees_with_logistic_regression() -> None:
    logits, labels = simulate(5000, temperature=1.8, bias=0.4)
    found = fit_temperature(logits, labels)
    oracle = LogisticRegression(C=math.inf, tol=1e-8).fit(logits[:, None], labels)
    assert 1 / found.temperature == pytest.approx(oracle.coef_[0, 0], abs=0.01)
    assert found.bias == pytest.approx(oracle.intercept_[0], abs=0.01)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_calibration_is_the_minimum_of_the_documented_sum(seed: int, n: int) -> None:
    logits, labels = simulate(n, temperature=2.0, seed=seed)
    found = fit_temperature(logits, labels)
    if not found.is_fitted:
        return

    def loss(slope: float, bias: float) -> float:
        p = expit(slope * logits + bias)
        nll = n * log_loss(labels, p)
        return nll + (slope - 1) ** 2 / (2 * 0.5**2) + bias**2 / 2

    slope = 1 / found.temperature
    best = loss(slope, found.bias)
    for angle in np.linspace(0, 2 * math.pi, 13):
        near = max(slope + 0.02 * math.cos(angle), 0.1)
        assert loss(near, found.bias + 0.02 * math.sin(angle)) >= best - 1e-9


def test_calibration_improves_overconfident_probabilities_and_keeps_their_order() -> (
    None
):
    logits, labels = simulate(2000, temperature=3.0, seed=1)
    calibration = fit_temperature(*simulate(700, temperature=3.0, seed=2))
    before, after = expit(logits), calibration.apply(logits)
    assert log_loss(labels, after) < log_loss(labels, before) - 0.1
    assert calibration_error(labels, after) < calibration_error(labels, before) / 2
    assert auroc(labels, after) == auroc(labels, before)


@pytest.mark.parametrize("n", [3, 6, 12])
def test_a_handful_of_separated_rows_does_not_make_the_model_certain(n: int) -> None:
    logits = np.linspace(-3, 3, n)
    found = fit_temperature(logits, (logits > 0).astype(float))
    assert 0.5 < found.temperature < 1.2  # unpenalised, it would go to 0
    assert abs(found.bias) < 1


def test_a_handful_of_rows_costs_little_on_the_whole_population() -> None:
    logits, labels = simulate(4000)
    best = log_loss(labels, expit(logits))
    worst = 0.0
    for seed in range(60):
        calibration = fit_temperature(*simulate(7, seed=100 + seed))
        loss = log_loss(labels, calibration.apply(logits))
        worst = max(worst, loss - best)
    assert worst < 0.15  # a constant would cost 0.28


def test_logits_that_point_the_wrong_way_end_at_the_bound_and_keep_their_order() -> (
    None
):
    logits, labels = simulate(500)
    found = fit_temperature(logits, 1 - labels)
    assert found.temperature == pytest.approx(10.0)
    values = found.apply(np.sort(logits))
    assert (np.diff(values) > 0).all()


def test_huge_logits_neither_overflow_nor_warn() -> None:
    found = fit_temperature([1e4, -1e4, 1e4, -1e4], [1, 0, 0, 1])
    assert math.isfinite(found.bias)
    assert found.temperature == pytest.approx(10.0)
    assert found.apply([1e6, -1e6]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("labels", [[], [0.0] * 5, [1.0] * 5])
def test_without_two_classes_calibration_changes_nothing_and_says_so(
    labels: list[float],
) -> None:
    found = fit_temperature(np.linspace(-2, 2, len(labels)), labels)
    assert found == Calibration(n=len(labels))
    assert not found.is_fitted
    np.testing.assert_allclose(found.apply([-1.0, 2.0]), expit([-1.0, 2.0]))


def test_calibration_keeps_shapes_and_missing_levels() -> None:
    probabilities = Calibration(temperature=2.0, bias=0.5).apply([[1.0, math.nan]])
    assert probabilities.shape == (1, 2)
    assert probabilities[0, 0] == pytest.approx(expit(1.0))
    assert math.isnan(probabilities[0, 1])


def test_unusable_calibrations_and_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="Received: temperature=0, bias=0.0"):
        Calibration(temperature=0)
    with pytest.raises(ValueError, match="bias=nan"):
        Calibration(bias=math.nan)
    with pytest.raises(ValueError, match=r"Received shapes: \(2,\) and \(1,\)"):
        fit_temperature([0.0, 1.0], [0])
    with pytest.raises(ValueError, match="`logits` must be finite. Received 1 others"):
        fit_temperature([0.0, math.inf], [0, 1])
    with pytest.raises(ValueError, match=r"`labels` must be 0 or 1.*\[0.5\]"):
        fit_temperature([0.0, 1.0], [0, 0.5])


# Overall from levels


def test_overall_of_known_levels() -> None:
    table = [
        [0.5, 0.5, 0, 0, 0, 0, 0],
        [0.2] * 7,
        [0.3, math.nan, 0.1, *[math.nan] * 4],
        [1.0, *[0.5] * 6],
        [0.0] * 7,
        [math.nan] * 7,
    ]
    expected = [0.75, 1 - 0.8**7, 1 - 0.7 * 0.9, 1.0, 0.0, math.nan]
    found = overall_from_levels(table)
    np.testing.assert_allclose(found, expected)
    assert math.copysign(1, found[4]) == 1  # no -0.0 in a report


def test_overall_of_tiny_probabilities_is_their_sum() -> None:
    found = overall_from_levels(np.full((1, 7), 1e-18))  # 1 - 1e-18 is 1 in a float
    assert found[0] == pytest.approx(7e-18, rel=1e-12, abs=0)


@settings(deadline=None, max_examples=80)
@given(level_tables)
def test_overall_is_a_probability_and_at_least_that_of_each_level(
    table: Vector,
) -> None:
    overall = overall_from_levels(table)
    assert overall.shape == (3,)
    for row, value in zip(table, overall, strict=True):
        known = row[~np.isnan(row)]
        if not known.size:
            assert math.isnan(value)
            continue
        assert known.max() - 1e-12 <= value <= 1
        assert value == pytest.approx(1 - np.prod(1 - known), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(level_tables, st.permutations(range(7)))
def test_overall_does_not_depend_on_the_order_of_levels(
    table: Vector, order: list[int]
) -> None:
    np.testing.assert_allclose(
        overall_from_levels(table[:, order]), overall_from_levels(table), rtol=1e-9
    )


def test_levels_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 7\). Received shape: \(2, 8\)"):
        overall_from_levels(np.full((2, 8), 0.5))
    with pytest.raises(ValueError, match=r"Received 1 others, first: \[1.5\]"):
        overall_from_levels([[1.5, *[0.5] * 6]])
    with pytest.raises(ValueError, match=r"Received 7 others, first: \[-2.0"):
        overall_from_levels([[float(logit(0.1192029220221175))] * 7])
