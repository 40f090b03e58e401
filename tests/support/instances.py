"""Dagster instances of tests: with the storage that csfd brings, in a folder apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

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
    if home is not None:
        home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_EVENT_BATCH_SIZE", "256")  # put back afterwards
        folder = None if home is None else str(home)
        with dg.instance_for_test(overrides=_STORAGE, temp_dir=folder) as instance:
            yield instance
