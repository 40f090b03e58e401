"""The report on drift: what it says, and whether it is still what it would say."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.data_kind import DataKind
from csfd_core.reports.drift.features import GEOMETRY, INTENSITY, LABELS, PROBABILITIES
from csfd_core.reports.drift.figures import (
    plot_effects,
    plot_geometry,
    plot_intensity,
    plot_labels,
    plot_probabilities,
)
from csfd_core.reports.drift.grey import AIR
from csfd_core.reports.drift.observe import Drift, Finding, group_studies
from csfd_core.reports.drift.statistics import (
    LEAST_STUDIES,
    PSI_MARGIN,
    RATE_MARGIN,
    SIGNIFICANCE,
)
from csfd_core.reports.page import (
    INDEX,
    Page,
    Section,
    Table,
    Written,
    to_csv,
    write_page,
)
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.text import Prose

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRIFT_CSV: Final = "drift.csv"
NOTE: Final = "drift.json"

_GROUPS: Final[dict[str, tuple[str, Callable[[Drift], "Figure"]]]] = {
    INTENSITY: ("Intensities", plot_intensity),
    GEOMETRY: ("Spacing and size", plot_geometry),
    LABELS: ("Label rates", plot_labels),
    PROBABILITIES: ("Predicted probabilities", plot_probabilities),
}
_say: Final = Prose("csfd_core.reports", "drift", least=LEAST_STUDIES, air=AIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Studies that came since the last report.

    Attributes:
        new: Good studies that the report does not know.
        has_report: Whether there is one.
        has_model: Whether any classifier was trained.
    """

    new: tuple[str, ...]
    has_report: bool
    has_model: bool


def report_location(stores: Stores) -> Location:
    """Return where the report of a store lies."""
    return stores.root.join(paths.DRIFT_REPORT)


def summarize(drift: Drift) -> str:
    """Say in one paragraph whether the new studies are like those of the training."""
    return _say("summary", drift=drift)


def explain(finding: Finding) -> str:
    """Say why a feature is warned of, or is not."""
    return _say("why", finding=finding)


def explain_missing(drift: Drift) -> str:
    """Say which new studies have no prediction, and why; nothing where all have."""
    return _say("without_prediction", drift=drift)


def write_report(location: Location, drift: Drift) -> Written:
    """Write the page, ``drift.csv`` and, last, the note that the report is whole.

    Raises:
        SourceError: If it cannot be written.
    """
    location.remove(NOTE)
    location.write(DRIFT_CSV, to_csv(to_frame(drift)))
    written = write_page(location, build_report(drift))
    groups, serving = drift.groups, drift.groups.serving
    note = {
        "inputs": groups.inputs,
        "data_kind": groups.data_kind,
        "model": None if serving is None else serving.title,
        "model_ids": [] if serving is None else serving.model_ids,
        "verdict": drift.verdict,
        "summary": summarize(drift),
        "drifted": {f.feature.name: explain(f) for f in drift.drifted},
        "judged": len(drift.judged),
        "reference_studies": list(groups.reference),
        "current_studies": list(groups.current),
        "studies": [str(uid) for uid in groups.table.index],
    }
    text = json.dumps(note, indent=2, sort_keys=True, allow_nan=False) + "\n"
    location.write(NOTE, text.encode())
    return written


def to_frame(drift: Drift) -> pd.DataFrame:
    """Return the table of ``drift.csv``, a row per feature."""
    rows = [
        {
            "feature": finding.feature.name,
            "reference_n": finding.comparison.reference_n,
            "current_n": finding.comparison.current_n,
            "reference_mean": finding.comparison.reference_mean,
            "current_mean": finding.comparison.current_mean,
            "psi": finding.comparison.psi,
            "ks": finding.comparison.ks,
            "p": finding.comparison.p,
            "p_adjusted": finding.p_adjusted,
            "drifted": finding.is_drifted,
            "why": explain(finding),
        }
        for finding in drift.findings
    ]
    return pd.DataFrame(rows)


def read_report(stores: Stores) -> dict[str, Any] | None:
    """Return the note of the last whole report, ``None`` where there is none."""
    content = report_location(stores).read_if_there(NOTE)
    return None if content is None else dict(json.loads(content))


def is_current(stores: Stores, tracking_uri: str) -> bool:
    """Say whether the report is what it would be now; asks MLflow who serves."""
    note = read_report(stores)
    if note is None or not report_location(stores).exists(INDEX):
        return False
    return bool(note["inputs"] == group_studies(stores, tracking_uri).inputs)


