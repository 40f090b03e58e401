"""Result objects in a store: made once, kept, listed, and without the patient."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID
from support.result_objects import MADE_AT, validator_errors
from support.viewed_study import place_study, study_mask

from csfd_core.deid.deidentify import deidentify
from csfd_core.dicom_objects import stored
from csfd_core.dicom_objects.results import ResultKind, make_results, result_set
from csfd_core.dicom_objects.source import SignedReview
from csfd_core.dicom_objects.stored import (
    StoredResult,
    read_results,
    result_source,
    store_signed,
    stored_results,
)
from csfd_core.errors import IdentifierError, SourceError, StoreError
from csfd_core.inference.predict import prediction_path, read_prediction
from csfd_core.lineage.forward import files_of
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

PLANTED = ("Sensitive", "patient-of-", "Planted", "19700101", "A-4711")
FRAME_UID = f"{STUDY_UID}.9"
REVIEW = SignedReview(
    reader="anna", signed_at=MADE_AT, saw_ai=True, levels={"C5": "fractured"}
)
Placed = tuple[Stores, Sources]


def plant(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = FRAME_UID
    dataset.AccessionNumber = "A-4711"
    dataset.ReferringPhysicianName = "Planted^Doctor"
    dataset.StudyDescription = "Planted description"
    dataset.InstitutionName = "Planted hospital"


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    stores, _ = place_study(tmp_path, edit=plant)
    return stores, Sources([Source(tmp_path / "source")])


def again_by(stores: Stores, model: str) -> str:
    """Predict the study by another model; return its set."""
    note = read_prediction(stores, STUDY_UID) or {}
    note["model_ids"] = [model]
    stores.root.write(prediction_path(STUDY_UID), json.dumps(note).encode())
    return result_set(note)


def of_kind(found: list[StoredResult], kind: ResultKind) -> StoredResult:
    (one,) = (result for result in found if result.kind is kind)
    return one


def opened(stores: Stores, result: StoredResult) -> Dataset:
    return dcmread(Path(stores.root.url) / result.path)


def everything_below(folder: Path) -> bytes:
    return b"\n".join(
        str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    )


def test_they_are_made_when_asked_for_and_kept(placed: Placed) -> None:
    stores, sources = placed
    assert read_results(stores, STUDY_UID) == []
    found = stored_results(stores, sources, STUDY_UID)
    assert [one.kind for one in found] == ["seg", "sr", "key-image", "pdf"]
    before = {one.path: one.read(stores) for one in found}
    assert stored_results(stores, sources, STUDY_UID) == found
    assert read_results(stores, STUDY_UID) == found
    assert {one.path: one.read(stores) for one in found} == before
    for one in found:
        dataset = opened(stores, one)
        assert dataset.SOPInstanceUID == one.sop_uid
        assert dataset.SeriesInstanceUID == one.series_uid
        assert dataset.SOPClassUID == one.sop_class_uid
        assert one.is_current
        assert one.previous is None
        assert validator_errors(Path(stores.root.url) / one.path) == []


def test_nothing_of_a_patient_is_in_them_though_the_source_names_one(
    placed: Placed, tmp_path: Path
) -> None:
    stores, sources = placed
    assert all(
        word.encode() in everything_below(tmp_path / "source") for word in PLANTED
    )
    found = stored_results(stores, sources, STUDY_UID)
    store_signed(stores, sources, STUDY_UID, REVIEW)
    kept = everything_below(tmp_path / "store" / "dicom_results")
    assert len(kept) > 100_000
    assert [word for word in PLANTED if word.encode() in kept] == []
    report = opened(stores, of_kind(found, ResultKind.SR))
    record = stores.metadata.read_record(STUDY_UID)
    assert record is not None
    assert report.PatientID == f"csfd-{record.patient_key}"
    assert report.PatientIdentityRemoved == "YES"
    codes = [one.CodeValue for one in report.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113110"]  # the UIDs are those of the source
    assert report.StudyInstanceUID == STUDY_UID


def test_they_lie_in_the_source_and_name_its_slices(placed: Placed) -> None:
    stores, sources = placed
    found = stored_results(stores, sources, STUDY_UID)
    segmentation = opened(stores, of_kind(found, ResultKind.SEG))
    assert segmentation.FrameOfReferenceUID == FRAME_UID
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == f"{STUDY_UID}.1"
    in_source = {
        str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        for path in Path(sources.locations[0].url).rglob("*.dcm")
    }
    named = {
        str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence
    }
    assert named == in_source
    frames = segmentation.NumberOfFrames
    mask = study_mask()
    assert frames == sum(len(np.unique(plane[plane > 0])) for plane in mask)


def test_of_a_source_that_csfd_has_de_identified_the_uids_are_keyed(
    tmp_path: Path,
) -> None:
    raw = tmp_path / "raw"
    place_study(raw, edit=plant)
    secret = bytes(range(32))
    clean = tmp_path / "clean"
    stores, _ = place_study(clean, edit=plant)
    for path in sorted((clean / "source").rglob("*.dcm")):
        made = deidentify(path.read_bytes(), secret)
        renamed = dcmread(path)
        keyed = dcmread(_file(made.content, tmp_path))
        keyed.StudyInstanceUID = renamed.StudyInstanceUID  # the folder is named so
        keyed.save_as(path, enforce_file_format=True)
    sources = Sources([Source(clean / "source")])
    found = stored_results(stores, sources, STUDY_UID)
    report = opened(stores, of_kind(found, ResultKind.SR))
    codes = [one.CodeValue for one in report.DeidentificationMethodCodeSequence]
    assert codes == ["113100"]


def _file(content: bytes, folder: Path) -> Path:
    path = folder / "one.dcm"
    path.write_bytes(content)
    return path


def test_where_the_files_are_gone_they_are_made_all_the_same(placed: Placed) -> None:
    stores, _ = placed
    found = stored_results(stores, Sources([]), STUDY_UID)
    segmentation = opened(stores, of_kind(found, ResultKind.SEG))
    assert segmentation.FrameOfReferenceUID.startswith("2.25.")


def test_another_model_has_a_set_of_its_own_and_the_older_one_stays(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, sources = placed
    first = stored_results(stores, sources, STUDY_UID)
    content = {one.path: one.read(stores) for one in first}
    name = again_by(stores, "another")
    found = stored_results(stores, sources, STUDY_UID)
    assert [one.sop_uid for one in found[:4]] == [one.sop_uid for one in first]
    assert [one.is_current for one in found] == [False] * 4 + [True] * 4
    assert {one.result_set for one in found[4:]} == {name}
    assert {one.previous for one in found[4:]} == {first[0].result_set}
    assert {one.path: one.read(stores) for one in found[:4]} == content
    report = opened(stores, of_kind(found[4:], ResultKind.SR))
    (study,) = report.PredecessorDocumentsSequence
    (before,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert before.ReferencedSOPInstanceUID == of_kind(first, ResultKind.SR).sop_uid


def test_a_set_that_was_cut_off_is_not_listed_and_made_anew(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, sources = placed
    write = Location.write

    def fail_at_the_index(self: Location, path: str, content: bytes) -> None:
        if path.endswith(stored.INDEX):
            raise SourceError("No space is left.")
        write(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write", fail_at_the_index)
        with pytest.raises(SourceError):
            stored_results(stores, sources, STUDY_UID)
    assert read_results(stores, STUDY_UID) == []
    assert len(stored_results(stores, sources, STUDY_UID)) == 4


def test_slices_that_have_changed_since_are_told_of(placed: Placed) -> None:
    stores, sources = placed
    note = read_prediction(stores, STUDY_UID) or {}
    note["content_hash"] = "of other slices"
    stores.root.write(prediction_path(STUDY_UID), json.dumps(note).encode())
    with pytest.raises(StoreError, match="predicted anew"):
        stored_results(stores, sources, STUDY_UID)
    assert read_results(stores, STUDY_UID) == []


def test_without_a_prediction_there_is_nothing(placed: Placed) -> None:
    stores, sources = placed
    stores.root.remove(prediction_path(STUDY_UID))
    assert stored_results(stores, sources, STUDY_UID) == []
    with pytest.raises(StoreError, match="no prediction"):
        store_signed(stores, sources, STUDY_UID, REVIEW)
    with pytest.raises(IdentifierError):
        read_results(stores, "../x")


def test_a_withdrawn_study_keeps_none_and_none_is_made(placed: Placed) -> None:
    stores, sources = placed
    found = stored_results(stores, sources, STUDY_UID)
    store_signed(stores, sources, STUDY_UID, REVIEW)
    assert {one.path for one in found} <= set(files_of(stores, STUDY_UID))
    prediction = stores.root.read(prediction_path(STUDY_UID))
    withdraw(stores, STUDY_UID, "asked for", "test")
    assert stores.root.find("dicom_results")[0] == []
    stores.root.write(prediction_path(STUDY_UID), prediction)  # by a late writer
    assert stored_results(stores, sources, STUDY_UID) == []


def test_a_study_that_is_withdrawn_meanwhile_keeps_none(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, sources = placed

    def withdraw_first(source: Any) -> list[Any]:
        made = make_results(source)
        withdraw(stores, STUDY_UID, "asked for", "test")
        return made

    monkeypatch.setattr(stored, "make_results", withdraw_first)
    assert stored_results(stores, sources, STUDY_UID) == []
    assert stores.root.find("dicom_results")[0] == []


def test_a_signed_report_is_kept_once_beside_what_the_model_said(
    placed: Placed,
) -> None:
    stores, sources = placed
    one = store_signed(stores, sources, STUDY_UID, REVIEW)
    content = one.read(stores)
    assert store_signed(stores, sources, STUDY_UID, REVIEW) == one
    assert one.read(stores) == content
    other = SignedReview(
        reader="ben", signed_at=MADE_AT, saw_ai=False, levels={"C5": "whole"}
    )
    second = store_signed(stores, sources, STUDY_UID, other)
    found = read_results(stores, STUDY_UID)
    assert [result.kind for result in found[:4]] == ["seg", "sr", "key-image", "pdf"]
    assert {result.sop_uid for result in found[4:]} == {one.sop_uid, second.sop_uid}
    dataset = opened(stores, one)
    assert dataset.SOPInstanceUID == one.sop_uid
    assert validator_errors(Path(stores.root.url) / one.path) == []


def test_under_another_identity_the_same_set_has_other_objects_of_the_same_time(
    placed: Placed,
) -> None:
    stores, sources = placed
    found = stored_results(stores, sources, STUDY_UID)
    plain = result_source(stores, sources, STUDY_UID)
    sent = []
    for number, header in enumerate(plain.headers):
        one = Dataset()
        one.update(header)
        one.StudyInstanceUID, one.SOPInstanceUID = "1.2.3", f"1.2.3.{number}"
        one.PatientName = "Given^Back"
        sent.append(one)
    source = result_source(stores, sources, STUDY_UID, headers=sent)
    assert source.made_at == found[0].made_at
    for one in make_results(source):
        assert one.dataset.PatientName == "Given^Back"
        assert one.dataset.StudyInstanceUID == "1.2.3"
        assert one.sop_uid not in {result.sop_uid for result in found}
    report = [o for o in make_results(source) if o.kind is ResultKind.SR][0].dataset
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    uids = {
        str(one.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert {f"1.2.3.{number}" for number in range(40)} <= uids


def test_listing_needs_neither_highdicom_nor_matplotlib(placed: Placed) -> None:
    stores, sources = placed
    stored_results(stores, sources, STUDY_UID)
    program = (
        "import sys\n"
        "from csfd_core.dicom_objects.stored import read_results\n"
        "from csfd_core.store.locations import Location\n"
        "from csfd_core.store.stores import Stores\n"
        f"print(len(read_results(Stores(Location(sys.argv[1])), {STUDY_UID!r})))\n"
        "heavy = {'highdicom', 'matplotlib', 'tensorflow', 'keras'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, stores.root.url],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert done.stdout.split("\n")[:2] == ["4", "[]"]
