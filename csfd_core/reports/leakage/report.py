"""The report of the leakage audit: what each protocol takes, reports and pretends."""

import json
import math
from typing import Any, Final

import pandas as pd

from csfd_core.reports.leakage.audit import NOTE, PROTOCOLS_CSV, Audit
from csfd_core.reports.leakage.figures import plot_auc, plot_protocols
from csfd_core.reports.page import Page, Section, Table, Written, to_csv, write_page
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.text import Prose, share_of

say: Final = Prose("csfd_core.reports", "leakage")

_SETTINGS: Final = {
    "seed": "random numbers of the split, the network and its batches",
    "steps": "steps of each network",
    "batch_size": "slices of a step",
    "side": "pixels, height and width of a slice",
    "slices_per_study": "evenly spaced slices of each study, at most",
    "most_studies": "studies at most, whole patients, chosen by a digest",
    "learning_rate": "of Adam at the start; it falls to a twentieth",
}


def report_location(stores: Stores) -> Location:
    """Return where the report of a store lies."""
    return stores.root.join(paths.LEAKAGE_REPORT)


def write_report(location: Location, audit: Audit) -> Written:
    """Write the page, ``protocols.csv`` and, last, the note that the report is whole.

    Raises:
        SourceError: If it cannot be written.
    """
    frame = audit.to_frame()
    location.remove(NOTE)
    location.write(PROTOCOLS_CSV, to_csv(frame))
    written = write_page(location, build_report(audit))
    note = {
        "inputs": audit.inputs,
        "config": audit.config.to_note(),
        "data_kind": audit.data_kind,
        "protocols": [_json_row(row) for row in frame.itertuples(index=False)],
    }
    text = json.dumps(note, indent=2, sort_keys=True, allow_nan=False) + "\n"
    location.write(NOTE, text.encode())
    return written


def build_report(audit: Audit) -> Page:
    """Put the report together."""
    return Page(
        title="Leakage audit",
        banner=audit.data_kind.banner,
        facts=(
            ("studies", str(audit.study_count)),
            ("patients", str(audit.patient_count)),
            ("slices", str(len(audit.slices))),
            ("label of a slice", "that of its study (patient_overall)"),
            ("identity", audit.inputs[:12]),
        ),
        sections=(_scores(audit), _protocols(audit), _measured(audit)),
    )


def _scores(audit: Audit) -> Section:
    return Section(
        key="auc",
        title="What each protocol reports",
        sentence=say("auc", audit=audit),
        figure=plot_auc(audit),
        tables=(
            Table(name="scores", title="What each reports", frame=_score_table(audit)),
        ),
    )


def _protocols(audit: Audit) -> Section:
    return Section(
        key="protocols",
        title="Which slices each protocol takes",
        sentence=say("protocols", audit=audit),
        figure=plot_protocols(audit),
        tables=(
            Table(name="splits", title="Sets of each", frame=_split_table(audit)),
            Table(name="studies", title="Studies", frame=_study_table(audit)),
        ),
    )


def _measured(audit: Audit) -> Section:
    config = audit.config.to_note()
    frame = pd.DataFrame(
        {
            "setting": list(_SETTINGS),
            "value": [f"{config[name]:g}" for name in _SETTINGS],
            "meaning": list(_SETTINGS.values()),
        }
    )
    return Section(
        key="method",
        title="How it was measured",
        sentence=say("method"),
        tables=(Table(name="settings", title="Settings", frame=frame),),
    )


def _score_table(audit: Audit) -> pd.DataFrame:
    rows = []
    for result in audit.results:
        rows.append(
            {
                "protocol": result.title,
                "AUC": result.auc.estimate,
                "low": result.auc.low,
                "high": result.auc.high,
                "pretended": result.pretended.estimate,
                "pretended, low": result.pretended.low,
                "pretended, high": result.pretended.high,
                "AUC in training": result.training_auc,
                "F1": result.f1,
                "loss": result.loss,
            }
        )
    return pd.DataFrame(rows)


def _split_table(audit: Audit) -> pd.DataFrame:
    rows = []
    for result, split in zip(audit.results, audit.splits, strict=True):
        rows.append(
            {
                "protocol": result.title,
                "how": split.description,
                "training slices": result.training_slices,
                "validation slices": result.validation_slices,
                "test slices": result.test_slices,
                "test patients": result.test_patients,
                "test slices in training": share_of(result.slices_seen_in_training),
                "test patients in training": share_of(result.patients_seen_in_training),
            }
        )
    return pd.DataFrame(rows)


def _study_table(audit: Audit) -> pd.DataFrame:
    """Return how many slices of each study each protocol uses for what."""
    frame = audit.slices.groupby("study_uid", sort=False).agg(
        label=("label", "first"), slices=("label", "size")
    )
    uids = audit.slices["study_uid"]
    for split in audit.splits:
        for part, rows in split.parts().items():
            counts = uids.iloc[rows].value_counts()
            frame[f"{split.name}_{part}"] = (
                counts.reindex(frame.index).fillna(0).astype("int64")
            )
    return frame.reset_index()


def _json_row(row: Any) -> dict[str, object]:  # noqa: ANN401 - a named tuple
    """Replace NaN, which JSON does not know, by null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row._asdict().items()
    }
