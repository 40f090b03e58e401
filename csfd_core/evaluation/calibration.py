"""From logits to probabilities that mean what they say.

Everything that is fitted here is fitted on validation studies, never on test studies.
The order is: ``correct_prior`` undoes the weights of the training loss, the fitted
``Calibration`` turns logits of one vertebra into its probability, and a
``StudyCalibration`` (``study_calibration``) joins the vertebrae of a study.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from csfd_core.vocabulary import LEVEL_NAMES

Array = npt.NDArray[np.float64]

LOWEST_TEMPERATURE: Final = 0.1
HIGHEST_TEMPERATURE: Final = 10.0
BIAS_BOUND: Final = 10.0
# Standard deviations of the normal prior around the identity. It weighs as much as a
# few rows: on simulated logits that need no calibration, eight rows gave temperatures
# of 0.8..1.5 (5th to 95th percentile), seven hundred rows 0.9..1.1.
SLOPE_DEVIATION: Final = 0.5
BIAS_DEVIATION: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Probability = sigmoid(logit / temperature + bias). The default changes nothing.

    Recorded with every checkpoint.
    """

    temperature: float = 1.0  # above 1 makes probabilities less extreme
    bias: float = 0.0
    n: int = 0  # rows it was fitted on
    is_fitted: bool = False  # False: there was nothing to fit, this is the identity

    def __post_init__(self) -> None:
        """Require a positive temperature and a finite bias."""
        is_usable = math.isfinite(self.temperature) and self.temperature > 0
        if not (is_usable and math.isfinite(self.bias)):
            raise ValueError(
                "`temperature` must be positive and `bias` finite. Received: "
                f"temperature={self.temperature}, bias={self.bias}."
            )

    def apply(self, logits: npt.ArrayLike) -> Array:
        """Return probabilities of the logits' shape; a NaN logit stays NaN."""
        values = np.asarray(logits, dtype=np.float64)
        return np.asarray(expit(values / self.temperature + self.bias))


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPrior:
    """Normal prior of the weights of a logistic regression.

    Attributes:
        sums: Each row makes a sum of the K weights, shape (K, K), invertible.
        means: Of each sum, shape (K,).
        deviations: The same.
        bias_deviation: Of the bias, whose mean is 0.
    """

    sums: Array
    means: Array
    deviations: Array
    bias_deviation: float = BIAS_DEVIATION


_AROUND_IDENTITY: Final = WeightPrior(
    sums=np.eye(1), means=np.ones(1), deviations=np.array([SLOPE_DEVIATION])
)


