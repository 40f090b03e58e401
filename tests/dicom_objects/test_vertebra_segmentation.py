"""The vertebrae as a DICOM Segmentation: what is in it, and where it lies."""

from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import neck_mask
from support.result_objects import (
    FRAME_UID,
    headers,
    made,
    mask_from,
    result_source,
    validator_errors,
)

from csfd_core.dicom.geometry import build_geometry
from csfd_core.dicom.headers import read_slice_header
from csfd_core.dicom_objects.results import ResultKind, make_results
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.dicom_objects.stored import to_bytes
from csfd_core.inference.segment import nifti_affine
from csfd_core.vocabulary import LEVEL_NAMES

SNOMED = {
    "C1": "14806007",
    "C2": "39976000",
    "C3": "113205007",
    "C4": "5329002",
    "C5": "36978003",
    "C6": "36054005",
    "C7": "87391001",
}


def segmentation(source: ResultSource, folder: Path) -> Path:
    (path,) = made(source, ResultKind.SEG, folder)
    return path


def test_a_validator_finds_no_error_and_every_voxel_is_as_it_was(
    tmp_path: Path,
) -> None:
    path = segmentation(result_source(), tmp_path)
    assert validator_errors(path) == []
    np.testing.assert_array_equal(mask_from(path, 24), neck_mask())


def test_highdicom_reads_the_same_mask_for_the_same_slices(tmp_path: Path) -> None:
    path = segmentation(result_source(), tmp_path)
    read = highdicom.seg.segread(path)
    found = read.get_pixels_by_source_instance(
        [str(one.SOPInstanceUID) for one in headers()],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(found, neck_mask())


def test_all_seven_levels_are_described_though_four_are_there(tmp_path: Path) -> None:
    mask = neck_mask()
    mask[np.isin(mask, (1, 2, 7))] = 0
    path = segmentation(result_source(mask=mask), tmp_path)
    found = dcmread(path)
    told = {
        one.SegmentLabel: one.SegmentedPropertyTypeCodeSequence[0].CodeValue
        for one in found.SegmentSequence
    }
    assert told == SNOMED
    assert [one.SegmentNumber for one in found.SegmentSequence] == list(range(1, 8))
    np.testing.assert_array_equal(mask_from(path, 24), mask)
    assert found.NumberOfFrames == sum(
        bool((plane == label).any()) for plane in mask for label in range(1, 8)
    )
    assert found.SegmentationType == "BINARY"
    assert found.FrameOfReferenceUID == FRAME_UID


def test_thoracic_vertebrae_are_left_out(tmp_path: Path) -> None:
    mask = neck_mask()
    mask[-3:][mask[-3:] == 7] = 8  # T1
    path = segmentation(result_source(mask=mask), tmp_path)
    np.testing.assert_array_equal(mask_from(path, 24), np.where(mask == 8, 0, mask))


def test_a_study_without_a_vertebra_has_no_segmentation() -> None:
    source = result_source(mask=np.zeros((24, 64, 64), dtype=np.uint8))
    assert make_results(source, [ResultKind.SEG]) == []


LYING = {  # direction along a row, along a column; what HFS, FFS and prone give
    "supine": ((1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "mirrored": ((-1, 0, 0), (0, 1, 0)),
    "turned by 8 degrees": (
        (np.cos(0.14), np.sin(0.14), 0),
        (-np.sin(0.14), np.cos(0.14), 0),
    ),
}


def lying(
    rows: npt.ArrayLike, columns: npt.ArrayLike, *, from_feet: bool
) -> list[Dataset]:
    """The headers of a stack that lies in some way, head to feet; pixels not square."""
    found = headers(spacing=(1.25, 0.75))
    for index, one in enumerate(found):
        one.ImageOrientationPatient = [round(float(v), 6) for v in (*rows, *columns)]  # type: ignore[misc]
        one.ImagePositionPatient = [-48.25, -40.5, 100.1 - index * 1.7]
        one.InstanceNumber = len(found) - index if from_feet else index + 1
        if from_feet:
            one.PatientPosition = "FFS"
    return found


@pytest.mark.parametrize("from_feet", [False, True])
@pytest.mark.parametrize("way", LYING)
def test_it_lies_where_the_mask_of_the_store_lies(
    tmp_path: Path, way: str, from_feet: bool
) -> None:
    stack = lying(*LYING[way], from_feet=from_feet)
    path = segmentation(result_source(headers=stack), tmp_path)
    found = dcmread(path)
    shared = found.SharedFunctionalGroupsSequence[0]
    spacing = [float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing]
    plane = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    along_row, along_column = np.reshape([float(v) for v in plane], (2, 3))
    in_scan = {str(one.SOPInstanceUID): index for index, one in enumerate(stack)}

    slices = [read_slice_header(to_bytes(one), "x") for one in stack]
    affine = nifti_affine(build_geometry([one for one in slices if one]))
    for item in found.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0].ImagePositionPatient
        derived = item.DerivationImageSequence[0].SourceImageSequence[0]
        index = in_scan[str(derived.ReferencedSOPInstanceUID)]
        for row, column in ((0, 0), (63, 0), (0, 63)):
            lps = np.array([float(v) for v in place])
            lps = (
                lps + along_row * spacing[1] * column + along_column * spacing[0] * row
            )
            stored_ras = affine @ (column, row, index, 1)
            np.testing.assert_allclose(
                lps * (-1, -1, 1), stored_ras[:3], atol=0.01, rtol=0
            )


def test_slices_that_name_no_frame_of_reference_get_one_for_the_series(
    tmp_path: Path,
) -> None:
    stack = headers()
    for one in stack:
        del one.FrameOfReferenceUID
        del one.SliceThickness
    path = segmentation(result_source(headers=stack), tmp_path)
    assert validator_errors(path) == []
    again = segmentation(result_source(headers=stack), tmp_path)
    found = dcmread(path)
    assert found.FrameOfReferenceUID == dcmread(again).FrameOfReferenceUID
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == 2.0  # how far they lie apart


def test_each_segment_is_followed_by_its_level(tmp_path: Path) -> None:
    found = dcmread(segmentation(result_source(), tmp_path))
    assert [one.TrackingID for one in found.SegmentSequence] == list(LEVEL_NAMES)
    assert len({one.TrackingUID for one in found.SegmentSequence}) == 7
