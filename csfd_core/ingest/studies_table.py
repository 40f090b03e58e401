"""The table of all studies: built from the records, the labels and the boxes.

One row per study that has images. Studies without labels have null labels; labels of
studies without images are no rows, but a note.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from csfd_core.dicom.findings import CATALOGUE, Finding, Severity, Status
from csfd_core.ingest.scan import record_of, scan_study
from csfd_core.store.box_slices import BoxRoom, tell_boxes_outside
from csfd_core.store.label_notes import label_entries
from csfd_core.store.labels import (
    BoxTable,
    LabelTable,
    digest_labels,
    read_all_boxes,
)
from csfd_core.store.layout import BOXES_FILE, LABELS_FILE
from csfd_core.store.metadata import STUDIES_COLUMNS, StudyRecord
from csfd_core.store.source import Sources, data_kind
from csfd_core.store.stores import Stores
from csfd_core.text import count
from csfd_core.vocabulary import LABEL_COLUMNS

_NAMES = [name for name, _, _ in STUDIES_COLUMNS]
_MOST_TIMES: Final = 5  # that a table is built, however much changes meanwhile


def write_studies_table(
    stores: Stores, sources: Sources
) -> tuple[pd.DataFrame, list[str]]:
    """Build and store the table of all studies.

    It is built again where it is not that of the store any more once it was written: of
    two who write it at once, the one who is last has seen what both have brought.

    Returns:
        The table and notes on what was left out of it.

    Raises:
        SourceError: If a label or box table cannot be read.
    """
    for _ in range(_MOST_TIMES):
        inputs = studies_table_inputs(stores, sources)  # first: what changes meanwhile
        built = _build(stores, sources)
        kind = data_kind(sources.locations)
        is_new = stores.metadata.update_studies(built.table, inputs, kind)
        if not is_new or inputs == studies_table_inputs(stores, sources):
            break
    for study_uid in stores.withdrawn.study_uids() - built.withdrawn:  # meanwhile
        stores.metadata.drop_study(study_uid)
    notes = [*built.labels.notes, *built.boxes.notes, *sources.mask_notes()]
    rooms = _box_rooms(stores, built.records, built.boxes)
    notes += tell_boxes_outside(built.boxes.table, rooms)
    if missing := labels_without_images(built.records, built.labels):
        lacking = count(len(missing), "labelled study", "has", "have")
        notes.append(f"{lacking} no images.")
    return built.table, notes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """The table, and what it was built from."""

    table: pd.DataFrame
    records: list[StudyRecord]
    labels: LabelTable
    boxes: BoxTable
    withdrawn: frozenset[str]


def _build(stores: Stores, sources: Sources) -> _Built:
    """Build the table, once the labels are on record."""
    withdrawn = stores.withdrawn.study_uids()
    labels = stores.label_history.read_labels(sources.locations, withdrawn)
    boxes = read_all_boxes(sources.locations, withdrawn)
    all_records = stores.metadata.read_records()
    records = [record for record in all_records if record.study_uid not in withdrawn]
    badly_named = [record_of(scan_study(f)[0]) for f in sources.badly_named()]
    newest = stores.label_history.record(labels)
    versions = {study_uid: one.version for study_uid, one in newest.items()}
    table = build_studies_table([*records, *badly_named], labels, boxes, versions)
    return _Built(
        table=table, records=records, labels=labels, boxes=boxes, withdrawn=withdrawn
    )


def _box_rooms(
    stores: Stores, records: Iterable[StudyRecord], boxes: BoxTable
) -> dict[str, BoxRoom]:
    """Return where boxes can lie, for the studies that have any.

    Boxes are not held against another volume than that which they were drawn on.
    """
    boxed = set(boxes.table["study_uid"])
    rooms = {}
    for record in records:
        geometry = record.volume_geometry()
        is_boxed = record.study_uid in boxed and record.volume == 1
        if is_boxed and geometry is not None:
            _, rows, columns = geometry.shape_zyx
            numbers = stores.metadata.read_instance_numbers(record.study_uid)
            rooms[record.study_uid] = BoxRoom(rows, columns, frozenset(numbers))
    return rooms


def studies_table_inputs(stores: Stores, sources: Sources) -> str:
    """Identify what the table is built from; records by their listing."""
    digest = hashlib.sha256(f"{_NAMES} {label_inputs(stores, sources)}".encode())
    for entry in stores.metadata.record_entries():
        digest.update(f"{entry.name}\0{entry.size_bytes}\0{entry.token}\n".encode())
    return digest.hexdigest()


def label_inputs(stores: Stores, sources: Sources) -> str:
    """Identify all that the table is built from beside the records of studies.

    Labels and boxes by their content, so that touching such a file changes nothing.
    """
    digest = hashlib.sha256(data_kind(sources.locations).encode())
    for location in sources.locations:
        named = (LABELS_FILE, BOXES_FILE)
        entries = [entry for entry in location.entries() if entry.name in named]
        for entry in [*entries, *label_entries(location)]:
            content = location.content_token(entry)
            digest.update(f"{entry.name}\0{content}\n".encode())
    for folder in sources.badly_named():
        digest.update(f"{folder.name}\n".encode())
    for study_uid in sorted(stores.withdrawn.study_uids()):
        digest.update(f"withdrawn {study_uid}\n".encode())
    return digest.hexdigest()


def build_studies_table(
    records: Iterable[StudyRecord],
    labels: LabelTable,
    boxes: BoxTable,
    versions: Mapping[str, int],
) -> pd.DataFrame:
    """Build the table of studies, one row per record, sorted by study.

    ``versions`` has the newest label version by study. Studies without labels have
    null labels. Labels of studies without images are not
    rows; ``labels_without_images`` lists them.
    """
    contradictory = set(labels.contradictions())
    box_counts = boxes.table["study_uid"].value_counts()
    rows = [
        _to_row(record, record.study_uid in contradictory, box_counts)
        for record in sorted(records, key=lambda record: record.study_uid)
    ]
    label_columns = (*LABEL_COLUMNS, "label_version", "labels_digest")
    names = [name for name in _NAMES if name not in label_columns]
    table = pd.DataFrame(rows, columns=names)
    table = table.merge(labels.table, how="left", left_on="study_uid", right_index=True)
    table["label_version"] = table["study_uid"].map(versions).astype("Int64")
    digests = digest_labels(labels.table, boxes.table)
    table["labels_digest"] = [digests.get(uid, "") for uid in table["study_uid"]]
    return table[list(_NAMES)]


def labels_without_images(
    records: Iterable[StudyRecord], labels: LabelTable
) -> list[str]:
    """Return the labelled studies that have no images, sorted."""
    return sorted(set(labels.table.index) - {record.study_uid for record in records})


def _to_row(
    record: StudyRecord, is_contradictory: bool, box_counts: "pd.Series[int]"
) -> dict[str, Any]:
    geometry = record.volume_geometry()
    quarantine = [
        Finding(code, detail)
        for code, detail in record.findings
        if CATALOGUE[code].severity is Severity.QUARANTINE
    ]
    warnings = [c for c in record.codes if CATALOGUE[c].severity is Severity.WARNING]
    if is_contradictory:
        warnings.append("contradictory_labels")
    status = record.status
    if warnings and not quarantine:
        status = Status.WARNING
    facts: dict[str, Any] = dict.fromkeys(
        ("rows", "columns", "pixel_spacing_mm", "slice_spacing_mm"), None
    )
    facts |= {"z_extent_mm": None, "z_descending": None}
    if geometry is not None:
        facts = {
            "rows": geometry.shape_zyx[1],
            "columns": geometry.shape_zyx[2],
            "pixel_spacing_mm": float(np.mean(geometry.spacing_zyx_mm[1:])),
            "slice_spacing_mm": geometry.spacing_zyx_mm[0],
            "z_extent_mm": geometry.z_extent_mm,
            "z_descending": geometry.z_descending,
        }
    return {
        "study_uid": record.study_uid,
        "status": str(status),
        "slice_count": record.slice_count,
        **facts,
        "slice_thickness_mm": record.slice_thickness_mm,
        "has_mask": record.mask_fingerprint is not None,
        "box_count": int(box_counts.get(record.study_uid, 0)),
        "quarantine_code": quarantine[0].code if quarantine else None,
        "quarantine_reason": quarantine[0].reason if quarantine else None,
        "warning_codes": warnings,
        "transfer_syntax_uid": record.transfer_syntax_uid,
        "patient_key": record.patient_key,
        "source_bytes": record.source_bytes,
        "content_hash": record.content_hash,
        "mask_hash": record.mask_hash,
    }
