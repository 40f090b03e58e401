"""What a reader has signed, as a DICOM Structured Report: TID 1500 by a person.

It names the report of the model as its predecessor. VERIFIED is said of it only where
the organization that answers for the reader is named, as the standard wants it.
"""

import hashlib
from typing import Any, Final

from highdicom.sr import (
    CodedConcept,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TextContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pydicom.valuerep import DT

from csfd_core.dicom_objects import codes
from csfd_core.dicom_objects.findings import Box
from csfd_core.dicom_objects.identity import finish, set_times, to_unicode
from csfd_core.dicom_objects.kinds import ResultKind, series_uid_of, sop_uid_of
from csfd_core.dicom_objects.measurement_report import (
    Group,
    build_report,
    predecessors,
    presence,
    region_of,
    segment_of,
    site_of,
    tracking,
)
from csfd_core.dicom_objects.segmentation import segmentation_reference
from csfd_core.dicom_objects.source import ResultSource, ReviewBox, SignedReview
from csfd_core.vocabulary import LEVEL_NAMES

_KIND: Final = ResultKind.SIGNED_SR
_LONGEST_NAME: Final = 64  # characters of a person's name
_VALUES: Final = {
    "fractured": codes.PRESENT,
    "whole": codes.ABSENT,
    "not_assessable": codes.UNDETERMINED,
}


def make_signed_report(
    source: ResultSource, review: SignedReview, earlier: SignedReview | None
) -> Dataset:
    """Make the report of a signed review."""
    name = _person_name(review.reader)
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_person_context=ObserverContext(
                observer_type=CodedConcept(*codes.PERSON),
                observer_identifying_attributes=PersonObserverIdentifyingAttributes(
                    name=name, organization_name=review.organization or None
                ),
            )
        ),
        procedure_reported=codes.CT_OF_A_REGION,
        imaging_measurements=_groups(source, review),
    )
    _add_comment(content, review)
    verified: dict[str, Any] = {}
    if review.organization:
        verified = {
            "is_verified": True,
            "verifying_observer_name": name,
            "verifying_organization": review.organization[:_LONGEST_NAME],
        }
    number = _number(review)
    dataset = build_report(source, content, _KIND, number, is_final=True, **verified)
    dataset.PredecessorDocumentsSequence = _predecessors(source, earlier)
    for item in dataset.get("VerifyingObserverSequence", ()):
        item.VerificationDateTime = DT(review.signed_at.astimezone())
    finish(dataset, source, _KIND)
    set_times(dataset, review.signed_at)
    if not _is_plain(review):
        to_unicode(dataset)
    return dataset


def _groups(source: ResultSource, review: SignedReview) -> list[Group]:
    segmentation = segmentation_reference(source)
    groups: list[Group] = []
    for name in LEVEL_NAMES:
        answer = review.levels.get(name)
        if answer is None:
            continue
        told = _told(name, answer)
        track = tracking(source, name, f"as read, {_number(review)[:8]}")
        segment = segment_of(source, segmentation, name)
        if segment is None:
            groups.append(
                MeasurementsAndQualitativeEvaluations(**told, tracking_identifier=track)
            )
        else:
            groups.append(
                VolumetricROIMeasurementsAndQualitativeEvaluations(
                    **told, tracking_identifier=track, referenced_segment=segment
                )
            )
    boxes = [box for box in review.boxes if box.slice_index < len(source.headers)]
    return [*groups, *(_box(source, review, n, b) for n, b in enumerate(boxes, 1))]


def _box(
    source: ResultSource, review: SignedReview, number: int, box: ReviewBox
) -> Group:
    what = f"box {number}, {_number(review)[:8]}"
    region = Box(
        slice_index=box.slice_index,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        **_told(box.level, "fractured"),
        tracking_identifier=tracking(source, box.level, what),
        referenced_region=region_of(source, region),
    )


def _told(name: str, answer: str) -> dict[str, Any]:
    return {
        "finding_category": codes.CLINICAL_FINDING,
        "finding_type": codes.FRACTURE,
        "finding_sites": [site_of(name)],
        "qualitative_evaluations": [presence(_VALUES[answer])],
    }


def _add_comment(content: MeasurementReport, review: SignedReview) -> None:
    """Say how the study was read, and what the reader adds."""
    beside = "with the answer of the model at hand" if review.saw_ai else "blind"
    told = f"Read {beside}. {review.comment}".strip()
    item = TextContentItem(
        name=codes.COMMENT,
        value=told,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    content[0].ContentSequence.append(item)


def _predecessors(source: ResultSource, earlier: SignedReview | None) -> list[Dataset]:
    documents = predecessors(source, source.result_set)
    if earlier is None:
        return documents
    report = Dataset()
    report.ReferencedSOPClassUID = Comprehensive3DSRStorage
    report.ReferencedSOPInstanceUID = sop_uid_of(
        source.study_uid, source.result_set, _KIND, _number(earlier)
    )
    series = Dataset()
    series.SeriesInstanceUID = series_uid_of(source.study_uid, source.result_set, _KIND)
    series.ReferencedSOPSequence = [report]
    documents[0].ReferencedSeriesSequence.append(series)
    return documents


def _number(review: SignedReview) -> str:
    return hashlib.sha256(review.identity.encode()).hexdigest()


def _person_name(reader: str) -> str:
    """Return a reader's name as the family name of DICOM, which has separators."""
    told = " ".join(
        reader.replace("^", " ").replace("=", " ").replace("\\", " ").split()
    )
    return f"{told[: _LONGEST_NAME - 1] or 'unknown'}^"


def _is_plain(review: SignedReview) -> bool:
    return f"{review.reader}{review.comment}{review.organization}".isascii()
