"""What a model says as a Structured Report: read back item by item with pydicom."""

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID, neck_mask
from support.result_objects import (
    BOX,
    BOX_SLICE,
    groups_of,
    headers,
    made,
    named,
    prediction,
    result_source,
    validator_errors,
)

from csfd_core.dicom_objects.kinds import result_set
from csfd_core.dicom_objects.results import ResultKind, make_results
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

PRESENT, ABSENT, UNDETERMINED = "52101004", "272519000", "373068000"
FRACTURE, PROBABILITY, SEGMENT = "125605004", "122157", "121191"
SITE, REGION, PARAMETER = "363698007", "111030", "111002"


def report(source: ResultSource, folder: Path) -> Path:
    (path,) = made(source, ResultKind.SR, folder)
    return path


def value_of(group: Dataset, code: str) -> str:
    (item,) = named(group, code)
    return str(item.ConceptCodeSequence[0].CodeValue)


def number_of(group: Dataset) -> float | None:
    found = named(group, PROBABILITY)
    if not found:
        return None
    (measured,) = found[0].MeasuredValueSequence
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    return float(measured.NumericValue)


def test_a_validator_finds_no_error(tmp_path: Path) -> None:
    assert validator_errors(report(result_source(), tmp_path)) == []


def test_every_probability_is_told_with_its_vertebra(tmp_path: Path) -> None:
    said = prediction({"C3": 0.123456})["probabilities"]
    note = prediction({"C3": 0.123456})
    groups = groups_of(report(result_source(prediction=note), tmp_path))
    told = {name: number_of(groups[name]) for name in LEVEL_NAMES}
    assert told == {name: said[name] for name in LEVEL_NAMES}
    assert number_of(groups["cervical spine"]) == said[OVERALL]
    assert value_of(groups["C5"], SITE) == "36978003"
    assert value_of(groups["cervical spine"], SITE) == "122494005"


def test_a_fracture_is_present_from_the_operating_point_on(tmp_path: Path) -> None:
    note = prediction({"C1": 0.3, "C3": 0.2999})
    groups = groups_of(report(result_source(prediction=note), tmp_path))
    told = {name: value_of(groups[name], FRACTURE) for name in LEVEL_NAMES}
    present = {name for name, value in told.items() if value == PRESENT}
    assert present == {"C1", "C2", "C5"}
    assert set(told.values()) == {PRESENT, ABSENT}
    parameters = [item.TextValue for item in named(groups["C1"], PARAMETER)]
    assert parameters == [
        "operating point 0.3",
        "answer whole",
        "trained on phantom data",
    ]


def test_a_level_that_was_not_assessed_has_no_number(tmp_path: Path) -> None:
    mask = neck_mask()
    mask[mask == 1] = 0
    note = prediction({"C1": None, "C7": None}, evidence={})
    path = report(result_source(prediction=note, mask=mask), tmp_path)
    assert validator_errors(path) == []
    groups = groups_of(path)
    for name in ("C1", "C7"):
        assert value_of(groups[name], FRACTURE) == UNDETERMINED
        assert number_of(groups[name]) is None
        assert named(groups[name], SEGMENT) == []
    assert number_of(groups["C2"]) == 0.6


def test_a_study_without_a_vertebra_is_told_to_be_not_assessed(tmp_path: Path) -> None:
    nothing = dict.fromkeys([*LEVEL_NAMES, OVERALL])
    source = result_source(
        prediction=prediction(nothing, evidence={}, answers={}),
        mask=np.zeros((24, 64, 64), dtype=np.uint8),
    )
    path = report(source, tmp_path)
    assert validator_errors(path) == []
    groups = groups_of(path)
    assert {value_of(group, FRACTURE) for group in groups.values()} == {UNDETERMINED}
    assert [number_of(group) for group in groups.values()] == [None] * 8
    (study,) = dcmread(path).CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 24


