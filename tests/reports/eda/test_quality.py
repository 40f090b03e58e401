"""Quality of the data: findings, copies, transfer syntaxes, kind of the source."""

import shutil
from pathlib import Path

import pytest
from support.eda_source import BROKEN, MASKED, PLAIN, UNLABELLED, add_images, fill

from csfd_core.reports.eda.inputs import content_digest, read_inputs
from csfd_core.reports.eda.quality import (
    count_slices_by_syntax,
    duplicates,
    quality_table,
    syntax_name,
)
from csfd_core.reports.eda.sentences import say_quality
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources, data_kind
from csfd_core.store.stores import Stores

COPY = "1.2.826.0.1.3680043.29"


def counts_of(stores: Stores, without_images: int = 0) -> dict[tuple[str, str], int]:
    table = quality_table(stores.metadata.read_studies(), without_images)
    return {(row.topic, row.item): row.studies for row in table.itertuples()}


def test_standing_codes_labels_and_direction_are_counted(stores: Stores) -> None:
    counts = counts_of(stores, without_images=5)
    assert counts["standing", "quarantined"] == 1
    assert counts["quarantined for", "missing_slices"] == 1
    assert counts["labels", "complete"] == 2
    assert counts["labels", "missing or incomplete"] == 1
    assert counts["labels", "labelled, without images"] == 5
    assert counts["instance numbers rise", "head to feet"] == 2
    assert counts["instance numbers rise", "feet to head"] == 1
    assert counts["content", "same slices as another study"] == 0


def test_warnings_are_counted(source: Path, stores: Stores, sources: Sources) -> None:
    table = (source / "train.csv").read_text()
    (source / "train.csv").write_text(table.replace(f"{PLAIN},1", f"{PLAIN},0"))
    fill(stores, sources)
    assert counts_of(stores)["warned of", "contradictory_labels"] == 1


def test_study_with_the_slices_of_another_is_found(
    source: Path, stores: Stores, sources: Sources
) -> None:
    # The same pixels under another identity are another content; the same files in two
    # stores of one table are not.
    studies = stores.metadata.read_studies()
    assert duplicates(studies).empty
    copied = studies["study_uid"] == UNLABELLED
    original = studies.loc[studies["study_uid"] == PLAIN, "content_hash"].iloc[0]
    studies.loc[copied, "content_hash"] = original
    found = duplicates(studies)
    assert found.to_numpy().tolist() == [[1, PLAIN], [1, UNLABELLED]]


def test_slices_are_counted_by_transfer_syntax(stores: Stores) -> None:
    found = count_slices_by_syntax(stores.metadata)
    assert found.to_numpy().tolist() == [["1.2.840.10008.1.2.1", 95, 4]]
    assert syntax_name("1.2.840.10008.1.2.1") == "uncompressed (explicit VR)"
    assert syntax_name("1.2.3") == "1.2.3"


def test_sentence_names_quarantine_and_compression(
    sources: Sources, stores: Stores
) -> None:
    inputs = read_inputs(sources, stores)
    quality = quality_table(inputs.studies, inputs.labels_without_images)
    text = say_quality(inputs.studies, quality, inputs.syntaxes)
    assert "1 of 4 studies is quarantined, most often for missing slices (1)" in text
    assert "In 1 the instance numbers rise from feet to head" in text
    assert "100.0 % of 95 slices are uncompressed" in text


@pytest.mark.parametrize(
    ("phantom", "other", "expected"),
    [
        (True, None, "phantom"),
        (False, None, "real"),
        (True, "train.csv", "mixed"),
        (True, "notes.txt", "phantom"),
    ],
)
def test_kind_of_the_data(
    tmp_path: Path, phantom: bool, other: str | None, expected: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "train.csv").write_text("")
    if phantom:
        (first / "phantom.json").write_text("{}")
    if other is not None:
        second.mkdir()
        (second / other).write_text("")
    assert data_kind([Location(first), Location(second)]) == expected


def test_labels_alone_make_a_table(tmp_path: Path, source: Path) -> None:
    shutil.rmtree(source / "train_images")
    inputs = read_inputs(Sources([Source(source)]), Stores(Location(tmp_path / "none")))
    assert inputs.studies["study_uid"].tolist() == sorted([MASKED, PLAIN, BROKEN])
    assert inputs.labels_without_images == 3
    assert inputs.stores is None


def test_identity_of_the_data_follows_the_data(
    source: Path, sources: Sources, stores: Stores
) -> None:
    before = content_digest(read_inputs(sources, stores), 1)
    assert content_digest(read_inputs(sources, stores), 1) == before
    assert content_digest(read_inputs(sources, stores), 2) != before
    add_images(source, COPY, 9)
    fill(stores, sources)
    assert content_digest(read_inputs(sources, stores), 1) != before
