"""The report on the segmentation: how well, where it fails, what it looks like.

One report for all folds that were trained: each study is scored by a model that has not
seen it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from csfd_core.data_kind import DataKind
from csfd_core.evaluation.bootstrap import Interval
from csfd_core.reports.page import Page, Section, Table, Written, to_csv, write_page
from csfd_core.reports.segmentation.figures import (
    Example,
    plot_curves,
    plot_distances,
    plot_examples,
    plot_levels,
    plot_studies,
)
from csfd_core.reports.segmentation.measure import (
    LEVEL_COLUMNS,
    TEST,
    VALIDATION,
    Scores,
)
from csfd_core.store.locations import Location
from csfd_core.vocabulary import FOLD_COUNT

STUDIES_CSV: Final = "studies.csv"
_NOTHING: Final = "Nothing could be scored."
_SCORE_DIGITS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a report is about."""

    scores: Scores  # of studies that the models have not seen
    models: Mapping[int, Mapping[str, Any]]  # facts as kept with each model, by fold
    data_kind: DataKind
    left_out: int = 0  # unseen studies with a mask that were not scored, to save time


def write_report(
    location: Location, reported: Reported, examples: Sequence[Example]
) -> Written:
    """Write the page, its figures and tables, and ``studies.csv`` beside it."""
    levels = reported.scores.levels[list(LEVEL_COLUMNS)]
    location.write(STUDIES_CSV, to_csv(levels))
    return write_page(location, build_report(reported, examples))


def build_report(reported: Reported, examples: Sequence[Example]) -> Page:
    """Put the report together.

    Args:
        reported: Models and their scores.
        examples: Best, median and worst study.
    """
    scores = reported.scores
    return Page(
        title="Segmentation of C1 to C7",
        banner=reported.data_kind.banner,
        facts=_facts(reported),
        sections=(
            _overlap(reported),
            _studies(scores),
            _distances(scores),
            _curves(reported),
            _looks(examples),
        ),
    )


def _facts(reported: Reported) -> tuple[tuple[str, str], ...]:
    models = reported.models
    facts = [models[fold] for fold in sorted(models)]
    counts = [len(own.get("training_studies", {})) for own in facts]
    low, high = min(counts), max(counts)
    scored = str(len(reported.scores.studies))
    if reported.left_out:
        scored += f" of {len(reported.scores.studies) + reported.left_out}"
    numbers = ", ".join(str(fold) for fold in sorted(models))
    seconds = sum(float(own.get("seconds", 0)) for own in facts)
    return (
        ("models", ", ".join(str(own.get("model_id")) for own in facts)),
        ("folds trained", f"{len(models)} of {FOLD_COUNT}: {numbers}"),
        ("started from", ", ".join(sorted({str(own.get("initial")) for own in facts}))),
        ("studies trained on", str(low) if low == high else f"{low} to {high} a fold"),
        ("studies scored, unseen", scored),
        ("seconds of training", f"{seconds:g}"),
    )


def _overlap(reported: Reported) -> Section:
    scores = reported.scores
    if scores.levels.empty:
        return Section(key="levels", title="Overlap per level", sentence=_NOTHING)
    worst = scores.worst_level
    assert worst is not None
    sentence = (
        f"Mean Dice {_score(scores.interval('dice'))} over {_studies_of(scores)} at "
        f"full resolution. The worst level, {worst}, reaches "
        f"{_score(scores.interval('dice', worst))}; "
        f"{_share(scores.swap_rate())} of the vertebrae carry another level's label. "
        f"In brackets: 95 % intervals over studies. {_who_scored(reported)}"
    )
    by_level = scores.by_level()
    return Section(
        key="levels",
        title="Overlap per level",
        sentence=sentence,
        figure=plot_levels(by_level),
        tables=(
            Table(name="levels", title="Mean per level, 95 % interval", frame=by_level),
            Table(name="folds", title="Mean per model", frame=_folds(reported)),
        ),
    )


def _who_scored(reported: Reported) -> str:
    """Say which model has scored which studies."""
    groups = reported.scores.studies["group"].value_counts()
    held_out, locked = int(groups.get(VALIDATION, 0)), int(groups.get(TEST, 0))
    folds = sorted(reported.models)
    if len(folds) == 1:
        return (
            f"One fold was trained, fold {folds[0]}: scored are its {held_out} "
            f"held-out and {locked} locked test studies."
        )
    return (
        f"{len(folds)} folds were trained: each of {held_out} held-out studies was "
        f"scored by the model of its fold, which has not seen it, and {locked} locked "
        f"test studies by that of fold {folds[0]}."
    )


