"""csfd predict --dicom: objects beside the JSON, with the patient of the input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID, neck_mask, write_study
from support.result_objects import groups_of, mask_from, named, validator_errors
from support.spots import known_mask, spot_ensemble, spot_hounsfield
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.dicom_objects import beside
from csfd_core.dicom_objects.beside import REPORT, write_dicom
from csfd_core.inference.predict import PredictedStudy, predict_input
from csfd_core.inference.reading import Reading
from csfd_core.ingest.outcomes import Outcome
from csfd_core.vocabulary import LEVEL_NAMES

FILES = {"seg", "sr", "key_image_1", "summary"}


def named_study(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎"
    dataset.StudyDate, dataset.AccessionNumber = "20260102", "A-4711"


def predict(
    source: Path, out: Path, *, again: bool = False, mask: np.ndarray | None = None
) -> list[PredictedStudy]:
    found = predict_input(
        str(source),
        out,
        known_mask(mask),
        spot_ensemble(),
        print,
        Reading(),
        beside=[write_dicom],
        endings=[REPORT],
        again=again,
    )
    return list(found)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_study(tmp_path / "source", hounsfield=spot_hounsfield(), edit=named_study)
    return tmp_path / "source"


def objects(out: Path) -> set[str]:
    names = (path.name for path in out.glob("*.dcm"))
    return {name.removeprefix(f"{STUDY_UID}_").removesuffix(".dcm") for name in names}


def test_the_objects_lie_beside_the_json_and_tell_the_same(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(source, out)
    assert objects(out) == FILES
    note = json.loads((out / f"{STUDY_UID}.json").read_text())
    groups = groups_of(out / f"{STUDY_UID}_sr.dcm")
    told = {
        name: float(found[0].MeasuredValueSequence[0].NumericValue)
        for name in LEVEL_NAMES
        if (found := named(groups[name], "122157"))
    }
    assert told == {name: note["probabilities"][name] for name in LEVEL_NAMES}
    mask = mask_from(out / f"{STUDY_UID}_seg.dcm", 24)
    np.testing.assert_array_equal(mask, neck_mask())


def test_they_bear_the_patient_and_the_study_of_the_files(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(source, out)
    for path in out.glob("*.dcm"):
        found = dcmread(path)
        assert str(found.PatientName) == "Yamada^Tarou=山田^太郎"
        assert found.PatientID == f"patient-of-{STUDY_UID}"
        assert (found.StudyDate, found.AccessionNumber) == ("20260102", "A-4711")
        assert found.StudyInstanceUID == STUDY_UID
        assert validator_errors(path) == []
    assert "山" not in (out / f"{STUDY_UID}.json").read_text()


def test_a_second_call_goes_on_and_makes_what_is_missing(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(source, out)
    (study,) = predict(source, out)
    assert study.action is Outcome.UNCHANGED
    (out / f"{STUDY_UID}_sr.dcm").unlink()
    (study,) = predict(source, out)
    assert study.action is Outcome.PREDICTED
    assert objects(out) == FILES


def test_the_file_that_says_that_all_are_there_is_written_last(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    write = beside.write_file

    def note(path: Path, content: bytes) -> None:
        order.append(path.name)
        write(path, content)

    monkeypatch.setattr(beside, "write_file", note)
    predict(source, tmp_path / "out")
    assert len(order) == 4
    assert order[-1].endswith(REPORT)


def test_what_an_earlier_call_has_left_is_removed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(source, out)
    for name in ("key_image_2", "key_image_3"):
        (out / f"{STUDY_UID}_{name}.dcm").write_bytes(b"of an earlier call")
    (out / "notes_key_image_2.dcm").write_bytes(b"of somebody else")
    predict(source, out, again=True, mask=np.zeros_like(neck_mask()))
    assert objects(out) == {"sr", "summary", "notes_key_image_2"}


def test_objects_that_lie_among_the_slices_are_no_slices(
    source: Path, tmp_path: Path
) -> None:
    folder = source / "train_images" / STUDY_UID
    predict(source, tmp_path / "out")
    for path in (tmp_path / "out").glob("*.dcm"):
        shutil.copy(path, folder)
    (study,) = predict(source, tmp_path / "again")
    assert study.action is Outcome.PREDICTED
    before = json.loads((tmp_path / "out" / f"{STUDY_UID}.json").read_text())
    after = json.loads((tmp_path / "again" / f"{STUDY_UID}.json").read_text())
    assert after["probabilities"] == before["probabilities"]


def test_a_study_uid_with_a_leading_zero_stays_that_of_the_archive(
    tmp_path: Path,
) -> None:
    even, odd = "1.2.826.0.11.3", "1.2.826.0.01.3"
    write_study(tmp_path / "source", even, hounsfield=spot_hounsfield())
    for path in (tmp_path / "source").rglob("*.dcm"):
        path.write_bytes(path.read_bytes().replace(even.encode(), odd.encode()))
    (tmp_path / "source" / "train_images").rename(tmp_path / "source" / "exported")
    (study,) = predict(tmp_path / "source", tmp_path / "out")
    paths = list((tmp_path / "out").glob("*.dcm"))
    assert len(paths) == 4
    for path in paths:
        assert path.name.startswith(study.name)
        found = dcmread(path).get_item("StudyInstanceUID").value
        assert found.rstrip(b"\0") == odd.encode()


@pytest.mark.slow
def test_the_command_writes_them_with_the_models_that_come_with_csfd(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_STORE", str(tmp_path / "store"))
    out = tmp_path / "out"
    told = CliRunner().invoke(
        app,
        ["predict", str(source), "--out", str(out), "--model", "general", "--dicom"],
    )
    assert told.exit_code == 0, told.output
    assert {"sr", "summary"} <= objects(out)
    for path in out.glob("*.dcm"):
        assert validator_errors(path) == []
