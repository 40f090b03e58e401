"""Files that are touched, or copied once more, change nothing that is stored."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.conversion import OTHER_UID, digests, tasks
from support.dicom_studies import STUDY_UID, neck_mask, volume_affine_ras, write_mask

from csfd_core.ingest.convert import (
    convert_mask,
    convert_slices,
    convert_study,
    needs_work,
    scan_headers,
)
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.studies_table import studies_table_inputs, write_studies_table
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.locations import Location
from csfd_core.store.paths import LISTINGS
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

Change = Callable[[Path], object]
IMAGES = f"train_images/{STUDY_UID}"


def stored(store: Path) -> dict[str, str]:
    """Everything but the notes on listings."""
    found = digests(store)
    return {k: v for k, v in found.items() if not k.startswith(LISTINGS)}


def record_times(store: Path) -> dict[str, int]:
    files = (store / "metadata" / "slices").iterdir()
    return {path.name: path.stat().st_mtime_ns for path in files}


def inputs_of(source: Path, store: Path) -> str:
    return studies_table_inputs(
        Stores(Location(store)), Sources([Source(Location(source))])
    )


def copy_again(source: Path) -> None:
    folder = source / IMAGES
    shutil.copytree(folder, source / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (source / "copy").rename(folder)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    touched=st.lists(st.integers(1, 24), max_size=5),
    mask=st.booleans(),
    seconds=st.integers(1, 10**6),
    at_once=st.booleans(),
)
def test_whatever_is_touched_all_that_is_stored_stays(
    source: Path,
    store: Path,
    touched: list[int],
    mask: bool,
    seconds: int,
    at_once: bool,
) -> None:
    for task in tasks(source, store):
        convert_study(task)
    write_studies_table(Stores(Location(store)), Sources([Source(source)]))
    before, times, inputs = stored(store), record_times(store), inputs_of(source, store)
    for number in touched:
        os.utime(source / IMAGES / f"{number}.dcm", (seconds, seconds))
    if mask:
        os.utime(source / "segmentations" / f"{STUDY_UID}.nii", (seconds, seconds))
    task = tasks(source, store)[0]
    steps = (convert_study,) if at_once else (scan_headers, convert_slices,
                                              convert_mask)  # fmt: skip
    assert {step(task).action for step in steps} == {Outcome.UNCHANGED}
    assert not needs_work(tasks(source, store)[0])
    assert stored(store) == before
    assert record_times(store) == times
    assert inputs_of(source, store) == inputs


def test_study_that_arrives_twice_changes_nothing(source: Path, store: Path) -> None:
    for task in tasks(source, store):
        convert_study(task)
    before, inputs = stored(store), inputs_of(source, store)
    for _ in range(2):
        copy_again(source)
        assert needs_work(tasks(source, store)[0])
        assert convert_study(tasks(source, store)[0]).action == Outcome.UNCHANGED
        assert not needs_work(tasks(source, store)[0])
    assert stored(store) == before
    assert inputs_of(source, store) == inputs


def break_pixel(source: Path) -> None:
    path = source / IMAGES / "3.dcm"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


CHANGES: dict[str, Change] = {
    "pixel": break_pixel,
    "name": lambda source: (source / IMAGES / "3.dcm").rename(
        source / IMAGES / "003.dcm"
    ),
    "stray file": lambda source: (source / IMAGES / "notes.txt").write_text("x"),
    "missing slice": lambda source: (source / IMAGES / "3.dcm").unlink(),
    "no mask": lambda source: (source / "segmentations" / f"{STUDY_UID}.nii").unlink(),
    "other mask": lambda source: write_mask(
        source, neck_mask() * (neck_mask() < 7), volume_affine_ras()
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_has_changed_is_recorded_anew(
    source: Path, store: Path, change: Change
) -> None:
    for task in tasks(source, store):
        convert_study(task)
    inputs = inputs_of(source, store)
    copy_again(source)
    convert_study(tasks(source, store)[0])
    change(source)
    assert scan_headers(tasks(source, store)[0]).action == Outcome.WRITTEN
    convert_study(tasks(source, store)[0])
    assert not needs_work(tasks(source, store)[0])
    assert inputs_of(source, store) != inputs


def test_listing_of_an_older_content_counts_no_more(source: Path, store: Path) -> None:
    path = source / IMAGES / "3.dcm"
    convert_study(tasks(source, store)[0])
    os.utime(path, (5, 5))
    assert convert_study(tasks(source, store)[0]).action == Outcome.UNCHANGED
    break_pixel(source)
    os.utime(path, (7, 7))
    assert convert_study(tasks(source, store)[0]).action == Outcome.WRITTEN
    os.utime(path, (5, 5))  # listed as the older content was
    assert needs_work(tasks(source, store)[0])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"now": 1, "record": 2}'])
def test_listing_that_cannot_be_read_has_the_study_read_again(
    source: Path, store: Path, text: str
) -> None:
    convert_study(tasks(source, store)[0])
    copy_again(source)
    convert_study(tasks(source, store)[0])
    (store / LISTINGS / f"{STUDY_UID}.json").write_text(text)
    assert needs_work(tasks(source, store)[0])
    assert convert_study(tasks(source, store)[0]).action == Outcome.UNCHANGED
    assert not needs_work(tasks(source, store)[0])
    assert OTHER_UID not in str(sorted((store / LISTINGS).iterdir()))


def test_withdrawn_study_leaves_no_listing(source: Path, store: Path) -> None:
    convert_study(tasks(source, store)[0])
    copy_again(source)
    convert_study(tasks(source, store)[0])
    listing = store / LISTINGS / f"{STUDY_UID}.json"
    assert listing.is_file()
    withdraw(Stores(Location(store)), STUDY_UID, "consent withdrawn", "tester")
    assert not listing.exists()
