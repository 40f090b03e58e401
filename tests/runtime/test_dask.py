"""Work spread by Dask, on a scheduler and workers in processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import csfd, csfd_here
from support.dicom_studies import (
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.ingest.convert import StudyTask, convert_study, run_studies
from csfd_core.runtime.executors import InlineExecutor, open_executor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores

pytestmark = pytest.mark.slow

UIDS = [STUDY_UID, "1.2.826.0.1.3680043.12", "1.2.826.0.1.3680043.13"]


@pytest.fixture
def scheduler() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three studies; the first has a mask, the last lacks a slice."""
    folder = tmp_path / "source"
    for study_uid in UIDS:
        write_study(folder, study_uid)
    write_mask(folder, neck_mask(), volume_affine_ras())
    (folder / "train_images" / UIDS[2] / "9.dcm").unlink()
    return folder


def test_dask_gives_the_bytes_that_one_process_gives(
    scheduler: str, source: Path, tmp_path: Path
) -> None:
    contents = []
    for name, address in (("inline", None), ("dask", scheduler)):
        stores = Stores(Location(tmp_path / name))
        tasks = [StudyTask(folder, stores) for folder in Source(source).studies()]
        with open_executor(1, address) as executor:
            assert isinstance(executor, InlineExecutor) == (address is None)
            outcomes = {
                o.study_uid: o for o in run_studies(convert_study, tasks, executor)
            }
        actions = [outcomes[uid].action for uid in UIDS]
        assert actions == ["written", "written", "quarantined"]
        root = tmp_path / name
        contents.append(
            {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*.parquet")}
        )
    assert len(contents[0]) == 6  # headers of three, slices of two, one mask
    assert contents[0] == contents[1]


def test_convert_command_works_on_dask(
    scheduler: str, source: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = csfd("convert", source, store, "--dask", scheduler)
    assert done.returncode == 0, done.stderr
    assert "2 studies written, 0 unchanged, 1 quarantined, 0 failed" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(list((store / "slices").glob("*.parquet"))) == 2


def test_absent_scheduler_is_one_clear_line_and_status_1(
    source: Path, tmp_path: Path
) -> None:
    done = csfd_here("convert", source, tmp_path / "s", "--dask", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr
