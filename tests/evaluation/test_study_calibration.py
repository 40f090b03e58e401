"""The probability of a study, learnt from those of its vertebrae."""

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
from sklearn.metrics import log_loss, roc_auc_score

from csfd_core.evaluation.calibration import (
    WeightPrior,
    fit_logistic,
    fit_temperature,
    overall_from_levels,
)
from csfd_core.evaluation.study_calibration import StudyCalibration, fit_study

Array = npt.NDArray[np.float64]
level_table = arrays(np.float64, (4, 7), elements=st.floats(0.001, 0.999))


def simulate(
    count: int, seed: int, shared: float = 0.0, distance: float = 2.5
) -> tuple[Array, Array]:
    """Probabilities of vertebrae that are right one by one, and labels of studies.

    Args:
        count: Studies.
        seed: Of the draw.
        shared: Standard deviation of the noise that all vertebrae of a study share;
            that of each alone is 1.
        distance: Between fractured and intact vertebrae.
    """
    rng = np.random.default_rng(seed)
    fractured = rng.random((count, 7)) < 0.1
    seen = distance * fractured + rng.normal(size=(count, 7))
    seen += shared * rng.normal(size=(count, 1))
    # Bayes' rule for one vertebra that is looked at alone.
    spread = 1 + shared**2
    logits = distance * (seen - distance / 2) / spread + math.log(0.1 / 0.9)
    return expit(logits), fractured.any(axis=1).astype(float)


def temperature_only(levels: Array, labels: Array, fresh: Array) -> Array:
    """The rule of before: temperature and bias of the logit of any fracture."""
    rule = fit_temperature(logit(overall_from_levels(levels)), labels)
    return rule.apply(logit(overall_from_levels(fresh)))


def test_without_a_fit_it_is_the_chance_that_any_vertebra_is_broken() -> None:
    levels, _ = simulate(20, seed=0)
    expected = 1 - np.prod(1 - levels, axis=1)
    np.testing.assert_allclose(StudyCalibration().apply(levels), expected, rtol=1e-6)


def test_weights_are_those_of_any_and_of_the_worst_vertebra() -> None:
    rule = StudyCalibration(any_weight=0.6, worst_weight=0.5, bias=-0.2)
    (found,) = rule.apply([[0.1, 0.02, 0.3, 0.01, 0.05, 0.1, 0.2]])
    any_broken = 1 - 0.9 * 0.98 * 0.7 * 0.99 * 0.95 * 0.9 * 0.8
    z = 0.6 * math.log(any_broken / (1 - any_broken)) + 0.5 * math.log(0.3 / 0.7) - 0.2
    assert found == pytest.approx(1 / (1 + math.exp(-z)))


def test_certain_vertebrae_give_numbers() -> None:
    found = StudyCalibration(worst_weight=0.3).apply(np.repeat([[0.0], [1.0]], 7, 1))
    assert found.round(4).tolist() == [0, 1]
    assert StudyCalibration().apply(np.empty((0, 7))).shape == (0,)


def test_many_studies_teach_a_planted_rule() -> None:
    levels, _ = simulate(40_000, seed=1, shared=0.7)
    planted = StudyCalibration(any_weight=0.5, worst_weight=0.4, bias=0.3)
    draw = np.random.default_rng(2).random(len(levels))
    found = fit_study(levels, (draw < planted.apply(levels)).astype(float))
    assert found.any_weight + found.worst_weight == pytest.approx(0.9, abs=0.04)
    assert found.worst_weight == pytest.approx(0.4, abs=0.1)  # both are much alike
    assert found.bias == pytest.approx(0.3, abs=0.06)
    assert (found.n, found.is_fitted) == (40_000, True)


@pytest.mark.parametrize(("n", "seed"), [(15, 0), (40, 1), (150, 2)])
def test_the_fit_is_the_minimum_of_the_documented_sum(n: int, seed: int) -> None:
    levels, labels = simulate(n, seed, shared=0.7)
    found = fit_study(levels, labels)

    def loss(parameters: Array) -> float:
        any_weight, worst, bias = parameters
        rule = StudyCalibration(any_weight=any_weight, worst_weight=worst, bias=bias)
        nll = n * log_loss(labels, rule.apply(levels))
        prior = ((any_weight + worst - 1) / 0.25) ** 2 + worst**2
        return float(nll + (prior + (bias / 0.5) ** 2) / 2)

    bounds = [(0.1, 10), (0, 10), (-10, 10)]
    oracle = minimize(loss, [1, 0.1, 0], method="Nelder-Mead", bounds=bounds)
    mine = np.array([found.any_weight, found.worst_weight, found.bias])
    assert loss(mine) <= oracle.fun + 1e-6
    np.testing.assert_allclose(mine, oracle.x, atol=0.01)


def test_a_prior_around_zero_is_the_penalty_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(80, 3))
    labels = (rng.random(80) < expit(features @ [1.0, -2.0, 0.5] + 0.4)).astype(float)
    prior = WeightPrior(
        sums=np.eye(3),
        means=np.zeros(3),
        deviations=np.full(3, 0.7),
        bias_deviation=0.7,
    )
    weights, bias = fit_logistic(features, labels, prior, [(-9, 9)] * 3)
    oracle = LogisticRegression(C=0.7**2, fit_intercept=False, tol=1e-8)
    oracle.fit(np.column_stack([features, np.ones(80)]), labels)
    np.testing.assert_allclose([*weights, bias], oracle.coef_[0], atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(level_table, st.integers(0, 6), st.integers(0, 1000))
def test_a_more_suspicious_vertebra_never_makes_its_study_less_so(
    levels: Array, level: int, seed: int
) -> None:
    fitted = fit_study(*simulate(12, seed))
    more = levels.copy()
    more[:, level] += (1 - more[:, level]) / 2
    assert (fitted.apply(more) >= fitted.apply(levels)).all()


def test_vertebrae_that_share_noise_are_not_added_up() -> None:
    fitted = simulate(150, seed=4, shared=0.8)
    fresh, labels = simulate(20_000, seed=5, shared=0.8)
    rule = fit_study(*fitted)
    now, before = rule.apply(fresh), temperature_only(*fitted, fresh)
    assert rule.worst_weight > 0.2
    assert log_loss(labels, now) < log_loss(labels, before) - 0.005
    assert roc_auc_score(labels, now) > roc_auc_score(labels, before) + 0.005


def test_fifteen_studies_cost_little_where_there_is_nothing_to_learn() -> None:
    fresh, labels = simulate(4000, seed=6)
    best = log_loss(labels, StudyCalibration().apply(fresh))
    losses = [
        log_loss(labels, fit_study(*simulate(15, 100 + seed)).apply(fresh))
        for seed in range(60)
    ]
    assert np.mean(losses) < best + 0.01
    assert max(losses) < best + 0.08


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
def test_one_kind_of_studies_fits_nothing(labels: list[int]) -> None:
    levels, _ = simulate(len(labels), seed=7)
    assert fit_study(levels, labels) == StudyCalibration(n=len(labels))


def test_what_cannot_be_meant_is_refused() -> None:
    levels, labels = simulate(4, seed=8)
    with pytest.raises(ValueError, match="one for each of 4 studies"):
        fit_study(levels, labels[:3])
    with pytest.raises(ValueError, match=r"`labels` must be 0 or 1.*0\.5"):
        fit_study(levels, labels * 0.5)
    with pytest.raises(ValueError, match="within 0..1"):
        fit_study(levels + 1, labels)
    for weights in ((-0.1, 1.0), (0.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="must not be negative"):
            StudyCalibration(any_weight=weights[0], worst_weight=weights[1])
