"""What ``csfd`` shows on a terminal: progress over many studies, tables."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from csfd_core.classification.assessment import NOT_ASSESSED, Assessment, rests_on
from csfd_core.classification.classifiers import told_weights
from csfd_core.classification.ensemble import threshold_of
from csfd_core.classification.unlike import Unlike, Verdict
from csfd_core.dicom.findings import Status
from csfd_core.ingest.inspect import InspectedStudy
from csfd_core.reports.page import format_value
from csfd_core.text import count
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

_TEXTS = ("model", "weights")  # columns without numbers
_BESIDE_STUDY = 90  # columns that the numbers of a study take
_TAIL = 10  # digits of a UID, where there is no place for all of it
_PIPED_WIDTH = 160  # a file or pipe has no width of its own
_COLOURS = {
    Status.GOOD: "green",
    Status.WARNING: "yellow",
    Status.QUARANTINED: "red",
}


class _RateColumn(ProgressColumn):
    """Slices per second and bytes so far."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed or 0.0
        slices = task.fields["slices"]
        rate = slices / elapsed if elapsed else 0.0
        return Text(f"{rate:,.0f} slices/s, {decimal(task.fields['size_bytes'])}")


class StudyProgress:
    """A progress bar that counts studies, slices and bytes."""

    def __init__(self, progress: Progress, task: object) -> None:
        """Take the bar of ``study_progress``."""
        self._progress = progress
        self._task = task
        self.studies = 0
        self.slices = 0
        self.size_bytes = 0

    def advance(self, studies: int, slices: int, size_bytes: int) -> None:
        """Count studies that are done, with their slices and bytes."""
        self.studies += studies
        self.slices += slices
        self.size_bytes += size_bytes
        self._progress.update(
            self._task,  # type: ignore[arg-type]  # TaskID is a NewType of rich
            advance=studies,
            slices=self.slices,
            size_bytes=self.size_bytes,
        )


