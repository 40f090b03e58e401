"""What is watched while a classifier trains: its loss and its scores on validation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from csfd_core.evaluation.calibration import fit_temperature
from csfd_core.evaluation.metrics import auroc, log_loss, operating_point

Logits = npt.NDArray[np.float64]


def mean_of_steps(
    logs: Sequence[Mapping[str, Any]], loss: str = "loss", accuracy: str = "accuracy"
) -> dict[str, float]:
    """Return ``loss`` and ``accuracy`` of an epoch from what its steps returned."""
    return {
        "loss": float(np.mean([float(row[loss]) for row in logs])),
        "accuracy": float(np.mean([float(row[accuracy]) for row in logs])),
    }


def validation_scores(
    logits: Logits, labels: npt.NDArray[np.integer]
) -> dict[str, float]:
    """Return the scores of the validation vertebrae.

    ``val_loss`` is the log loss after calibration, so that it tells how well fractured
    and whole vertebrae are told apart, whatever the balance of the training batches;
    ``val_accuracy`` is the mean of sensitivity and specificity at the best threshold.
    Each is NaN where it is undefined, as for one class only.

    Args:
        logits: Shape (N,).
        labels: Shape (N,), 0 or 1.
    """
    if not np.isfinite(logits).all():
        return {"val_loss": math.nan, "val_accuracy": math.nan, "val_auc": math.nan}
    probabilities = fit_temperature(logits, labels).apply(logits)
    point = operating_point(labels, probabilities)
    return {
        "val_loss": log_loss(labels, probabilities),
        "val_accuracy": (point.sensitivity + point.specificity) / 2,
        "val_auc": auroc(labels, probabilities),
    }
