"""What is written is private, and what is said of a place tells no secret."""

from pathlib import Path

import pytest
from support.dicom_studies import write_study

from csfd_core.errors import SourceError
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.text import safe_name, safe_url


def test_a_store_is_for_its_user_alone(tmp_path: Path) -> None:
    write_study(tmp_path / "source")
    (folder,) = Source(tmp_path / "source").studies()
    convert_study(StudyTask(folder, Stores(Location(tmp_path / "new" / "store"))))
    written = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert len(written) > 5
    for path in written:
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    Location(tmp_path / "shared").write("a.json", b"{}")
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755


def test_a_name_of_a_patient_is_in_no_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as told:
        Location(tmp_path).read("train_images/DOE^JANE/17.dcm")
    assert "DOE" not in str(told.value)
    assert f"train_images/{safe_name('DOE^JANE')}/17.dcm" in str(told.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://key:***@bucket/a"),
        ("postgresql://u:p%40ss@host/db", "postgresql://u:***@host/db"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("/data/a:b@c", "/data/a:b@c"),
    ],
)
def test_a_password_in_a_url_is_not_shown(url: str, shown: str) -> None:
    assert safe_url(url) == shown


def test_a_location_does_not_show_its_password() -> None:
    assert "secret" not in str(Location("s3://key:secret@bucket/store"))
