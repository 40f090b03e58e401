"""The leakage audit: the same data, network and budget under three protocols.

A student group's first attempt took training, validation and test set from the start of
one unshuffled stream of slices, and reported an AUC of 1.0. The audit measures what
that protocol, slices dealt out at random, and a split by patient report.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from csfd_core.data_kind import DataKind
from csfd_core.evaluation.bootstrap import Interval, patient_bootstrap
from csfd_core.evaluation.metrics import (
    f1_score,
    log_loss,
    operating_point,
    rank_auc,
)
from csfd_core.reports.leakage.config import AuditConfig
from csfd_core.reports.leakage.data import (
    AuditData,
    audit_inputs,
    choose_studies,
    read_slices,
)
from csfd_core.reports.leakage.network import Scored, train_and_score
from csfd_core.reports.leakage.protocols import (
    BY_PATIENT,
    ProtocolSplit,
    Rows,
    build_splits,
    patients_seen_in_training,
    slices_seen_in_training,
)
from csfd_core.reports.page import INDEX
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

PROTOCOLS_CSV: Final = "protocols.csv"
NOTE: Final = "audit.json"
_BY_HEART: Final = 0.99  # AUC on the training slices
_UNKNOWN: Final = Interval(
    estimate=math.nan, low=math.nan, high=math.nan, draws=0, undefined=0
)

OnProgress = Callable[[str, int, int], None]  # title, steps done, steps


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolResult:
    """What one protocol reports on its own test slices. NaN where undefined."""

    protocol: str
    title: str
    auc: Interval  # of slices, by a bootstrap over patients
    pretended: Interval  # AUC above that of the split by patient
    training_auc: float  # 1: the training slices are known by heart
    f1: float  # at the threshold
    threshold: float  # chosen on the protocol's own validation slices
    loss: float  # mean binary cross-entropy, nats
    training_slices: int
    validation_slices: int
    test_slices: int
    test_patients: int
    slices_seen_in_training: float  # share of the test slices
    patients_seen_in_training: float  # share of the test patients

    @property
    def is_known_by_heart(self) -> bool:
        """Say whether the network tells all its training slices apart."""
        return self.training_auc >= _BY_HEART

    def to_row(self) -> dict[str, object]:
        """Return the row of ``protocols.csv``, its contract columns first."""
        row = asdict(self)
        auc, pretended = row.pop("auc"), row.pop("pretended")
        first = {"protocol": row.pop("protocol"), "auc": auc["estimate"]}
        first |= {name: row.pop(name) for name in ("f1", "loss")}
        del row["title"]
        return {
            **first,
            "auc_low": auc["low"],
            "auc_high": auc["high"],
            "auc_pretended": pretended["estimate"],
            "auc_pretended_low": pretended["low"],
            "auc_pretended_high": pretended["high"],
            **row,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """The result of an audit, and what its report shows."""

    results: tuple[ProtocolResult, ...]  # the honest protocol last
    splits: tuple[ProtocolSplit, ...]  # in the same order
    slices: pd.DataFrame  # the stream, columns as in ``protocols``
    config: AuditConfig
    data_kind: DataKind
    inputs: str

    @property
    def honest(self) -> ProtocolResult:
        """The result of the split by patient."""
        return next(r for r in self.results if r.protocol == BY_PATIENT)

    @property
    def study_count(self) -> int:
        """How many studies the slices are of."""
        return int(self.slices["study_uid"].nunique())

    @property
    def patient_count(self) -> int:
        """How many patients the slices are of."""
        return int(self.slices["patient"].nunique())

    @property
    def pretending(self) -> dict[str, list[ProtocolResult]]:
        """Protocols that report ``more``, the ``same`` or ``less`` than the honest."""
        groups: dict[str, list[ProtocolResult]] = {"more": [], "same": [], "less": []}
        for result in self.results:
            gap = result.pretended
            if not math.isnan(gap.estimate):
                over, under = gap.low > 0, gap.high < 0  # False where NaN
                groups["more" if over else "less" if under else "same"].append(result)
        return groups

    def to_frame(self) -> pd.DataFrame:
        """Return the table of ``protocols.csv``."""
        return pd.DataFrame([result.to_row() for result in self.results])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tested:
    """The test slices of a protocol."""

    patients: Rows  # number of each slice's patient
    labels: Rows
    scores: "np.ndarray[tuple[int], np.dtype[np.float64]]"

    def auc(self, rows: Rows) -> float:
        return rank_auc(self.labels[rows], self.scores[rows])


def run_audit(
    stores: Stores, config: AuditConfig, on_progress: OnProgress | None = None
) -> Audit:
    """Train the same network once under each protocol and measure what it reports.

    A protocol without training or test slices (a store of a few studies) is not
    trained; its numbers are NaN.

    Args:
        stores: Where the studies are.
        config: Data, budget and seed that the protocols share.
        on_progress: Called after each step of each training.

    Raises:
        SourceError: If the store has no table of studies.
        StoreError: If it has no labelled study, or a slice cannot be decoded.
    """
    studies = choose_studies(stores, config)
    data_kind = stores.metadata.read_data_kind()
    data = read_slices(stores, studies, config)
    splits = build_splits(data.slices, config.seed)
    scored = [_score(split, data, config, on_progress) for split in splits]
    return Audit(
        results=summarize(data, splits, scored),
        splits=splits,
        slices=data.slices,
        config=config,
        data_kind=data_kind,
        inputs=audit_inputs(studies, config, data_kind),
    )


def summarize(
    data: AuditData,
    splits: tuple[ProtocolSplit, ...],
    scored: list[Scored | None],
) -> tuple[ProtocolResult, ...]:
    """Measure what each protocol reports, and how much more than the honest one.

    Args:
        data: The stream.
        splits: The protocols.
        scored: Probabilities by each; ``None`` where it was not trained.
    """
    tested = {
        split.name: _tested(data, split, scores)
        for split, scores in zip(splits, scored, strict=True)
        if scores is not None
    }
    honest = tested.get(BY_PATIENT)
    return tuple(
        _summarize(data, split, scores, (tested.get(split.name), honest))
        for split, scores in zip(splits, scored, strict=True)
    )


def is_current(
    stores: Stores, config: AuditConfig, location: Location | None = None
) -> bool:
    """Say whether a report of the very audit that would be run is there.

    Args:
        stores: Where the studies are.
        config: Settings of the audit.
        location: Of the report, ``reports/leakage`` of the store by default.

    Raises:
        SourceError: If there is a report, but no table of studies.
        StoreError: If there is a report, but no labelled study.
    """
    folder = location or stores.root.join(paths.LEAKAGE_REPORT)
    if not all(folder.exists(name) for name in (NOTE, INDEX, PROTOCOLS_CSV)):
        return False
    studies = choose_studies(stores, config)
    data_kind = stores.metadata.read_data_kind()
    return read_note(folder).get("inputs") == audit_inputs(studies, config, data_kind)


def read_note(location: Location) -> Mapping[str, object]:
    """Return the note beside a report; empty where it is none of ours."""
    try:
        note = json.loads(location.read(NOTE))
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


@contextmanager
def audit_progress(protocols: int = 3) -> Iterator[OnProgress]:
    """Show a bar on standard error while an audit runs; silent when piped."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Leakage audit: reading slices", total=None)
        titles: list[str] = []

        def on_progress(title: str, step: int, steps: int) -> None:
            if title not in titles:
                titles.append(title)
            progress.update(
                task,
                total=protocols * steps,
                completed=(len(titles) - 1) * steps + step,
                description=f"Leakage audit: {title.lower()}",
            )

        yield on_progress


