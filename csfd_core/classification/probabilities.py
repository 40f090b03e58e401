"""From logits of vertebrae to calibrated probabilities of them and of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from csfd_core.classification.card import ClassifierCard
from csfd_core.evaluation.calibration import (
    Calibration,
    fit_temperature,
    overall_from_levels,
)
from csfd_core.evaluation.metrics import OperatingPoint, operating_point
from csfd_core.vocabulary import LEVEL_NAMES

Array = npt.NDArray[np.float64]
_NEVER_SURE: float = 1e-6
_WITHOUT_FOLDS: Final = 0.5


def ensemble_threshold(thresholds: Sequence[float]) -> float:
    """Return the operating point of an ensemble, from those of its folds.

    Their mean, within 0..1: a fold whose scores tell nothing can have any number.
    """
    if not thresholds:
        return _WITHOUT_FOLDS
    return min(1.0, max(0.0, float(np.mean(thresholds))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """Calibration and operating points, fitted on a held-out fold.

    Attributes:
        vertebra: Of the logit of one vertebra.
        overall: Of the logit of ``1 - prod(1 - p)`` over the levels.
        prevalence: Of each level; stands for vertebrae that were not seen.
        vertebra_point: Above it a vertebra counts as fractured.
        overall_point: Above it a study does.
    """

    vertebra: Calibration
    overall: Calibration
    prevalence: Mapping[str, float]
    vertebra_point: OperatingPoint
    overall_point: OperatingPoint

    @classmethod
    def fit(
        cls, logits: Array, labels: Array, prevalence: Mapping[str, float]
    ) -> "Calibrated":
        """Fit on studies that the network has not learnt from.

        Args:
            logits: Of C1..C7, shape (N, 7); NaN where a vertebra was not seen.
            labels: Of patient_overall, C1..C7, shape (N, 8); NaN where unknown.
            prevalence: Of each level among the training studies.
        """
        is_labelled = np.isfinite(logits) & np.isfinite(labels[:, 1:])
        level_labels = labels[:, 1:][is_labelled].astype(int)
        vertebra = fit_temperature(logits[is_labelled], level_labels)
        probabilities = vertebra.apply(logits)
        raw = _overall_logit(_filled(probabilities, prevalence))
        seen = np.isfinite(labels[:, 0])
        study_labels = labels[seen, 0].astype(int)
        overall = fit_temperature(raw[seen], study_labels)
        return cls(
            vertebra=vertebra,
            overall=overall,
            prevalence=dict(prevalence),
            vertebra_point=operating_point(level_labels, probabilities[is_labelled]),
            overall_point=operating_point(study_labels, overall.apply(raw[seen])),
        )

    @classmethod
    def of(cls, card: ClassifierCard) -> "Calibrated":
        """Read what was fitted from the card of a classifier."""
        return cls(
            vertebra=card.calibration["vertebra"],
            overall=card.calibration["overall"],
            prevalence=card.prevalence,
            vertebra_point=card.thresholds["vertebra"],
            overall_point=card.thresholds["overall"],
        )


def probabilities_of(calibrated: Calibrated, logits: Array) -> Array:
    """Return calibrated probabilities.

    Args:
        calibrated: What was fitted on a held-out fold.
        logits: Of C1..C7, shape (N, 7); NaN where a vertebra was not seen.

    Returns:
        Of patient_overall, C1..C7, shape (N, 8); a vertebra that was not seen has the
        prevalence of its level.
    """
    if not len(logits):
        return np.empty((0, len(LEVEL_NAMES) + 1))
    levels = _filled(calibrated.vertebra.apply(logits), calibrated.prevalence)
    overall = calibrated.overall.apply(_overall_logit(levels))
    return np.column_stack([overall, levels])


def _filled(probabilities: Array, prevalence: Mapping[str, float]) -> Array:
    shares = np.array([prevalence[level] for level in LEVEL_NAMES])
    return np.where(np.isfinite(probabilities), probabilities, shares)


def _overall_logit(levels: Array) -> Array:
    overall = overall_from_levels(levels)
    return np.asarray(logit(np.clip(overall, _NEVER_SURE, 1 - _NEVER_SURE)))
