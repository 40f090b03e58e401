"""What the sentences of a comparison speak of, counted in its tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from csfd_core.classification.card import WHATS
from csfd_core.classification.classifiers import has_backbone
from csfd_core.classification.score_tables import EVEN, PREVALENCE, mean_threshold
from csfd_core.evaluation.conformal import CLAIMED
from csfd_core.reports.comparison.differences import SIGNIFICANT
from csfd_core.reports.comparison.summary import Comparison
from csfd_core.reports.extremes import Extremes
from csfd_core.vocabulary import LEVEL_NAMES

_FEW_POSITIVES: Final = 10
_FEW_ROWS: Final = 1000  # of a calibration curve
_FEW_SUBJECTS: Final = 50


@dataclass(frozen=True, slots=True)
class Scored:
    """A model with one number."""

    model: str
    value: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number with its 95 % interval, NaN where it is not defined."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """The numbers of a model that are named with their intervals."""

    model: str
    loss: Bounds
    auc_vertebra: Bounds
    auc_overall: Bounds

    @classmethod
    def of(cls, c: Comparison, model: str) -> "Scores":
        """Read them from the row of a model."""
        row = c.models[c.models["model"] == model].iloc[0]
        columns = ("competition_log_loss", "auc_vertebra", "auc_overall")
        bounds = (Bounds(row[c], row[f"{c}_low"], row[f"{c}_high"]) for c in columns)
        return cls(model, *bounds)


@dataclass(frozen=True, slots=True)
class LockedSet:
    """The locked test set, as far as every model was scored on it."""

    studies: int
    subjects: int
    vertebrae: int
    fractures: int
    fractured_studies: int
    labels: dict[str, tuple[int, int]]  # fractured and intact, by what is labelled

    @classmethod
    def of(cls, c: Comparison) -> "LockedSet":
        """Count it."""
        row = c.models.iloc[0]
        rows = c.rows()[next(iter(c.results))]
        labels = {
            name: (int(rows[what].labels.sum()), int((1 - rows[what].labels).sum()))
            for what, name in (("vertebra", "vertebrae"), ("overall", "whole studies"))
        }
        return cls(
            studies=int(row["test_studies"]),
            subjects=int(row["test_patients"]),
            vertebrae=int(row["test_vertebrae"]),
            fractures=int(row["test_fractures"]),
            fractured_studies=int(row["test_fractured_studies"]),
            labels=labels,
        )

    @property
    def is_small(self) -> bool:
        """Say whether every number of it is uncertain."""
        _, intact = self.labels["whole studies"]
        few = min(self.fractures, self.fractured_studies, intact) < _FEW_POSITIVES
        return self.subjects < _FEW_SUBJECTS or few


@dataclass(frozen=True, slots=True)
class Contest:
    """The best model by a metric, and which others are worse by more than chance."""

    metric: str
    best: str
    worse: list[str]
    alike: list[str]


@dataclass(frozen=True, slots=True)
class Hits:
    """How many fractured ones are found, with how many false alarms."""

    hits: int
    fractured: int
    alarms: int
    intact: int


@dataclass(frozen=True, slots=True)
class Lowest:
    """The lowest validation loss of a model, and where it was."""

    model: str
    loss: float
    epoch: int
    last_epoch: int
    fold: int | None  # ``None`` where there is one fold only


def epochs_table(c: Comparison) -> pd.DataFrame:
    """Return the epochs of all models and folds, one row each."""
    parts = [
        fold.epochs.assign(model=model, fold=fold.fold)
        for model, folds in c.results.items()
        for fold in folds
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["model", "fold", *table.columns.drop(["model", "fold"])]]


def score_facts(c: Comparison, bins: pd.DataFrame) -> dict[str, object]:
    """Return what the sentences on scores speak of.

    Args:
        c: The comparison.
        bins: Calibration curve of each model.
    """
    losses = c.models.set_index("model")["competition_log_loss"]
    references = c.references.set_index("reference")["competition_log_loss"]
    areas = _ranked(c, "auc_vertebra", is_up_good=True)
    levels = c.levels[c.levels["model"] == c.best]
    few = levels[levels["positives"] < _FEW_POSITIVES]
    of_best = bins[(bins["model"] == c.best) & (bins["low"] == 0)]
    return {
        "test": LockedSet.of(c),
        "best": c.best and Scores.of(c, c.best),
        "largest": Scores.of(c, areas[0].model) if areas else None,
        "prevalence": float(references[PREVALENCE]),
        "even": float(references[EVEN]),
        "better": losses.index[losses < references[PREVALENCE]].tolist(),
        "worse": losses.index[~(losses < references[PREVALENCE])].tolist(),
        "contests": _contests(c),
        "significant": SIGNIFICANT,
        "auc_vertebra": areas,
        "auc_overall": _ranked(c, "auc_overall", is_up_good=True),
        "pr_auc": _ranked(c, "pr_auc", is_up_good=True),
        "ece": _ranked(c, "ece", is_up_good=False),
        "few_rows": _FEW_ROWS,
        "lowest_bin": next(of_best.itertuples(), None),
        "level_ends": Extremes.of(levels["level"], levels["auc"].round(3)),
        "few_positives": _FEW_POSITIVES,
        "rare_levels": [f"{row.level} ({row.positives})" for row in few.itertuples()],
        "not_assessed": int(levels["not_assessed"].sum()),
        "vertebra_hits": c.best and _hits_of(c, c.best, "vertebra"),
        "study_hits": c.best and _hits_of(c, c.best, "overall"),
        "claimed": CLAIMED,
        "told_answers": list(
            c.answers[c.answers["of"] == "vertebra"]
            .sort_values("model", key=lambda names: names != c.best, kind="stable")
            .head(1)
            .itertuples()
        ),
        "without_threshold": [
            f"{model} ({'vertebrae' if what == 'vertebra' else 'studies'})"
            for model, folds in c.results.items()
            for what in WHATS
            if any(fold.card.thresholds[what].is_default for fold in folds)
        ],
    }


def training_facts(c: Comparison, epochs: pd.DataFrame) -> dict[str, object]:
    """Return what the sentences on training speak of."""
    lowest = _lowest_losses(epochs)
    return {
        "groups": _by_weights(c),
        "costs": _ranked(c, "ms_per_study", is_up_good=False),
        "lowest": lowest,
        "gap": _largest_gap(epochs) if lowest else None,
        "has_epochs": len(epochs) > 0,
        "single": [model for model, folds in c.results.items() if len(folds) == 1],
        "folds": sorted({str(fold) for fold in c.folds["fold"]}),
        "several": list(c.folds_summary.query("folds > 1").itertuples()),
    }


def unseen_facts(
    c: Comparison, true: pd.DataFrame, predicted: Mapping[str, pd.DataFrame]
) -> dict[str, object]:
    """Count the vertebrae of drawn studies that the best model puts at its threshold.

    Args:
        c: The comparison.
        true: The true labels, one row per study.
        predicted: Probabilities of the same studies by each model.
    """
    facts: dict[str, object] = {"unseen": len(true)}
    if c.best is None or true.empty:
        return facts
    levels, threshold = list(LEVEL_NAMES), mean_threshold(c.results[c.best], "vertebra")
    truth = true[levels].astype("Float64").to_numpy(dtype=float, na_value=math.nan)
    told = predicted[c.best][levels].to_numpy(dtype=float)
    is_above = told >= threshold  # never where it was not assessed
    fractured, intact = truth == 1, truth == 0
    counts = (is_above & fractured, fractured, is_above & intact, intact)
    marked = Hits(*(int(each.sum()) for each in counts))
    without = int(np.isnan(told).sum())
    return {**facts, "threshold": threshold, "marked": marked, "untold": without}


def _ranked(c: Comparison, column: str, *, is_up_good: bool) -> list[Scored]:
    """Return the models that have a number, from best to worst."""
    table = c.models[c.models[column].notna()]
    rows = table.sort_values(column, ascending=not is_up_good, kind="stable")
    return [Scored(*row) for row in zip(rows["model"], rows[column], strict=True)]


def _contests(c: Comparison) -> list[Contest]:
    """Return one contest per metric."""
    names = {"competition_log_loss": "competition log loss", "auc_vertebra": "AUC"}
    results = []
    for metric, part in c.differences.groupby("metric", sort=False):
        is_sure = part["p_holm"] < SIGNIFICANT
        worse, alike = (part["model"][rows].tolist() for rows in (is_sure, ~is_sure))
        results.append(Contest(names[str(metric)], part["best"].iloc[0], worse, alike))
    return results


def _hits_of(c: Comparison, model: str, what: str) -> Hits:
    """Read the four counts of a model."""
    is_row = (c.confusion["model"] == model) & (c.confusion["of"] == what)
    row = c.confusion[is_row].iloc[0]
    hits, alarms = int(row["true_positives"]), int(row["false_positives"])
    fractured = hits + int(row["false_negatives"])
    return Hits(hits, fractured, alarms, alarms + int(row["true_negatives"]))


def _lowest_losses(epochs: pd.DataFrame) -> list[Lowest]:
    """Return the lowest validation loss of each model that recorded its epochs."""
    rows: list[Lowest] = []
    if "val_loss" not in epochs:
        return rows
    for model, part in epochs.groupby("model", sort=False):
        if part["val_loss"].notna().any():
            row = part.sort_values("val_loss", kind="stable").iloc[0]
            last = int(part["epoch"][part["fold"] == row["fold"]].max())
            fold = int(row["fold"]) if part["fold"].nunique() > 1 else None
            rows.append(
                Lowest(str(model), row["val_loss"], int(row["epoch"]), last, fold)
            )
    return rows


def _largest_gap(epochs: pd.DataFrame) -> Scored | None:
    """Return who has the largest gap of accuracy to validation at the last epoch."""
    recorded = epochs[epochs["val_loss"].notna()].sort_values("epoch")
    ends = recorded.groupby(["model", "fold"], sort=False).tail(1)
    gaps = (ends["accuracy"] - ends["val_accuracy"]).groupby(ends["model"]).mean()
    # In the order of the models: of equal gaps the first is told.
    gaps = gaps.reindex(epochs["model"].unique()).dropna()
    return None if gaps.empty else Scored(str(gaps.idxmax()), float(gaps.max()))


def _by_weights(c: Comparison) -> dict[str, list[str]]:
    """Return the models by what they started from; ``whole``: trained throughout."""
    groups: dict[str, list[str]] = {}
    for model, weights in zip(c.models["model"], c.models["weights"], strict=True):
        is_whole = not has_backbone(model) and weights == "none"
        groups.setdefault("whole" if is_whole else weights, []).append(model)
    return groups
