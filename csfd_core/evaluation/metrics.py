"""How well probabilities agree with labels: the one place for classification metrics.

``*_loss`` and ``calibration_error`` down is good, everything else up is good. A metric
that the labels do not define (the AUC of one class) is NaN: it is neither an error nor
a warning. Input that cannot be meant (NaN, logits, shapes that differ) is a ValueError.

Labels are 0 or 1 (or bool), probabilities 0..1, both of shape (N,); the competition's
loss alone takes (N, 8). "Positive" is a probability at or above the threshold.
"""

import math
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import sklearn.metrics as sk
from scipy.stats import rankdata

from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

Vector = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

DEFAULT_THRESHOLD: Final = 0.5
CALIBRATION_BINS: Final = 10
# Of a column where the label is 0; where it is 1, twice as much (RSNA 2022 rules).
COLUMN_WEIGHTS: Final = (7.0, *(1.0 for _ in LEVEL_NAMES))
_CLIP: Final = float(np.finfo(np.float64).eps)  # as in scikit-learn: a loss is <= 36.04


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """The threshold a model is used at, and what it reaches on the set that chose it.

    Sensitivity and specificity are optimistic, as the same set chose the threshold.
    """

    threshold: float
    sensitivity: float  # NaN without positives
    specificity: float  # NaN without negatives
    n: int
    is_default: bool  # the set could not choose a threshold; it is DEFAULT_THRESHOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryScores:
    """All metrics of one set of labels and probabilities; undefined ones are NaN."""

    n: int
    positives: int
    threshold: float  # of F1, sensitivity and specificity
    auroc: float
    average_precision: float  # area under the precision-recall curve
    f1_score: float
    sensitivity: float
    specificity: float
    brier_loss: float
    log_loss: float  # nats
    calibration_error: float  # ECE of CALIBRATION_BINS bins

    def to_dict(self) -> dict[str, float]:
        """Return one table row: the fields by name, NaN where undefined."""
        return asdict(self)


def competition_log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the weighted log loss of the RSNA 2022 competition, in nats.

    The mean of ``study_log_losses`` over the studies that have a label; NaN where none
    has. Probabilities of 0.5 score ln 2 on any table.

    Args:
        labels: Shape (N, 8), columns as in ``LABEL_COLUMNS``; NaN where unlabelled.
        probabilities: Shape (N, 8), the same columns.

    Raises:
        ValueError: As ``study_log_losses``.
    """
    losses = study_log_losses(labels, probabilities)
    defined = losses[~np.isnan(losses)]
    return float(defined.mean()) if defined.size else math.nan


def study_log_losses(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Vector:
    """Return the competition's weighted log loss of each study, in nats.

    Per study ``sum(w * bce) / sum(w)``, where w is 7 for ``patient_overall`` and 1 for
    a level, and twice that where the label is 1. As each study is divided by its own
    weights, a study with fractures counts as much as one without.

    A label that is NaN is left out with its weight, and its probability is not looked
    at. Probabilities are clipped to 2.2e-16 from 0 and 1, as scikit-learn does.

    Args:
        labels: Shape (N, 8), columns as in ``LABEL_COLUMNS``; NaN where unlabelled.
        probabilities: Shape (N, 8), the same columns.

    Returns:
        Shape (N,); NaN for a study without any label.

    Raises:
        ValueError: If a shape is another, a label is not 0, 1 or NaN, or a labelled
            probability is NaN or outside 0..1.

    Source: RSNA 2022 Cervical Spine Fracture Detection, evaluation page (weighted
    multi-label logarithmic loss).
    """
    truth, predicted = _columns(labels, probabilities)
    labelled = ~np.isnan(truth)
    _require_binary(truth[labelled])
    _require_probabilities(predicted[labelled])
    clipped = np.clip(np.where(labelled, predicted, 0.5), _CLIP, 1 - _CLIP)
    bce = -np.where(truth == 1, np.log(clipped), np.log1p(-clipped))
    weights = np.where(labelled, np.where(truth == 1, 2.0, 1.0) * COLUMN_WEIGHTS, 0.0)
    total = weights.sum(axis=1)
    losses = np.full(len(total), math.nan)
    np.divide((weights * bce).sum(axis=1), total, out=losses, where=total > 0)
    return losses


def auroc(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the area under the ROC curve; NaN without both classes."""
    truth, predicted = _pair(labels, probabilities)
    if not _has_both(truth):
        return math.nan
    return float(sk.roc_auc_score(truth, predicted))


