"""The sections of the report on a comparison."""

from collections.abc import Sequence
from typing import Final

import pandas as pd

from csfd_core.classification.ensemble_predictions import (
    predicted_table,
    true_table,
    unseen_studies,
)
from csfd_core.classification.score_tables import ranking
from csfd_core.reports.comparison import (
    charts,
    score_charts,
    sentences,
    training_sentences,
)
from csfd_core.reports.comparison.examples import Example, plot_examples
from csfd_core.reports.comparison.literature import literature_table
from csfd_core.reports.comparison.styles import STAR
from csfd_core.reports.comparison.summary import Comparison
from csfd_core.reports.page import Section, Table

LITERATURE: Final = "What the literature reports (measured elsewhere, on other data)"
_SHOWN: Final = (
    "model", "weights", "folds", "competition_log_loss", "auc_vertebra", "auc_overall",
    "f1", "sensitivity", "specificity", "pr_auc", "brier", "ece",
)  # fmt: skip
_COSTS: Final = (
    "model", "weights", "folds", "parameters", "disk_mb", "train_s", "ms_per_study",
)  # fmt: skip


def build_sections(c: Comparison, examples: Sequence[Example]) -> tuple[Section, ...]:
    """Build all sections."""
    return (
        _models(c),
        _differences(c),
        _references(c),
        _start(c),
        _curves(c),
        _roc(c),
        _precision(c),
        _calibration(c),
        _levels(c),
        _confusion(c),
        _folds(c),
        _examples(examples),
        _unseen(c),
        _literature(c),
    )


def shown_table(c: Comparison) -> pd.DataFrame:
    """Return the models from best to worst, the best one marked by a word."""
    table = ranking(c.models)[list(_SHOWN)]
    marks = [
        f"{STAR}\N{NO-BREAK SPACE}best" if model == c.best else ""
        for model in table["model"]
    ]
    table.insert(0, "rank", marks)
    return table


def _models(c: Comparison) -> Section:
    return Section(
        key="models",
        title="The models",
        sentence=sentences.say_models(c),
        figure=None
        if c.best is None
        else charts.plot_models(ranking(c.models), c.references, c.best),
        tables=(
            Table(
                name="ranking",
                title=f"Models, {STAR} marks the best",
                frame=shown_table(c),
                is_open=True,
            ),
            Table(name="models", title="All numbers, with intervals", frame=c.models),
        ),
    )


def _differences(c: Comparison) -> Section:
    title = "Each model minus the best"
    return Section(
        key="differences",
        title="Is the best better by more than chance?",
        sentence=sentences.say_differences(c),
        tables=_if_any("differences", title, c.differences, is_open=True),
    )


def _references(c: Comparison) -> Section:
    return Section(
        key="references",
        title="What a model must beat",
        sentence=sentences.say_references(c),
        tables=_if_any("references", "Reference losses", c.references, is_open=True),
    )


def _start(c: Comparison) -> Section:
    return Section(
        key="start",
        title="What the models start from, and what they cost",
        sentence=training_sentences.say_start(c),
        tables=(
            Table(
                name="costs",
                title="Of one fold's network",
                frame=c.models[list(_COSTS)],
                is_open=True,
            ),
        ),
    )


def _curves(c: Comparison) -> Section:
    epochs = training_sentences.epochs_table(c)
    known = len(epochs) > 0
    sentence = training_sentences.say_curves(epochs)
    return Section(
        key="curves",
        title="Loss and accuracy in training",
        sentence=sentence + training_sentences.say_accuracy(c) if known else sentence,
        figure=charts.plot_curves(training_sentences.histories_of(c))
        if known
        else None,
        tables=_if_any("epochs", "Epochs", epochs),
    )


def _roc(c: Comparison) -> Section:
    known = c.models[["auc_vertebra", "auc_overall"]].notna().to_numpy().any()
    return Section(
        key="roc",
        title="ROC curves",
        sentence=sentences.say_roc(c),
        figure=charts.plot_roc(c.rows()) if known else None,
    )


