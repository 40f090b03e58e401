"""What a model says, as a DICOM Structured Report: TID 1500, one group per level.

A level whose vertebra is in the segmentation is told by TID 1411 with its segment; the
place where a fracture is suspected by TID 1410 with a box on its slice. A level that
was not assessed has no number: its fracture is Undetermined (TID 1501). The report is
preliminary and unverified until a person signs another one.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForRegion,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from csfd_core.dicom_objects import codes
from csfd_core.dicom_objects.findings import Box, Finding, findings_of
from csfd_core.dicom_objects.identity import (
    MANUFACTURER,
    MODEL_NAME,
    VERSION,
    finish,
    plain_headers,
)
from csfd_core.dicom_objects.kinds import (
    ResultKind,
    series_uid_of,
    sop_uid_of,
    tracking_uid_of,
    uid_of,
)
from csfd_core.dicom_objects.segmentation import segmentation_reference
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL, VertebraLevel

_KIND: Final = ResultKind.SR
_LONGEST: Final = 64  # characters of a name of a model
Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


def make_report(source: ResultSource) -> list[Dataset]:
    """Make the report on what a model says of a study."""
    findings = findings_of(source)
    segmentation = segmentation_reference(source)
    groups: list[Group] = [_whole_study(source, findings[OVERALL])]
    for name in LEVEL_NAMES:
        groups.append(_level(source, findings[name], segmentation))
        suspected = _suspected_region(source, findings[name])
        groups += [] if suspected is None else [suspected]
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=CodedConcept(*codes.DEVICE),
                observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                    uid=uid_of("", "device", MODEL_NAME, VERSION),
                    name="csfd",
                    manufacturer_name=MANUFACTURER,
                    model_name=MODEL_NAME,
                    serial_number=VERSION,
                ),
            )
        ),
        procedure_reported=codes.CT_OF_A_REGION,
        imaging_measurements=groups,
    )
    dataset = build_report(source, content, _KIND)
    dataset.PreliminaryFlag = "PRELIMINARY"
    if source.previous is not None:
        dataset.PredecessorDocumentsSequence = predecessors(source, source.previous)
    return [finish(dataset, source, _KIND)]


def build_report(
    source: ResultSource,
    content: MeasurementReport,
    kind: ResultKind,
    number: str | int = 1,
    **options: Any,  # noqa: ANN401 - of highdicom
) -> Dataset:
    """Wrap content into a report on the slices and the segmentation of a study."""
    segmentation = segmentation_reference(source)
    slices = plain_headers(source)
    evidence = slices if segmentation is None else [*slices, segmentation]
    return Comprehensive3DSR(
        evidence=evidence,
        content=content,
        series_instance_uid=series_uid_of(source.study_uid, source.result_set, kind),
        series_number=kind.series_number,
        sop_instance_uid=sop_uid_of(source.study_uid, source.result_set, kind, number),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **options,
    )


def predecessors(source: ResultSource, result_set: str) -> list[Dataset]:
    """Return the reference to a model's report of another set, or of the same."""
    report = Dataset()
    report.ReferencedSOPClassUID = Comprehensive3DSRStorage
    report.ReferencedSOPInstanceUID = sop_uid_of(source.study_uid, result_set, _KIND)
    series = Dataset()
    series.SeriesInstanceUID = series_uid_of(source.study_uid, result_set, _KIND)
    series.ReferencedSOPSequence = [report]
    study = Dataset()
    study.StudyInstanceUID = source.study_uid
    study.ReferencedSeriesSequence = [series]
    return [study]


def region_of(source: ResultSource, box: Box) -> ImageRegion:
    """Return a box as a region of its slice."""
    header = source.headers[box.slice_index]
    return ImageRegion(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=np.array(_inside(box, header), dtype=np.float64),
        source_image=SourceImageForRegion(
            referenced_sop_class_uid=str(header.SOPClassUID),
            referenced_sop_instance_uid=str(header.SOPInstanceUID),
        ),
    )


