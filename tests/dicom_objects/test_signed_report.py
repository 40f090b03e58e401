"""What a reader has signed as a Structured Report."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID
from support.result_objects import (
    groups_of,
    headers,
    named,
    result_source,
    validator_errors,
    walked,
)

from csfd_core.dicom_objects.results import ResultKind, make_results, make_signed
from csfd_core.dicom_objects.source import ReviewBox, SignedReview

SIGNED_AT = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
FRACTURE, SEGMENT, REGION = "125605004", "121191", "111030"


def review(**changes: Any) -> SignedReview:
    facts = {
        "reader": "anna",
        "signed_at": SIGNED_AT,
        "saw_ai": True,
        "levels": {"C1": "whole", "C5": "fractured", "C7": "not_assessable"},
    }
    return SignedReview(**{**facts, **changes})


def signed(folder: Path, *reviews: SignedReview) -> Path:
    made = make_signed(result_source(), *reviews)
    assert made.kind is ResultKind.SIGNED_SR
    path = folder / "signed.dcm"
    made.dataset.save_as(path, enforce_file_format=True)
    return path


def referenced(found: Dataset) -> list[str]:
    (study,) = found.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == STUDY_UID
    return [
        str(one.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]


def test_it_says_what_the_reader_has_answered_and_nothing_else(tmp_path: Path) -> None:
    path = signed(tmp_path, review())
    assert validator_errors(path) == []
    told = {
        name[:2]: named(group, FRACTURE)[0].ConceptCodeSequence[0].CodeMeaning
        for name, group in groups_of(path).items()
    }
    assert told == {"C1": "Absent", "C5": "Present", "C7": "Undetermined"}
    items = list(walked(dcmread(path)))
    assert not [item for item in items if item.ValueType == "NUM"]


def test_it_is_by_a_person_and_names_the_models_report(tmp_path: Path) -> None:
    path = signed(tmp_path, review())
    read = highdicom.sr.srread(path)
    (observer,) = read.content.get_observer_contexts()
    assert observer.observer_type.meaning == "Person"
    assert str(observer.observer_identifying_attributes.name) == "anna^"
    (report,) = make_results(result_source(), [ResultKind.SR])
    assert referenced(dcmread(path)) == [report.sop_uid]


def test_it_is_final_and_verified_only_by_an_organization(tmp_path: Path) -> None:
    found = dcmread(signed(tmp_path, review()))
    assert (found.PreliminaryFlag, found.VerificationFlag) == ("FINAL", "UNVERIFIED")
    assert "VerifyingObserverSequence" not in found
    path = signed(tmp_path, review(organization="A Hospital"))
    assert validator_errors(path) == []
    found = dcmread(path)
    assert (found.PreliminaryFlag, found.VerificationFlag) == ("FINAL", "VERIFIED")
    (observer,) = found.VerifyingObserverSequence
    assert str(observer.VerifyingObserverName) == "anna^"
    local = SIGNED_AT.astimezone().strftime("%Y%m%d%H%M%S")
    assert str(observer.VerificationDateTime).startswith(local)


def test_a_second_signature_is_another_report_that_names_the_first(
    tmp_path: Path,
) -> None:
    first = make_signed(result_source(), review())
    later = review(signed_at=datetime(2026, 11, 29, tzinfo=UTC))
    found = dcmread(signed(tmp_path, later, review()))
    assert found.SOPInstanceUID != first.sop_uid
    assert found.SeriesInstanceUID == first.series_uid
    assert first.sop_uid in referenced(found)
    assert make_signed(result_source(), review()).sop_uid == first.sop_uid


def test_boxes_that_were_drawn_lie_on_their_slices(tmp_path: Path) -> None:
    box = ReviewBox(level="C5", slice_index=11, x=3, y=4, width=5, height=6)
    path = signed(tmp_path, review(boxes=[box]))
    assert validator_errors(path) == []
    ((name, group),) = (
        (name, group) for name, group in groups_of(path).items() if "box" in name
    )
    assert name.startswith("C5 box 1")
    (region,) = named(group, REGION)
    assert list(region.GraphicData) == [3, 4, 8, 4, 8, 10, 3, 10, 3, 4]
    (image,) = region.ContentSequence[0].ReferencedSOPSequence
    slices = headers()
    assert image.ReferencedSOPInstanceUID == slices[11].SOPInstanceUID


@pytest.mark.parametrize(("saw_ai", "told"), [(True, "at hand"), (False, "blind")])
def test_it_says_whether_the_model_was_seen_and_what_was_added(
    tmp_path: Path, saw_ai: bool, told: str
) -> None:
    path = signed(tmp_path, review(saw_ai=saw_ai, comment="Old."))
    (item,) = named(dcmread(path), "121106")
    assert told in item.TextValue
    assert item.TextValue.endswith("Old.")


@pytest.mark.parametrize(
    "reader", ["Anna^Beispiel=X", "a\\b", "  ", "n" * 300, "anna@example.org"]
)
def test_any_name_of_a_reader_is_written_as_a_name(tmp_path: Path, reader: str) -> None:
    assert validator_errors(signed(tmp_path, review(reader=reader))) == []
