"""Made-up scores and models for the tests of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from csfd_core.learning.splits import Split
from csfd_core.reports.segmentation.measure import (
    LEVEL_COLUMNS,
    STUDY_COLUMNS,
    Scores,
)
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import TrainingConfig
from csfd_core.vocabulary import LEVEL_NAMES
from support.cards import segmentation_card


def level_row(study_uid: str, level: str, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "study_uid": study_uid,
        "level": level,
        "dice": 0.8,
        "hd95_mm": 4.0,
        "surface_distance_mm": 1.0,
        "is_swapped": False,
        "group": Split.VALIDATION,
        "fold": 0,
    }
    return row | values


def scores_of(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """Return scores with the studies that the rows of levels imply."""
    levels = pd.DataFrame(rows, columns=list(LEVEL_COLUMNS))
    studies = levels.groupby(["study_uid", "group", "fold"], as_index=False)["dice"]
    table = studies.mean().assign(seconds=4.0, flags="")
    return Scores(levels=levels, studies=table[list(STUDY_COLUMNS)])


def study_rows(study_uid: str, **values: Any) -> list[dict[str, Any]]:
    return [level_row(study_uid, level, **values) for level in LEVEL_NAMES]


def card_of_model(
    fold: int, dice: Sequence[float], epochs: int, **changes: Any
) -> SegmentationCard:
    """Return the card of a model with this validation Dice, epoch by epoch."""
    history = [
        {
            "epoch": epoch,
            "loss": 1 / epoch,
            "validation_dice": value,
            "learning_rate": 1e-3,
            "seconds": 2.0,
            **{f"dice_{level}": value for level in LEVEL_NAMES},
        }
        for epoch, value in enumerate(dice, start=1)
    ]
    best = max(range(len(dice)), key=lambda place: dice[place]) + 1 if dice else 0
    values = {
        "model_id": f"fold{fold}-x",
        "initial": "none",
        "fold": fold,
        "training_studies": {"1.1": ("c", "m")},
        "training": TrainingConfig(epochs=epochs),
        "history": history,
        "best_epoch": best,
        "seconds": 10.0,
    }
    return segmentation_card(**{**values, **changes})