def _score(
    split: ProtocolSplit,
    data: AuditData,
    config: AuditConfig,
    on_progress: OnProgress | None,
) -> Scored | None:
    if not split.training.size or not split.test.size:
        return None

    def on_step(step: int) -> None:
        if on_progress is not None:
            on_progress(split.title, step, config.steps)

    return train_and_score(split, data.images, data.labels, config, on_step)


def _summarize(
    data: AuditData,
    split: ProtocolSplit,
    scores: Scored | None,
    pair: tuple[_Tested | None, _Tested | None],
) -> ProtocolResult:
    tested, honest = pair
    auc, pretended = _UNKNOWN, _UNKNOWN
    numbers = dict.fromkeys(("training_auc", "f1", "threshold", "loss"), math.nan)
    if scores is not None and tested is not None:
        auc = patient_bootstrap(tested.patients, tested.auc)
        training = data.labels[split.training]
        point = operating_point(data.labels[split.validation], scores.validation)
        numbers = {
            "training_auc": rank_auc(training, scores.training),
            "f1": f1_score(tested.labels, scores.test, point.threshold),
            "threshold": point.threshold,
            "loss": log_loss(tested.labels, scores.test),
        }
        if honest is not None and split.name != BY_PATIENT:
            pretended = _difference(tested, honest)
    return ProtocolResult(
        protocol=split.name,
        title=split.title,
        auc=auc,
        pretended=pretended,
        **numbers,
        training_slices=split.training.size,
        validation_slices=split.validation.size,
        test_slices=split.test.size,
        test_patients=data.slices["patient"].iloc[split.test].nunique(),
        slices_seen_in_training=slices_seen_in_training(split),
        patients_seen_in_training=patients_seen_in_training(split, data.slices),
    )


def _tested(data: AuditData, split: ProtocolSplit, scores: Scored) -> _Tested:
    codes, _ = pd.factorize(data.slices["patient"], sort=True)
    return _Tested(
        patients=codes[split.test], labels=data.labels[split.test], scores=scores.test
    )


def _difference(tested: _Tested, honest: _Tested) -> Interval:
    """Compare AUCs on two test sets that share some patients.

    Patients are drawn for both at once, so that one who is in both counts as one.
    """
    size = tested.labels.size

    def difference(rows: Rows) -> float:
        return tested.auc(rows[rows < size]) - honest.auc(rows[rows >= size] - size)

    return patient_bootstrap(
        np.concatenate([tested.patients, honest.patients]), difference
    )
