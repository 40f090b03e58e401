"""SIGKILL at many moments: whole after one more time, and nothing left behind."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.conversion import digests
from support.dicom_studies import (
    LABEL_HEADER,
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.kills import MOMENTS, done_in, killed_after

from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.label_history import LabelHistory
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

Work = Callable[[Path, Path], None]


def convert(source: Path, store: Path) -> None:
    stores = Stores(Location(store))
    for folder in Source(source).studies():
        convert_study(StudyTask(folder, stores))
    write_studies_table(stores, Sources([Source(source)]))


def take_labels(source: Path, store: Path) -> None:
    stores = Stores(Location(store))
    write_studies_table(stores, Sources([Source(source)]))


def take_out(source: Path, store: Path) -> None:
    withdraw(Stores(Location(store)), STUDY_UID, "a test", "tester")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for number in range(3):
        uid = f"{STUDY_UID}{number or ''}"
        write_study(source, uid)
        write_mask(source, neck_mask(), volume_affine_ras(), uid)
    label(source, 0)
    return source


def label(source: Path, value: int) -> None:
    rows = f"{STUDY_UID},{value},{value},0,0,0,0,0,0\n"
    (source / "train.csv").write_text(LABEL_HEADER + rows)


def facts(store: Path) -> dict[str, object]:
    """The content of a store, but for what tells when it was written."""
    found: dict[str, object] = {
        name: digest
        for name, digest in digests(store).items()
        if not name.startswith(("metadata/label_versions/", "withdrawn/"))
        and name != "metadata/studies.parquet"  # has the times of files in its note
    }
    history = LabelHistory(Location(store))
    found["labels"] = [version.labels for version in history.versions(STUDY_UID)]
    found["withdrawn"] = sorted(Stores(Location(store)).withdrawn.study_uids())
    if (store / "metadata" / "studies.parquet").exists():
        table = Stores(Location(store)).metadata.read_studies()
        found["table"] = table.to_json()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("work", [convert, take_labels, take_out])
def test_what_is_killed_is_whole_after_one_more_time(
    source: Path, tmp_path: Path, work: Work
) -> None:
    before = tmp_path / "before"
    if work is not convert:
        convert(source, before)
        label(source, 1)
    else:
        before.mkdir()
    expected = tmp_path / "expected"
    shutil.copytree(before, expected)
    whole_s = done_in(partial(work, source, expected))
    moments, working = random.Random(0), 0
    for number in range(MOMENTS):
        store = tmp_path / f"store {number}"
        shutil.copytree(before, store)
        delay_s = moments.uniform(0.1, 1.1) * whole_s
        took_s = killed_after(partial(work, source, store), delay_s)
        working += took_s is None
        whole_s = min(whole_s, took_s or whole_s)  # the first time takes longest
        work(source, store)
        assert facts(store) == facts(expected)
        assert [path.name for path in store.rglob("*.tmp-*")] == []
        shutil.rmtree(store)
    assert working > MOMENTS / 4  # it was killed while it worked, not before or after
