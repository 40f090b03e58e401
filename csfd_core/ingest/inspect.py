"""Inspection of a source: every study ordered and checked, nothing written."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from csfd_core.dicom.findings import Finding, Status, in_order, status_of
from csfd_core.errors import SourceError, tell_error
from csfd_core.ingest.scan import StudyScan, scan_study
from csfd_core.runtime.executors import completed
from csfd_core.store.box_slices import BoxRoom, tell_boxes_outside
from csfd_core.store.labels import read_boxes, read_labels
from csfd_core.store.source import Source, StudyFolder
from csfd_core.text import count
from csfd_core.vocabulary import is_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedStudy:
    """Standing of one study."""

    study_uid: str
    folder: str  # relative to the source
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    slice_count: int
    facts: dict[str, Any]  # geometry and content, for the report
    box_room: BoxRoom | None = None

    @property
    def status(self) -> Status:
        """Standing of the study."""
        return status_of(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the study as it stands in the JSON report."""
        return {
            "study_uid": self.study_uid,
            "folder": self.folder,
            "status": str(self.status),
            "codes": [finding.code for finding in self.findings],
            "reasons": [finding.reason for finding in self.findings],
            "notes": list(self.notes),
            "slice_count": self.slice_count,
            **self.facts,
        }


def inspect_folders(
    folders: list[StudyFolder], executor: Executor
) -> Iterator[list[InspectedStudy]]:
    """Scan study folders; yield the studies of each folder as it is done."""
    for folder, future in completed(executor, _inspect_folder, folders):
        error = future.exception()
        yield [_failed(folder, error)] if error else future.result()


def _failed(folder: StudyFolder, error: BaseException) -> InspectedStudy:
    """Make the standing of a study that could not be looked at; the others are."""
    detail = tell_error(error)
    return InspectedStudy(
        study_uid=folder.name if is_uid(folder.name) else "",
        folder=folder.path or ".",
        findings=(Finding("unreadable", f"It cannot be read: {detail.rstrip('.')}."),),
        notes=(),
        slice_count=0,
        facts={},
    )


def add_labels(
    studies: list[InspectedStudy], source: Source
) -> tuple[list[InspectedStudy], list[str]]:
    """Compare the studies with the label and box tables of their source.

    Returns:
        The studies, with a finding where labels contradict each other, and notes on
        what does not belong to a study: labels without images, rows that cannot be
        used.
    """
    try:
        labels, boxes = read_labels(source.location), read_boxes(source.location)
    except SourceError as error:
        return studies, [str(error)]
    notes = [*labels.notes, *boxes.notes, *source.mask_notes()]
    contradictory = set(labels.contradictions())
    study_uids = {study.study_uid for study in studies}
    without_images = sorted(set(labels.table.index) - study_uids)
    if without_images:
        named = ", ".join(without_images[:5]) + (", ..." if without_images[5:] else "")
        told = count(len(without_images), "labelled study", "has", "have")
        notes.append(f"{told} no images: {named}")
    rooms = {s.study_uid: s.box_room for s in studies if s.box_room is not None}
    notes += tell_boxes_outside(boxes.table, rooms)
    boxes_without = sorted(set(boxes.table["study_uid"]) - study_uids)
    if boxes_without:
        notes.append(f"Boxes of {count(len(boxes_without), 'study')} without images.")
    masks_without = sorted(set(source.masks()) - study_uids)
    if masks_without:
        notes.append(f"Masks of {count(len(masks_without), 'study')} without images.")
    if not labels.table.empty:
        unlabelled = len(study_uids - set(labels.table.index))
        if unlabelled:
            notes.append(f"{count(unlabelled, 'study', 'has', 'have')} no labels.")
    return [_with_labels(study, contradictory) for study in studies], notes


def _with_labels(study: InspectedStudy, contradictory: set[str]) -> InspectedStudy:
    if study.study_uid not in contradictory:
        return study
    finding = Finding("contradictory_labels", "Its labels contradict each other.")
    return replace(study, findings=in_order([*study.findings, finding]))


def _inspect_folder(folder: StudyFolder) -> list[InspectedStudy]:
    return [_to_inspected(scan) for scan in scan_study(folder)]


def _to_inspected(scan: StudyScan) -> InspectedStudy:
    geometry = scan.geometry
    first = scan.headers[0] if scan.headers else None
    return InspectedStudy(
        study_uid=scan.study_uid,
        folder=scan.folder.path or ".",
        findings=scan.findings,
        notes=scan.notes,
        slice_count=len(scan.headers),
        facts={
            "rows": first.rows if first else None,
            "columns": first.columns if first else None,
            "spacing_zyx_mm": geometry.spacing_zyx_mm if geometry else None,
            "z_extent_mm": geometry.z_extent_mm if geometry else None,
            "z_descending": geometry.z_descending if geometry else None,
            "transfer_syntax_uid": first.transfer_syntax_uid if first else None,
            "has_mask": scan.folder.mask is not None,
            "content_hash": scan.content_hash,
        },
        box_room=BoxRoom(
            geometry.shape_zyx[1],
            geometry.shape_zyx[2],
            frozenset(header.instance_number for header in scan.headers),
        )
        if geometry
        else None,
    )
