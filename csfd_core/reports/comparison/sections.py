"""The sections of the report on a comparison."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import pandas as pd

from csfd_core.classification.ensemble_predictions import (
    WHATS,
    predicted_table,
    true_table,
    unseen_studies,
)
from csfd_core.classification.score_tables import (
    EVEN,
    PREVALENCE,
    mean_threshold,
    ranking,
)
from csfd_core.reports.comparison import charts, score_charts
from csfd_core.reports.comparison.differences import SIGNIFICANT
from csfd_core.reports.comparison.examples import Example, plot_examples
from csfd_core.reports.comparison.facts import (
    FEW_POSITIVES,
    Hits,
    Scores,
    TestSet,
    by_weights,
    contests,
    epochs_table,
    hits_of,
    largest_gap,
    lowest_losses,
    ranked,
)
from csfd_core.reports.comparison.literature import literature_table
from csfd_core.reports.comparison.styles import STAR
from csfd_core.reports.comparison.summary import Comparison
from csfd_core.reports.extremes import Extremes
from csfd_core.reports.page import Section, Table
from csfd_core.text import Prose, count
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

LITERATURE: Final = "What the literature reports (measured elsewhere, on other data)"
_SHOWN: Final = (
    "model", "weights", "folds", "competition_log_loss", "auc_vertebra", "auc_overall",
    "f1", "sensitivity", "specificity", "pr_auc", "brier", "ece",
)  # fmt: skip
_COSTS: Final = (
    "model", "weights", "folds", "parameters", "disk_mb", "train_s", "ms_per_study",
)  # fmt: skip
_BASIC: Final = "basic_cnn"  # has no pretrained form; every layer of it is trained
_FEW_ROWS: Final = 1000  # of a calibration curve

_say: Final = Prose(
    "csfd_core.reports",
    "comparison",
    star=STAR,
    significant=SIGNIFICANT,
    few_rows=_FEW_ROWS,
    few_positives=FEW_POSITIVES,
)


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
    first = ranked(c, "auc_vertebra", is_up_good=True)[:1]
    return Section(
        key="models",
        title="The models",
        sentence=_say(
            "models",
            c=c,
            test=TestSet.of(c),
            best=None if c.best is None else Scores.of(c, c.best),
            largest=Scores.of(c, first[0].model) if first else None,
            prevalence_loss=_loss_of(c, PREVALENCE),
        ),
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
        sentence=_say("differences", c=c, contests=contests(c)),
        tables=_if_any("differences", title, c.differences, is_open=True),
    )


def _references(c: Comparison) -> Section:
    prevalence, even = _loss_of(c, PREVALENCE), _loss_of(c, EVEN)
    scores = c.models.set_index("model")["competition_log_loss"]
    is_better = scores < prevalence
    return Section(
        key="references",
        title="What a model must beat",
        sentence=_say(
            "references",
            prevalence=prevalence,
            even=even,
            better=scores.index[is_better].tolist(),
            worse=scores.index[~is_better].tolist(),
        ),
        tables=_if_any("references", "Reference losses", c.references, is_open=True),
    )


def _loss_of(c: Comparison, reference: str) -> float:
    losses = c.references.set_index("reference")["competition_log_loss"]
    return float(losses[reference])


def _start(c: Comparison) -> Section:
    return Section(
        key="start",
        title="What the models start from, and what they cost",
        sentence=_say(
            "start",
            groups=by_weights(c, _BASIC),
            costs=ranked(c, "ms_per_study", is_up_good=False),
        ),
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
    epochs = epochs_table(c)
    lowest = lowest_losses(epochs)
    histories = {m: [fold.epochs for fold in folds] for m, folds in c.results.items()}
    return Section(
        key="curves",
        title="Loss and accuracy in training",
        sentence=_say(
            "curves",
            lowest=lowest,
            gap=largest_gap(epochs) if lowest else None,
            has_epochs=len(epochs) > 0,
            test=TestSet.of(c),
        ),
        figure=charts.plot_curves(histories) if len(epochs) else None,
        tables=_if_any("epochs", "Epochs", epochs),
    )


def _roc(c: Comparison) -> Section:
    vertebra = ranked(c, "auc_vertebra", is_up_good=True)
    overall = ranked(c, "auc_overall", is_up_good=True)
    return Section(
        key="roc",
        title="ROC curves",
        sentence=_say("roc", vertebra=vertebra, overall=overall),
        figure=charts.plot_roc(c.rows()) if vertebra or overall else None,
    )


def _precision(c: Comparison) -> Section:
    is_defined = c.models[["auc_vertebra", "auc_overall"]].notna().to_numpy().any()
    scores = ranked(c, "pr_auc", is_up_good=True)
    return Section(
        key="precision",
        title="Precision and sensitivity",
        sentence=_say("precision", scores=scores, test=TestSet.of(c)),
        figure=charts.plot_precision(c.rows()) if is_defined else None,
    )


def _calibration(c: Comparison) -> Section:
    bins = calibration_table(c)
    of_best = bins[(bins["model"] == c.best) & (bins["low"] == 0)]
    return Section(
        key="calibration",
        title="Do probabilities mean what they say?",
        sentence=_say(
            "calibration",
            c=c,
            scores=ranked(c, "ece", is_up_good=False),
            test=TestSet.of(c),
            lowest_bin=next(of_best.itertuples(), None),
        ),
        figure=charts.plot_calibration(bins) if bins["n"].any() else None,
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
    part = c.levels[c.levels["model"] == c.best]
    few = part[part["positives"] < FEW_POSITIVES]
    rows = int((c.predictions["model"] == c.best).sum())
    return Section(
        key="levels",
        title="Level by level",
        sentence=_say(
            "levels",
            c=c,
            ends=Extremes.of(part["level"], part["auc"].round(3)),
            few=[f"{row.level} ({row.positives})" for row in few.itertuples()],
            hidden=int(part["not_seen"].sum()),
            vertebrae=rows * len(LEVEL_NAMES) // len(LABEL_COLUMNS),
        ),
        figure=None if c.best is None else score_charts.plot_levels(c.levels, c.best),
        tables=_if_any("levels", "Levels", c.levels),
    )


def _confusion(c: Comparison) -> Section:
    default = [
        f"{model} ({'vertebrae' if what == 'vertebra' else 'studies'})"
        for model, folds in c.results.items()
        for what in WHATS
        if any(fold.card["thresholds"][what].get("is_default") for fold in folds)
    ]
    return Section(
        key="confusion",
        title="Right and wrong at the operating point",
        sentence=_say(
            "confusion",
            c=c,
            vertebra=c.best and hits_of(c, c.best, "vertebra"),
            study=c.best and hits_of(c, c.best, "overall"),
            default=default,
        ),
        figure=None
        if c.best is None
        else score_charts.plot_confusion(c.confusion, c.best),
        tables=_if_any("confusion", "Counts", c.confusion),
    )


def _folds(c: Comparison) -> Section:
    return Section(
        key="folds",
        title="Fold by fold",
        sentence=_say(
            "folds",
            c=c,
            single=[model for model, folds in c.results.items() if len(folds) == 1],
            folds=sorted({str(fold) for fold in c.folds["fold"]}),
            several=list(c.folds_summary.query("folds > 1").itertuples()),
        ),
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
    kinds = Counter(example.kind for example in examples)
    return Section(
        key="examples",
        title="Hits, misses and false alarms",
        sentence=_say("examples", counts=[count(n, kind) for kind, n in kinds.items()]),
        figure=plot_examples(examples) if examples else None,
        is_picture=True,
    )


def _unseen(c: Comparison) -> Section:
    key, title = "unseen", "Unseen studies, one by one"
    study_uids = unseen_studies(c.predictions["study_uid"].astype(str))
    if not study_uids:
        return Section(key=key, title=title, sentence=_say(key, studies=0))
    true = true_table(c.predictions, study_uids)
    predicted = predicted_table(c.predictions, study_uids)
    by_model = {
        str(model): part for model, part in predicted.groupby("model", sort=False)
    }
    threshold = 0.5 if c.best is None else mean_threshold(c.results[c.best], "vertebra")
    marked = None if c.best is None else _marked(true, by_model[c.best], threshold)
    return Section(
        key=key,
        title=title,
        sentence=_say(key, c=c, studies=len(true), marked=marked, threshold=threshold),
        figure=score_charts.plot_studies(true, by_model),
        tables=(
            Table(name="true_labels", title="True labels", frame=true, is_open=True),
            Table(
                name="predicted_probabilities",
                title="Predicted probabilities",
                frame=predicted,
                is_open=True,
            ),
        ),
    )


def _marked(true: pd.DataFrame, predicted: pd.DataFrame, threshold: float) -> Hits:
    """Count the vertebrae that a model puts at or above a threshold."""
    levels = list(LEVEL_NAMES)
    truth = true[levels].astype("Float64").to_numpy(dtype=float, na_value=math.nan)
    is_above = predicted[levels].to_numpy(dtype=float) >= threshold
    fractured, intact = truth == 1, truth == 0
    counts = (is_above & fractured, fractured, is_above & intact, intact)
    return Hits(*(int(each.sum()) for each in counts))


def _literature(c: Comparison) -> Section:
    return Section(
        key="literature",
        title=LITERATURE,
        sentence=_say("literature", c=c),
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
