"""Zip files and single files: read, or answered by one sentence that helps."""

import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from support.dicom_studies import STUDY_UID, write_study

from csfd_core.errors import SourceError
from csfd_core.inference.inputs import opened
from csfd_core.ingest.gather import gather_studies


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack into a folder of this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pack(tmp_path: Path, slash: str = "/") -> Path:
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in ("CD", f"CD{slash}NECK"):
            entry = zipfile.ZipInfo("x")
            entry.filename = f"{folder}{slash}"  # programs write folders, too
            archive.writestr(entry, b"")
        for file in write_study(tmp_path / "source").iterdir():
            entry = zipfile.ZipInfo("x")
            entry.filename = f"CD{slash}NECK{slash}{file.name}"  # as it is written
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return path


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_a_zip_file_is_a_source_while_it_is_open(
    tmp_path: Path, temporary: Path, slash: str
) -> None:
    with opened(str(pack(tmp_path, slash))) as source:
        ((folder,), _) = gather_studies(source)
        assert (folder.name, folder.path) == (STUDY_UID, "CD/NECK")
        (unpacked,) = temporary.iterdir()
        assert unpacked.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as refused, opened(str(path)):
        pytest.fail("It was opened.")
    return str(refused.value)


def test_a_password_is_told(tmp_path: Path, temporary: Path) -> None:
    path = pack(tmp_path)
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = raw.find(mark)
        while start >= 0:
            raw[start + place] |= 1
            start = raw.find(mark, start + 4)
    path.write_bytes(raw)
    assert "protected by a password. Unpack it first" in refusal(path)


@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_damage_is_told(tmp_path: Path, temporary: Path, keep: float) -> None:
    path = pack(tmp_path)
    raw = bytearray(path.read_bytes()[: int(path.stat().st_size * keep)])
    raw[200:240] = bytes(40)
    path.write_bytes(raw)
    assert "is damaged" in refusal(path)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", "C:\\x"])
def test_no_entry_leaves_the_folder(tmp_path: Path, temporary: Path, name: str) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        archive.writestr(entry, b"x")
    assert "leaves its folder" in refusal(path)
    assert list(temporary.iterdir()) == []


def test_a_bomb_is_not_unpacked(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", bytes(50 * 2**20))
    assert "grows more than 200 times" in refusal(path)
    monkeypatch.setenv("CSFD_MAX_ZIP_MB", "1")
    assert "more than 1 (CSFD_MAX_ZIP_MB)" in refusal(path)
    monkeypatch.setenv("CSFD_MAX_ZIP_FILES", "3")
    assert "CSFD_MAX_ZIP_FILES" in refusal(pack(tmp_path))


def test_an_entry_that_lies_about_its_size_gives_no_more(
    tmp_path: Path, temporary: Path
) -> None:
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", bytes(5 * 2**20))
    raw = path.read_bytes().replace(struct.pack("<I", 5 * 2**20), struct.pack("<I", 9))
    path.write_bytes(raw)
    assert "is damaged" in refusal(path)  # its checksum is not that of nine bytes


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("1.dcm", "single file. Give the folder"),
        ("mask.nii.gz", "NIfTI file"),
        ("study.tar.gz", "no zip file. Unpack it"),
        ("study.7z", "no zip file. Unpack it"),
    ],
)
def test_a_single_file_is_called_what_it_is(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / name).write_bytes(b"x" * 500)
    assert told in refusal(tmp_path / name)


def test_what_a_killed_process_has_unpacked_is_removed(
    tmp_path: Path, temporary: Path
) -> None:
    call = [sys.executable, "-c", "import os; print(os.getpid())"]
    gone = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    (temporary / f"csfd-zip-{gone.strip()}-abc").mkdir()
    (temporary / f"csfd-zip-{os.getppid()}-abc").mkdir()
    with opened(str(pack(tmp_path))):
        pass
    left = [path.name for path in temporary.iterdir()]
    assert left == [f"csfd-zip-{os.getppid()}-abc"]
