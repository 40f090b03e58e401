"""From the probabilities of its vertebrae to that of a study, learnt and calibrated.

``1 - Π(1 - pᵢ)`` takes vertebrae for independent witnesses. They are not: what the
network mistakes in one vertebra of a scan, as noise or a sharp kernel, it mistakes in
the others, and seven small suspicions add up to a false alarm. How far the worst
vertebra alone is to be believed instead is learnt on the held-out fold (ADR 16).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from csfd_core.evaluation.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    WeightPrior,
    fit_logistic,
    overall_from_levels,
)

Array = npt.NDArray[np.float64]

# Standard deviations of the normal prior around the default. A fold has a seventh as
# many studies as vertebrae, so the prior is narrower than that of a vertebra's slope.
SUM_DEVIATION: Final = 0.25
WORST_DEVIATION: Final = 1.0
BIAS_DEVIATION: Final = 0.5
_PRIOR: Final = WeightPrior(
    sums=np.array([[1.0, 1.0], [0.0, 1.0]]),  # both weights together; of the worst
    means=np.array([1.0, 0.0]),
    deviations=np.array([SUM_DEVIATION, WORST_DEVIATION]),
    bias_deviation=BIAS_DEVIATION,
)
_LEAST, _MOST = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
_NEVER_SURE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCalibration:
    """Probability = sigmoid(any_weight · a + worst_weight · w + bias).

    ``a`` is the logit of ``1 - Π(1 - pᵢ)``, ``w`` that of the largest pᵢ. The default
    is ``1 - Π(1 - pᵢ)`` itself. Weights are not negative: no vertebra that is more
    suspicious makes its study less so.

    Recorded with every checkpoint.
    """

    any_weight: float = 1.0
    worst_weight: float = 0.0
    bias: float = 0.0
    n: int = 0  # studies it was fitted on
    is_fitted: bool = False  # False: there was nothing to fit, this is the default

    def __post_init__(self) -> None:
        """Require weights that are not negative, one of them positive."""
        weights = self.any_weight, self.worst_weight
        is_usable = all(map(math.isfinite, (*weights, self.bias)))
        if not is_usable or min(weights) < 0 or not max(weights) > 0:
            raise ValueError(
                "The weights must not be negative, nor all zero, and all finite. "
                f"Received: any_weight={self.any_weight}, "
                f"worst_weight={self.worst_weight}, bias={self.bias}."
            )

    def apply(self, levels: npt.ArrayLike) -> Array:
        """Return the probability of each study, shape (N,).

        Args:
            levels: Probabilities of C1 to C7, shape (N, 7); of a level that was not
                assessed its prevalence.

        Raises:
            ValueError: If the shape is another or a value lies outside 0..1.
        """
        weights = np.array([self.any_weight, self.worst_weight])
        return np.asarray(expit(_features(levels) @ weights + self.bias))


def fit_study(levels: npt.ArrayLike, labels: npt.ArrayLike) -> StudyCalibration:
    """Fit two weights and a bias on validation studies.

    Minimises the summed log loss plus a normal prior around ``1 - Π(1 - pᵢ)``, as
    ``fit_temperature`` does: of the sum of both weights (standard deviation 0.25), of
    the weight of the worst vertebra (1) and of the bias (0.5).

    Args:
        levels: As ``StudyCalibration.apply``.
        labels: Of the studies, shape (N,), 0 or 1.

    Returns:
        The default with ``is_fitted`` False where there are no studies or one class
        only.

    Raises:
        ValueError: If shapes differ, a probability lies outside 0..1 or a label is not
            0 or 1.
    """
    features, truth = _features(levels), np.asarray(labels, dtype=np.float64)
    if truth.shape != features.shape[:1] or not np.isin(truth, (0, 1)).all():
        raise ValueError(
            f"`labels` must be 0 or 1, one for each of {len(features)} studies. "
            f"Received: {truth.tolist()[:5]}, shape {truth.shape}."
        )
    if not 0 < truth.sum() < truth.size:
        return StudyCalibration(n=truth.size)
    bounds = [(_LEAST, _MOST), (0.0, _MOST)]
    weights, bias = fit_logistic(features, truth, _PRIOR, bounds)
    return StudyCalibration(
        any_weight=float(weights[0]),
        worst_weight=float(weights[1]),
        bias=bias,
        n=truth.size,
        is_fitted=True,
    )


def _features(levels: npt.ArrayLike) -> Array:
    """Return the logits of ``1 - Π(1 - pᵢ)`` and of the largest pᵢ, shape (N, 2)."""
    probabilities = np.asarray(levels, dtype=np.float64)
    overall = overall_from_levels(probabilities)
    worst = probabilities.max(axis=1)
    both = np.column_stack([overall, worst])
    return np.asarray(logit(np.clip(both, _NEVER_SURE, 1 - _NEVER_SURE)))
