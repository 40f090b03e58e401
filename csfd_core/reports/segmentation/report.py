"""The report on the segmentation: how well, where it fails, what it looks like.

One report for all folds that were trained: each study is scored by a model that has not
seen it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from csfd_core.data_kind import DataKind
from csfd_core.learning.splits import Split
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
    Scores,
)
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.store.locations import Location
from csfd_core.text import Prose, join
from csfd_core.vocabulary import FOLD_COUNT

STUDIES_CSV: Final = "studies.csv"

_say: Final = Prose(
    "csfd_core.reports", "segmentation", alone="no interval from one study"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a report is about."""

    scores: Scores  # of studies that the models have not seen
    models: Mapping[int, SegmentationCard]  # by fold
    data_kind: DataKind
    left_out: int = 0  # unseen studies with a mask that were not scored, to save time


@dataclass(frozen=True, slots=True)
class Training:
    """How the training of a fold went."""

    fold: int
    epochs: int
    planned: int
    seconds: float
    best_epoch: int  # whose weights were kept
    best_dice: (
        float  # on the network's grid; NaN where there was nothing to validate on
    )

    @property
    def is_early(self) -> bool:
        """Say whether it was stopped before the planned number of epochs."""
        return self.epochs < self.planned

    @classmethod
    def of(cls, fold: int, card: SegmentationCard) -> "Training":
        """Read it from the card of a model."""
        epochs = len(card.history)
        frame = pd.DataFrame(list(card.history), columns=["seconds", "validation_dice"])
        return cls(
            fold=fold,
            epochs=epochs,
            planned=epochs if card.training is None else card.training.epochs,
            seconds=float(frame["seconds"].sum()),
            best_epoch=card.best_epoch,
            best_dice=float(frame["validation_dice"].max()),
        )


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
    cards = [models[fold] for fold in sorted(models)]
    counts = [len(card.training_studies) for card in cards]
    low, high = min(counts), max(counts)
    scored = str(len(reported.scores.studies))
    if reported.left_out:
        scored += f" of {len(reported.scores.studies) + reported.left_out}"
    numbers = ", ".join(str(fold) for fold in sorted(models))
    seconds = np.nansum([card.seconds for card in cards])
    return (
        ("models", join(card.model_id for card in cards)),
        ("folds trained", f"{len(models)} of {FOLD_COUNT}: {numbers}"),
        ("started from", join(sorted({str(card.initial) for card in cards}))),
        ("studies trained on", str(low) if low == high else f"{low} to {high} a fold"),
        ("studies scored, unseen", scored),
        ("seconds of training", f"{seconds:g}"),
    )


def _overlap(reported: Reported) -> Section:
    scores = reported.scores
    if scores.levels.empty:
        return Section(
            key="levels", title="Overlap per level", sentence=_say("nothing")
        )
    worst = scores.worst_level
    assert worst is not None
    groups = scores.studies["group"].value_counts()
    by_level = scores.by_level()
    return Section(
        key="levels",
        title="Overlap per level",
        sentence=_say(
            "levels",
            dice=scores.interval("dice"),
            studies=len(scores.studies),
            worst=worst,
            worst_dice=scores.interval("dice", worst),
            swaps=scores.swap_rate(),
            folds=sorted(reported.models),
            held_out=int(groups.get(Split.VALIDATION, 0)),
            locked=int(groups.get(Split.TEST, 0)),
        ),
        figure=plot_levels(by_level),
        tables=(
            Table(name="levels", title="Mean per level, 95 % interval", frame=by_level),
            Table(name="folds", title="Mean per model", frame=_folds(reported)),
        ),
    )


def _folds(reported: Reported) -> pd.DataFrame:
    """Return the scores of each model beside how its training went."""
    frame = reported.scores.by_fold()
    columns = {
        fold: {
            "model": card.model_id,
            "training_studies": len(card.training_studies),
            "epochs": len(card.history),
            "kept_epoch": card.best_epoch,
        }
        for fold, card in reported.models.items()
    }
    for name in ("kept_epoch", "epochs", "training_studies", "model"):
        frame.insert(1, name, [columns[int(fold)][name] for fold in frame["fold"]])
    return frame


def _studies(scores: Scores) -> Section:
    frame = scores.studies.sort_values(["dice", "study_uid"], ignore_index=True)
    return Section(
        key="studies",
        title="Overlap per study",
        sentence=_say("studies", dice=frame["dice"], seconds=frame["seconds"])
        if len(frame)
        else _say("nothing"),
        figure=plot_studies(frame) if len(frame) else None,
        tables=(
            Table(name="studies", title="Mean per study, worst first", frame=frame),
        ),
    )


def _distances(scores: Scores) -> Section:
    title = "Distance of surfaces"
    frame = scores.distances()
    if not frame["studies"].sum():
        return Section(key="distances", title=title, sentence=_say("nothing"))
    return Section(
        key="distances",
        title=title,
        sentence=_say(
            "distances",
            average=scores.interval("surface_distance_mm"),
            hd95=scores.interval("hd95_mm"),
            missed=int(frame["in_one_mask_only"].sum()),
            vertebrae=len(scores.levels),
        ),
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
        return Section(key="curves", title=title, sentence=_say("built_in"))
    trainings = [Training.of(*item) for item in sorted(reported.models.items())]
    return Section(
        key="curves",
        title=title,
        sentence=_say("curves", trainings=trainings),
        figure=plot_curves(history, {t.fold: t.best_epoch for t in trainings}),
        tables=(Table(name="epochs", title="Epochs", frame=history),),
    )


def _history(models: Mapping[int, SegmentationCard]) -> pd.DataFrame:
    """Return the epochs of all trainings, one row each."""
    rows = [
        {"fold": fold, **row, "epoch": int(row["epoch"])}
        for fold, card in sorted(models.items())
        for row in card.history
    ]
    return pd.DataFrame(rows)


def _looks(examples: Sequence[Example]) -> Section:
    return Section(
        key="examples",
        title="Best, median and worst study",
        sentence=_say("examples" if examples else "nothing"),
        figure=plot_examples(examples) if examples else None,
        is_picture=True,
    )
