"""Files of a study wherever they lie, and an account of every file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from support.dicom_studies import SLICES, STUDY_UID, save, write_study
from support.scans import codes, scan

from csfd_core.dicom.findings import Status
from csfd_core.errors import SourceError
from csfd_core.ingest.gather import gather_studies, require_some
from csfd_core.ingest.inspect import inspect_folders
from csfd_core.ingest.scan import StudyScan, scan_study
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, StudyFolder
from csfd_core.vocabulary import own_uid

OTHER_UID = "1.2.826.0.1.3680043.12"


def plain(tmp_path: Path, *uids: str) -> Path:
    """Write studies into folders that no study is named by."""
    for uid in uids:
        folder = write_study(tmp_path / uid, uid)
        folder.rename(tmp_path / f"folder of {uid[-2:]}")
    for path in tmp_path.glob("*/train_images"):
        path.rmdir()
        path.parent.rmdir()
    return tmp_path


def scans(source: Path) -> list[StudyScan]:
    folders, _ = gather_studies(Source(source))
    return [found for folder in folders for found in scan_study(folder)]


def test_a_series_over_two_folders_is_one_study(tmp_path: Path) -> None:
    (folder,) = plain(tmp_path, STUDY_UID).iterdir()
    (tmp_path / "second").mkdir()
    for number in range(1, 13):
        (folder / f"{number}.dcm").rename(tmp_path / "second" / f"{number}.dcm")
    (found,) = scans(tmp_path)
    assert (found.study_uid, found.status) == (STUDY_UID, Status.GOOD)
    assert len(found.headers) == SLICES


def test_two_studies_in_one_folder_are_two(tmp_path: Path) -> None:
    first, second = plain(tmp_path, STUDY_UID, OTHER_UID).iterdir()
    for path in second.iterdir():
        path.rename(first / f"x{path.name}")
    found = scans(tmp_path)
    assert sorted(scan.study_uid for scan in found) == [STUDY_UID, OTHER_UID]
    assert {scan.status for scan in found} == {Status.GOOD}


def test_folders_without_dicom_are_no_lost_studies(tmp_path: Path) -> None:
    (folder,) = plain(tmp_path, STUDY_UID).iterdir()
    for name in ("viewer/run.exe", "viewer/readme.txt", "__MACOSX/x/._1.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{STUDY_UID}.nii.gz").write_bytes(b"x")
    (tmp_path / "out" / f"{STUDY_UID}.json").write_bytes(b"x")
    folders, notes = gather_studies(Source(tmp_path))
    assert [f.path for f in folders] == [folder.name]
    assert notes == ["6 files in folders without DICOM passed over."]


def test_a_folder_that_cannot_be_read_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = plain(tmp_path, STUDY_UID, OTHER_UID).iterdir()
    read = Location.read_beginnings

    def deny(
        place: Location, paths: Sequence[str], length: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        if any(path.startswith(first.name) for path in paths):
            raise SourceError("Cannot access it: Permission denied.")
        return read(place, paths, length)

    monkeypatch.setattr(Location, "read_beginnings", deny)
    folders, _ = gather_studies(Source(tmp_path))
    found = [s for some in inspect_folders(folders, InlineExecutor()) for s in some]
    standing = {study.folder: study.findings for study in found}
    assert standing[second.name] == ()
    assert "Permission denied" in standing[first.name][0].reason


def test_a_zip_in_the_input_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.ZIP").write_bytes(b"PK")
    folders, _ = gather_studies(Source(tmp_path))
    with pytest.raises(SourceError, match="among 1 file.*Unpack the zip files"):
        require_some(folders, Source(tmp_path))


def test_a_large_stray_file_is_not_read(tmp_path: Path) -> None:
    """A hole of 20 GB: it takes no place on the disk, but would in memory."""
    (folder,) = plain(tmp_path, STUDY_UID).iterdir()
    for name in ("film.avi", "elsewhere/data.bin"):
        path = folder.parent / name if "/" in name else folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(20 * 2**30)
    found = {scan.study_uid: codes(scan) for scan in scans(tmp_path)}
    assert found == {STUDY_UID: [], "": ["file_too_large"]}


def test_a_folder_of_lost_slices_is_a_study(tmp_path: Path) -> None:
    (folder,) = plain(tmp_path, STUDY_UID).iterdir()
    for path in folder.iterdir():
        path.write_bytes(b"")
    (found,) = scans(tmp_path)
    assert codes(found) == ["empty_file"]


def test_files_that_name_no_study_belong_to_the_one_beside_them(
    tmp_path: Path,
) -> None:
    (folder,) = plain(tmp_path, STUDY_UID).iterdir()
    dataset = dcmread(folder / "5.dcm")
    del dataset.StudyInstanceUID
    save(dataset, folder / "5.dcm")
    (found,) = scans(tmp_path)
    assert codes(found) == ["missing_slices"]
    assert found.notes == ("1 stray file ignored (of no study)",)


@pytest.mark.parametrize(
    "name",
    [
        "25.dcm",
        "1.2.840.17",
        "IM0017",
        "IMG17.DCM",
        "17.dcm.part",
        "slice 17",
        "17.ima",
    ],
)
@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty_file"), (bytes(2048), "not_dicom")]
)
def test_a_lost_slice_is_lost_whatever_its_name(
    tmp_path: Path, name: str, content: bytes, code: str
) -> None:
    folder = write_study(tmp_path)
    (folder / f"{SLICES}.dcm").unlink()
    (folder / name).write_bytes(content)
    assert codes(scan(tmp_path)) == [code]


@pytest.mark.parametrize(
    "name", ["DICOMDIR", "README", "report.PDF", "._3.dcm", "Thumbs.db", "a.json"]
)
def test_a_bystander_is_none(tmp_path: Path, name: str) -> None:
    (write_study(tmp_path) / name).write_bytes(b"x")
    found = scan(tmp_path)
    assert found.status is Status.GOOD
    assert len(found.notes) == 1


def test_links_are_followed(tmp_path: Path) -> None:
    first = write_study(tmp_path / "a")
    elsewhere = write_study(tmp_path / "b", OTHER_UID)
    linked = first.with_name(OTHER_UID)
    linked.symlink_to(elsewhere)
    (linked / "loop").symlink_to(linked)
    (first / "5.dcm").rename(tmp_path / "moved")
    (first / "5.dcm").symlink_to(tmp_path / "moved")
    source = Source(tmp_path / "a")
    assert [folder.name for folder in source.studies()] == [STUDY_UID, OTHER_UID]
    found = [s for folder in source.studies() for s in scan_study(folder)]
    assert [(s.status, len(s.headers)) for s in found] == [(Status.GOOD, SLICES)] * 2


def test_a_link_that_leads_nowhere_is_a_lost_slice(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    (folder / "5.dcm").unlink()
    (folder / "5.dcm").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "6.pipe")  # reading it would wait for ever
    assert codes(scan(tmp_path))[0] == "empty_file"


@pytest.mark.parametrize("uid", ["1.2.826.0.1.3680043.9.0012.7", f"1.2.{'9' * 70}"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.filterwarnings("ignore:The value length")
def test_an_odd_uid_is_stood_for_by_a_valid_one(tmp_path: Path, uid: str) -> None:
    def edit(dataset):  # type: ignore[no-untyped-def]
        dataset.SOPInstanceUID = f"1.2.3.{dataset.InstanceNumber}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SeriesInstanceUID = "1.2.3.4"

    write_study(tmp_path, uid, edit=edit)
    found = scan(tmp_path)
    assert (codes(found), found.study_uid) == (["odd_uid"], own_uid(uid))
    assert found.study_uid.startswith("2.25.")
    (tmp_path / "train.csv").write_text(
        "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n"
        f"{uid},1,1,0,0,0,0,0,0\n"
    )
    source = Source(tmp_path)
    assert source.study(found.study_uid) is not None


def test_one_study_that_cannot_be_read_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path)
    write_study(tmp_path, OTHER_UID)
    from csfd_core.ingest import inspect as module

    def fail(folder: StudyFolder) -> list[StudyScan]:
        if folder.name == OTHER_UID:
            raise RuntimeError("Sensitive^Name")
        return scan_study(folder)

    monkeypatch.setattr(module, "scan_study", fail)
    folders = Source(tmp_path).studies()
    found = [s for some in inspect_folders(folders, InlineExecutor()) for s in some]
    standing = {study.study_uid: str(study.status) for study in found}
    assert standing == {STUDY_UID: "good", OTHER_UID: "quarantined"}
    reasons = [f.reason for study in found for f in study.findings]
    assert "RuntimeError" in reasons[0]
    assert "Sensitive" not in reasons[0]
