"""Choices of volumes: facts that are added, numbered, and gone with their study."""

import json
from pathlib import Path

import pandas as pd
import pytest
from support.dicom_studies import STUDY_UID, add_series, write_study

from csfd_core.deid.volume_read import boxes_read, volume_read
from csfd_core.errors import IdentifierError
from csfd_core.ingest.convert import convert_study, study_tasks
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.box_slices import place_boxes
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.store.volume_choices import VolumeChoice, VolumeChoices


def chosen(slice_uid: str, study_uid: str = STUDY_UID, by: str = "ann") -> VolumeChoice:
    return VolumeChoice(
        study_uid=study_uid, slice_uid=slice_uid, told="12 slices", by=by, version=2
    )


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(Location(tmp_path / "store"))


def test_the_newest_counts_and_none_is_lost(stores: Stores) -> None:
    choices = stores.volume_choices
    assert (choices.newest(), choices.of_study(STUDY_UID)) == ({}, [])
    for number in range(1, 12):
        assert choices.add(chosen(f"1.2.{number}"))
    choices.add(chosen("9.9", study_uid="1.2.3"))
    found = [one.slice_uid for one in choices.of_study(STUDY_UID)]
    assert found == [f"1.2.{number}" for number in range(1, 12)]
    newest = {uid: one.slice_uid for uid, one in choices.newest().items()}
    assert newest == {STUDY_UID: "1.2.11", "1.2.3": "9.9"}
    (name, *_) = [path for path in choices.names() if STUDY_UID in path]
    note = json.loads(stores.root.read(name))
    assert note.pop("when").endswith("+00:00")
    assert note == {
        "study_uid": STUDY_UID, "slice_uid": "1.2.1", "volume": "12 slices",
        "who": "ann", "version": 2,
    }  # fmt: skip


def test_of_two_at_once_one_is_told_that_it_came_too_late(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = stores.volume_choices
    seen = choices.of_study(STUDY_UID)
    monkeypatch.setattr(VolumeChoices, "of_study", lambda _self, _uid: seen)
    assert [choices.add(chosen("1.2.1", by=name)) for name in ("ann", "bob")] == [
        True, False,
    ]  # fmt: skip
    assert choices.newest()[STUDY_UID].by == "ann"


@pytest.mark.parametrize(
    ("study_uid", "slice_uid"),
    [("../../x", "1.2.3"), (STUDY_UID, "../../x"), (STUDY_UID, ""), ("", "1.2.3")],
)
def test_what_is_no_identifier_never_becomes_a_path(
    stores: Stores, study_uid: str, slice_uid: str
) -> None:
    with pytest.raises(IdentifierError, match="Not a valid DICOM UID"):
        stores.volume_choices.add(chosen(slice_uid, study_uid))
    assert stores.root.find() == ([], [])


def test_a_withdrawal_removes_all_choices_and_those_that_come_too_late(
    stores: Stores,
) -> None:
    choices = stores.volume_choices
    choices.add(chosen("1.2.1"))
    choices.add(chosen("1.2.1", study_uid="1.2.3"))
    withdraw(stores, STUDY_UID, "consent taken back", "ann")
    choices.add(chosen("1.2.2"))
    assert list(choices.newest()) == ["1.2.3"]
    assert all(STUDY_UID not in name for name in choices.names())


def test_a_box_lies_on_the_slice_that_it_names() -> None:
    boxes = pd.DataFrame(
        {"slice_number": [1, 2, 2], "sop_uid": pd.array(["8.1", "8.2", None], "str")}
    )
    numbers, first, other = [1, 2], ["1.1", "1.2"], ["8.1", "8.2"]

    def places(sop_uids: list[str], volume: int, *, several: bool = True) -> list[int]:
        index = place_boxes(
            boxes, numbers, sop_uids, volume=volume, has_several=several
        )
        return [-1 if pd.isna(place) else int(place) for place in index]

    assert places(first, 1) == [-1, -1, 1]
    assert places(other, 2) == [0, 1, -1]
    assert places(first, 1, several=False) == [0, 1, 1]  # nothing to mix up


def test_of_a_chosen_volume_its_own_slices_and_boxes_are_exported(
    tmp_path: Path, stores: Stores
) -> None:
    add_series(write_study(tmp_path / "source"), "8", every=2)
    (folder,) = Source(tmp_path / "source").studies()
    boxes = pd.DataFrame(
        {
            "study_uid": [STUDY_UID] * 2,
            **dict.fromkeys(("x", "y", "width", "height"), [1.0, 2.0]),
            "slice_number": [1, 2],
            "sop_uid": pd.array([f"{STUDY_UID}.8.1", None], "str"),
        }
    )
    for number, (slice_uid, files, kept) in enumerate(
        [("1.1", 36, [2.0]), ("8.1", 12, [1.0]), ("1.1", 36, [2.0])]
    ):
        if number:
            stores.volume_choices.add(chosen(f"{STUDY_UID}.{slice_uid}"))
        (task,) = study_tasks([folder], stores)
        convert_study(task)
        assert len(volume_read(stores, folder).files) == files
        assert [row[0] for row in boxes_read(stores, STUDY_UID, boxes)] == kept
