"""Conversions and commands as the S3 tests start them, and what they compare."""

import io
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from csfd_core.ingest.convert import StudyTask, convert_studies
from csfd_core.ingest.outcomes import StudyOutcome
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from support.seaweed import ACCESS_KEY, SECRET_KEY

STUDIES = ("1.2.826.0.1.3680043.11", "1.2.826.0.1.3680043.12")


@contextmanager
def pointed_at(url: str) -> Iterator[None]:
    """Set the usual AWS variables, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_ENDPOINT_URL", url)
        # Settings of the person who runs the tests must not change what they test.
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, "/dev/null")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        # fsspec keeps file systems, and with them the endpoint, until it is told.
        S3FileSystem.clear_instance_cache()
        yield
        S3FileSystem.clear_instance_cache()


def convert(
    source: str | Path, store: str | Path, executor: Executor | None = None
) -> dict[str, StudyOutcome]:
    """Convert every study; return what was done to each."""
    stores = Stores(Location(store))
    tasks = [StudyTask(folder, stores) for folder in Source(source).require().studies()]
    outcomes = convert_studies(tasks, executor or InlineExecutor())
    return {outcome.study_uid: outcome for outcome in outcomes}


def rows_of(raw: bytes) -> pa.Table:
    """Return the columns of a stored file without the note in its footer.

    The note holds the identity of the content, which differs by nature: an ETag on S3,
    a SHA-256 on a disk.
    """
    return pq.read_table(io.BytesIO(raw)).replace_schema_metadata(None)
