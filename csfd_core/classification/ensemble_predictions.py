"""What each model says of the locked test set: the mean of its folds.

The folds of a model are one ensemble. Models are compared on the studies that all of
them were scored on with the same labels, so that every number of a report rests on the
same rows.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.card import What
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.learning.splits import Split, learnt_among
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

Results = Mapping[str, Sequence[FoldResult]]
Vector = npt.NDArray[np.float64]

UNSEEN_COUNT: Final = 5
_SALT: Final = "csfd shown test studies:"
_UNLABELLED: Final = -1
_COLUMNS: Final = (
    "study_uid", "model", "level", "label", "probability", "patient", "is_assessed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Labelled rows of one model, ready for a metric; all of shape (N,)."""

    labels: Vector  # 0 or 1
    probabilities: Vector
    patients: npt.NDArray[np.object_]

    @property
    def has_both(self) -> bool:
        """Say whether there are fractured and intact ones."""
        return bool(0 < self.labels.sum() < self.labels.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRows:
    """The test studies as the competition's table, columns as in ``LABEL_COLUMNS``."""

    study_uids: tuple[str, ...]
    patients: npt.NDArray[np.object_]  # (N,)
    labels: Vector  # (N, 8), NaN where unlabelled
    probabilities: Vector  # (N, 8)


def predictions_on_test_set(results: Results) -> pd.DataFrame:
    """Return the mean calibrated probability of each model's folds.

    Args:
        results: The folds of each model.

    Returns:
        Columns ``study_uid``, ``model``, ``level``, ``label`` (NaN: unlabelled),
        ``probability``, ``patient`` and ``is_assessed``, for the comparable test
        studies; models in their order, then studies, then levels. A level that was not
        assessed has its prevalence, as metrics need a number of every label; a study
        is assessed where any of its levels is.
    """
    studies = comparable_studies(results)
    parts = [
        _mean_of_folds(model, folds, studies)
        for model, folds in results.items()
        if folds
    ]
    if not parts:
        return pd.DataFrame({name: [] for name in _COLUMNS})
    return pd.concat(parts, ignore_index=True)


def comparable_studies(results: Results) -> set[str]:
    """Return the test studies that every fold of every model has, with equal labels."""
    first, *rest = [
        _facts_of(fold) for folds in results.values() for fold in folds
    ] or [{}]
    return {
        uid for uid, facts in first.items() if all(r.get(uid) == facts for r in rest)
    }


def left_out_studies(results: Results) -> list[str]:
    """Return the test studies that some fold lacks or has other labels of."""
    tested = {
        uid for folds in results.values() for fold in folds for uid in _facts_of(fold)
    }
    return sorted(tested - comparable_studies(results))


def leaked_studies(results: Results) -> list[str]:
    """Return the test studies that some fold was trained or calibrated on: none."""
    every = [fold for folds in results.values() for fold in folds]
    tested = {uid for fold in every for uid in _facts_of(fold)}
    return sorted(learnt_among([fold.card for fold in every], tested))


def rows_of(predictions: pd.DataFrame, model: str, what: What) -> Rows:
    """Return the labelled vertebrae, or whole studies, of a model."""
    frame = predictions[predictions["model"] == model]
    return labelled_rows(frame, what)


def labelled_rows(frame: pd.DataFrame, what: What) -> Rows:
    """Return the labelled vertebrae, or whole studies, of predictions."""
    is_wanted = (frame["level"] == OVERALL) == (what == "overall")
    labels = _numbers(frame["label"])
    chosen = is_wanted.to_numpy() & ~np.isnan(labels)
    return Rows(
        labels=labels[chosen],
        probabilities=frame["probability"].to_numpy(dtype=float)[chosen],
        patients=frame["patient"].to_numpy(dtype=object)[chosen],
    )


def studies_of(predictions: pd.DataFrame, model: str) -> StudyRows:
    """Return the test studies of a model as the competition's table."""
    return to_study_rows(predictions[predictions["model"] == model])


def to_study_rows(frame: pd.DataFrame) -> StudyRows:
    """Return predictions as the competition's table."""
    patients = frame.groupby("study_uid")["patient"].first()  # sorted by study
    return StudyRows(
        study_uids=tuple(str(uid) for uid in patients.index),
        patients=patients.to_numpy(dtype=object),
        labels=_matrix(frame, "label", patients.index),
        probabilities=_matrix(frame, "probability", patients.index),
    )


def predictions_table(results: Results) -> pd.DataFrame:
    """Return ``predictions.csv``: what is scored, and test studies without a label.

    ``assessed`` is 0 where the probability is a prevalence, for the metrics alone.
    """
    predictions = predictions_on_test_set(results)
    frame = predictions[list(_COLUMNS[:5])].assign(
        label=predictions["label"].astype("Int64"),
        assessed=predictions["is_assessed"].astype(int),
    )
    return frame.sort_values(["study_uid", "model"], kind="stable", ignore_index=True)


def unseen_studies(study_uids: Iterable[str], count: int = UNSEEN_COUNT) -> list[str]:
    """Draw studies by a digest: nobody chooses them, and nobody can choose them."""

    def digest(uid: str) -> bytes:
        return hashlib.sha256(f"{_SALT}{uid}".encode()).digest()

    return sorted(set(study_uids), key=lambda uid: (digest(uid), uid))[:count]


def true_table(predictions: pd.DataFrame, study_uids: Sequence[str]) -> pd.DataFrame:
    """Return the labels of some studies: one row per study, one column per label."""
    first = predictions.drop_duplicates(["study_uid", "level"])
    table = _wide(first, study_uids, "label").astype("Float64").round().astype("Int64")
    return table.reset_index()


def predicted_table(
    predictions: pd.DataFrame, study_uids: Sequence[str]
) -> pd.DataFrame:
    """Return what each model says of some studies: rows of model and study.

    A level that was not assessed has no number: NaN.
    """
    parts = []
    told = predictions["probability"].where(predictions["is_assessed"].astype(bool))
    predictions = predictions.assign(probability=told)
    for model in predictions["model"].unique():
        frame = predictions[predictions["model"] == model]
        table = _wide(frame, study_uids, "probability").reset_index()
        table.insert(0, "model", model)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _wide(frame: pd.DataFrame, study_uids: Sequence[str], part: str) -> pd.DataFrame:
    chosen = frame[frame["study_uid"].isin(study_uids)]
    wide = chosen.pivot(index="study_uid", columns="level", values=part)
    wide.columns.name = None
    return wide.reindex(
        index=list(study_uids), columns=list(LABEL_COLUMNS)
    ).rename_axis(index="study_uid")


def _matrix(frame: pd.DataFrame, part: str, study_uids: "pd.Index[str]") -> Vector:
    numbers = frame.assign(**{part: _numbers(frame[part])})
    wide = numbers.pivot(index="study_uid", columns="level", values=part)
    wide = wide.reindex(index=study_uids, columns=list(LABEL_COLUMNS))
    return wide.to_numpy(dtype=np.float64)


def _numbers(column: "pd.Series[Any]") -> Vector:
    """Return a column with or without nulls as floats; NaN for null."""
    values = column.astype("Float64").to_numpy(dtype=np.float64, na_value=math.nan)
    return np.asarray(values, dtype=np.float64)


def _of_test(fold: FoldResult) -> pd.DataFrame:
    return fold.predictions[fold.predictions["group"] == Split.TEST]


def _facts_of(fold: FoldResult) -> dict[str, set[tuple[str, str, int]]]:
    """Return level, patient and label of each row, by test study."""
    frame = _of_test(fold)
    labels = frame["label"].astype("Float64").fillna(_UNLABELLED).astype(int)
    by_study: dict[str, set[tuple[str, str, int]]] = {}
    for uid, *facts in zip(
        frame["study_uid"], frame["level"], frame["patient"], labels, strict=True
    ):
        by_study.setdefault(str(uid), set()).add((facts[0], facts[1], facts[2]))
    return by_study


def _mean_of_folds(
    model: str, folds: Sequence[FoldResult], studies: set[str]
) -> pd.DataFrame:
    every = pd.concat([_of_test(fold) for fold in folds], ignore_index=True)
    every = every[every["study_uid"].isin(studies)]
    order = pd.Categorical(every["level"], categories=LABEL_COLUMNS, ordered=True)
    labels = _numbers(every["label"])
    is_level_assessed = every["logit"].notna()
    has_any = is_level_assessed.groupby(every["study_uid"]).transform("any")
    is_assessed = is_level_assessed.where(every["level"] != OVERALL, has_any)
    every = every.assign(level=order, label=labels, is_assessed=is_assessed)
    mean = (
        every.groupby(["study_uid", "level"], observed=True, sort=True)
        .agg(
            label=("label", "first"),
            probability=("probability", "mean"),
            patient=("patient", "first"),
            is_assessed=("is_assessed", "any"),
        )
        .reset_index()
    )
    return mean.assign(
        model=model,
        level=mean["level"].astype(object),
        probability=mean["probability"].clip(0, 1),
    )[list(_COLUMNS)]