def _precision(c: Comparison) -> Section:
    known = c.models[["auc_vertebra", "auc_overall"]].notna().to_numpy().any()
    return Section(
        key="precision",
        title="Precision and sensitivity",
        sentence=sentences.say_precision(c),
        figure=charts.plot_precision(c.rows()) if known else None,
    )


def _calibration(c: Comparison) -> Section:
    bins = calibration_table(c)
    known = bool(bins["n"].any())
    return Section(
        key="calibration",
        title="Do probabilities mean what they say?",
        sentence=sentences.say_calibration(c, bins),
        figure=charts.plot_calibration(bins) if known else None,
        tables=_if_any("calibration", "Bins", bins),
    )


def calibration_table(c: Comparison) -> pd.DataFrame:
    """Return the calibration curve of each model, of vertebrae."""
    parts = [
        charts.reliability(rows["vertebra"]).assign(model=model)
        for model, rows in c.rows().items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *table.columns.drop("model")]]


def _levels(c: Comparison) -> Section:
    return Section(
        key="levels",
        title="Level by level",
        sentence=sentences.say_levels(c),
        figure=None if c.best is None else score_charts.plot_levels(c.levels, c.best),
        tables=_if_any("levels", "Levels", c.levels),
    )


def _confusion(c: Comparison) -> Section:
    return Section(
        key="confusion",
        title="Right and wrong at the operating point",
        sentence=sentences.say_confusion(c),
        figure=None
        if c.best is None
        else score_charts.plot_confusion(c.confusion, c.best),
        tables=_if_any("confusion", "Counts", c.confusion),
    )


def _folds(c: Comparison) -> Section:
    return Section(
        key="folds",
        title="Fold by fold",
        sentence=training_sentences.say_folds(c),
        figure=score_charts.plot_folds(c.folds, c.best),
        tables=(
            Table(name="folds", title="Folds", frame=c.folds),
            Table(
                name="folds_summary",
                title="Mean and standard deviation",
                frame=c.folds_summary,
            ),
        ),
    )


def _examples(examples: Sequence[Example]) -> Section:
    return Section(
        key="examples",
        title="Hits, misses and false alarms",
        sentence=training_sentences.say_examples(examples),
        figure=plot_examples(examples) if examples else None,
        is_picture=True,
    )


def _unseen(c: Comparison) -> Section:
    chosen = unseen_studies(c.predictions["study_uid"].astype(str))
    if not chosen:
        return Section(
            key="unseen",
            title="Unseen studies, one by one",
            sentence=training_sentences.say_unseen(c, pd.DataFrame(), {}),
        )
    true = true_table(c.predictions, chosen)
    said = predicted_table(c.predictions, chosen)
    by_model = {str(model): part for model, part in said.groupby("model", sort=False)}
    return Section(
        key="unseen",
        title="Unseen studies, one by one",
        sentence=training_sentences.say_unseen(c, true, by_model),
        figure=score_charts.plot_studies(true, by_model),
        tables=(
            Table(name="true_labels", title="True labels", frame=true, is_open=True),
            Table(
                name="predicted_probabilities",
                title="Predicted probabilities",
                frame=said,
                is_open=True,
            ),
        ),
    )


def _literature(c: Comparison) -> Section:
    return Section(
        key="literature",
        title=LITERATURE,
        sentence=training_sentences.say_literature(c),
        tables=(
            Table(
                name="literature",
                title="Published numbers, none measured here",
                frame=literature_table(),
                is_open=True,
            ),
        ),
    )


def _if_any(
    name: str, title: str, frame: pd.DataFrame, *, is_open: bool = False
) -> tuple[Table, ...]:
    if frame.empty:
        return ()
    return (Table(name=name, title=title, frame=frame, is_open=is_open),)
