"""Dagster instances of tests: with the storage that csfd brings, in a folder apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import pytest

_STORAGE = {
    "storage": {
        "custom": {"module": "csfd_dagster.storage", "class": "BatchedSqliteStorage"}
    }
}


@contextmanager
def small_instance() -> Iterator[dg.DagsterInstance]:
    """Open an instance that is gone afterwards; DAGSTER_HOME is its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_EVENT_BATCH_SIZE", "256")  # put back afterwards
        with dg.instance_for_test(overrides=_STORAGE) as instance:
            yield instance
