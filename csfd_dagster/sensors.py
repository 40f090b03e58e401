"""Sensors: what happens by itself when studies arrive."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from csfd_core.ingest.completeness import (
    read_notes,
    split_incomplete,
    tell_incomplete,
    wanted_files,
)
from csfd_core.ingest.convert import StudyTask, needs_work, study_tasks
from csfd_core.ingest.studies_table import studies_table_inputs
from csfd_core.lineage.withdrawal import withdraw_noted
from csfd_core.store.label_notes import label_entries
from csfd_core.store.source import Sources, StudyFolder
from csfd_core.store.stores import Stores
from csfd_core.text import count
from csfd_core.vocabulary import is_uid
from csfd_dagster.assets.ingest import metadata_table
from csfd_dagster.jobs import UNDER_WAY, ingestion
from csfd_dagster.partitions import partition_ranges, range_tags, studies
from csfd_dagster.resources.stores import SourceResource, StoreResource

_READERS = 16  # comparing studies with the store waits for the disk or the network


@dg.sensor(
    job=ingestion,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_studies(
    context: dg.SensorEvaluationContext, source: SourceResource, store: StoreResource
) -> dg.SensorResult:
    """Ingest new and changed studies of the source and the inbox; withdraw others.

    A study is taken up once its files have stayed as they are from one tick to the
    next, and are as many as its label file says, so that one that is still being copied
    is left alone. What a label file withdraws is taken out of the store.
    """
    if _is_running(context):
        return _skip("An ingestion run is under way.", context.cursor)
    sources, stores = source.open(), store.open()
    folders = [f for f in sources.studies() if is_uid(f.name) and f.files]
    now = {folder.name: _listing_digest(folder) for folder in folders}
    digest = _digest_of(sources, now)
    before = json.loads(context.cursor) if context.cursor else {}
    if before.get("settled") == digest:
        changes = _left_partitions(context, stores)
        tasks = study_tasks(folders, stores, store.conversion())
        return _request_table(stores, sources, len(tasks), before, changes)
    notes = read_notes(sources)
    if gone := withdraw_noted(stores, notes):
        told = count(len(gone), "study", "was", "were")
        context.log.info("%s withdrawn by label files.", told)
    changes = _left_partitions(context, stores)
    tasks = study_tasks(folders, stores, store.conversion())
    waiting, lacking = split_incomplete(_need_work(tasks), wanted_files(notes))
    told = tell_incomplete(lacking)
    if not waiting:
        state = {**_asked(before), "settled": digest, "incomplete": told}
        return _request_table(stores, sources, len(tasks), state, changes)
    seen: Mapping[str, str] = before.get("waiting", {})
    names = [task.folder.name for task in waiting]
    ready = {uid for uid in names if seen.get(uid) == now[uid]}
    state = {**_asked(before), "waiting": {uid: now[uid] for uid in names}}
    cursor = json.dumps(state)
    if not ready:
        changed = count(len(waiting), "study", "has", "have")
        return _skip(
            f"{changed} changed, to be taken up once all files stay as they are for "
            f"one tick. {told}".rstrip(),
            cursor,
            changes,
        )
    known = _known_partitions(context, stores)
    new = sorted(ready - set(known))
    return dg.SensorResult(
        run_requests=list(_run_requests([*known, *new], ready, now)),
        dynamic_partitions_requests=[
            *changes,
            *([studies.build_add_request(new)] if new else []),
        ],
        cursor=cursor,
    )


def _is_running(context: dg.SensorEvaluationContext) -> bool:
    filters = dg.RunsFilter(job_name=ingestion.name, statuses=UNDER_WAY)
    return bool(context.instance.get_run_ids(filters, limit=1))


def _known_partitions(context: dg.SensorEvaluationContext, stores: Stores) -> list[str]:
    """Return the studies that have a partition and were not withdrawn, in order."""
    withdrawn = stores.withdrawn.study_uids()
    known = context.instance.get_dynamic_partitions(str(studies.name))
    return [study_uid for study_uid in known if study_uid not in withdrawn]


def _left_partitions(
    context: dg.SensorEvaluationContext, stores: Stores
) -> Sequence[dg.DeleteDynamicPartitionsRequest]:
    """Ask that the partitions of withdrawn studies be removed, if there are any."""
    known = set(context.instance.get_dynamic_partitions(str(studies.name)))
    left = sorted(known & stores.withdrawn.study_uids())
    return [studies.build_delete_request(left)] if left else []


def _asked(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cursor says of the tables that were asked for."""
    return {name: before[name] for name in ("tables", "asked") if name in before}


def _request_table(
    stores: Stores,
    sources: Sources,
    study_count: int,
    state: Mapping[str, Any],
    changes: Sequence[dg.DeleteDynamicPartitionsRequest],
) -> dg.SensorResult:
    """Ask for the table of studies alone where labels or boxes have changed.

    Each table is asked for once, also where labels go back to what they were before:
    the run is named after what the table is made from and how many were made.
    """
    inputs = studies_table_inputs(stores, sources)
    tables = int(state.get("tables", 0))
    if not study_count or inputs == stores.metadata.read_studies_inputs():
        tables += bool(state.get("asked"))
        cursor = json.dumps({**state, "tables": tables, "asked": False})
        told = str(state.get("incomplete", ""))
        reason = f"Nothing has changed in {count(study_count, 'study')}. {told}"
        return _skip(reason.rstrip(), cursor, changes)
    request = dg.RunRequest(
        run_key=f"{inputs}-{tables}", asset_selection=[metadata_table.key]
    )
    return dg.SensorResult(
        run_requests=[request],
        cursor=json.dumps({**state, "tables": tables, "asked": True}),
        dynamic_partitions_requests=changes,
    )


def _skip(
    reason: str,
    cursor: str | None,
    changes: Sequence[dg.DeleteDynamicPartitionsRequest] = (),
) -> dg.SensorResult:
    return dg.SensorResult(
        skip_reason=dg.SkipReason(reason),
        cursor=cursor,
        dynamic_partitions_requests=changes,
    )


def _digest_of(sources: Sources, now: Mapping[str, str]) -> str:
    """Identify what lies in the sources: the studies, and what is said of them."""
    files = [
        [str(location), entry.name, entry.size_bytes, entry.token]
        for location in sources.locations
        for entry in label_entries(location)
    ]
    text = json.dumps([now, files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _listing_digest(folder: StudyFolder) -> str:
    parts = f"{folder.fingerprint}{folder.mask_fingerprint}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _need_work(tasks: list[StudyTask]) -> list[StudyTask]:
    with ThreadPoolExecutor(_READERS) as pool:
        needed = pool.map(needs_work, tasks)
        return [task for task, need in zip(tasks, needed, strict=True) if need]


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
