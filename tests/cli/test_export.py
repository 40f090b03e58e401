"""csfd export: another csfd reads what it writes, and nobody is named in it."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from support.command import csfd_here
from support.conversion import OTHER_UID
from support.dicom_studies import (
    LABEL_HEADER,
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.deid.deidentify import deidentify
from csfd_core.deid.export import RECORDS
from csfd_core.deid.identities import keyed_uid
from csfd_core.ingest.patients import read_secret
from csfd_core.ingest.scan import scan_study
from csfd_core.settings import Settings
from csfd_core.store.labels import read_boxes, read_labels
from csfd_core.store.locations import Location
from csfd_core.store.masks import PredictedMaskStore
from csfd_core.store.notes import PredictedMaskNote
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.vocabulary import LABEL_COLUMNS

PATIENT = "Sensitive^Name"
BOX = "StudyInstanceUID,x,y,width,height,slice_number\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of two studies of one patient, with labels, and what csfd made of it."""
    for name in ("home", "source", "store", "inbox"):
        monkeypatch.setenv(f"CSFD_{name.upper()}", str(tmp_path / name))
    source = tmp_path / "source"
    for uid in (STUDY_UID, OTHER_UID):
        write_study(source, uid, edit=of_one_patient)
    write_mask(source, neck_mask(), volume_affine_ras())
    (source / "train.csv").write_text(f"{LABEL_HEADER}{STUDY_UID},1,0,0,0,0,1,0,0\n")
    (source / "train_bounding_boxes.csv").write_text(
        f"{BOX}{STUDY_UID},20.5,30,12,10.25,17\n"
    )
    convert(tmp_path)
    return tmp_path


def of_one_patient(dataset: Dataset) -> None:
    dataset.PatientID = "MRN 4711"
    dataset.OtherPatientIDs = "MRN 4712"
    dataset.add_new(0x00091001, "LO", "private Sensitive")


def convert(home: Path) -> None:
    told = csfd_here("convert", home / "source", home / "store")
    assert told.returncode == 0, told.stderr


def keyed(uid: str = STUDY_UID) -> str:
    return keyed_uid(uid, read_secret(Settings.read().key_file))


def export(home: Path, *arguments: object, out: str = "out") -> str:
    told = csfd_here("export", home / out, *arguments)
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def refused(home: Path, *arguments: object, out: str = "out") -> str:
    told = csfd_here("export", home / out, *arguments)
    assert told.returncode != 0
    return " ".join(told.stderr.split())


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_another_csfd_finds_nothing_wrong_with_it(home: Path) -> None:
    told = export(home, "--all")
    assert told.startswith(f"2 studies in {home / 'out'}: 2 written, 0 as before")
    assert "1 with labels, 1 with a mask that came with it, 0 with one" in told
    report = home / "report.json"
    assert csfd_here("inspect", home / "out", "--json", report).returncode == 0
    found = json.loads(report.read_text())
    assert [study["status"] for study in found["studies"]] == ["good", "good"]
    assert {study["study_uid"] for study in found["studies"]} == {
        keyed(),
        keyed(OTHER_UID),
    }


def test_nobody_is_named_in_it_and_no_identifier_is_as_it_was(home: Path) -> None:
    export(home, "--all")
    files = contents(home / "out")
    whole = b"".join(name.encode() + content for name, content in files.items())
    for planted in ("Sensitive", "MRN", "19700101", STUDY_UID, OTHER_UID):
        assert planted.encode() not in whole
    masks = [name for name in files if name.startswith("segmentations/")]
    assert masks == [f"segmentations/{keyed()}.nii.gz"]


def test_pixels_positions_and_numbers_are_those_of_the_source(home: Path) -> None:
    export(home, STUDY_UID)
    for number in (1, 13, 24):
        name = f"{number}.dcm"
        own = pydicom.dcmread(home / "source" / "train_images" / STUDY_UID / name)
        found = pydicom.dcmread(home / "out" / "train_images" / keyed() / name)
        assert found.PixelData == own.PixelData
        assert found.ImagePositionPatient == own.ImagePositionPatient
        assert found.InstanceNumber == number
        assert found.PatientIdentityRemoved == "YES"


def test_masks_lie_where_they_lay(home: Path) -> None:
    export(home, STUDY_UID)
    (folder,) = Source(home / "out").studies()
    (scan,) = scan_study(folder)
    assert scan.mask_hash is not None
    assert scan.findings == ()
    image = nib.load(home / "out" / "segmentations" / f"{keyed()}.nii.gz")
    labels = np.asarray(image.dataobj)
    own = neck_mask()
    for label in range(1, 8):
        places = np.argwhere(own == label).mean(axis=0)
        expected = (volume_affine_ras() @ [*places, 1])[:3]
        found = (image.affine @ [*np.argwhere(labels == label).mean(axis=0), 1])[:3]
        np.testing.assert_allclose(found, expected, atol=0.01)