def studies_since_report(stores: Stores) -> Arrived:
    """Return the good studies that came since the last report; asks the store only."""
    note = read_report(stores)
    reported = set() if note is None else set(note["studies"])
    good: set[str] = set()
    if stores.metadata.read_studies_inputs() is not None:
        table = stores.metadata.read_studies()
        trusted = usable_studies(table)["study_uid"]
        good = {str(uid) for uid in trusted}
    models = ClassifierStore(stores.root)
    return Arrived(
        new=tuple(sorted(good - reported)),
        has_report=note is not None,
        has_model=any(models.folds(name) for name in CLASSIFIERS),
    )


def build_report(drift: Drift) -> Page:
    """Put the report together."""
    return Page(
        title="Drift of the data",
        banner=_kind(drift).banner,
        facts=_facts(drift),
        sections=(
            _overview(drift),
            *(_section(drift, group) for group in _GROUPS),
            _method(drift),
        ),
    )


def _kind(drift: Drift) -> DataKind:
    """Return what the store and the model's training rest on together."""
    serving, kind = drift.groups.serving, drift.groups.data_kind
    return DataKind.joined([kind] if serving is None else [kind, serving.data_kind])


def _facts(drift: Drift) -> tuple[tuple[str, str], ...]:
    groups = drift.groups
    facts = [
        ("Verdict", drift.verdict),
        ("Reference", _say("reference", drift=drift)),
        ("New studies", f"{len(groups.current)} that it has not seen"),
        ("Locked test studies", f"{len(groups.tested)}, in the probabilities only"),
    ]
    if groups.serving is not None and groups.serving.notice:
        facts.append(("Model", groups.serving.notice))
    facts.append(("Identity of the data", groups.inputs[:12]))
    return tuple(facts)


def _overview(drift: Drift) -> Section:
    has_new = bool(drift.judged)
    return Section(
        key="drift",
        title="Have the data drifted?",
        sentence=summarize(drift),
        figure=plot_effects(drift) if has_new else None,
        tables=(
            Table(
                name="features",
                title="Every feature",
                frame=_short_frame(drift),
                is_open=has_new,
            ),
        ),
    )


def _short_frame(drift: Drift) -> pd.DataFrame:
    """Return what the page shows of ``drift.csv``."""
    standing = {
        finding.feature.name: "yes" if finding.is_drifted else "no"
        for finding in drift.judged
    }
    return pd.DataFrame(
        [
            {
                "feature": finding.feature.title,
                "reference": finding.comparison.reference_mean,
                "new": finding.comparison.current_mean,
                "distance": finding.comparison.effect,
                "margin": finding.comparison.margin,
                "adjusted p": finding.p_adjusted,
                "drifted": standing.get(finding.feature.name, "not judged"),
            }
            for finding in drift.findings
        ]
    )


def _section(drift: Drift, group: str) -> Section:
    title, plot = _GROUPS[group]
    findings = [f for f in drift.findings if f.feature.group == group]
    has_model = drift.groups.serving is not None
    sentence = _say("group", findings=findings, has_model=has_model)
    if group == PROBABILITIES:
        sentence = f"{sentence} {explain_missing(drift)}".rstrip()
    is_empty = drift.reference.frame.empty and drift.current.frame.empty
    return Section(
        key=group,
        title=title,
        sentence=sentence,
        figure=None if is_empty else plot(drift),
    )


def _method(drift: Drift) -> Section:
    settings = pd.DataFrame(
        [
            ("least studies", LEAST_STUDIES, "of either group; fewer are not judged"),
            ("significance", SIGNIFICANCE, "of p, corrected for all features"),
            ("PSI", PSI_MARGIN, "population stability index; less is no warning"),
            ("Cohen's h", RATE_MARGIN, "of two label rates; less is no warning"),
        ],
        columns=["setting", "value", "meaning"],
    )
    return Section(
        key="method",
        title="How it was measured",
        sentence=_say("method"),
        tables=(
            Table(name="settings", title="Settings", frame=settings),
            Table(name="studies", title="Studies", frame=_study_table(drift)),
        ),
    )


def _study_table(drift: Drift) -> pd.DataFrame:
    """Return the numbers of every study behind the figures, new ones first."""
    parts = []
    for name, sample in (("new", drift.current), ("reference", drift.reference)):
        frame = sample.frame.reset_index()
        in_group = {*drift.groups.current, *drift.groups.reference}
        kind = np.where(frame["study_uid"].isin(in_group), name, "test")
        frame.insert(1, "group", kind)
        parts.append(frame.dropna(how="all", subset=list(sample.frame.columns)))
    return pd.concat([part for part in parts if len(part)] or parts[:1])