def segment_of(
    source: ResultSource, segmentation: Dataset | None, name: str
) -> ReferencedSegment | None:
    """Return the segment of a level; ``None`` where its vertebra was not found."""
    if segmentation is None or name not in source.levels:
        return None
    return ReferencedSegment(
        sop_class_uid=str(segmentation.SOPClassUID),
        sop_instance_uid=str(segmentation.SOPInstanceUID),
        segment_number=int(VertebraLevel[name]),
        source_series=SourceSeriesForSegmentation(
            str(source.headers[0].SeriesInstanceUID)
        ),
    )


def tracking(source: ResultSource, name: str, what: str = "") -> TrackingIdentifier:
    """Return what a finding is followed by; that of a level is that of its segment."""
    told = f"{name} {what}".strip()
    uid = tracking_uid_of(source.study_uid, source.result_set, told)
    return TrackingIdentifier(uid=uid, identifier=told)


def site_of(name: str) -> FindingSite:
    """Return the vertebra of a level, or the cervical spine."""
    code = codes.CERVICAL_SPINE if name == OVERALL else codes.VERTEBRAE[name]
    return FindingSite(anatomic_location=code)


def presence(value: Code) -> QualitativeEvaluation:
    """Say that a fracture is present, absent or undetermined."""
    return QualitativeEvaluation(name=codes.FRACTURE, value=value)


def _whole_study(source: ResultSource, finding: Finding) -> Group:
    return MeasurementsAndQualitativeEvaluations(
        **_told(source, finding),
        tracking_identifier=tracking(source, "cervical spine"),
    )


def _level(
    source: ResultSource, finding: Finding, segmentation: Dataset | None
) -> Group:
    told = _told(source, finding)
    track = tracking(source, finding.name)
    segment = segment_of(source, segmentation, finding.name)
    if segment is None or finding.probability is None:
        return MeasurementsAndQualitativeEvaluations(**told, tracking_identifier=track)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        **told, tracking_identifier=track, referenced_segment=segment
    )


def _suspected_region(source: ResultSource, finding: Finding) -> Group | None:
    """Return where a fracture is suspected; of levels above their operating point."""
    if finding.box is None or not finding.is_above:
        return None
    told = _told(source, finding)
    del told["measurements"]
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        **told,
        tracking_identifier=tracking(source, finding.name, "suspected place"),
        referenced_region=region_of(source, finding.box),
    )


def _told(source: ResultSource, finding: Finding) -> dict[str, Any]:
    """Return what all groups of a level say alike."""
    measurements: Sequence[Measurement] | None = None
    value = codes.UNDETERMINED
    if finding.probability is not None:
        value = codes.PRESENT if finding.is_above else codes.ABSENT
        measurements = [
            Measurement(
                name=codes.PROBABILITY,
                value=finding.probability,
                unit=codes.NO_UNITS,
            )
        ]
    return {
        "finding_category": codes.CLINICAL_FINDING,
        "finding_type": codes.FRACTURE,
        "finding_sites": [site_of(finding.name)],
        "algorithm_id": _algorithm(source, finding),
        "measurements": measurements,
        "qualitative_evaluations": [presence(value)],
    }


def _algorithm(source: ResultSource, finding: Finding) -> AlgorithmIdentification:
    note = source.prediction
    named = note.get("model_version")
    parameters = [f"operating point {finding.threshold:.6g}"]
    if finding.answer is not None:
        parameters.append(f"answer {finding.answer}")
    parameters.append(f"trained on {note['trained_on']} data")
    return AlgorithmIdentification(
        name=f"csfd fracture classifier {note['model']}"[:_LONGEST],
        version=str(named or f"csfd {VERSION}")[:_LONGEST],
        parameters=parameters,
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )


def _inside(box: Box, header: Dataset) -> list[tuple[float, float]]:
    """Return the corners of a box within its slice; rounding may lead beyond."""
    return [
        (min(max(x, 0.0), float(header.Columns)), min(max(y, 0.0), float(header.Rows)))
        for x, y in box.corners()
    ]
