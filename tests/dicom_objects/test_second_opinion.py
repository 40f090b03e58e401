"""The second validator sees what it is asked for: faults planted in our objects."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_standard import second_opinion
from support.result_objects import made, result_source

from csfd_core.dicom_objects.results import ResultKind

Plant = Callable[[Dataset], None]


def without(keyword: str) -> Plant:
    return lambda dataset: delattr(dataset, keyword)


def having(keyword: str, value: object) -> Plant:
    return lambda dataset: setattr(dataset, keyword, value)


def in_a_segment(plant: Plant) -> Plant:
    return lambda dataset: plant(dataset.SegmentSequence[2])


def in_a_frame(plant: Plant) -> Plant:
    return lambda dataset: plant(dataset.PerFrameFunctionalGroupsSequence[3])


def deep_in_the_content(plant: Plant) -> Plant:
    return lambda dataset: plant(dataset.ContentSequence[-1].ContentSequence[0])


@pytest.mark.parametrize(
    ("kind", "plant", "told"),
    [
        (ResultKind.SEG, without("ContentLabel"), "TagMissing"),
        (ResultKind.SEG, in_a_segment(without("SegmentLabel")), "TagMissing"),
        (ResultKind.SEG, in_a_segment(having("SegmentLabel", "")), "TagEmpty"),
        (ResultKind.SEG, in_a_segment(having("StudyID", "1")), "TagUnexpected"),
        (ResultKind.SEG, in_a_frame(having("StudyID", "1")), "TagUnexpected"),
        (ResultKind.SR, without("CompletionFlag"), "TagMissing"),
        (ResultKind.SR, having("WindowCenter", 40), "TagUnexpected"),
        (ResultKind.SR, deep_in_the_content(without("ValueType")), "TagMissing"),
        (ResultKind.KEY_IMAGE, without("ConversionType"), "TagMissing"),
        (ResultKind.KEY_IMAGE, having("PatientSex", "female"), "InvalidValue"),
        (ResultKind.PDF, having("SeriesInstanceUID", "1.02"), "InvalidValue"),
        (ResultKind.PDF, having("SOPClassUID", "1.2.3"), "UnknownSOPClassUID"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")  # as pydicom sees it, too
def test_a_planted_fault_is_found(
    tmp_path: Path, kind: ResultKind, plant: Plant, told: str
) -> None:
    path = made(result_source(), kind, tmp_path)[0]
    assert second_opinion(path) == []
    dataset = dcmread(path)
    plant(dataset)
    dataset.save_as(path)
    assert any(told in error for error in second_opinion(path))