def correct_prior(logits: npt.ArrayLike, positive_weight: float) -> Array:
    """Undo the shift that a loss with weighted positives trains into the logits.

    Weighting positives by w is training on w times as many of them: the odds that
    minimise the loss are w times the true odds, so the logit is log w too high.

    Args:
        logits: Any shape.
        positive_weight: Weight of positives in the loss, that of negatives being 1.

    Raises:
        ValueError: If the weight is not a positive finite number.

    Source: Elkan, The foundations of cost-sensitive learning, IJCAI 2001, theorem 2;
    King and Zeng, Logistic regression in rare events data, Political Analysis
    2001;9:137 (prior correction of the intercept).
    """
    if not (math.isfinite(positive_weight) and positive_weight > 0):
        raise ValueError(
            "`positive_weight` must be a positive number. Received: "
            f"positive_weight={positive_weight}."
        )
    return np.asarray(logits, dtype=np.float64) - math.log(positive_weight)


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Fit one temperature and one bias on validation rows.

    Minimises the summed log loss plus ``(1/T - 1)² / (2 · 0.5²) + bias² / (2 · 1²)``,
    the normal prior that keeps a handful of studies from ruining the probabilities.
    In the slope 1/T the sum is strictly convex, so the minimum is the only one. The
    penalty is on the slope, not on T: steep slopes (overconfidence) cost most, flat
    ones (falling back to the prevalence) little. T stays within 0.1..10: it is above 0,
    so the order of the probabilities never changes.

    Args:
        logits: Shape (N,), finite.
        labels: Shape (N,), 0 or 1.

    Returns:
        The identity with ``is_fitted`` False where there are no rows or one class only.

    Raises:
        ValueError: If shapes differ, a logit is not finite or a label is not 0 or 1.

    Source: Guo et al., ICML 2017 (temperature); Platt, 1999 (slope and bias).
    """
    x, y = _rows(logits, labels)
    if not 0 < y.sum() < y.size:
        return Calibration(n=y.size)
    slope = (1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE)
    weights, bias = fit_logistic(x[:, None], y, _AROUND_IDENTITY, [slope])
    return Calibration(
        temperature=float(1 / weights[0]), bias=bias, n=y.size, is_fitted=True
    )


def fit_logistic(
    features: Array,
    labels: Array,
    prior: WeightPrior,
    bounds: Sequence[tuple[float, float]],
) -> tuple[Array, float]:
    """Minimise the summed log loss of a logistic regression plus a normal prior.

    The sum is strictly convex, so the minimum is the only one. (The regressions of
    scikit-learn pull their weights to zero, never to another rule.)

    Args:
        features: Shape (N, K), finite.
        labels: Shape (N,), 0 or 1, of both kinds.
        prior: Of the K weights and the bias.
        bounds: Of each weight.

    Returns:
        The weights (K,) and the bias.
    """
    start = np.append(np.linalg.solve(prior.sums, prior.means), 0.0)

    def loss(parameters: Array) -> tuple[float, Array]:
        weights, bias = parameters[:-1], parameters[-1]
        z = features @ weights + bias
        error = expit(z) - labels
        off = (prior.sums @ weights - prior.means) / prior.deviations
        value = (np.logaddexp(0, z) - labels * z).sum()
        value += (off @ off + (bias / prior.bias_deviation) ** 2) / 2
        pull = prior.sums.T @ (off / prior.deviations)
        bias_pull = bias / prior.bias_deviation**2
        gradient = np.append(features.T @ error + pull, error.sum() + bias_pull)
        return float(value / labels.size), gradient / labels.size

    minimum = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[*bounds, (-BIAS_BOUND, BIAS_BOUND)],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return minimum.x[:-1], float(minimum.x[-1])


def overall_from_levels(probabilities: npt.ArrayLike) -> Array:
    """Return the probability that any vertebra is fractured: 1 - Π(1 - pᵢ).

    It takes vertebrae for independent and is exact to the last digits also where all
    probabilities are tiny.

    Args:
        probabilities: Shape (N, 7), C1 to C7; NaN where the scan lacks the level, which
            is then left out.

    Returns:
        Shape (N,); NaN where a study has no level at all.

    Raises:
        ValueError: If the shape is another or a value lies outside 0..1.
    """
    levels = np.asarray(probabilities, dtype=np.float64)
    width = len(LEVEL_NAMES)
    if levels.ndim != 2 or levels.shape[1] != width:
        raise ValueError(
            f"`probabilities` must have the shape (N, {width}). Received shape: "
            f"{levels.shape}."
        )
    is_wrong = (levels < 0) | (levels > 1)
    if is_wrong.any():
        raise ValueError(
            "`probabilities` must be within 0..1 or NaN. Received "
            f"{int(is_wrong.sum())} others, first: {levels[is_wrong][:3].tolist()}."
        )
    with np.errstate(divide="ignore"):  # a certain fracture: log 0, overall 1
        logs = np.log1p(-levels)
    overall = 0.0 - np.expm1(np.nansum(logs, axis=1))  # not -0.0
    return np.asarray(np.where(np.isnan(levels).all(axis=1), math.nan, overall))


def _rows(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    x = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            "`logits` and `labels` must be vectors of one length. Received shapes: "
            f"{x.shape} and {y.shape}."
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"`logits` must be finite. Received {int((~np.isfinite(x)).sum())} others "
            f"of {x.size}."
        )
    wrong = y[(y != 0) & (y != 1)]
    if wrong.size:
        raise ValueError(
            f"`labels` must be 0 or 1. Received {wrong.size} others of {y.size}, "
            f"first: {wrong[:3].tolist()}."
        )
    return x, y
