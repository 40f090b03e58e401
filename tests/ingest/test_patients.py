"""Patients are told apart by digests that nobody can guess; folds do not change."""

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID, write_study
from support.scans import scan

from csfd_core.errors import SettingsError
from csfd_core.evaluation.folds import fold_of, is_test
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.patients import keyed, read_secret
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores

SECRET, OTHER = bytes(32), bytes(range(32))


def plain(identifier: str) -> str:
    """The digest that stood for a patient before there was a secret."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:32]


@given(st.text(min_size=1, max_size=64))
def test_a_secret_moves_nobody(identifier: str) -> None:
    before = plain(identifier)
    for secret in (SECRET, OTHER):
        key = keyed(before, secret)
        assert (fold_of(key), is_test(key)) == (fold_of(before), is_test(before))
        assert before not in key
        assert key == keyed(before, secret)
    assert keyed(before, SECRET) != keyed(before, OTHER)


def stored_key(tmp_path: Path, **values: str) -> str | None:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    write_study(tmp_path / "source", edit=edit)
    (folder,) = Source(tmp_path / "source").studies()
    stores = Stores(Location(tmp_path / "store"))
    convert_study(StudyTask(folder, stores))
    record = stores.metadata.read_record(STUDY_UID)
    assert record is not None
    return record.patient_key


def test_a_store_holds_no_digest_that_can_be_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_KEY_FILE", str(tmp_path / "outside" / "key"))
    key = stored_key(tmp_path, PatientID="4711")
    for path in (tmp_path / "store").rglob("*.parquet"):
        assert plain("4711").encode() not in path.read_bytes()
    assert key == keyed(plain("4711"), (tmp_path / "outside" / "key").read_bytes())
    assert (tmp_path / "outside" / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "4712"},
        {"PatientID": "4711", "IssuerOfPatientID": "ELSEWHERE"},
    ],
)
def test_patients_are_told_apart(tmp_path: Path, other: dict[str, str]) -> None:
    one = stored_key(tmp_path / "a", PatientID="4711", IssuerOfPatientID="HERE")
    assert one != stored_key(tmp_path / "b", **other)
    assert one == stored_key(
        tmp_path / "c", PatientID="4711 ", IssuerOfPatientID="HERE"
    )


@pytest.mark.parametrize(
    ("charset", "names"),
    [("ISO_IR 192", ("山田", "鈴木")), ("ISO_IR 144", ("Иван", "Пётр"))],
)
def test_patients_of_other_scripts_are_told_apart(
    tmp_path: Path, charset: str, names: tuple[str, str]
) -> None:
    keys = {
        stored_key(tmp_path / name, SpecificCharacterSet=charset, PatientID=name)
        for name in names
    }
    assert len(keys) == 2


def test_inspection_makes_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_KEY_FILE", str(tmp_path / "key"))
    write_study(tmp_path)
    scan(tmp_path)
    assert not (tmp_path / "key").exists()


def test_the_secret_lies_with_the_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CSFD_KEY_FILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    key = stored_key(tmp_path, PatientID="4711")
    secret = tmp_path / "config" / "csfd" / "patients.key"
    assert key == keyed(plain("4711"), secret.read_bytes())
    assert not list((tmp_path / "store").rglob("*.key"))


def test_of_several_who_make_it_at_once_the_first_counts(tmp_path: Path) -> None:
    found: list[bytes] = []
    make = read_secret.__wrapped__
    threads = [
        threading.Thread(target=lambda: found.append(make(tmp_path / "a" / "key")))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (16, 1)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["key"]


def test_what_is_no_secret_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(SettingsError, match="holds 5 bytes.*CSFD_KEY_FILE"):
        read_secret(tmp_path / "key")
