"""Scores of predicted masks against given ones, at full resolution.

All intervals are over studies: whole studies are drawn, and their levels come along.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.evaluation.bootstrap import Interval, patient_bootstrap
from csfd_core.evaluation.segmentation_metrics import level_scores
from csfd_core.learning.splits import Split
from csfd_core.segmentation.predict import Prediction
from csfd_core.vocabulary import LEVEL_NAMES

LEVEL_COLUMNS: Final = (
    "study_uid",
    "level",
    "dice",
    "hd95_mm",
    "surface_distance_mm",
    "is_swapped",
    "group",
    "fold",
)
STUDY_COLUMNS: Final = ("study_uid", "group", "fold", "dice", "seconds", "flags")
_HALF_ALPHA: Final = 0.025
_NOTHING: Final = Interval(
    estimate=math.nan, low=math.nan, high=math.nan, draws=0, undefined=0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMask:
    """A study with the mask to compare with."""

    study_uid: str
    group: Split  # the test set or, of a held-out fold, validation
    fold: int  # of the model that predicts it
    mask: npt.NDArray[np.uint8]
    spacing_zyx_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One row per study and level, and one per study."""

    levels: pd.DataFrame  # LEVEL_COLUMNS
    studies: pd.DataFrame  # STUDY_COLUMNS

    def interval(self, column: str, level: str | None = None) -> Interval:
        """Return the mean of a score with its 95 % interval.

        Args:
            column: Of ``levels``; rows where it is unknown are left out.
            level: Of which vertebra; all of them where it is ``None``.
        """
        rows = self.levels if level is None else self.of_level(level)
        return _interval(rows, column)

    def of_level(self, level: str) -> pd.DataFrame:
        """Return the rows of one vertebra."""
        return self.levels[self.levels["level"] == level]

    def swap_rate(self) -> Interval:
        """Return the share of vertebrae under another level's label.

        Where none is, draws of studies could only say 0 to 0. Then the upper end is
        what the share of studies with a swap could be (Clopper and Pearson), which the
        share of vertebrae cannot exceed.
        """
        interval = self.interval("is_swapped")
        if interval.estimate != 0:
            return interval
        high = 1 - _HALF_ALPHA ** (1 / self.levels["study_uid"].nunique())
        return Interval(
            estimate=0.0,
            low=0.0,
            high=high,
            draws=interval.draws,
            undefined=interval.undefined,
        )

    @property
    def worst_level(self) -> str | None:
        """The level with the lowest mean Dice."""
        means = self.levels.groupby("level")["dice"].mean().dropna()
        return str(means.idxmin()) if len(means) else None

    def summary(self) -> dict[str, float]:
        """Return what stands in metadata and in MLflow."""
        worst = self.worst_level
        intervals = {
            "dice": self.interval("dice"),
            "dice_worst_level": self.interval("dice", worst) if worst else _NOTHING,
            "surface_distance_mm": self.interval("surface_distance_mm"),
            "hd95_mm": self.interval("hd95_mm"),
            "level_swap_rate": self.swap_rate(),
        }
        values = {"studies": float(len(self.studies))}
        for name, interval in intervals.items():
            values |= _named(name, interval)
        values["seconds_per_study"] = float(self.studies["seconds"].mean())
        return values

    def by_level(self) -> pd.DataFrame:
        """Return the overlap of each level with its interval."""
        rows = []
        for level in LEVEL_NAMES:
            vertebrae = self.of_level(level)
            swapped = vertebrae["is_swapped"].astype(float).mean()
            rows.append(
                {
                    "level": level,
                    "studies": len(vertebrae),
                    **_named("dice", _interval(vertebrae, "dice")),
                    "level_swap_rate": swapped,
                }
            )
        return pd.DataFrame(rows)

    def distances(self) -> pd.DataFrame:
        """Return the distances of surfaces of each level, mm, with their intervals.

        A level that one of the two masks lacks has no distance; it is counted apart.
        """
        rows = []
        for level in LEVEL_NAMES:
            vertebrae = self.of_level(level)
            measured = vertebrae["hd95_mm"].notna()
            rows.append(
                {
                    "level": level,
                    "studies": int(measured.sum()),
                    "in_one_mask_only": int((~measured).sum()),
                    **{
                        name: value
                        for column in ("surface_distance_mm", "hd95_mm")
                        for name, value in _named(
                            column, _interval(vertebrae, column)
                        ).items()
                    },
                }
            )
        return pd.DataFrame(rows)

    def by_fold(self) -> pd.DataFrame:
        """Return the overlap per model: its held-out studies, and those locked."""
        rows = []
        for (fold, group), vertebrae in self.levels.groupby(["fold", "group"]):
            rows.append(
                {
                    "fold": fold,
                    "group": group,
                    "studies": vertebrae["study_uid"].nunique(),
                    **_named("dice", _interval(vertebrae, "dice")),
                }
            )
        columns = ["fold", "group", "studies", "dice", "dice_low", "dice_high"]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(["group", "fold"], ascending=[False, True])

    def of_fold(self, fold: int) -> "Scores":
        """Return the scores of one model's predictions."""
        return Scores(
            levels=self.levels[self.levels["fold"] == fold],
            studies=self.studies[self.studies["fold"] == fold],
        )


def score_studies(
    given: Iterable[GivenMask], predict: Callable[[str], Prediction]
) -> Scores:
    """Predict studies and score each level; rows are sorted by study.

    Args:
        given: One at a time: a mask takes up to 250 MB.
        predict: Of a study, by its UID.
    """
    levels: list[dict[str, Any]] = []
    studies: list[dict[str, Any]] = []
    for study in given:
        prediction = predict(study.study_uid)
        rows = _score_levels(study, prediction)
        levels += rows
        dice = [row["dice"] for row in rows]
        studies.append(
            {
                "study_uid": study.study_uid,
                "group": study.group,
                "fold": study.fold,
                "dice": float(np.mean(dice)) if dice else np.nan,
                "seconds": round(sum(prediction.seconds.values()), 3),
                "flags": "; ".join(prediction.review.flags),
            }
        )
    return Scores(
        levels=_sorted(levels, LEVEL_COLUMNS), studies=_sorted(studies, STUDY_COLUMNS)
    )


def _score_levels(study: GivenMask, prediction: Prediction) -> list[dict[str, Any]]:
    return [
        {
            "study_uid": study.study_uid,
            "level": score.level,
            "dice": score.dice_score,
            "hd95_mm": score.hd95_mm,
            "surface_distance_mm": score.surface_distance_mm,
            "is_swapped": score.is_swapped,
            "group": study.group,
            "fold": study.fold,
        }
        for score in level_scores(prediction.mask, study.mask, study.spacing_zyx_mm)
    ]


def _sorted(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    keys = [name for name in ("study_uid", "level") if name in columns]
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.sort_values(keys, ignore_index=True)


def _interval(rows: pd.DataFrame, column: str) -> Interval:
    defined = rows.dropna(subset=[column])
    if defined.empty:
        return _NOTHING
    values = defined[column].to_numpy(dtype=float)
    return patient_bootstrap(
        defined["study_uid"].to_numpy(), lambda rows: float(values[rows].mean())
    )


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: interval.estimate,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }
