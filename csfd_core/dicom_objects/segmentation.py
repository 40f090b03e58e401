"""The vertebrae as a DICOM Segmentation: BINARY, in the grid of the slices."""

from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from csfd_core.dicom_objects import codes
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
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES, VertebraLevel

_KIND: Final = ResultKind.SEG
_LABEL: Final = "VERTEBRAE"


def make_segmentation(source: ResultSource) -> list[Dataset]:
    """Make the segmentation of a study; nothing where there is no vertebra."""
    if not source.levels:
        return []
    mask = source.mask
    if mask.max() > VertebraLevel.C7:  # thoracic vertebrae
        mask = np.where(mask > VertebraLevel.C7, 0, mask).astype(np.uint8)
    study_uid, results = source.study_uid, source.result_set
    dataset = Segmentation(
        source_images=plain_headers(source),
        pixel_array=mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments_of(source),
        series_instance_uid=series_uid_of(study_uid, results, _KIND),
        series_number=_KIND.series_number,
        sop_instance_uid=sop_uid_of(study_uid, results, _KIND),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=VERSION,
        device_serial_number="0",
        content_label=_LABEL,
        content_description="C1 to C7, segmented by a network, not verified",
        content_creator_name="csfd^",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=True,
    )
    _set_dimension_uid(dataset, uid_of(study_uid, results, _KIND, "dimensions"))
    return [finish(dataset, source, _KIND)]


def segmentation_reference(source: ResultSource) -> Dataset | None:
    """Return what another object needs to refer to the segmentation of a study.

    ``None`` where it has none.
    """
    if not source.levels:
        return None
    study_uid, results = source.study_uid, source.result_set
    reference = Dataset()
    reference.SOPClassUID = SegmentationStorage
    reference.SOPInstanceUID = sop_uid_of(study_uid, results, _KIND)
    reference.StudyInstanceUID = study_uid
    reference.SeriesInstanceUID = series_uid_of(study_uid, results, _KIND)
    return reference


def segments_of(source: ResultSource) -> list[SegmentDescription]:
    """Describe the segments of all levels, whether their vertebra is there or not."""
    return [_segment(source, name) for name in LEVEL_NAMES]


def _segment(source: ResultSource, name: str) -> SegmentDescription:
    model = (source.prediction.get("segmentation") or {}).get("model") or "unknown"
    red, green, blue = (int(LEVEL_COLOURS[name][i : i + 2], 16) for i in (1, 3, 5))
    return SegmentDescription(
        segment_number=int(VertebraLevel[name]),
        segment_label=name,
        segmented_property_category=codes.ANATOMICAL_STRUCTURE,
        segmented_property_type=codes.VERTEBRAE[name],
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="csfd vertebra segmentation",
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=str(model)[:64],
        ),
        tracking_uid=tracking_uid_of(source.study_uid, source.result_set, name),
        tracking_id=name,
        display_color=CIELabColor.from_rgb(red, green, blue),
    )


def _set_dimension_uid(dataset: Dataset, uid: str) -> None:
    """Name the dimensions: highdicom draws a new UID each time."""
    for item in (
        *dataset.DimensionOrganizationSequence,
        *dataset.DimensionIndexSequence,
    ):
        item.DimensionOrganizationUID = uid
