"""Sensors: what happens by itself when studies arrive."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from csfd_core.store.convert import Stores, StudyTask, needs_work, study_tasks
from csfd_core.store.source import Sources
from csfd_core.store.studies_table import studies_table_inputs
from csfd_core.vocabulary import is_uid
from csfd_dagster.assets.ingest import metadata_table
from csfd_dagster.jobs import ingestion
from csfd_dagster.partitions import partition_ranges, range_tags, studies
from csfd_dagster.resources import SourceResource, StoreResource

_READERS = 16  # comparing studies with the store waits for the disk or the network


@dg.sensor(
    job=ingestion,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_studies(
    context: dg.SensorEvaluationContext, source: SourceResource, store: StoreResource
) -> dg.SensorResult:
    """Ingest new and changed studies of the source and the inbox.

    A study is taken up once its files have stayed as they are from one tick to the
    next, so that one that is still being copied is left alone.
    """
    if _is_running(context):
        return _skip("An ingestion run is under way.", context.cursor)
    sources, stores = source.open(), store.open()
    folders = [folder for folder in sources.studies() if is_uid(folder.name)]
    tasks = study_tasks(folders, stores, store.conversion())
    now = {task.folder.name: _listing_digest(task) for task in tasks}
    digest = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    before = json.loads(context.cursor) if context.cursor else {}
    waiting = [] if before.get("settled") == digest else _need_work(tasks)
    if not waiting:
        cursor = json.dumps({"settled": digest})
        return _request_table(stores, sources, len(tasks), cursor)
    seen: Mapping[str, str] = before.get("waiting", {})
    ready = {uid for uid in waiting if seen.get(uid) == now[uid]}
    cursor = json.dumps({"waiting": {uid: now[uid] for uid in waiting}})
    if not ready:
        return _skip(
            f"{len(waiting)} studies have changed; they are taken up once their files "
            "stay as they are for one tick.",
            cursor,
        )
    known = list(context.instance.get_dynamic_partitions(str(studies.name)))
    new = sorted(ready - set(known))
    return dg.SensorResult(
        run_requests=list(_run_requests([*known, *new], ready, now)),
        dynamic_partitions_requests=[studies.build_add_request(new)] if new else [],
        cursor=cursor,
    )


def _is_running(context: dg.SensorEvaluationContext) -> bool:
    filters = dg.RunsFilter(job_name=ingestion.name, statuses=IN_PROGRESS_RUN_STATUSES)
    return bool(context.instance.get_run_ids(filters, limit=1))


def _request_table(
    stores: Stores, sources: Sources, study_count: int, cursor: str
) -> dg.SensorResult:
    """Ask for the table of studies alone where labels or boxes have changed."""
    inputs = studies_table_inputs(stores, sources)
    if not study_count or inputs == stores.metadata.read_studies_inputs():
        return _skip(f"Nothing has changed in {study_count} studies.", cursor)
    request = dg.RunRequest(run_key=inputs, asset_selection=[metadata_table.key])
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def _skip(reason: str, cursor: str | None) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=cursor)


def _listing_digest(task: StudyTask) -> str:
    parts = f"{task.folder.fingerprint}{task.folder.mask_fingerprint}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _need_work(tasks: list[StudyTask]) -> list[str]:
    with ThreadPoolExecutor(_READERS) as pool:
        needed = pool.map(needs_work, tasks)
        return [
            task.folder.name for task, need in zip(tasks, needed, strict=True) if need
        ]


def _run_requests(
    ordered: list[str], ready: set[str], now: Mapping[str, str]
) -> Iterator[dg.RunRequest]:
    for keys in partition_ranges(ordered, ready):
        content = "".join(now[key] for key in keys)
        # The same content is asked for once, however often the sensor looks.
        run_key = hashlib.sha256(content.encode()).hexdigest()
        yield dg.RunRequest(run_key=run_key, tags=range_tags(keys))


# What depends on the table of studies is made anew when it has been.
followers = dg.AutomationConditionSensorDefinition(
    "followers",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)

SENSORS = [new_studies, followers]
