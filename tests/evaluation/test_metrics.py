"""Metrics against scikit-learn, closed forms and properties that hold for any data."""

import json
import math
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as sk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from csfd_core.evaluation.metrics import (
    auroc,
    average_precision,
    brier_loss,
    calibration_error,
    f1_score,
    log_loss,
    operating_point,
    rank_auc,
    score_binary,
    sensitivity,
    specificity,
)

Vector = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Metric = Callable[[npt.ArrayLike, npt.ArrayLike], float]

METRICS: dict[str, Metric] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "brier_loss": brier_loss,
    "calibration_error": calibration_error,
    "f1_score": f1_score,
    "log_loss": log_loss,
    "sensitivity": sensitivity,
    "specificity": specificity,
}
# Coarse, so that ties are frequent, and with both ends.
levels_of_trust = st.integers(0, 20).map(lambda step: step / 20)
samples = st.lists(st.tuples(st.booleans(), levels_of_trust), min_size=2, max_size=40)


def split(rows: list[tuple[bool, float]]) -> tuple[Codes, Vector]:
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    return labels, np.array([probability for _, probability in rows])


def with_both_classes(rows: list[tuple[bool, float]]) -> tuple[Codes, Vector]:
    labels, probabilities = split(rows)
    assume(0 < labels.sum() < labels.size)
    return labels, probabilities


