"""Dagster instances of tests: with the storage that csfd brings, in a folder apart."""

import atexit
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

_STORAGE = {
    "storage": {
        "custom": {"module": "csfd_dagster.storage", "class": "BatchedSqliteStorage"}
    }
}


@contextmanager
def small_instance(home: Path | None = None) -> Iterator[dg.DagsterInstance]:
    """Open an instance; DAGSTER_HOME is its folder.

    Args:
        home: Its folder, which stays; a copy of it is an instance of its own. ``None``:
            one that is gone afterwards.
    """
    if home is None:
        with (
            tempfile.TemporaryDirectory(prefix="csfd-instance-") as folder,
            small_instance(Path(folder)) as instance,
        ):
            yield instance
        return
    if not (home / "history").exists():
        shutil.copytree(_empty_tables(), home, dirs_exist_ok=True)
    with _open(home) as instance:
        yield instance


@functools.cache
def _empty_tables() -> Path:
    """Set up the tables of Dagster, once for this process: it takes a second."""
    home = Path(tempfile.mkdtemp(prefix="csfd-tables-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    with _open(home) as instance:
        instance.get_dynamic_partitions("any")  # opens all that open late
    return home


@contextmanager
def _open(home: Path) -> Iterator[dg.DagsterInstance]:
    with pytest.MonkeyPatch.context() as patch, _no_waiting_for_disks():
        patch.setenv("DAGSTER_EVENT_BATCH_SIZE", "256")  # put back afterwards
        with dg.instance_for_test(overrides=_STORAGE, temp_dir=str(home)) as instance:
            yield instance


@contextmanager
def _no_waiting_for_disks() -> Iterator[None]:
    """Let the system choose when SQLite writes to the disk: no power is cut here."""

    def ease(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Pool, "connect", ease)
    try:
        yield
    finally:
        event.remove(Pool, "connect", ease)
