"""The sections of a comparison: titles, figures and tables, and what they say."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import pandas as pd

from csfd_core.classification.assessment import NOT_ASSESSED, rests_on
from csfd_core.classification.classifiers import told_weights
from csfd_core.classification.ensemble_predictions import (
    predicted_table,
    true_table,
    unseen_studies,
)
from csfd_core.classification.score_tables import ranking
from csfd_core.reports.comparison import charts, score_charts
from csfd_core.reports.comparison.examples import Example, plot_examples
from csfd_core.reports.comparison.facts import (
    epochs_table,
    score_facts,
    training_facts,
    unseen_facts,
)
from csfd_core.reports.comparison.literature import literature_table
from csfd_core.reports.comparison.styles import STAR
from csfd_core.reports.comparison.summary import Comparison
from csfd_core.reports.page import Section, Table
from csfd_core.text import Prose
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LITERATURE: Final = "What the literature reports (measured elsewhere, on other data)"
_TITLES: Final = {
    "models": "The models",
    "differences": "Is the best better by more than chance?",
    "references": "What a model must beat",
    "start": "What the models start from, and what they cost",
    "curves": "Loss and accuracy in training",
    "roc": "ROC curves",
    "precision": "Precision and sensitivity",
    "calibration": "Do probabilities mean what they say?",
    "levels": "Level by level",
    "confusion": "Right and wrong at the operating point",
    "answers": "Are answers as certain as they claim?",
    "folds": "Fold by fold",
    "examples": "Hits, misses and false alarms",
    "unseen": "Unseen studies, one by one",
    "literature": LITERATURE,
}
_SHOWN: Final = (
    "model", "weights", "folds", "competition_log_loss", "auc_vertebra", "auc_overall",
    "f1", "sensitivity", "specificity", "pr_auc", "brier", "ece",
)  # fmt: skip
_COSTS: Final = (
    "model", "weights", "folds", "parameters", "disk_mb", "train_s", "ms_per_study",
)  # fmt: skip

_say: Final = Prose("csfd_core.reports", "comparison", star=STAR)


def build_sections(c: Comparison, examples: Sequence[Example]) -> tuple[Section, ...]:
    """Build all sections."""
    true, predicted = _unseen(c)
    bins, epochs = calibration_table(c), epochs_table(c)
    facts = {
        "c": c,
        "example_counts": Counter(example.kind for example in examples),
        **score_facts(c, bins),
        **training_facts(c, epochs),
        **unseen_facts(c, true, predicted),
    }
    figures = _figures(c, bins, epochs)
    if not true.empty:
        figures["unseen"] = score_charts.plot_studies(true, predicted)
    if examples:
        figures["examples"] = plot_examples(examples)
    tables = _tables(c, bins, epochs)
    if not true.empty:
        frame = told_table(pd.concat(predicted.values(), ignore_index=True))
        tables["unseen"] = (
            *_table("true_labels", "True labels", true, is_open=True),
            *_table(
                "predicted_probabilities",
                "Predicted probabilities",
                frame,
                is_open=True,
            ),
        )
    return tuple(
        Section(
            key=key,
            title=title,
            sentence=_say(key, **facts),
            figure=figures.get(key),
            is_picture=key == "examples",
            tables=tables.get(key, ()),
        )
        for key, title in _TITLES.items()
    )


def shown_table(c: Comparison) -> pd.DataFrame:
    """Return the models from best to worst, the best one marked by a word."""
    table = _with_told_weights(ranking(c.models)[list(_SHOWN)])
    marks = [
        f"{STAR}\N{NO-BREAK SPACE}best" if model == c.best else ""
        for model in table["model"]
    ]
    table.insert(0, "rank", marks)
    return table


def _with_told_weights(models: pd.DataFrame) -> pd.DataFrame:
    pairs = zip(models["model"], models["weights"], strict=True)
    return models.assign(weights=[told_weights(*pair) for pair in pairs])


def calibration_table(c: Comparison) -> pd.DataFrame:
    """Return the calibration curve of each model, of vertebrae."""
    parts = [
        charts.reliability(rows["vertebra"]).assign(model=model)
        for model, rows in c.rows().items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *table.columns.drop("model")]]


def told_table(predicted: pd.DataFrame) -> pd.DataFrame:
    """Return probabilities for readers: what was not assessed is told by these words.

    The column ``rests_on`` says what the probability of each study rests on.
    """
    is_assessed = predicted[list(LEVEL_NAMES)].notna()
    texts = [
        rests_on([name for name in LEVEL_NAMES if row[name]])
        for row in is_assessed.to_dict(orient="records")
    ]
    shown = predicted.assign(rests_on=texts)
    for name in LABEL_COLUMNS:
        if shown[name].isna().any():
            numbers = shown[name].map("{:.4g}".format, na_action="ignore")
            shown[name] = numbers.fillna(NOT_ASSESSED)
    return shown


def _figures(
    c: Comparison, bins: pd.DataFrame, epochs: pd.DataFrame
) -> dict[str, "Figure"]:
    """Draw what the data define, by the key of the section."""
    figures = {"folds": score_charts.plot_folds(c.folds, c.best)}
    if c.best is not None:
        figures["models"] = charts.plot_models(ranking(c.models), c.references, c.best)
        figures["levels"] = score_charts.plot_levels(c.levels, c.best)
        figures["confusion"] = score_charts.plot_confusion(c.confusion, c.best)
    if len(epochs):
        figures["curves"] = charts.plot_curves(
            {m: [fold.epochs for fold in folds] for m, folds in c.results.items()}
        )
    if c.models[["auc_vertebra", "auc_overall"]].notna().to_numpy().any():
        figures["roc"] = charts.plot_roc(c.rows())
        figures["precision"] = charts.plot_precision(c.rows())
    if bins["n"].any():
        figures["calibration"] = charts.plot_calibration(bins)
    return figures


def _tables(
    c: Comparison, bins: pd.DataFrame, epochs: pd.DataFrame
) -> dict[str, tuple[Table, ...]]:
    """Return the tables behind the figures, by the key of the section."""
    differences, references = "Each model minus the best", "Reference losses"
    published = "Published numbers, none measured here"
    costs = _with_told_weights(c.models[list(_COSTS)])
    best = f"Models, {STAR} marks the best"
    return {
        "models": (
            *_table("ranking", best, shown_table(c), is_open=True),
            *_table("models", "All numbers, with intervals", c.models),
        ),
        "differences": _table("differences", differences, c.differences, is_open=True),
        "references": _table("references", references, c.references, is_open=True),
        "start": _table("costs", "Of one fold's network", costs, is_open=True),
        "curves": _table("epochs", "Epochs", epochs),
        "calibration": _table("calibration", "Bins", bins),
        "levels": _table("levels", "Levels", c.levels),
        "confusion": _table("confusion", "Counts", c.confusion),
        "answers": _table("answers", "Answers", c.answers, is_open=True),
        "folds": (
            *_table("folds", "Folds", c.folds),
            *_table("folds_summary", "Mean and standard deviation", c.folds_summary),
        ),
        "literature": _table("literature", published, literature_table(), is_open=True),
    }


def _table(
    name: str, title: str, frame: pd.DataFrame, *, is_open: bool = False
) -> tuple[Table, ...]:
    if frame.empty:
        return ()
    return (Table(name=name, title=title, frame=frame, is_open=is_open),)


def _unseen(c: Comparison) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the true labels of the drawn studies, and what each model says of them."""
    study_uids = unseen_studies(c.predictions["study_uid"].astype(str))
    if not study_uids:
        return pd.DataFrame(), {}
    predicted = predicted_table(c.predictions, study_uids)
    by_model = {str(m): part for m, part in predicted.groupby("model", sort=False)}
    return true_table(c.predictions, study_uids), by_model
