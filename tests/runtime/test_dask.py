"""Work spread by Dask, on a scheduler and workers that are programs of their own.

What comes of it is compared with what one process makes.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.coarse import write_converted_phantom
from support.command import csfd_here
from support.dask_cluster import Cluster, dask_cluster
from support.dask_steps import (
    MeansOpener,
    convert_or_die,
    die_of,
    kept_by,
    largest_file_mb,
    who,
)
from support.dicom_studies import (
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.crops.cutting import CropConfig
from csfd_core.crops.maker import CropMaker
from csfd_core.errors import SettingsError, UnfitWorkerError, WorkerDiedError
from csfd_core.ingest.convert import StudyTask, convert_study, run_studies
from csfd_core.ingest.outcomes import make_many
from csfd_core.phantom.config import PhantomConfig
from csfd_core.runtime import study_map
from csfd_core.runtime.dask_client import open_dask
from csfd_core.runtime.dask_worker import Terms, own_versions
from csfd_core.runtime.executors import InlineExecutor, completed
from csfd_core.runtime.study_map import StudyMap, Work
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.store.atomic import TEMPORARY
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores

pytestmark = pytest.mark.slow

UIDS = [STUDY_UID, "1.2.826.0.1.3680043.12", "1.2.826.0.1.3680043.13"]
CROPS = CropConfig(slices=3, side_px=48, pixel_mm=2.0)
PHANTOMS = PhantomConfig(studies=2, seed=21, masked_share=1.0, compressed_share=0.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture
def dask(cluster: Cluster) -> StudyMap:
    """The map over one worker with a GPU and one without."""
    return StudyMap(dask=cluster.require())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three studies; the first has a mask, the last lacks a slice."""
    folder = tmp_path / "source"
    for study_uid in UIDS:
        write_study(folder, study_uid)
    write_mask(folder, neck_mask(), volume_affine_ras())
    (folder / "train_images" / UIDS[2] / "9.dcm").unlink()
    return folder


def stored(root: Path) -> dict[str, bytes]:
    """Return every file of a store that is no note on listings."""
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in root.rglob("*.parquet")
    }


def tasks_of(source: Path, root: Path) -> list[StudyTask]:
    stores = Stores(Location(root))
    return [StudyTask(folder, stores) for folder in Source(source).studies()]


def convert_inline(source: Path, root: Path) -> dict[str, bytes]:
    for task in tasks_of(source, root):
        convert_study(task)
    return stored(root)