def test_each_level_refers_to_its_segment_and_is_followed_by_the_same_uid(
    tmp_path: Path,
) -> None:
    source = result_source()
    groups = groups_of(report(source, tmp_path))
    (path,) = made(source, ResultKind.SEG, tmp_path)
    segmentation = dcmread(path)
    followed = {one.TrackingID: one for one in segmentation.SegmentSequence}
    for name in LEVEL_NAMES:
        (segment,) = named(groups[name], SEGMENT)
        (referenced,) = segment.ReferencedSOPSequence
        assert referenced.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert referenced.ReferencedSegmentNumber == followed[name].SegmentNumber
        (tracking,) = named(groups[name], "112040")
        assert followed[name].TrackingUID == tracking.UID
    series = {
        str(one.SeriesInstanceUID): len(one.ReferencedSOPSequence)
        for one in dcmread(report(source, tmp_path))
        .CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence
    }
    assert series == {f"{STUDY_UID}.1": 24, str(segmentation.SeriesInstanceUID): 1}


def test_the_suspected_place_is_a_box_on_its_slice(tmp_path: Path) -> None:
    groups = groups_of(report(result_source(), tmp_path))
    places = [name for name in groups if name.endswith("suspected place")]
    assert places == ["C5 suspected place"]
    (region,) = named(groups[places[0]], REGION)
    left, top = BOX["x"], BOX["y"]
    right, bottom = left + BOX["width"], top + BOX["height"]
    around = [left, top, right, top, right, bottom, left, bottom, left, top]
    assert list(region.GraphicData) == pytest.approx(around)
    (image,) = region.ContentSequence[0].ReferencedSOPSequence
    slices = headers()
    assert image.ReferencedSOPInstanceUID == slices[BOX_SLICE].SOPInstanceUID


@pytest.mark.parametrize(
    "edges",
    [
        {"x": -0.01, "y": -0.004, "width": 64.02, "height": 64.01},
        {"x": 60.0, "y": 60.0, "width": 4.005, "height": 4.0},
    ],
)
def test_a_box_does_not_reach_beyond_its_slice(
    tmp_path: Path, edges: dict[str, float]
) -> None:
    evidence = {"C5": {"slice_index": 0, "box_px": edges, "peak": 1.0}}
    note = prediction(evidence=evidence)
    groups = groups_of(report(result_source(prediction=note), tmp_path))
    (region,) = named(groups["C5 suspected place"], REGION)
    assert min(region.GraphicData) >= 0
    assert max(region.GraphicData) <= 64


def test_it_is_preliminary_and_made_by_a_device(tmp_path: Path) -> None:
    path = report(result_source(), tmp_path)
    found = dcmread(path)
    assert found.CompletionFlag == "COMPLETE"
    assert found.VerificationFlag == "UNVERIFIED"
    assert found.PreliminaryFlag == "PRELIMINARY"
    read = highdicom.sr.srread(path)
    (observer,) = read.content.get_observer_contexts()
    assert observer.observer_type.meaning == "Device"
    assert observer.observer_identifying_attributes.name == "csfd"
    assert found.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_a_new_model_makes_a_new_report_that_names_the_earlier_one(
    tmp_path: Path,
) -> None:
    (first,) = make_results(result_source(), [ResultKind.SR])
    before = result_set(prediction())
    note = prediction(model_version="v8", model_ids=["drawn-1"])
    path = report(result_source(prediction=note, previous=before), tmp_path)
    assert validator_errors(path) == []
    second = dcmread(path)
    assert second.SOPInstanceUID != first.sop_uid
    assert second.SeriesInstanceUID != first.series_uid
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == STUDY_UID
    assert series.SeriesInstanceUID == first.series_uid
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.sop_uid


CHANGED: dict[str, Any] = {
    "content_hash": "other slices",
    "model": "other",
    "model_version": "v8",
    "model_ids": ["other"],
    "made_from": {"models": ["other"]},
    "thresholds": {"vertebra": 0.4, "overall": 0.5},
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_prediction_follows_from_makes_its_set(name: str) -> None:
    assert result_set(prediction(**{name: CHANGED[name]})) != result_set(prediction())


def test_when_and_how_fast_a_prediction_was_made_does_not_make_its_set() -> None:
    note = prediction(seconds={"classify": 1.0}, study_uid="1.2.3")
    assert result_set(note) == result_set(prediction())
