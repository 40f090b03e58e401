"""The tables of a comparison, all of the locked test set unless a column says else.

``*_low`` and ``*_high`` are 95 % intervals by a bootstrap over patients. What the
labels do not define is NaN. Thresholds were chosen on validation studies.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.card import WHATS, What
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.ensemble_predictions import (
    Results,
    Rows,
    StudyRows,
    labelled_rows,
    predictions_on_test_set,
    rows_of,
    studies_of,
    to_study_rows,
)
from csfd_core.classification.probabilities import ensemble_threshold
from csfd_core.evaluation.bootstrap import (
    REPEATS,
    Interval,
    patient_bootstrap,
)
from csfd_core.evaluation.bootstrap import Rows as Draw
from csfd_core.evaluation.calibration import overall_from_levels
from csfd_core.evaluation.conformal import CLAIMED, Answer, joined
from csfd_core.evaluation.metrics import (
    auroc,
    competition_log_loss,
    rank_auc,
    score_binary,
    study_log_losses,
)
from csfd_core.learning.splits import Split
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL

MODEL_COLUMNS: Final = (
    "model", "folds", "weights", "competition_log_loss", "auc_vertebra", "auc_overall",
    "f1", "sensitivity", "specificity", "pr_auc", "accuracy", "brier", "ece",
    "f1_overall", "sensitivity_overall", "specificity_overall",
    "competition_log_loss_low", "competition_log_loss_high", "auc_vertebra_low",
    "auc_vertebra_high", "auc_overall_low", "auc_overall_high", "threshold_vertebra",
    "threshold_overall", "parameters", "disk_mb", "train_s", "ms_per_study",
    "test_studies", "test_patients", "test_vertebrae", "test_fractures",
    "test_fractured_studies",
)  # fmt: skip
ANSWER_COLUMNS: Final = (
    "model", "of", "claimed", "fractured", "fractured_right", "whole", "whole_right",
    "undecided",
)  # fmt: skip
FOLD_SCORES: Final = ("log_loss", "auc_vertebra", "auc_overall")
PREVALENCE: Final = "prevalence"
EVEN: Final = "even odds"
_NOTHING: Final = Interval(
    estimate=float("nan"), low=float("nan"), high=float("nan"), draws=0, undefined=0
)
Statistic = Callable[[Draw], float]


def models_table(results: Results, repeats: int = REPEATS) -> pd.DataFrame:
    """Return ``models.csv``: one row per model, scored as the ensemble of its folds.

    ``parameters``, ``disk_mb``, ``train_s`` and ``ms_per_study`` are of one fold's
    network, the mean over folds; using the ensemble costs ``folds`` times as much.
    """
    predictions = predictions_on_test_set(results)
    rows = [
        _model_row(model, folds, predictions, repeats)
        for model, folds in results.items()
        if folds
    ]
    return pd.DataFrame(rows, columns=list(MODEL_COLUMNS))


def best_model(table: pd.DataFrame) -> str | None:
    """Return the model with the lowest competition log loss; ``None`` if none has one.

    Of equal losses the larger AUC per vertebra wins, then the name.
    """
    scored = table[table["competition_log_loss"].notna()]
    if scored.empty:
        return None
    ranked = ranking(scored)
    return str(ranked["model"].iloc[0])


def ranking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the models from the best to the worst."""
    return table.sort_values(
        ["competition_log_loss", "auc_vertebra", "model"],
        ascending=[True, False, True],
        ignore_index=True,
    )


def reference_table(results: Results) -> pd.DataFrame:
    """Return the loss of knowing nothing of an image, on the same test studies.

    ``prevalence`` says for every study how often each label was 1 among the training
    studies (mean over all models and folds); ``even odds`` says 0.5.
    """
    predictions = predictions_on_test_set(results)
    models = predictions["model"].unique()
    prevalences = _prevalences(results)
    values = {
        PREVALENCE: [prevalences[name] for name in LABEL_COLUMNS],
        EVEN: [0.5 for _ in LABEL_COLUMNS],
    }
    rows = []
    for name, probabilities in values.items():
        loss = float("nan")
        if len(models) and not np.isnan(probabilities).any():
            labels = studies_of(predictions, models[0]).labels
            said = np.broadcast_to(np.array(probabilities), labels.shape)
            loss = competition_log_loss(labels, said)
        shares = dict(zip(LABEL_COLUMNS, probabilities, strict=True))
        rows.append({"reference": name, "competition_log_loss": loss, **shares})
    return pd.DataFrame(rows)