def test_labels_and_boxes_are_told_of_the_new_name(home: Path) -> None:
    export(home, "--all")
    place = Location(home / "out")
    table = read_labels(place).table
    assert list(table.index) == [keyed()]
    assert table.loc[keyed()].to_dict() == dict(
        zip(LABEL_COLUMNS, (1, 0, 0, 0, 0, 1, 0, 0), strict=True)
    )
    boxes = read_boxes(place).table
    assert boxes.pop("sop_uid").isna().all()
    assert boxes.to_numpy().tolist() == [[keyed(), 20.5, 30, 12, 10.25, 17]]


def test_studies_of_a_patient_stay_together_under_a_key(home: Path) -> None:
    export(home, "--all")
    scans = [s for f in Source(home / "out").studies() for s in scan_study(f)]
    keys = {scan.headers[0].patient_key for scan in scans}
    assert len(scans) == 2
    assert len(keys) == 1
    # In the store here the patient has the same key: so it has in the other one.
    record = Stores(Location(home / "store")).metadata.read_record(STUDY_UID)
    assert record is not None
    assert keys == {f"csfd-{record.patient_key}"}


def test_it_goes_on_where_it_stopped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    write = Location.write

    def break_off(self: Location, path: str, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 40:
            raise KeyboardInterrupt
        write(self, path, content)

    monkeypatch.setattr(Location, "write", break_off)
    assert csfd_here("export", home / "out", "--all").returncode != 0
    monkeypatch.setattr(Location, "write", write)
    assert not (home / "out" / "train.csv").exists()
    assert len(list((home / "out" / RECORDS).iterdir())) == 1
    told = export(home, "--all")
    assert ": 1 written, 1 as before;" in told
    export(home, "--all", out="at_once")
    assert contents(home / "out") == contents(home / "at_once")
    before = contents(home / "out")
    assert ": 0 written, 2 as before;" in export(home, "--all")
    assert contents(home / "out") == before


def test_what_has_changed_is_written_anew(home: Path) -> None:
    export(home, "--all")
    (home / "source" / "train_images" / OTHER_UID / "24.dcm").unlink()
    (home / "source" / "train.csv").write_text(
        f"{LABEL_HEADER}{STUDY_UID},0,0,0,0,0,0,0,0\n{OTHER_UID},,1,,,,,,\n"
    )
    convert(home)
    told = export(home, "--all")
    assert ": 1 written, 1 as before; 2 with labels" in told
    folder = home / "out" / "train_images" / keyed(OTHER_UID)
    assert {path.name for path in folder.iterdir()} == {
        f"{number}.dcm" for number in range(1, 24)
    }
    rows = list(csv.reader(io.StringIO((home / "out/train.csv").read_text())))[1:]
    assert sorted(rows) == sorted(
        [[keyed(), *["0"] * 8], [keyed(OTHER_UID), "", "1", *[""] * 6]]
    )


def test_further_studies_are_added(home: Path) -> None:
    export(home, STUDY_UID)
    export(home, OTHER_UID)
    assert len(Source(home / "out").studies()) == 2
    assert len((home / "out" / "train.csv").read_text().splitlines()) == 2


def test_only_what_was_signed(home: Path) -> None:
    labels = home / "inbox" / "labels"
    labels.mkdir(parents=True)
    note = {
        "study_uid": OTHER_UID,
        "labels": dict.fromkeys(LABEL_COLUMNS[1:], 0),
        "reader": "Dr. Planted",
        "signed_at": "2026-11-25T14:03:09+00:00",
    }
    (labels / f"{OTHER_UID}.json").write_text(json.dumps(note))
    told = export(home, "--signed")
    assert told.startswith("1 study in")
    whole = b"".join(contents(home / "out").values())
    assert b"Planted" not in whole
    assert b"2026-11-25" not in whole
    assert keyed(OTHER_UID) in (home / "out" / "train.csv").read_text()


def test_what_csfd_has_de_identified_keeps_its_name(
    home: Path,
) -> None:
    secret = read_secret(Settings.read().key_file)
    written = write_study(home / "elsewhere", f"{STUDY_UID}.9", edit=of_one_patient)
    found = [deidentify(path.read_bytes(), secret) for path in written.iterdir()]
    folder = home / "source" / "train_images" / found[0].study_uid
    folder.mkdir()
    for one in found:
        (folder / f"{one.sop_uid}.dcm").write_bytes(one.content)
    convert(home)
    export(home, found[0].study_uid)
    exported = contents(home / "out" / "train_images" / found[0].study_uid)
    assert sorted(exported.values()) == sorted(one.content for one in found)
    # A name that somebody adds makes it a file like any other.
    path = next(folder.iterdir())
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Sensitive^Again"
    dataset.save_as(path)
    convert(home)
    told = export(home, found[0].study_uid)
    assert b"Again" not in b"".join(contents(home / "out").values())
    assert "left out" in told


@pytest.mark.parametrize("choice", ["any", "given", "none", None])
def test_masks_of_a_model_are_told_apart(home: Path, choice: str | None) -> None:
    stores = Stores(Location(home / "store"))
    given = stores.masks.read_note(STUDY_UID)
    other = stores.metadata.read_record(OTHER_UID)
    assert given is not None
    assert other is not None
    geometry = other.volume_geometry()
    assert geometry is not None
    note = {
        **given.to_json(),
        "study_uid": OTHER_UID,
        "content_hash": other.content_hash,
        "model_id": "drawn",
        "fold": 0,
        "standing": "unseen",
        "levels": {},
        "flags": (),
    }
    del note["mask_hash"]
    store: PredictedMaskStore = stores.predicted_masks
    store.write(OTHER_UID, neck_mask(), PredictedMaskNote.model_validate(note))
    told = export(home, "--all", *(("--masks", choice) if choice else ()))
    expected = {"any": (1, 1), "none": (0, 0)}.get(choice or "given", (1, 0))
    assert f"{expected[0]} with a mask that came with it" in told
    assert f"{expected[1]} with one that a model has predicted" in told
    folder = home / "out" / "segmentations"
    assert len(list(folder.iterdir()) if folder.exists() else []) == sum(expected)


def test_phantoms_stay_phantoms_and_are_not_mixed_in(home: Path) -> None:
    (home / "source" / "phantom.json").write_text('{"format": 1}')
    export(home, "--all")
    assert (home / "out" / "phantom.json").exists()
    (home / "source" / "phantom.json").unlink()
    assert "holds an export of synthetic studies" in refused(home, "--all")
    assert "holds an export of real studies" not in refused(home, "--all")


def rename_out(home: Path) -> None:
    (home / "out").mkdir()
    (home / "out" / "thesis.txt").write_text("mine")


def withdraw(home: Path) -> None:
    withdrawal = Withdrawal(study_uid=STUDY_UID, reason="consent", by="ann")
    Stores(Location(home / "store")).withdrawn.add(withdrawal)


@pytest.mark.parametrize(
    ("prepare", "arguments", "told"),
    [
        (rename_out, ["--all"], "is not empty and holds no export.json"),
        (withdraw, [STUDY_UID], "1 study is withdrawn and must not be passed on"),
        (None, ["1.2.3"], "1 study is in neither the source nor the inbox: 1.2.3"),
        (None, ["--signed"], "There is no such study to export"),
        (None, [], "name studies, or give --signed or --all"),
        (None, ["--all", "--signed"], "name studies, or give --signed or --all"),
        (None, ["--all", "--masks", "x"], "one of any, given and none"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(
    home: Path,
    prepare: Callable[[Path], None] | None,
    arguments: list[str],
    told: str,
) -> None:
    if prepare is not None:
        prepare(home)
    before = contents(home / "out")
    assert told in refused(home, *arguments).replace("│ ", "").replace(" │", "")
    assert contents(home / "out") == before


def test_a_withdrawn_study_is_left_out_and_taken_out_again(home: Path) -> None:
    export(home, "--all")
    assert keyed().encode() in b"".join(contents(home / "out").values())
    withdraw(home)
    told = export(home, "--all")
    assert "1 study is withdrawn and must not be passed on" in told
    assert "1 withdrawn study was taken out" in told
    files = contents(home / "out")
    whole = b"".join(name.encode() + content for name, content in files.items())
    assert keyed().encode() not in whole
    assert keyed(OTHER_UID).encode() in whole
    assert [f.name for f in Source(home / "out").studies()] == [keyed(OTHER_UID)]


def test_slices_that_may_show_a_name_leave_their_study_out(home: Path) -> None:
    folder = home / "source" / "train_images" / STUDY_UID
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.BurnedInAnnotation = "YES"
        dataset.save_as(path)
    convert(home)
    told = export(home, "--all")
    assert "has text burned into" in told or "have text burned into" in told
    assert "1 study has such files among the slices and left out" in told
    assert not (home / "out" / "train_images" / keyed()).exists()
    assert keyed() not in (home / "out" / "train.csv").read_text()


@pytest.mark.parametrize("where", ["before", "in the meta information", "behind"])
def test_what_somebody_has_put_around_a_slice_of_csfd_is_not_copied(
    home: Path, where: str
) -> None:
    for path in (home / "source" / "train_images" / STUDY_UID).iterdir():
        content = deidentify(path.read_bytes(), read_secret(Settings.read().key_file))
        dataset = pydicom.dcmread(io.BytesIO(content.content))
        if where == "before":
            dataset.preamble = PATIENT.encode().ljust(128, b"\0")
        elif where == "behind":
            dataset.add_new(0x7FE10010, "LO", PATIENT)
        else:
            dataset.file_meta.SourceApplicationEntityTitle = PATIENT
        place = home / "source" / "train_images" / keyed()
        place.mkdir(exist_ok=True)
        dataset.save_as(place / path.name)
    convert(home)
    export(home, keyed())
    found = contents(home / "out")
    assert any(name.endswith(".dcm") for name in found)
    assert not any(PATIENT.encode() in content for content in found.values())
