"""History in batches: the same history, fewer transactions, none the weaker."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    SqliteEventLogStorage,
)

from csfd_dagster.instance.files import lay_instance
from csfd_dagster.partitions import range_tags, studies
from csfd_dagster.storage import BatchedEventLogStorage

UIDS = [f"1.2.826.0.1.3680043.1{index}" for index in range(10, 16)]
# How to die in the middle of the second asset, as by a power cut or the OOM killer.
DIE = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_storage
test_storage.ingest(lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A Dagster instance configured as the project's is."""
    folder = tmp_path / "home"
    lay_instance(folder)
    with mock.patch.dict(os.environ, {"DAGSTER_HOME": str(folder)}):
        os.environ.pop("DAGSTER_EVENT_BATCH_SIZE", None)
        yield folder


def add_metadata(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Describe each study in the event that Dagster makes of it."""
    for key in context.partition_keys:
        context.add_asset_metadata({"outcome": f"of {key}"}, partition_key=key)
    yield dg.MaterializeResult()


def add_events(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Describe each study in an event of its own, after those that Dagster makes."""
    yield dg.MaterializeResult()
    for key in context.partition_keys:
        yield dg.AssetMaterialization(
            context.asset_key,
            partition=key,
            metadata={"outcome": f"of {key}"},
            tags={"dagster/data_version": f"of {key}"},
        )


def build_job(
    in_second: Any = lambda: None, in_first: Callable[..., Any] = add_metadata
) -> dg.JobDefinition:
    """Two assets with one partition per study, a check and one asset of the whole."""

    @dg.asset(partitions_def=studies, code_version="1")
    def first(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from in_first(context)

    @dg.asset(
        deps=[first],
        partitions_def=studies,
        code_version="1",
        check_specs=[dg.AssetCheckSpec("is_good", asset="second")],
    )
    def second() -> dg.MaterializeResult:
        in_second()
        check = dg.AssetCheckResult(check_name="is_good", passed=True)
        return dg.MaterializeResult(check_results=[check])

    @dg.asset(deps=[second], code_version="1")
    def whole() -> None: ...

    return dg.Definitions(
        assets=[first, second, whole], jobs=[dg.define_asset_job("job")]
    ).resolve_job_def("job")


def ingest(
    in_second: Any = lambda: None,
    uids: list[str] = UIDS,
    in_first: Callable[..., Any] = add_metadata,
) -> str:
    """Materialize everything on the instance of the environment; return the run."""
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("studies", uids)
        result = build_job(in_second, in_first).execute_in_process(
            instance=instance, tags=range_tags(uids)
        )
        return str(result.run_id)


def rows(database: Path) -> list[tuple[Any, ...]]:
    """Return what a database tells of events, in their order."""
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute(
            "SELECT dagster_event_type, step_key, asset_key, partition"
            " FROM event_logs ORDER BY id"
        ).fetchall()


def events_of(home: Path, run_id: str) -> dict[str, Any]:
    """Return what Dagster tells of a run and its assets, but for times.

    Dagster takes the partitions of a run in no particular order.
    """
    found: dict[str, Any] = {}
    for database in ("index", run_id):
        name = database.replace(run_id, "run")
        events = rows(home / "history" / "runs" / f"{database}.db")
        found[f"kinds in {name}"] = [event[:3] for event in events]
        found[f"events in {name}"] = Counter(events)
    with sqlite3.connect(home / "history" / "runs" / "index.db") as connection:
        query = "SELECT asset_key, key, value FROM asset_event_tags"
        found["tags in index"] = Counter(connection.execute(query))
    with dg.DagsterInstance.get() as instance:
        for name in ("first", "second", "whole"):
            key = dg.AssetKey(name)
            records = instance.fetch_materializations(key, limit=100).records
            found[name] = {
                event.partition: (event.metadata, event.tags)
                for record in records
                if (event := record.asset_materialization)
            }
            [asset] = instance.get_asset_records([key])
            assert asset.asset_entry.last_materialization_record == records[0]
            assert asset.asset_entry.last_run_id == run_id
    return found


def test_one_run_of_a_pool_goes_on_at_a_time_and_a_killed_one_holds_nothing(
    home: Path,
) -> None:
    """A slot that a step has taken stays taken when its process is killed."""
    with dg.DagsterInstance.get() as instance:
        pools = instance.get_concurrency_config().pool_config
    assert pools.default_pool_limit == 1
    assert pools.pool_granularity is not None
    assert pools.pool_granularity.value == "run"


def test_project_uses_it_where_dagster_keeps_its_history(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, BatchedEventLogStorage)
    assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == "256"
    files = {str(path.relative_to(home)) for path in home.rglob("*.db")}
    assert files == {
        "history/runs.db",
        "history/runs/index.db",
        "schedules/schedules.db",
    }


def test_history_is_the_same_as_without_batches(home: Path) -> None:
    batched = events_of(home, ingest())
    shutil.rmtree(home / "history")
    (home / "dagster.yaml").write_text("{}")
    plain_run = ingest()
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
    plain = events_of(home, plain_run)
    assert set(plain["first"]) == set(plain["second"]) == set(UIDS)
    assert plain["first"][UIDS[0]][0]["outcome"].value == f"of {UIDS[0]}"
    for name, found in plain.items():
        assert batched[name] == found, name


def test_batch_of_several_types_keeps_the_last_materialization(home: Path) -> None:
    run_id = ingest()
    first, second = dg.AssetKey("first"), dg.AssetKey("second")
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    materialized = dg.DagsterEventType.ASSET_MATERIALIZATION
    with dg.DagsterInstance.get() as instance:
        found = {
            (event.dagster_event_type, event.get_dagster_event().asset_key): event
            for event in instance.all_logs(run_id, of_type={planned, materialized})
        }
        batch = [
            found[materialized, first],
            found[materialized, second],
            found[planned, first]._replace(run_id="later"),
        ]
        instance.event_log_storage.store_event_batch(batch)
        [asset] = instance.get_asset_records([first])
        [newest] = instance.fetch_materializations(first, limit=1).records
        assert asset.asset_entry.last_materialization_record == newest
        assert asset.asset_entry.last_run_id == "later"


@pytest.mark.parametrize("in_first", [add_metadata, add_events])
def test_transactions_do_not_grow_with_the_studies(
    home: Path, in_first: Callable[..., Any]
) -> None:
    def count(uids: list[str]) -> int:
        written = Counter[str]()

        def note(
            connection: sa.Connection, cursor: Any, statement: str, *_: Any
        ) -> None:
            if statement.startswith(("INSERT", "UPDATE")):
                connection.info["writes"] = True

        def commit(connection: sa.Connection) -> None:
            if connection.info.pop("writes", False):
                written["transactions"] += 1

        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        sa.event.listen(sa.Engine, "commit", commit)
        try:
            ingest(in_first=in_first, uids=uids)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
            sa.event.remove(sa.Engine, "commit", commit)
        return written["transactions"]

    ingest(uids=["1.2.3"])  # makes the databases
    with mock.patch("csfd_dagster.storage._LONGEST_WAIT_S", 60.0):
        assert count(UIDS) == count([f"1.2.3.{number}" for number in range(60)])


def test_events_of_a_step_are_read_as_soon_as_it_logs_them(home: Path) -> None:
    seen = list[set[str]]()

    def in_first(context: dg.AssetExecutionContext) -> Iterator[Any]:
        for event in add_events(context):
            yield event
            key = context.asset_key
            seen.append(set(context.instance.get_materialized_partitions(key)))

    run_id = ingest(in_first=in_first, uids=UIDS[:2])
    assert seen == [set(UIDS[:2])] * 3
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetKey("first"), limit=9).records
        assert {record.run_id for record in records} == {run_id}
        versions = [
            (event.partition, (event.tags or {})["dagster/data_version"])
            for record in records
            if (event := record.asset_materialization)
        ]
    # Newest first: those of the step itself come after those that Dagster makes.
    assert len(versions) == 4
    assert versions[:2] == [(uid, f"of {uid}") for uid in UIDS[1::-1]]


def test_events_of_a_slow_step_wait_for_a_second_only(home: Path) -> None:
    stored = list[int]()

    def in_first(context: dg.AssetExecutionContext) -> Iterator[Any]:
        storage = context.instance.event_log_storage
        assert isinstance(storage, BatchedEventLogStorage)
        with mock.patch("csfd_dagster.storage.monotonic", side_effect=[0.0, 0.4, 1.1]):
            for event in add_events(context):
                yield event
                stored.append(len(storage._waiting))

    ingest(in_first=in_first, uids=UIDS[:2])
    assert stored == [0, 1, 0]


def test_each_transaction_reaches_the_disk(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        storage = instance.event_log_storage
        assert isinstance(storage, BatchedEventLogStorage)
        with storage.index_connection() as connection:
            mode = connection.execute(sa.text("PRAGMA journal_mode")).scalar()
            synchronous = connection.execute(sa.text("PRAGMA synchronous")).scalar()
    assert (mode, synchronous) == ("wal", 2)  # 2: FULL


@pytest.mark.slow
def test_history_survives_the_death_of_a_run(home: Path) -> None:
    code = DIE.format(tests=str(Path(__file__).parent))
    call = [sys.executable, "-c", code]
    assert subprocess.run(call, check=False).returncode == -signal.SIGKILL
    [run_file] = {*(home / "history" / "runs").glob("*-*.db")}
    made = [row for row in rows(run_file) if row[0] == "ASSET_MATERIALIZATION"]
    assert sorted(partition for *_, partition in made) == UIDS
    with dg.DagsterInstance.get() as instance:
        done = instance.get_materialized_partitions(dg.AssetKey("first"))
        assert done == set(UIDS)
        assert not instance.get_materialized_partitions(dg.AssetKey("second"))
    ingest()
    with dg.DagsterInstance.get() as instance:
        done = instance.get_materialized_partitions(dg.AssetKey("second"))
        assert done == set(UIDS)


def test_batch_that_fails_is_stored_one_by_one_and_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = BatchedEventLogStorage._store_asset_event
    failures = [sqlite3.OperationalError("database is locked")]

    def fail_first(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        store(*arguments)

    monkeypatch.setattr(BatchedEventLogStorage, "_store_asset_event", fail_first)
    run_id = ingest()
    assert "database is locked" in capsys.readouterr().err
    for database in ("index", run_id):
        counts = Counter(rows(home / "history" / "runs" / f"{database}.db"))
        assets = {row: count for row, count in counts.items() if row[2] is not None}
        assert len(assets) >= 4 * len(UIDS)
        assert set(assets.values()) == {1}


def test_partitions_are_read_anew_whenever_they_have_changed(tmp_path: Path) -> None:
    """Also by another process, and where one takes the number of a deleted one."""
    first, second = (BatchedEventLogStorage(str(tmp_path)) for _ in range(2))
    try:
        first.add_dynamic_partitions("studies", ["a", "b", "c"])
        assert second.get_dynamic_partitions("studies") == ["a", "b", "c"]
        first.delete_dynamic_partition("studies", "c")
        first.add_dynamic_partitions("studies", ["d"])
        assert second.get_dynamic_partitions("studies") == ["a", "b", "d"]
        first.delete_dynamic_partition("studies", "a")
        assert second.get_dynamic_partitions("studies") == ["b", "d"]
        assert second.get_dynamic_partitions("others") == []
    finally:
        first.dispose()
        second.dispose()


def test_a_forked_process_sees_and_is_seen(tmp_path: Path) -> None:
    """The connection that counts commits is held, and does not cross the fork."""
    storage = BatchedEventLogStorage(str(tmp_path))
    try:
        storage.add_dynamic_partitions("studies", ["a"])
        assert storage.get_dynamic_partitions("studies") == ["a"]
        held = storage._commits

        def work() -> None:
            assert storage.get_dynamic_partitions("studies") == ["a"]
            assert storage._commits is not held
            storage.add_dynamic_partitions("studies", ["b"])
            assert storage.get_dynamic_partitions("studies") == ["a", "b"]

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
        assert storage.get_dynamic_partitions("studies") == ["a", "b"]
        assert storage._commits is held
    finally:
        storage.dispose()


def test_unchanged_partitions_are_read_once(tmp_path: Path) -> None:
    storage = BatchedEventLogStorage(str(tmp_path))
    try:
        storage.add_dynamic_partitions("studies", [str(n) for n in range(500)])
        read: list[int] = []

        def note(cursor: Any, *_: Any) -> None:
            read.append(1)

        assert len(storage.get_dynamic_partitions("studies")) == 500
        engine = next(iter(storage._engines.values()))
        sa.event.listen(engine, "after_cursor_execute", lambda *a: note(*a))
        for _ in range(3):
            assert len(storage.get_dynamic_partitions("studies")) == 500
        assert len(read) == 0  # nothing was committed
        storage.add_dynamic_partitions("others", ["a"])
        del read[:]
        for _ in range(3):
            assert len(storage.get_dynamic_partitions("studies")) == 500
        assert len(read) == 1  # the stamp alone
    finally:
        storage.dispose()