@contextmanager
def study_progress(what: str, total: int) -> Iterator[StudyProgress]:
    """Show a bar on standard error while studies are worked on; silent when piped."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("studies,"),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=False,
    )
    with progress:
        task = progress.add_task(what, total=total, slices=0, size_bytes=0)
        yield StudyProgress(progress, task)


@contextmanager
def byte_progress(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error while bytes come in; silent when piped.

    Yields:
        To be told how many more have come, by any thread.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with progress:
        task = progress.add_task(what, total=total_bytes)
        yield lambda size_bytes: progress.advance(task, size_bytes)


def print_studies(studies: Sequence[InspectedStudy], notes: Sequence[str]) -> None:
    """Print a table of studies, their findings, notes and a count."""
    console = _console()
    console.print(_study_table(studies))
    for study in studies:
        for finding in study.findings:
            console.print(f"{_name(study)} {finding.code}: {finding.reason}")
    for note in notes:
        console.print(f"Note: {note}")
    for study in studies:
        for note in study.notes:
            console.print(f"Note: {_name(study)}: {note}")
    counts = {name: sum(s.status == name for s in studies) for name in _COLOURS}
    counted = ", ".join(f"{number} {name}" for name, number in counts.items())
    console.print(f"{count(len(studies), 'study')}: {counted}.")


def _console() -> Console:
    console = Console(markup=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    return console


def _study_table(studies: Sequence[InspectedStudy]) -> Table:
    table = Table(
        Column("Study", overflow="fold", min_width=24),
        "Slices",
        "Size",
        "Spacing (mm)",
        "Standing",
        Column("Codes", no_wrap=True),
        box=SIMPLE,
    )
    for study in studies:
        facts = study.facts
        spacing = facts["spacing_zyx_mm"]
        table.add_row(
            _name(study),
            str(study.slice_count),
            f"{facts['rows']}x{facts['columns']}" if facts["rows"] else "",
            " x ".join(f"{value:.3g}" for value in spacing) if spacing else "",
            Text(str(study.status), style=_COLOURS[study.status]),
            "\n".join(finding.code for finding in study.findings),
        )
    return table


def _name(study: InspectedStudy) -> str:
    return study.study_uid or study.folder


def print_predictions(
    by_study: Mapping[str, Mapping[str, float | None]],
    thresholds: Mapping[str, float],
    unlike: Mapping[str, Unlike],
) -> None:
    """Print probabilities as a table; those above the operating point are marked.

    A study that is unlike what was learnt is told first, and has no marks: its numbers
    say little.

    Args:
        by_study: Probabilities of each study, by ``patient_overall`` and level; what
            was not assessed has none.
        thresholds: Operating points, ``overall`` and ``vertebra``.
        unlike: How far each study lies from what was learnt.
    """
    if not by_study:
        return
    console = _console()
    foreign = {uid for uid in by_study if uid in unlike and unlike[uid].is_above}
    judged = {uid: Assessment(probabilities=told) for uid, told in by_study.items()}
    has_gaps = any(assessment.not_assessed for assessment in judged.values())
    caption = "* above the operating point of validation"
    if has_gaps:
        caption += f"; – {NOT_ASSESSED}: not found, or hardly in the scan"
    if foreign:
        caption += "; needs eyes: unlike what the classifier has learnt from"
    table = Table(box=SIMPLE, caption=caption)
    if foreign:
        table.add_column("look", no_wrap=True)
    table.add_column("study", overflow="fold")
    for name in LABEL_COLUMNS:
        table.add_column("any" if name == OVERALL else name, justify="right")
    if has_gaps:
        table.add_column("any rests on", no_wrap=True)
    for study_uid, assessment in judged.items():
        cells = []
        for name in LABEL_COLUMNS:
            value = assessment.probabilities[name]
            point = threshold_of(thresholds, name)
            is_above = value is not None and value >= point and study_uid not in foreign
            told = "–" if value is None else f"{value:.2f}"
            cells.append(f"{told}{'*' if is_above else ' '}")
        if has_gaps:
            cells.append(rests_on(assessment.assessed))
        first = [Verdict.NEEDS_EYES if study_uid in foreign else ""] if foreign else []
        is_wide = console.width >= len(study_uid) + _BESIDE_STUDY
        shown = study_uid if is_wide else f"…{study_uid[-_TAIL:]}"
        table.add_row(*first, shown, *cells)
    console.print(table)


def print_models(
    models: pd.DataFrame, data_kind: str, prevalence_loss: float = math.nan
) -> None:
    """Print the table of classifiers, and which data it rests on.

    Args:
        models: As in ``reports/comparison/models.csv``.
        data_kind: phantom, mixed or real.
        prevalence_loss: Log loss of who tells every study the prevalences; NaN: not
            known.
    """
    console = _console()
    names = {
        "model": "model",
        "weights": "weights",
        "competition_log_loss": "log loss",
        "auc_vertebra": "AUC vertebra",
        "auc_overall": "AUC study",
        "f1": "F1",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
        "train_s": "train s",
        "ms_per_study": "ms/study",
    }
    table = Table(
        box=SIMPLE,
        title=f"Classifiers on the locked test set of {data_kind} data",
        title_justify="left",
        caption=None
        if math.isnan(prevalence_loss)
        else f"log loss of the prevalences alone: {prevalence_loss:.3f}",
        caption_justify="left",
    )
    for title in names.values():
        table.add_column(title, justify="left" if title in _TEXTS else "right")
    shown = models[list(names)].assign(
        weights=[
            told_weights(model, weights)
            for model, weights in zip(models["model"], models["weights"], strict=True)
        ]
    )
    times = shown[["train_s", "ms_per_study"]].map("{:.0f}".format, na_action="ignore")
    for row in shown.assign(**times).itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def print_durations(parts: Mapping[str, float]) -> None:
    """Print where time went, and the sum.

    Args:
        parts: Seconds, in the order of the work.
    """
    table = Table(
        Column("where the time went"),
        Column("s", justify="right"),
        box=SIMPLE,
        show_footer=True,
    )
    for name, seconds in parts.items():
        table.add_row(name, f"{seconds:.1f}")
    table.columns[0].footer = "all"
    table.columns[1].footer = f"{sum(parts.values()):.1f}"
    _console().print(table)


def print_drift(features: pd.DataFrame) -> None:
    """Print a row per feature of ``drift.csv``; what has drifted is marked."""
    console = _console()
    table = Table(box=SIMPLE)
    for name in ("feature", "reference", "new", "before", "after", "PSI", "p adjusted"):
        table.add_column(name, justify="left" if name == "feature" else "right")
    table.add_column("standing")
    for row in features.itertuples(index=False):
        values = (row.reference_n, row.current_n, row.reference_mean, row.current_mean)
        numbers = [format_value(value) for value in (*values, row.psi, row.p_adjusted)]
        standing = "DRIFTED: " if row.drifted else ""
        table.add_row(str(row.feature), *numbers, f"{standing}{row.why}")
    console.print(table)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
