"""Dagster's history in SQLite, written in batches; ``dagster.yaml`` names it.

Why, and what was weighed against it: ``docs/adr/0008-batched-history.md``.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from time import monotonic
from typing import Any, Final, NamedTuple

import dagster as dg
import sqlalchemy as sa
from dagster._config.config_schema import UserConfigSchema
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.storage.sqlalchemy_compat import db_result
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
)
from dagster._serdes import ConfigurableClassData

from csfd_core.settings import Settings

# Dagster hands over events in batches only where this is set in the environment.
_BATCH_VARIABLE: Final = "DAGSTER_EVENT_BATCH_SIZE"
_EVENTS_PER_BATCH: Final = 256
_LONGEST_WAIT_S: Final = 1.0
_MOST_ENGINES: Final = 8
_WAITING_TYPES: Final = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
}


_STAMP_OF_PARTITIONS: Final = sa.text(
    "SELECT count(*), sum(id), (SELECT partition FROM dynamic_partitions "
    "WHERE partitions_def_name = :name ORDER BY id DESC LIMIT 1) "
    "FROM dynamic_partitions WHERE partitions_def_name = :name"
)


class _Partitions(NamedTuple):
    """Partitions, and the state of the index in which they were read."""

    commit: tuple[int, int]
    stamp: tuple[Any, ...]
    keys: Sequence[str]


class _CommitCounter:
    """Tells in microseconds whether anything was committed to a database of SQLite.

    Its connection is held open, as SQLite counts the commits of all others for it. As
    long as one is open, the others do not copy the log when they close, either. It is
    used by the process that opened it alone: a forked one lets it lie, as closing it
    there may remove the log of the other.
    """

    def __init__(self, path: str, inherited: "_CommitCounter | None") -> None:
        """Connect to the database at ``path``; keep what a fork has brought along."""
        self.process = os.getpid()
        self._inherited = inherited
        self._connection = sqlite3.connect(
            path, timeout=SQLITE_BUSY_TIMEOUT_SECONDS, check_same_thread=False
        )

    def newest(self) -> tuple[int, int]:
        """Return the process, and a number that any commit changes."""
        (number,) = self._connection.execute("PRAGMA data_version").fetchone()
        return self.process, number

    def close(self) -> None:
        """Let go of the database."""
        if self.process == os.getpid():
            self._connection.close()


class BatchedEventLogStorage(SqliteEventLogStorage):
    """Stores the events of a batch in one transaction per database, not one each."""

    def __init__(self, base_dir: str) -> None:
        """Open or make the databases in ``base_dir``."""
        self._partitions: dict[str, _Partitions] = {}
        self._commits: _CommitCounter | None = None
        self._tables_seen: set[str] = set()
        self._engines: dict[str, sa.Engine] = {}
        self._waiting: list[dg.EventLogEntry] = []
        self._waiting_since = 0.0
        self._waiting_lock = threading.RLock()
        super().__init__(base_dir)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, or let it wait for the others that its step logs.

        Dagster hands over one by one what a step itself yields of its partitions. They
        wait for whatever this process stores or reads next, at the latest for the
        success or failure of their step; those of a slow step for a second.
        """
        if not _may_wait(event):
            super().store_event(event)  # what waits goes first, as it connects
            return
        with self._waiting_lock:
            if not self._waiting:
                self._waiting_since = monotonic()
            self._waiting.append(event)
            is_late = monotonic() - self._waiting_since > _LONGEST_WAIT_S
            if is_late or len(self._waiting) >= _EVENTS_PER_BATCH:
                self._store_waiting()

    def dispose(self) -> None:
        """Store what waits, and let go of the databases."""
        self._store_waiting()
        if self._commits is not None:
            self._commits.close()
            self._commits = None
        super().dispose()

    def _store_waiting(self) -> None:
        with self._waiting_lock:
            events, self._waiting = self._waiting, []
            for _, of_run in groupby(events, lambda event: event.run_id):
                self.store_event_batch(list(of_run))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        """Open a database as Dagster does, but with the same engine each time.

        To make one, and to compile each statement anew, costs more than most statements
        do. An engine holds no connection open, so it may cross a fork.
        """
        self._store_waiting()
        with self._db_lock:
            if shard not in self._engines:
                if len(self._engines) >= _MOST_ENGINES:
                    self._engines.clear()
                self._engines[shard] = sa.create_engine(
                    self.conn_string_for_shard(shard),
                    poolclass=sa.pool.NullPool,
                    connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
                )
            engine = self._engines[shard]
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        """Return the partitions; all of them are read only when they have changed.

        A round of conditions asks for them hundreds of times. Where something was
        committed since, what is compared is how many there are, the sum of their
        numbers and the last one, as SQLite may give the number of a partition that was
        deleted to the next one.
        """
        self._check_partitions_table()
        commit = self._newest_commit()  # before the look: what comes later is seen
        last = self._partitions.get(partitions_def_name)
        if last is not None and last.commit == commit:
            return list(last.keys)
        with self.index_connection() as connection:
            name = {"name": partitions_def_name}
            stamp = tuple(connection.execute(_STAMP_OF_PARTITIONS, name).one())
        if last is not None and last.stamp == stamp:
            keys = last.keys
        else:
            keys = super().get_dynamic_partitions(partitions_def_name)
        self._partitions[partitions_def_name] = _Partitions(commit, stamp, keys)
        return list(keys)

    def _newest_commit(self) -> tuple[int, int]:
        """Return what is another one whenever the index is, and in each process."""
        with self._db_lock:
            if self._commits is None or self._commits.process != os.getpid():
                path = self.path_for_shard(INDEX_SHARD_NAME)
                self._commits = _CommitCounter(path, self._commits)
            return self._commits.newest()

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table; one that is there stays there.

        Dagster asks this before each look-up of a partition, of which a run over many
        studies makes thousands, and each time opens the database anew.
        """
        if table_name not in self._tables_seen and super().has_table(table_name):
            self._tables_seen.add(table_name)
        return table_name in self._tables_seen

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run in their order."""
        for is_of_asset, group in groupby(events, _is_of_asset):
            if is_of_asset:
                self._store_asset_events(list(group))
            else:
                for event in group:
                    self.store_event(event)

    def _store_asset_events(self, events: Sequence[dg.EventLogEntry]) -> None:
        inserts = [self.prepare_insert_event(event) for event in events]
        # The index first: other processes write to it too, and should it stay locked,
        # nothing has been stored yet when Dagster goes on to store one by one.
        with self.index_transaction() as connection:
            event_ids = []
            for insert in inserts:
                with db_result(connection, insert) as result:
                    event_ids.append(result.inserted_primary_key[0])
            self._store_asset_event_tags(connection, events, event_ids)
            # The row of an asset tells of its last event of each type: planning it
            # again says nothing of when it was last materialized.
            last = dict[Any, tuple[dg.EventLogEntry, int]]()
            for event, event_id in zip(events, event_ids, strict=True):
                kind = (event.get_dagster_event().asset_key, event.dagster_event_type)
                last.pop(kind, None)  # in the order of the last ones
                last[kind] = (event, event_id)
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)
        with self.run_connection(events[0].run_id) as connection:
            for insert in inserts:
                connection.execute(insert)


class BatchedSqliteStorage(DagsterSqliteStorage):
    """Dagster's storage in SQLite, where it always is, with the batched event log."""

    def __init__(
        self, base_dir: str, inst_data: ConfigurableClassData | None = None
    ) -> None:
        """Open or make the databases below ``base_dir``."""
        super().__init__(base_dir, inst_data)
        self._event_log_storage = BatchedEventLogStorage(
            _event_logs_directory(base_dir)
        )

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing needs to be set: the place is ``DAGSTER_HOME``."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "BatchedSqliteStorage":
        """Open the storage that ``dagster.yaml`` names, and have Dagster use it so.

        The variable also reaches the processes that Dagster starts from this one.
        """
        os.environ.setdefault(_BATCH_VARIABLE, str(_EVENTS_PER_BATCH))
        return cls.from_local(str(Settings.read().dagster_home), inst_data)


def _may_wait(event: dg.EventLogEntry) -> bool:
    return (
        event.dagster_event_type in _WAITING_TYPES
        and event.step_key is not None  # so that the end of a step follows
        and event.get_dagster_event().partition is not None
    )


def _is_of_asset(event: dg.EventLogEntry) -> bool:
    return event.dagster_event_type in ASSET_EVENTS
