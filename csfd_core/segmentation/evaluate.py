"""Scores of predicted masks against given ones, at full resolution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.evaluation.segmentation_metrics import (
    bootstrap_interval,
    level_scores,
)
from csfd_core.segmentation.prediction import Prediction
from csfd_core.vocabulary import LEVEL_NAMES

SCORE_COLUMNS = (
    "study_uid",
    "level",
    "dice",
    "hd95_mm",
    "surface_distance_mm",
    "is_swapped",
    "group",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMask:
    """A study with the mask to compare with."""

    study_uid: str
    group: str  # "validation" or "test"
    mask: npt.NDArray[np.uint8]
    spacing_zyx_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One row per study and level, and one per study."""

    levels: pd.DataFrame
    studies: pd.DataFrame  # study_uid, group, dice, seconds, flags

    def summary(self) -> dict[str, float]:
        """Return what stands in metadata and in MLflow."""
        by_level = self.levels.groupby("level")["dice"].mean()
        low, high = bootstrap_interval(self.studies["dice"].tolist())
        return {
            "studies": float(len(self.studies)),
            "dice": float(self.levels["dice"].mean()),
            "dice_low": low,
            "dice_high": high,
            "dice_worst_level": float(by_level.min()) if len(by_level) else np.nan,
            "surface_distance_mm": float(self.levels["surface_distance_mm"].mean()),
            "hd95_mm": float(self.levels["hd95_mm"].mean()),
            "level_swap_rate": float(self.levels["is_swapped"].mean()),
            "seconds_per_study": float(self.studies["seconds"].mean()),
        }

    def by_level(self) -> pd.DataFrame:
        """Return mean scores per level with the interval of the Dice over studies."""
        rows = []
        for level in LEVEL_NAMES:
            own = self.levels[self.levels["level"] == level]
            low, high = bootstrap_interval(own["dice"].tolist())
            rows.append(
                {
                    "level": level,
                    "studies": len(own),
                    "dice": own["dice"].mean(),
                    "dice_low": low,
                    "dice_high": high,
                    "surface_distance_mm": own["surface_distance_mm"].mean(),
                    "hd95_mm": own["hd95_mm"].mean(),
                    "level_swap_rate": own["is_swapped"].astype(float).mean(),
                }
            )
        return pd.DataFrame(rows)


def score_studies(
    given: Sequence[GivenMask], predict: Callable[[str], Prediction]
) -> Scores:
    """Predict studies and score each level."""
    levels: list[dict[str, Any]] = []
    studies: list[dict[str, Any]] = []
    for study in given:
        prediction = predict(study.study_uid)
        scores = level_scores(prediction.mask, study.mask, study.spacing_zyx_mm)
        levels += [
            {
                "study_uid": study.study_uid,
                "level": score.level,
                "dice": score.dice_score,
                "hd95_mm": score.hd95_mm,
                "surface_distance_mm": score.surface_distance_mm,
                "is_swapped": score.is_swapped,
                "group": study.group,
            }
            for score in scores
        ]
        dice = [score.dice_score for score in scores]
        studies.append(
            {
                "study_uid": study.study_uid,
                "group": study.group,
                "dice": float(np.mean(dice)) if dice else np.nan,
                "seconds": round(sum(prediction.seconds.values()), 3),
                "flags": "; ".join(prediction.review.flags),
            }
        )
    return Scores(
        levels=pd.DataFrame(levels, columns=list(SCORE_COLUMNS)),
        studies=pd.DataFrame(
            studies, columns=["study_uid", "group", "dice", "seconds", "flags"]
        ),
    )
