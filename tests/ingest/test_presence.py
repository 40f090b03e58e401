"""Studies in two sources, and stored studies whose images are gone."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.conversion import OTHER_UID, digests, tasks
from support.dicom_studies import STUDY_UID
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import IdentifierError
from csfd_core.ingest.convert import convert_study, study_tasks
from csfd_core.ingest.presence import (
    doubles_of,
    keep_study,
    presence_notes,
    vanished_studies,
)
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.source import Source, Sources, StudyFolder
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal

listings = st.dictionaries(
    st.sampled_from(["1.dcm", "2.dcm", "3.dcm"]), st.integers(1, 2), min_size=1
)


def folder_of(sizes: Mapping[str, int], mask: int | None, where: str) -> StudyFolder:
    path = f"train_images/{STUDY_UID}"
    return StudyFolder(
        source=Location(where),
        path=path,
        files=tuple(FileEntry(f"{path}/{n}", s, where) for n, s in sizes.items()),
        mask=None if mask is None else FileEntry("m.nii", mask, where),
    )


@given(st.lists(st.tuples(listings, st.none() | st.integers(1, 2)), max_size=3))
def test_doubles_differ_where_names_or_sizes_do(
    listed: list[tuple[dict[str, int], int | None]],
) -> None:
    folders = [
        folder_of(sizes, mask, f"/{place}")
        for place, (sizes, mask) in enumerate(listed)
    ]
    found = doubles_of({STUDY_UID: folders})
    if len(listed) < 2:
        assert found == []
        return
    (double,) = found
    assert double.study_uid == STUDY_UID
    assert double.differs == any(one != listed[0] for one in listed)


def test_first_source_that_has_files_counts(source: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    shutil.copytree(source, inbox)
    both = Sources([Source(source), Source(inbox)])
    assert {str(f.source) for f in both.studies()} == {str(source)}
    shutil.rmtree(source / "train_images" / STUDY_UID)
    (source / "train_images" / STUDY_UID).mkdir()
    places = {f.name: str(f.source) for f in both.studies()}
    assert places == {STUDY_UID: str(inbox), OTHER_UID: str(source)}
    found = both.study(STUDY_UID)
    assert found is not None
    assert str(found.source) == str(inbox)


@pytest.mark.parametrize("empty", [True, False], ids=["empty folder", "no folder"])
def test_stored_study_whose_images_are_gone_is_kept(
    source: Path, store: Path, empty: bool
) -> None:
    for task in tasks(source, store):
        convert_study(task)
    before, stores = digests(store), Stores(Location(store))
    shutil.rmtree(source / "train_images" / STUDY_UID)
    if empty:
        (source / "train_images" / STUDY_UID).mkdir()
    sources = Sources([Source(source)])
    left = study_tasks(sources.studies(), stores)
    assert [task.folder.name for task in left] == [OTHER_UID]
    assert vanished_studies(stores, sources.by_name()) == [STUDY_UID]
    assert presence_notes(stores, sources) == [
        "No source has images of 1 study of the store any more, such as "
        f"{STUDY_UID}; what the store has is kept."
    ]
    outcome = keep_study(stores, STUDY_UID)
    assert outcome is not None
    assert (outcome.action, outcome.slice_count) == ("unchanged", 24)
    result = CliRunner().invoke(app, ["convert", str(source), str(store)])
    assert result.exit_code == 0, result.output
    assert "No source has images of 1 study of the store" in result.output
    assert "withdrawn" not in result.output
    assert {k: v for k, v in digests(store).items() if k in before} == before
    stores.withdrawn.add(Withdrawal(study_uid=STUDY_UID, reason="r", by="b"))
    assert vanished_studies(stores, sources.by_name()) == []


def test_nothing_is_said_to_be_gone_where_folders_tell_no_study(
    source: Path, store: Path, tmp_path: Path
) -> None:
    convert_study(tasks(source, store)[0])
    shutil.copytree(source / "train_images" / STUDY_UID, tmp_path / "plain" / "scan")
    plain = Sources([Source(tmp_path / "plain")])
    assert vanished_studies(Stores(Location(store)), plain.by_name()) == []


@pytest.mark.parametrize("part", ["slices", "masks"])
def test_study_that_is_not_wholly_stored_cannot_be_kept(
    source: Path, store: Path, part: str
) -> None:
    convert_study(tasks(source, store)[0])
    stores = Stores(Location(store))
    (store / part / f"{STUDY_UID}.parquet").unlink()
    assert keep_study(stores, STUDY_UID) is None
    assert keep_study(stores, OTHER_UID) is None
    with pytest.raises(IdentifierError, match=r"\.\./x"):
        keep_study(stores, "../x")
