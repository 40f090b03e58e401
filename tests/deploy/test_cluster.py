"""The graph on services that share no disk: the core of ``make cluster-demo``."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from support.coarse import coarse_phantoms

from csfd_core.ingest.convert import convert_studies, study_tasks
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_dagster.conditions import ASKED_BY, CONDITIONS
from deploy.demo import __main__ as demo
from deploy.demo.cluster import DESK, cluster_in, start_graph
from deploy.demo.comparing import (
    SAME_NUMBERS,
    Same,
    files_below,
    objects_below,
    require_same,
)
from deploy.demo.machines import DemoError
from deploy.demo.watching import instance_at

STUDIES = 3
PATIENCE_S = 600
QUICK = {"CSFD_LOOK_EVERY_S": "5", "CSFD_SETTLE_S": "0"}
WITH_KILLS = pytest.mark.skipif(
    not os.environ.get("CSFD_TEST_CLUSTER"),
    reason="takes a quarter of an hour: set CSFD_TEST_CLUSTER=1",
)


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that PostgreSQL may enter, which may run as another user."""
    with tempfile.TemporaryDirectory(prefix="csfd-cluster-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def tell(text: str) -> None:
    """Show where a test is that takes long."""
    demo.say(text)


def wait_for(instance: dg.DagsterInstance, asset: str) -> dg.DagsterRun:
    """Wait until the daemon has made an asset of studies that it was not told of."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        for run in instance.get_runs():
            if run.is_finished and dg.AssetKey(asset) in (run.asset_selection or ()):
                return run
        time.sleep(0.5)
    raise AssertionError(f"{asset} was not made")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_daemon_on_postgres_and_s3_makes_what_one_process_makes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse_phantoms(monkeypatch)
    few = PhantomConfig(studies=STUDIES, seed=19, masked_share=1)
    source, alone = tmp_path / "source", Stores(Location(tmp_path / "store"))
    write_phantom_source(source, few, executor=InlineExecutor())
    tasks = study_tasks(Sources([Source(source)]).studies(), alone)
    list(convert_studies(tasks, InlineExecutor()))
    theirs = files_below(tmp_path / "store")
    with cluster_in(root, tell, QUICK, is_whole=False) as cluster:
        cluster.call("move", str(source), cluster.url("source"))
        start_graph(cluster)
        with instance_at(cluster.machines.home(DESK), cluster.variables) as instance:
            run = wait_for(instance, "slice_store")
            assert len(instance.get_dynamic_partitions("studies")) == STUDIES
        ours = objects_below(cluster.variables, "store")
        databases = list(cluster.machines.state.rglob("*.db"))
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.tags[ASKED_BY] == CONDITIONS
    assert len(ours) == 2 * STUDIES
    assert require_same(ours, theirs).files == 2 * STUDIES
    assert databases == []  # all of Dagster's state is in Postgres
    assert not (root / "state").exists()
    assert sorted(path.name for path in (root / "logs").glob("*.log")) == [
        "code server.log", "daemon.log", "desk csfd move.log", "postgres.log",
        "seaweedfs.log",
    ]  # fmt: skip


def test_other_bytes_and_other_numbers_are_named() -> None:
    table = b"model,auc,train_s\ncnn,0.5,1.0\n"
    models = SAME_NUMBERS[0]
    theirs = {"slices/1.parquet": b"a", models: table}
    longer = {**theirs, models: table.replace(b"1.0", b"9.0")}
    assert require_same(longer, theirs) == Same(files=2, numbers=1)
    with pytest.raises(DemoError, match=r"1 files differ .*: slices/1.parquet"):
        require_same({**theirs, "slices/1.parquet": b"b"}, theirs)
    with pytest.raises(DemoError, match=r"1 files differ .*: crops/1.parquet"):
        require_same({**theirs, "crops/1.parquet": b""}, theirs)
    with pytest.raises(DemoError, match="models.csv differs in auc"):
        require_same({**theirs, models: table.replace(b"0.5", b"0.6")}, theirs)


@WITH_KILLS
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cluster_ends_with_the_same_bytes_though_everything_is_killed() -> None:
    call = ["--studies", "12", "--locked", "4", "--brief", "--kill", "--within", "3000"]
    assert demo.main(call) == 0