def _folds(reported: Reported) -> pd.DataFrame:
    """Return the scores of each model beside how its training went."""
    frame = reported.scores.by_fold()
    told = {
        fold: {
            "model": str(facts.get("model_id")),
            "training_studies": len(facts.get("training_studies", {})),
            "epochs": len(facts.get("history", [])),
            "kept_epoch": int(facts.get("best_epoch", 0)),
        }
        for fold, facts in reported.models.items()
    }
    for name in ("kept_epoch", "epochs", "training_studies", "model"):
        frame.insert(1, name, [told[int(fold)][name] for fold in frame["fold"]])
    return frame


def _studies(scores: Scores) -> Section:
    frame = scores.studies.sort_values(["dice", "study_uid"], ignore_index=True)
    times = frame["seconds"]
    sentence = _NOTHING
    if len(frame):
        sentence = (
            f"The worst study reaches {frame['dice'].iloc[0]:.3f}, the median one "
            f"{frame['dice'].median():.3f}. Predicting one took {times.mean():.1f} s "
            f"on average, {times.max():.1f} s at most."
        )
    return Section(
        key="studies",
        title="Overlap per study",
        sentence=sentence,
        figure=plot_studies(frame) if len(frame) else None,
        tables=(
            Table(name="studies", title="Mean per study, worst first", frame=frame),
        ),
    )


def _distances(scores: Scores) -> Section:
    title = "Distance of surfaces"
    frame = scores.distances()
    if not frame["studies"].sum():
        return Section(key="distances", title=title, sentence=_NOTHING)
    average = scores.interval("surface_distance_mm")
    hd95 = scores.interval("hd95_mm")
    sentence = (
        f"Surfaces lie {_score(average, 2)} mm apart on average; the 95th percentile "
        f"Hausdorff distance is {_score(hd95, 2)} mm."
    )
    if missed := int(frame["in_one_mask_only"].sum()):
        sentence += (
            " In one mask only, and so without a distance: "
            f"{missed} of {len(scores.levels)} vertebrae."
        )
    return Section(
        key="distances",
        title=title,
        sentence=sentence,
        figure=plot_distances(frame),
        tables=(
            Table(
                name="distances",
                title="Mean distances per level in mm, 95 % interval",
                frame=frame,
            ),
        ),
    )


def _curves(reported: Reported) -> Section:
    history = _history(reported.models)
    title = "Learning curves"
    if history.empty:
        return Section(
            key="curves",
            title=title,
            sentence="The model is the one that comes with csfd; nothing was trained.",
        )
    told = [
        _told(fold, facts, with_name=len(reported.models) > 1)
        for fold, facts in sorted(reported.models.items())
    ]
    kept = {
        fold: int(facts.get("best_epoch", 0)) for fold, facts in reported.models.items()
    }
    return Section(
        key="curves",
        title=title,
        sentence=" ".join(told),
        figure=plot_curves(history, kept),
        tables=(Table(name="epochs", title="Epochs", frame=history),),
    )


def _told(fold: int, facts: Mapping[str, Any], *, with_name: bool) -> str:
    """Say in one sentence how a training went."""
    start = f"Fold {fold}: " if with_name else ""
    frame = pd.DataFrame(facts.get("history", []))
    if frame.empty:
        return f"{start}nothing was trained."
    planned = int(facts.get("training", {}).get("epochs", len(frame)))
    is_early = len(frame) < planned
    done = f"{len(frame)} of {planned} epochs" if is_early else f"{planned} epochs"
    best = frame["validation_dice"].max()
    found = "there was no study to validate on"
    if not math.isnan(best):
        found = (
            f"the weights of epoch {facts.get('best_epoch', 0)} were kept, with the "
            f"best validation Dice on the network's grid, {best:.3f}"
        )
    seconds = frame["seconds"].sum()
    early = ", stopped early" if is_early else ""
    return f"{start}{done} in {seconds:.0f} s{early}; {found}."


def _history(models: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the epochs of all trainings, one row each."""
    rows = [
        {"fold": fold, **row}
        for fold, facts in sorted(models.items())
        for row in facts.get("history", [])
    ]
    return pd.DataFrame(rows)


def _looks(examples: Sequence[Example]) -> Section:
    return Section(
        key="examples",
        title="Best, median and worst study",
        sentence="Predicted (left) and given (right) vertebrae on a sagittal plane."
        if examples
        else _NOTHING,
        figure=plot_examples(examples) if examples else None,
        is_picture=True,
    )


def _studies_of(scores: Scores) -> str:
    count = len(scores.studies)
    return "1 unseen study" if count == 1 else f"{count} unseen studies"


def _score(found: Interval, digits: int = _SCORE_DIGITS) -> str:
    text = f"{found.estimate:.{digits}f}"
    if math.isnan(found.low):
        return f"{text} (no interval from one study)"
    return f"{text} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _share(found: Interval) -> str:
    text = f"{100 * found.estimate:.1f} %"
    if math.isnan(found.low):
        return f"{text} (no interval from one study)"
    return f"{text} ({100 * found.low:.1f} to {100 * found.high:.1f} %)"