def rank_auc(labels: npt.NDArray[np.generic], scores: Vector) -> float:
    """Return the area under the ROC curve, fast and unchecked, for use in a bootstrap.

    It equals ``auroc``, takes any finite scores (logits too), and costs a tenth. NaN
    without both classes.

    Source: Hanley and McNeil, Radiology 1982;143:29 (the area is the Mann-Whitney
    statistic; tied scores share their mean rank).
    """
    positive = labels.astype(np.bool_)
    count = int(positive.sum())
    pairs = count * (positive.size - count)
    if not pairs:
        return math.nan
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - count * (count + 1) / 2) / pairs


def average_precision(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the area under the precision-recall curve, without interpolation.

    NaN without both classes: without positives it has no meaning, without negatives it
    is 1 whatever the model says.
    """
    truth, predicted = _pair(labels, probabilities)
    if not _has_both(truth):
        return math.nan
    return float(sk.average_precision_score(truth, predicted))


def f1_score(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    threshold: float = DEFAULT_THRESHOLD,
) -> float:
    """Return 2 TP / (2 TP + FP + FN); NaN without positives, given or found."""
    truth, predicted = _decide(labels, probabilities, threshold)
    if not truth.size:
        return math.nan
    return float(sk.f1_score(truth, predicted, zero_division=math.nan))


def sensitivity(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    threshold: float = DEFAULT_THRESHOLD,
) -> float:
    """Return the share of the positives that are found; NaN without positives."""
    truth, predicted = _decide(labels, probabilities, threshold)
    if not truth.size:
        return math.nan
    return float(sk.recall_score(truth, predicted, zero_division=math.nan))


def specificity(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    threshold: float = DEFAULT_THRESHOLD,
) -> float:
    """Return the share of the negatives that are left alone; NaN without negatives."""
    truth, predicted = _decide(labels, probabilities, threshold)
    if not truth.size:
        return math.nan
    return float(sk.recall_score(truth, predicted, pos_label=0, zero_division=math.nan))


def brier_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the mean squared difference, 0..1; NaN of nothing."""
    truth, predicted = _pair(labels, probabilities)
    if not truth.size:
        return math.nan
    return float(sk.brier_score_loss(truth, predicted, labels=[0, 1]))


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the mean binary cross-entropy in nats, unweighted; NaN of nothing.

    Probabilities are clipped to 2.2e-16 from 0 and 1.
    """
    truth, predicted = _pair(labels, probabilities)
    if not truth.size:
        return math.nan
    return float(sk.log_loss(truth, predicted, labels=[0, 1]))


def calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Return the expected calibration error (ECE), 0..1; NaN of nothing.

    The probability of the positive class falls into bins of equal width; a bin holds
    its upper edge and the first bin also 0, as in scikit-learn's ``calibration_curve``.
    The error is the mean over bins, weighted by their counts, of the distance between
    mean probability and share of positives. It is biased upwards on few rows.

    Raises:
        ValueError: If ``bins`` is below 1, or the input cannot be used.

    Source: Naeini et al., AAAI 2015.
    """
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1. Received: bins={bins}.")
    truth, predicted = _pair(labels, probabilities)
    if not truth.size:
        return math.nan
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], predicted)
    gaps = np.bincount(bin_of, weights=predicted - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def operating_point(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> OperatingPoint:
    """Choose the threshold with the largest Youden index; for validation sets only.

    Youden's J = sensitivity + specificity - 1, compared as whole numbers. Of equal ones
    the highest sensitivity wins, as a missed fracture costs more. The threshold lies
    halfway to the next lower probability, so that rounding a probability (float32, a
    table) does not change the decision.

    Where J is nowhere above 0 (one class only, nothing, a constant, probabilities that
    point the wrong way), there is nothing to choose by: the threshold is 0.5 and
    ``is_default`` says so.

    Raises:
        ValueError: If the input cannot be used.

    Source: Youden, Cancer 1950;3:32.
    """
    truth, predicted = _pair(labels, probabilities)
    threshold = _youden_threshold(truth, predicted) if _has_both(truth) else None
    chosen = DEFAULT_THRESHOLD if threshold is None else threshold
    return OperatingPoint(
        threshold=chosen,
        sensitivity=sensitivity(truth, predicted, chosen),
        specificity=specificity(truth, predicted, chosen),
        n=truth.size,
        is_default=threshold is None,
    )


def score_binary(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    threshold: float = DEFAULT_THRESHOLD,
) -> BinaryScores:
    """Return all metrics; the threshold comes from elsewhere, never from these rows.

    Raises:
        ValueError: If the input cannot be used.
    """
    truth, predicted = _pair(labels, probabilities)
    return BinaryScores(
        n=truth.size,
        positives=int(truth.sum()),
        threshold=threshold,
        auroc=auroc(truth, predicted),
        average_precision=average_precision(truth, predicted),
        f1_score=f1_score(truth, predicted, threshold),
        sensitivity=sensitivity(truth, predicted, threshold),
        specificity=specificity(truth, predicted, threshold),
        brier_loss=brier_loss(truth, predicted),
        log_loss=log_loss(truth, predicted),
        calibration_error=calibration_error(truth, predicted),
    )


def _youden_threshold(truth: Codes, probabilities: Vector) -> float | None:
    """Return the best threshold of two classes, or None where none is any good."""
    _, false, _, true, scores = sk.confusion_matrix_at_thresholds(truth, probabilities)
    positives = int(truth.sum())
    index = true * (truth.size - positives) - false * positives  # J, times P * N
    best = index.size - 1 - int(np.argmax(index[::-1]))  # scores descend
    if index[best] <= 0:
        return None
    score, lower = float(scores[best]), float(scores[best + 1])  # J is 0 at the last
    middle = (score + lower) / 2
    return middle if middle > lower else score  # neighbouring floats have no middle


def _pair(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[Codes, Vector]:
    """Return labels and probabilities as checked vectors of one length."""
    truth = np.asarray(labels, dtype=np.float64)
    predicted = np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != predicted.shape:
        raise ValueError(
            "`labels` and `probabilities` must be vectors of one length. Received "
            f"shapes: {truth.shape} and {predicted.shape}."
        )
    _require_binary(truth)
    _require_probabilities(predicted)
    return truth.astype(np.int64), predicted


def _columns(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[Vector, Vector]:
    """Return labels and probabilities as tables with the competition's columns."""
    truth = np.asarray(labels, dtype=np.float64)
    predicted = np.asarray(probabilities, dtype=np.float64)
    width = len(LABEL_COLUMNS)
    if truth.ndim != 2 or truth.shape[1] != width or truth.shape != predicted.shape:
        raise ValueError(
            f"`labels` and `probabilities` must have the shape (N, {width}), columns "
            f"{', '.join(LABEL_COLUMNS)}. Received shapes: {truth.shape} and "
            f"{predicted.shape}."
        )
    return truth, predicted


def _decide(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float
) -> tuple[Codes, Codes]:
    """Return labels and decisions at a threshold."""
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"`threshold` must be within 0..1. Received: threshold={threshold}."
        )
    truth, predicted = _pair(labels, probabilities)
    return truth, (predicted >= threshold).astype(np.int64)


def _has_both(truth: Codes) -> bool:
    return 0 < int(truth.sum()) < truth.size


def _require_binary(truth: Vector) -> None:
    wrong = truth[(truth != 0) & (truth != 1)]
    if wrong.size:
        raise ValueError(
            f"`labels` must be 0 or 1. Received {wrong.size} others of {truth.size}, "
            f"first: {wrong[:3].tolist()}."
        )


def _require_probabilities(probabilities: Vector) -> None:
    wrong = probabilities[~((probabilities >= 0) & (probabilities <= 1))]
    if wrong.size:
        raise ValueError(
            "`probabilities` must be within 0..1, without NaN (are they logits?). "
            f"Received {wrong.size} others of {probabilities.size}, first: "
            f"{wrong[:3].tolist()}."
        )
