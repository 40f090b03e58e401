"""What does Dagster cost on top of the conversion?

Everything that the ingestion job does beyond ``csfd convert`` counts: partitions, runs,
events in SQLite, but also the montage of each study, the check that decodes every slice
and the figures of the table.
"""

import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import dagster as dg

from benchmarks.harness import Result, timed
from benchmarks.studies import tasks_of, tiny_volume, write_copy
from csfd_core.ingest.convert import convert_study, run_studies
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_dagster.definitions import build_defs
from csfd_dagster.instance.files import lay_instance
from csfd_dagster.partitions import partition_ranges, range_tags, studies
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)

STUDIES = 500
LARGEST_MS = 40.0
_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def _convert(source: Path, store: Path) -> None:
    outcomes = run_studies(convert_study, tasks_of(source, store), InlineExecutor())
    assert all(outcome.action == "written" for outcome in outcomes)
    write_studies_table(Stores(Location(store)), Sources([Source(source)]))


def _ingest(source: Path, store: Path, study_uids: list[str]) -> int:
    """Backfill all studies in this process; return the number of runs."""
    resources = {
        "source": SourceResource(
            source_url=str(source), inbox_url=str(source.with_name("inbox"))
        ),
        "store": StoreResource(store_url=str(store)),
        "executor": ExecutorResource(workers=1),
    }
    job = build_defs(resources).resolve_job_def("ingestion")
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(studies.name), study_uids)
        ranges = list(partition_ranges(study_uids, study_uids))
        for keys in ranges:
            result = job.execute_in_process(
                instance=instance, tags=range_tags(keys), run_config=_QUIET
            )
            assert result.success
    return len(ranges)


def run() -> Result:
    """Convert many tiny studies without and with Dagster, one process each."""
    with tempfile.TemporaryDirectory() as name:
        source, home = Path(name) / "source", Path(name) / "home"
        volume = tiny_volume()
        uids = [write_copy(source, volume, number) for number in range(STUDIES)]
        lay_instance(home)
        with mock.patch.dict(os.environ, {"DAGSTER_HOME": str(home)}):
            runs: list[int] = []
            plain, store = Path(name) / "plain", Path(name) / "store"

            def ingest() -> None:
                runs.append(_ingest(source, store, uids))

            cpu_start = time.process_time()
            plain_s = timed(lambda: _convert(source, plain))
            cpu_between = time.process_time()
            dagster_s = timed(ingest)
            cpu_end = time.process_time()
    extra_ms = (dagster_s - plain_s) / STUDIES * 1000
    extra_cpu_s = (cpu_end - cpu_between) - (cpu_between - cpu_start)
    return Result(
        question="Cost of Dagster on top of the conversion, per study",
        target=f"below {LARGEST_MS:.0f} ms in a backfill of 500 studies",
        met=extra_ms < LARGEST_MS,
        data=f"{STUDIES} studies of {len(volume.hounsfield)} slices of 32x32",
        measured={
            "extra_ms_per_study": round(extra_ms, 1),
            # The rest is waiting for the disk and for other programs.
            "of_it_processor_ms": round(extra_cpu_s / STUDIES * 1000, 1),
            "dagster_s": round(dagster_s, 1),
            "alternative": "csfd convert in one process",
            "alternative_s": round(plain_s, 1),
            "runs": runs[0],
        },
    )
