"""From logits of vertebrae to calibrated probabilities of them and of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.card import ClassifierCard, What
from csfd_core.evaluation.calibration import Calibration, fit_temperature
from csfd_core.evaluation.conformal import AnswerBounds, answer_bounds
from csfd_core.evaluation.metrics import OperatingPoint, operating_point
from csfd_core.evaluation.study_calibration import StudyCalibration, fit_study
from csfd_core.vocabulary import LEVEL_NAMES

Array = npt.NDArray[np.float64]
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
        overall: From the vertebrae of a study to its probability.
        prevalence: Of each level; in the study's probability and in metrics it stands
            for vertebrae that were not assessed.
        vertebra_point: Above it a vertebra counts as fractured.
        overall_point: Above it a study does.
        bounds: Between which probabilities an answer is not certain, of vertebrae and
            of studies; {}: they were not measured.
    """

    vertebra: Calibration
    overall: StudyCalibration
    prevalence: Mapping[str, float]
    vertebra_point: OperatingPoint
    overall_point: OperatingPoint
    bounds: Mapping[What, AnswerBounds] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, logits: Array, labels: Array, prevalence: Mapping[str, float]
    ) -> "Calibrated":
        """Fit on studies that the network has not learnt from.

        Args:
            logits: Of C1..C7, shape (N, 7); NaN where a vertebra was not assessed.
            labels: Of patient_overall, C1..C7, shape (N, 8); NaN where unknown.
            prevalence: Of each level among the training studies.
        """
        is_labelled = np.isfinite(logits) & np.isfinite(labels[:, 1:])
        level_labels = labels[:, 1:][is_labelled].astype(int)
        vertebra = fit_temperature(logits[is_labelled], level_labels)
        probabilities = vertebra.apply(logits)
        is_known = np.isfinite(labels[:, 0])
        study_labels = labels[is_known, 0].astype(int)
        levels = _filled(probabilities, prevalence)[is_known]
        overall = fit_study(levels, study_labels)
        of_vertebrae, of_studies = probabilities[is_labelled], overall.apply(levels)
        return cls(
            vertebra=vertebra,
            overall=overall,
            prevalence=dict(prevalence),
            vertebra_point=operating_point(level_labels, of_vertebrae),
            overall_point=operating_point(study_labels, of_studies),
            bounds={
                "vertebra": answer_bounds(of_vertebrae, level_labels),
                "overall": answer_bounds(of_studies, study_labels),
            },
        )

    @classmethod
    def of(cls, card: ClassifierCard) -> "Calibrated":
        """Read what was fitted from the card of a classifier."""
        return cls(
            vertebra=card.calibration.vertebra,
            overall=card.calibration.overall,
            prevalence=card.prevalence,
            vertebra_point=card.thresholds["vertebra"],
            overall_point=card.thresholds["overall"],
            bounds=card.bounds,
        )


def probabilities_of(calibrated: Calibrated, logits: Array) -> Array:
    """Return calibrated probabilities.

    Args:
        calibrated: What was fitted on a held-out fold.
        logits: Of C1..C7, shape (N, 7); NaN where a vertebra was not assessed.

    Returns:
        Of patient_overall, C1..C7, shape (N, 8); a vertebra that was not assessed has
        the prevalence of its level, for metrics that need a number of every label.
    """
    if not len(logits):
        return np.empty((0, len(LEVEL_NAMES) + 1))
    levels = _filled(calibrated.vertebra.apply(logits), calibrated.prevalence)
    return np.column_stack([calibrated.overall.apply(levels), levels])


def _filled(probabilities: Array, prevalence: Mapping[str, float]) -> Array:
    shares = np.array([prevalence[level] for level in LEVEL_NAMES])
    return np.where(np.isfinite(probabilities), probabilities, shares)