def simulate(n: int = 400, seed: int = 0) -> tuple[Codes, Vector]:
    """Calibrated probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(0.8, 2.5, n)
    return (rng.random(n) < probabilities).astype(np.int64), probabilities


# Single metrics


@settings(deadline=None, max_examples=60)
@given(samples)
def test_metrics_agree_with_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    labels, probabilities = with_both_classes(rows)
    scores = score_binary(labels, probabilities, threshold=0.3)
    found = (probabilities >= 0.3).astype(int)
    (tn, fp), (fn, tp) = sk.confusion_matrix(labels, found, labels=[0, 1])
    assert scores.auroc == pytest.approx(sk.roc_auc_score(labels, probabilities))
    assert scores.average_precision == pytest.approx(
        sk.average_precision_score(labels, probabilities)
    )
    assert scores.f1_score == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert scores.sensitivity == pytest.approx(tp / (tp + fn))
    assert scores.specificity == pytest.approx(tn / (tn + fp))
    assert scores.brier_loss == pytest.approx(((probabilities - labels) ** 2).mean())
    assert scores.log_loss == pytest.approx(sk.log_loss(labels, probabilities))
    assert (scores.n, scores.positives) == (labels.size, labels.sum())


@settings(deadline=None, max_examples=60)
@given(samples)
def test_fast_auc_agrees_with_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    labels, probabilities = with_both_classes(rows)
    expected = sk.roc_auc_score(labels, probabilities)
    assert rank_auc(labels, probabilities) == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(samples, st.floats(0.2, 5.0))
def test_auc_and_precision_only_depend_on_the_order(
    rows: list[tuple[bool, float]], power: float
) -> None:
    labels, probabilities = with_both_classes(rows)
    bent = probabilities**power
    assert auroc(labels, bent) == pytest.approx(auroc(labels, probabilities))
    assert average_precision(labels, bent) == pytest.approx(
        average_precision(labels, probabilities)
    )
    assert rank_auc(labels, 7 * bent - 3) == pytest.approx(auroc(labels, probabilities))


@settings(deadline=None, max_examples=60)
@given(samples)
def test_auc_of_the_opposite_is_one_minus_auc(rows: list[tuple[bool, float]]) -> None:
    labels, probabilities = with_both_classes(rows)
    assert auroc(labels, 1 - probabilities) == pytest.approx(
        1 - auroc(labels, probabilities)
    )


@settings(deadline=None, max_examples=60)
@given(samples, st.integers(1, 15))
def test_calibration_error_agrees_with_calibration_curve(
    rows: list[tuple[bool, float]], bins: int
) -> None:
    labels, probabilities = split(rows)
    shares, means = calibration_curve(labels, probabilities, n_bins=bins)
    edges = np.linspace(0, 1, bins + 1)
    lower, upper = edges[:-1, None], edges[1:, None]
    is_within = (probabilities > lower) & (probabilities <= upper)
    counts = is_within.sum(axis=1)
    counts[0] += (probabilities == 0).sum()
    gaps = np.abs(shares - means)
    expected = (counts[counts > 0] * gaps).sum() / labels.size
    assert calibration_error(labels, probabilities, bins) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    labels, probabilities = [1, 0, 0, 1], [0.75, 0.75, 0.15, 0.15]
    # Each bin of two rows is one half positive: off by 0.25 and by 0.35.
    assert calibration_error(labels, probabilities) == pytest.approx(0.3)


def test_calibrated_probabilities_have_a_small_error_and_sharpened_a_large_one() -> (
    None
):
    labels, probabilities = simulate(20_000)
    assert calibration_error(labels, probabilities) < 0.01
    odds = (probabilities / (1 - probabilities)) ** 3
    assert calibration_error(labels, odds / (1 + odds)) > 0.08


def test_predicting_the_prevalence_scores_the_entropy_of_the_prior() -> None:
    labels = np.array([1] * 3 + [0] * 17)
    prevalence = labels.mean()
    constant = np.full(20, prevalence)
    entropy = -(0.15 * math.log(0.15) + 0.85 * math.log(0.85))
    assert log_loss(labels, constant) == pytest.approx(entropy)
    assert brier_loss(labels, constant) == pytest.approx(0.15 * 0.85)
    assert calibration_error(labels, constant) == pytest.approx(0)
    assert auroc(labels, constant) == 0.5
    assert average_precision(labels, constant) == pytest.approx(0.15)


def test_a_flipped_label_worsens_every_metric_of_a_perfect_model() -> None:
    labels = np.array([0, 1] * 20)
    probabilities = np.where(labels == 1, 0.95, 0.05)
    before = score_binary(labels, probabilities)
    positive, negative = labels.copy(), labels.copy()
    positive[1], negative[0] = 0, 1  # now a false positive, and a false negative
    after = score_binary(positive, probabilities)
    assert before.auroc == 1 > after.auroc
    assert before.average_precision == 1 > after.average_precision
    assert before.f1_score == 1 > after.f1_score
    assert before.specificity == 1 > after.specificity
    assert score_binary(negative, probabilities).sensitivity < 1 == before.sensitivity
    assert before.brier_loss < after.brier_loss
    assert before.log_loss < after.log_loss


def test_a_probability_at_the_threshold_counts_as_positive() -> None:
    assert sensitivity([1, 0], [0.5, 0.49]) == 1
    assert specificity([1, 0], [0.49, 0.5]) == 0


# Undefined and unusable


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_undefined_metrics_nan_without_a_warning(label: int) -> None:
    labels = np.full(6, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_binary(labels, np.linspace(0.1, 0.9, 6)).to_dict()
    undefined = {name for name, value in scores.items() if math.isnan(value)}
    other = "specificity" if label else "sensitivity"
    assert undefined == {"auroc", "average_precision", other}
    assert math.isnan(rank_auc(labels, np.linspace(0.1, 0.9, 6)))


def test_f1_is_undefined_only_where_nothing_is_positive() -> None:
    assert math.isnan(f1_score([0, 0], [0.1, 0.2]))
    assert f1_score([0, 0], [0.1, 0.7]) == 0
    assert f1_score([1, 0], [0.1, 0.2]) == 0


def test_nothing_at_all_scores_nan_everywhere() -> None:
    scores = score_binary([], []).to_dict()
    assert (scores.pop("n"), scores.pop("positives")) == (0, 0)
    assert scores.pop("threshold") == 0.5
    assert all(math.isnan(value) for value in scores.values())


def test_scores_become_a_row_of_plain_numbers() -> None:
    labels, probabilities = simulate()
    row = score_binary(labels, probabilities, threshold=0.3).to_dict()
    assert json.loads(json.dumps(row)) == row
    assert row["threshold"] == 0.3
    assert set(METRICS) <= set(row)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.5], r"Received shapes: \(2,\) and \(1,\)"),
        ([[0, 1]], [[0.5, 0.5]], r"Received shapes: \(1, 2\)"),
        ([0, 1], [0.5, math.nan], r"Received 1 others of 2, first: \[nan\]"),
        ([0, 1], [-2.5, 3.0], r"are they logits.*2 others of 2.*\[-2.5, 3.0\]"),
        ([0, 2], [0.5, 0.5], r"`labels` must be 0 or 1.*first: \[2.0\]"),
        ([0, math.nan], [0.5, 0.5], r"`labels` must be 0 or 1.*first: \[nan\]"),
    ],
)
def test_unusable_input_is_refused_with_what_was_received(
    name: str, labels: Any, probabilities: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        METRICS[name](labels, probabilities)


def test_threshold_and_bins_out_of_range_are_refused() -> None:
    for threshold in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"Received: threshold={threshold}"):
            score_binary([0, 1], [0.2, 0.7], threshold)
    with pytest.raises(ValueError, match="Received: bins=0"):
        calibration_error([0, 1], [0.2, 0.7], bins=0)


# The operating point


@settings(deadline=None, max_examples=60)
@given(samples)
def test_no_threshold_has_a_larger_youden_index_than_the_chosen(
    rows: list[tuple[bool, float]],
) -> None:
    labels, probabilities = with_both_classes(rows)
    point = operating_point(labels, probabilities)
    false, true, _ = sk.roc_curve(labels, probabilities, drop_intermediate=False)
    best = (true - false).max()
    if point.is_default:
        assert best == pytest.approx(0)
        assert point.threshold == 0.5
        return
    assert point.sensitivity + point.specificity - 1 == pytest.approx(best)
    assert point.threshold not in probabilities
    ties = true[np.isclose(true - false, best)]
    assert point.sensitivity == pytest.approx(ties.max())


def test_operating_point_lies_between_the_classes_it_separates() -> None:
    point = operating_point([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9])
    assert point.threshold == pytest.approx(0.4)
    assert (point.sensitivity, point.specificity, point.n) == (1, 1, 4)
    assert not point.is_default


def test_of_equal_youden_indices_the_more_sensitive_one_is_chosen() -> None:
    # At 0.8 half of the positives and no negative; at 0.2 all and half of them.
    labels, probabilities = [1, 0, 1, 0], [0.8, 0.6, 0.4, 0.2]
    point = operating_point(labels, probabilities)
    assert (point.sensitivity, point.specificity) == (1.0, 0.5)
    assert point.threshold == pytest.approx(0.3)


@settings(deadline=None, max_examples=30)
@given(samples, st.randoms(use_true_random=False))
def test_operating_point_does_not_depend_on_the_order_of_rows(
    rows: list[tuple[bool, float]], random: Random
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    before, after = operating_point(*split(rows)), operating_point(*split(shuffled))
    assert before.threshold == after.threshold
    assert before.is_default == after.is_default


def test_neighbouring_floats_are_still_told_apart() -> None:
    value = 0.3
    for _ in range(4):  # their middle is rounded to the lower one or to the upper one
        low, value = value, float(np.nextafter(value, 1))
        point = operating_point([0, 1], [low, value])
        assert (point.sensitivity, point.specificity) == (1, 1)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([1, 1], [0.2, 0.9]),
        ([0, 0], [0.2, 0.9]),
        ([], []),
        ([0, 1], [0.4, 0.4]),
        ([0, 1], [0.9, 0.1]),
    ],
    ids=["positives", "negatives", "nothing", "constant", "inverted"],
)
def test_where_nothing_can_be_chosen_the_threshold_is_the_default_and_says_so(
    labels: list[int], probabilities: list[float]
) -> None:
    point = operating_point(labels, probabilities)
    assert (point.threshold, point.is_default) == (0.5, True)
    assert point.n == len(labels)
    assert math.isnan(point.sensitivity) == (1 not in labels)
    assert math.isnan(point.specificity) == (0 not in labels)
