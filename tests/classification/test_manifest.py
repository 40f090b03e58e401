"""The manifest: who trains what, and why the others do not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.drawn_crops import (
    CROPS,
    crop_rows,
    manifest_of,
    some_labels,
    uid_of,
    write_crops,
    write_store,
    write_studies,
)

from csfd_core.classification.manifest import (
    BARELY_VISIBLE,
    NO_CROPS,
    NOT_FOUND,
    NOT_LABELLED,
    balance_of_folds,
    manifest_inputs,
    patients_in_two_folds,
    read_manifest,
)
from csfd_core.errors import StoreError
from csfd_core.evaluation.folds import assign_folds, fold_of, is_test
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

WHOLE = [0, 0, 0, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_store(tmp_path_factory.mktemp("manifest"), 30)


def test_each_study_has_one_row_for_each_level(stores: Stores) -> None:
    table = manifest_of(stores).table
    assert len(table) == 30 * 7
    assert not table.duplicated(["study_uid", "level"]).any()
    assert table["left_out"].isna().all()
    pd.testing.assert_frame_equal(read_manifest(stores.root).table, table)


def test_labels_and_crops_are_those_of_the_row(stores: Stores) -> None:
    table = manifest_of(stores).table.set_index(["study_uid", "level"])
    for uid, labels in some_labels(30).items():
        assert table.loc[uid, "label"].tolist() == labels
    row = table.loc[uid_of(4), "C5"]  # the fifth of seven levels, two slices each
    assert (row["crop_row"], row["crop_count"]) == (8, 2)
    facts = stores.crops.read_facts(uid_of(4)).to_pylist()
    assert [facts[at]["level"] for at in (8, 9)] == ["C5", "C5"]
    assert list(row["slice_labels"]) == [
        facts[8]["slice_label"],
        1 - facts[8]["slice_label"],
    ]
    assert row["label"] == 1
    assert row["crop_path"] == stores.crops.path(uid_of(4))


def test_folds_are_those_of_the_patients_hash(stores: Stores) -> None:
    table = manifest_of(stores).table
    for row in table.drop_duplicates("study_uid").itertuples():
        assert row.fold == fold_of(row.study_uid)
        assert row.is_test == is_test(row.study_uid)
    assert table["is_test"].any()


def test_studies_of_one_patient_share_a_fold(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path))
    uids = [uid_of(index) for index in range(1, 9)]
    write_studies(stores, dict.fromkeys(uids, WHOLE), dict.fromkeys(uids, "one"))
    write_crops(stores, uids[0], crop_rows(WHOLE, np.random.default_rng(0)))
    table = manifest_of(stores).table
    assert table["fold"].unique().tolist() == [fold_of("one")]
    assert set(table["patient"]) == {"one"}


def test_what_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path))
    rng = np.random.default_rng(0)
    unlabelled, short, other, absent, bad = (uid_of(i) for i in range(1, 6))
    labels: dict[str, list[int | None]] = {
        unlabelled: [0, None, 1, 0, 0, 0, 0],
        short: list(WHOLE),
        other: list(WHOLE),
        absent: list(WHOLE),
        bad: list(WHOLE),
    }
    write_studies(stores, labels, status={bad: "quarantined"})
    write_crops(stores, unlabelled, crop_rows(labels[unlabelled], rng))
    rows = crop_rows(WHOLE, rng, LEVEL_NAMES[:5], {"C4": 0.3, "C5": 0.29})
    write_crops(stores, short, rows)
    crop = {**CROPS.to_note(), "pixel_mm": 0.5}
    write_crops(stores, other, crop_rows(WHOLE, rng), crop=crop)
    write_crops(stores, bad, crop_rows(WHOLE, rng))
    manifest = manifest_of(stores)
    left_out = manifest.table.set_index(["study_uid", "level"])["left_out"].dropna()
    assert left_out.to_dict() == {
        (unlabelled, "C2"): NOT_LABELLED,
        (short, "C5"): BARELY_VISIBLE,
        (short, "C6"): NOT_FOUND,
        (short, "C7"): NOT_FOUND,
        **{(other, level): NO_CROPS for level in LEVEL_NAMES},
        **{(absent, level): NO_CROPS for level in LEVEL_NAMES},
    }
    assert bad not in set(manifest.table["study_uid"])
    visible = manifest.visible.groupby("study_uid")["level"].agg(list).to_dict()
    assert visible == {unlabelled: list(LEVEL_NAMES), short: ["C1", "C2", "C3", "C4"]}


def test_without_any_crops_nothing_is_used_and_each_vertebra_says_why(
    tmp_path: Path,
) -> None:
    stores = Stores(Location(tmp_path))
    write_studies(stores, {uid_of(1): WHOLE})
    assert manifest_inputs(stores.root) is None
    with pytest.raises(StoreError, match="Materialize training_manifest first"):
        read_manifest(stores.root)
    manifest = manifest_of(stores)
    assert manifest.usable.empty
    assert manifest.table["left_out"].notna().all()
    assert len(manifest.table) == 7


def test_identity_changes_with_a_label_and_only_with_content(tmp_path: Path) -> None:
    stores = write_store(tmp_path, 4)
    first = manifest_of(stores).inputs
    assert manifest_of(stores).inputs == first == manifest_inputs(stores.root)
    labels = some_labels(4)
    labels[uid_of(3)] = [1, 0, 0, 0, 0, 0, 0]
    write_studies(stores, labels)
    changed = manifest_of(stores).inputs
    assert changed != first
    write_studies(stores, some_labels(4))
    assert manifest_of(stores).inputs == first
    rows = crop_rows(WHOLE, np.random.default_rng(1))
    write_crops(stores, uid_of(3), rows, inputs="other crops")
    assert manifest_of(stores).inputs != first


def test_a_patient_in_two_folds_is_found(stores: Stores) -> None:
    table = manifest_of(stores).table.copy()
    assert patients_in_two_folds(table) == []
    at = table.index[table["study_uid"] == uid_of(9)]
    moved = table.copy()
    moved.loc[at[3], "fold"] = (moved.loc[at[3], "fold"] + 1) % 5
    assert patients_in_two_folds(moved) == [uid_of(9)]
    locked = table.copy()
    locked.loc[at[:2], "is_test"] = ~locked.loc[at[0], "is_test"]
    assert patients_in_two_folds(locked) == [uid_of(9)]


def test_balance_is_what_counting_gives(stores: Stores) -> None:
    manifest = manifest_of(stores)
    found = balance_of_folds(manifest.usable).set_index("fold")
    labels = pd.DataFrame(some_labels(30), index=list(LEVEL_NAMES)).T
    studies = pd.DataFrame({"study_uid": labels.index, "patient_key": None})
    places = assign_folds(studies)
    group = [
        "test" if place.is_test else str(place.fold) for place in places.itertuples()
    ]
    by_group = labels.sum(axis=1).groupby(group)
    assert found["studies"].to_dict() == by_group.size().to_dict()
    assert found["vertebrae"].to_dict() == (by_group.size() * 7).to_dict()
    assert found["fractured"].to_dict() == by_group.sum().to_dict()
    expected = (by_group.sum() / by_group.size() / 7).to_dict()
    assert found["share"].astype(float).to_dict() == pytest.approx(expected)