def test_command_on_dask_gives_the_bytes_of_one_process(
    cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = csfd_here("convert", source, store, CSFD_DASK=cluster.require())
    assert done.returncode == 0, done.stderr
    assert "2 studies written, 0 unchanged, 1 quarantined, 0 failed" in done.stdout
    expected = convert_inline(source, tmp_path / "one")
    assert len(expected) == 6  # headers of three, slices of two, one mask
    found = stored(store)
    assert expected == {name: found[name] for name in expected}
    assert not list(store.glob(".shared*"))


def test_networks_run_where_a_gpu_is_and_the_rest_anywhere(
    dask: StudyMap, caplog: pytest.LogCaptureFixture
) -> None:
    with dask.open(Work.NETWORKS, 4) as executor:
        found = {future.result() for _, future in completed(executor, who, range(4))}
    assert found == {"gpu"}
    with dask.open(Work.ARRAYS, 4) as executor:
        found = {future.result() for _, future in completed(executor, who, range(40))}
    assert found == {"cpu", "gpu"}
    assert not caplog.messages


def test_limits_of_the_client_hold_on_the_workers(
    dask: StudyMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("3", None):
        if limit is None:
            monkeypatch.delenv("CSFD_MAX_FILE_MB")
        else:
            monkeypatch.setenv("CSFD_MAX_FILE_MB", limit)
        with dask.open(Work.ARRAYS, 2) as executor:
            done = completed(executor, largest_file_mb, range(4))
            assert {future.result() for _, future in done} == {int(limit or 256)}


@pytest.mark.timeout(600)  # TensorFlow twice, with three programs beside it
def test_masks_and_crops_have_the_bytes_of_one_process_and_models_are_kept(
    dask: StudyMap, tmp_path: Path
) -> None:
    found = []
    for name, way in (("one", StudyMap(workers=1)), ("dask", dask)):
        stores = write_converted_phantom(tmp_path / name, PHANTOMS)
        uids = stores.metadata.study_uids()
        labels = stores.metadata.read_studies().set_index("study_uid")
        boxes = pd.DataFrame({"study_uid": []})
        place = stores.root.folder
        with way.open(Work.NETWORKS, len(uids), store=place) as executor:
            masks = make_many(MaskMaker(stores), uids, executor)
            if name == "dask":
                ((_, kept),) = completed(executor, kept_by, [0])
                assert kept.result() == ["masks"]  # one maker for all studies
        with way.open(Work.ARRAYS, len(uids), store=place) as executor:
            maker = CropMaker(stores, CROPS, labels, boxes)
            crops = make_many(maker, uids, executor)
        assert [one.study_uid for one in masks] == uids
        assert {one.action for one in [*masks, *crops]} == {"written"}, masks
        kinds = ("predicted_masks", "crops")
        files = stored(tmp_path / name / "store")
        found.append({n: c for n, c in files.items() if n.startswith(kinds)})
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_features_are_computed_by_workers_that_have_the_same_weights(
    dask: StudyMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.drawn_crops import uid_of, write_store

    crops = write_store(tmp_path, 2).crops
    rows = pd.DataFrame(
        {
            "study_uid": [uid_of(1), uid_of(2)],
            "level": ["C1", "C2"],
            "content_hash": ["a", "b"],
        }
    )
    opener = MeansOpener(str(tmp_path))
    here = MeansOpener(str(tmp_path), digest="here")()
    expected = [features for _, features in here.read(crops, rows)]
    by_this = f"computed.tmp-{os.getpid()}"
    (tmp_path / by_this).unlink()
    monkeypatch.setenv("CSFD_DASK", str(dask.dask))
    cache = replace(opener(), opener=opener)
    found = [features for _, features in cache.read(crops, rows)]
    np.testing.assert_array_equal(found, expected)
    assert list(tmp_path.glob("computed.tmp-*"))
    assert not (tmp_path / by_this).exists()
    with pytest.raises(SettingsError, match="weights of means on a Dask worker"):
        list(replace(cache, digest="others").read(crops, rows))


def test_studies_of_a_worker_that_is_killed_go_to_others(
    cluster: Cluster, dask: StudyMap, source: Path, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    with dask.open(Work.FILES, 3, store=root) as executor:
        outcomes = list(run_studies(convert_or_die, tasks_of(source, root), executor))
    assert sorted(o.action for o in outcomes) == ["quarantined", "written", "written"]
    assert sum(worker.poll() is not None for worker in cluster.workers.values()) == 1
    assert stored(root) == convert_inline(source, tmp_path / "one")


def test_a_study_that_kills_its_worker_twice_costs_itself_alone(
    cluster: Cluster, dask: StudyMap, tmp_path: Path
) -> None:
    cluster.start("third")
    cluster.wait()
    marks = [tmp_path / name for name in ("a", "b", "poison", "c")]
    for mark in marks:
        mark.touch()
    with dask.open(Work.ARRAYS, 4) as executor:
        found = {mark.name: f for mark, f in completed(executor, die_of, marks)}
    assert isinstance(found.pop("poison").exception(), WorkerDiedError)
    assert {name: future.result() for name, future in found.items()} == {
        "a": "a",
        "b": "b",
        "c": "c",
    }


def another(folder: Path, package: str) -> str:
    """Let a process find another version of a package; return its PYTHONPATH."""
    info = folder / f"{package}-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {package}\nVersion: 0.0.1\n")
    return str(folder)


def test_worker_with_another_csfd_is_refused(
    cluster: Cluster, dask: StudyMap, tmp_path: Path
) -> None:
    with dask.open(Work.ARRAYS, 1) as executor:
        assert list(completed(executor, who, [0]))
        cluster.start("old", PYTHONPATH=another(tmp_path, "csfd"))
        cluster.wait()
        with pytest.raises(UnfitWorkerError, match=r"it has csfd 0.0.1 instead of"):
            list(completed(executor, who, range(40)))  # it came later
    with (
        pytest.raises(UnfitWorkerError, match=r"Dask worker tcp://127.* csfd 0.0.1"),
        dask.open(Work.ARRAYS, 1),
    ):
        pass


def test_worker_with_another_numpy_is_told_once(
    cluster: Cluster, dask: StudyMap, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.start("odd", PYTHONPATH=another(tmp_path, "numpy"))
    cluster.wait()
    for _ in range(2):
        with dask.open(Work.ARRAYS, 1):
            pass
    (told,) = caplog.messages
    assert f"1 Dask worker runs with numpy 0.0.1 instead of {np.__version__}" in told


def test_worker_with_another_secret_or_store_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    dask = StudyMap(dask=cluster.require())
    with (
        pytest.raises(UnfitWorkerError, match="another secret for the digests"),
        dask.open(Work.FILES, 1, secret=lambda: b"another"),
    ):
        pass
    hidden = f"/proc/{os.getpid()}/root{tmp_path}"  # the same folder by another name
    with dask.open(Work.FILES, 1, store=Path(hidden)):
        pass
    terms = Terms(version=own_versions()["csfd"], mark=str(tmp_path / "absent"))
    with (
        pytest.raises(UnfitWorkerError, match=f"does not see the store {tmp_path}"),
        open_dask(str(dask.dask), terms),
    ):
        pass


def test_absent_scheduler_is_one_clear_line_and_status_1(
    source: Path, tmp_path: Path
) -> None:
    done = csfd_here("convert", source, tmp_path / "s", "--dask", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr


def test_here_the_map_is_threads_or_this_process() -> None:
    with StudyMap(workers=1).open(Work.FILES, 9) as executor:
        assert isinstance(executor, InlineExecutor)
    assert TEMPORARY in study_map._MARK  # listings leave it out
    with StudyMap().open(Work.NETWORKS, 9) as executor:
        assert executor._max_workers == 2  # type: ignore[attr-defined]