def levels_table(results: Results) -> pd.DataFrame:
    """Return how well each model does on each level, at its threshold for vertebrae."""
    predictions = predictions_on_test_set(results)
    is_assessed = predictions["is_assessed"].astype(bool)
    rows = []
    for model, folds in results.items():
        threshold = mean_threshold(folds, "vertebra")
        for level in LEVEL_NAMES if folds else ():
            chosen = predictions["model"].eq(model) & predictions["level"].eq(level)
            vertebrae = labelled_rows(predictions[chosen], "vertebra")
            scores = score_binary(vertebrae.labels, vertebrae.probabilities, threshold)
            row = {
                "model": model,
                "level": level,
                "n": scores.n,
                "positives": scores.positives,
                "not_assessed": int((~is_assessed[chosen]).sum()),
                "auc": scores.auroc,
                "sensitivity": scores.sensitivity,
                "specificity": scores.specificity,
                "threshold": threshold,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def confusion_table(results: Results) -> pd.DataFrame:
    """Return the four counts of each model, of vertebrae and of whole studies."""
    predictions = predictions_on_test_set(results)
    rows = []
    for model, folds in results.items():
        for what in WHATS if folds else ():
            threshold = mean_threshold(folds, what)
            labelled = rows_of(predictions, model, what)
            counts = confusion(labelled, threshold)
            rows.append({"model": model, "of": what, "threshold": threshold, **counts})
    return pd.DataFrame(rows)


def confusion(rows: Rows, threshold: float) -> dict[str, int]:
    """Count hits, misses, false alarms and correct rejections."""
    truth, said = rows.labels == 1, rows.probabilities >= threshold
    return {
        "true_positives": int((truth & said).sum()),
        "false_negatives": int((truth & ~said).sum()),
        "false_positives": int((~truth & said).sum()),
        "true_negatives": int((~truth & ~said).sum()),
    }


def answers_table(results: Results) -> pd.DataFrame:
    """Return how often answers are right, against what they claim.

    Of each kind, ``fractured`` and ``whole``: how many there are, and the share whose
    right answer is left open; ``undecided``: the share of which nothing is decided.
    Models with a fold from before there were answers have no row, and
    what was not assessed has no answer.
    """
    predictions = predictions_on_test_set(results)
    assessed = predictions[predictions["is_assessed"].astype(bool)]
    rows = []
    for model, folds in results.items():
        cards = [fold.card for fold in folds]
        for what in WHATS if cards and all(card.bounds for card in cards) else ():
            bounds = joined([card.bounds[what] for card in cards])
            labelled = rows_of(assessed, model, what)
            said = pd.Series(map(bounds.answer, labelled.probabilities), dtype=object)
            is_fractured = labelled.labels == 1
            row = {
                "model": model,
                "of": what,
                "claimed": CLAIMED,
                "fractured": int(is_fractured.sum()),
                "fractured_right": (said[is_fractured] != Answer.WHOLE).mean(),
                "whole": int((~is_fractured).sum()),
                "whole_right": (said[~is_fractured] != Answer.FRACTURED).mean(),
                "undecided": (said == Answer.UNDECIDED).mean(),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=list(ANSWER_COLUMNS))


def folds_table(results: Results) -> pd.DataFrame:
    """Return ``folds.csv``: each fold's network by itself, on all that it scored."""
    rows = []
    for model, folds in results.items():
        for fold in folds:
            row: dict[str, Any] = {"model": model, "fold": fold.fold}
            for group in (Split.VALIDATION, Split.TEST):
                row.update(_group_scores(fold, group))
            rows.append(row)
    return pd.DataFrame(rows)


def folds_summary(folds: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation over folds; NaN deviation of one fold."""
    names = [
        f"{group}_{score}"
        for group in (Split.VALIDATION, Split.TEST)
        for score in FOLD_SCORES
    ]
    rows = []
    for model, part in folds.groupby("model", sort=False):
        row: dict[str, Any] = {"model": model, "folds": len(part)}
        for name in names:
            row[f"{name}_mean"] = part[name].mean()
            row[f"{name}_sd"] = part[name].std(ddof=1)
        rows.append(row)
    return pd.DataFrame(rows)


def mean_threshold(folds: Sequence[FoldResult], what: What) -> float:
    """Return the operating point of an ensemble."""
    return ensemble_threshold([fold.thresholds[what] for fold in folds])


def loss_statistic(studies: StudyRows) -> Statistic:
    """Return the competition's loss as a function of drawn studies."""
    losses = study_log_losses(studies.labels, studies.probabilities)

    def mean_loss(draw: Draw) -> float:
        drawn = losses[draw]
        drawn = drawn[~np.isnan(drawn)]
        return float(drawn.mean()) if drawn.size else float("nan")

    return mean_loss


def auc_statistic(rows: Rows) -> Statistic:
    """Return the area under the ROC curve as a function of drawn rows."""
    labels, probabilities = rows.labels, rows.probabilities
    return lambda draw: rank_auc(labels[draw], probabilities[draw])


def _model_row(
    model: str, folds: Sequence[FoldResult], predictions: pd.DataFrame, repeats: int
) -> dict[str, Any]:
    studies = studies_of(predictions, model)
    by_what = {what: rows_of(predictions, model, what) for what in WHATS}
    intervals = {
        "competition_log_loss": _interval(
            studies.patients, loss_statistic(studies), repeats
        )
    }
    row: dict[str, Any] = {
        "model": model,
        "folds": len(folds),
        "weights": weights_of(folds),
        "test_studies": len(studies.study_uids),
        "test_patients": len(set(studies.patients)),
        "test_vertebrae": by_what["vertebra"].labels.size,
        "test_fractures": int(by_what["vertebra"].labels.sum()),
        "test_fractured_studies": int(by_what["overall"].labels.sum()),
        **_costs(folds),
    }
    for what, rows in by_what.items():
        name = f"auc_{what}"
        intervals[name] = _interval(rows.patients, auc_statistic(rows), repeats)
        row.update(_decisions(rows, mean_threshold(folds, what), what))
    for name, interval in intervals.items():
        row[name] = interval.estimate
        row[f"{name}_low"], row[f"{name}_high"] = interval.low, interval.high
    return row


def _interval(
    patients: npt.NDArray[np.object_], statistic: Statistic, repeats: int
) -> Interval:
    return (
        patient_bootstrap(patients, statistic, repeats) if len(patients) else _NOTHING
    )


def _decisions(rows: Rows, threshold: float, what: What) -> dict[str, float]:
    """Return the scores at a threshold, and those of the probabilities."""
    scores = score_binary(rows.labels, rows.probabilities, threshold)
    tail = "" if what == "vertebra" else "_overall"
    decided = {
        f"f1{tail}": scores.f1_score,
        f"sensitivity{tail}": scores.sensitivity,
        f"specificity{tail}": scores.specificity,
        f"threshold_{what}": threshold,
    }
    if what == "vertebra":
        counts = confusion(rows, threshold)
        right = counts["true_positives"] + counts["true_negatives"]
        decided |= {
            "pr_auc": scores.average_precision,
            "accuracy": right / scores.n if scores.n else float("nan"),
            "brier": scores.brier_loss,
            "ece": scores.calibration_error,
        }
    return decided


def weights_of(folds: Sequence[FoldResult]) -> str:
    """Say what the backbones of a model started from."""
    return " + ".join(sorted({fold.card.weights for fold in folds}))


def _costs(folds: Sequence[FoldResult]) -> dict[str, float]:
    cards = [fold.card for fold in folds]
    return {
        "parameters": _mean([card.parameters for card in cards]),
        "disk_mb": _mean([card.disk_bytes for card in cards]) / 1e6,
        "train_s": _mean([card.train_s for card in cards]),
        "ms_per_study": _mean([card.ms_per_study for card in cards]),
    }


def _mean(values: Iterable[float | None]) -> float:
    """Return the mean of what is known, NaN where nothing is."""
    defined = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _prevalences(results: Results) -> dict[str, float]:
    """Return the share of each label among training studies, NaN where unknown."""
    shares = [fold.card.prevalence for folds in results.values() for fold in folds]
    means = {
        name: _mean(of_fold.get(name) for of_fold in shares) for name in LABEL_COLUMNS
    }
    if np.isnan(means[OVERALL]):  # the card may know of levels only
        levels = np.array([[means[name] for name in LEVEL_NAMES]])
        means[OVERALL] = float(overall_from_levels(levels)[0])
    return means


def _group_scores(fold: FoldResult, group: str) -> dict[str, float]:
    frame = fold.predictions[fold.predictions["group"] == group]
    studies = to_study_rows(frame)
    scores: dict[str, float] = {
        f"{group}_studies": len(studies.study_uids),
        f"{group}_log_loss": competition_log_loss(studies.labels, studies.probabilities)
        if len(studies.study_uids)
        else float("nan"),
    }
    for what in WHATS:
        rows = labelled_rows(frame, what)
        scores[f"{group}_auc_{what}"] = auroc(rows.labels, rows.probabilities)
    return scores
