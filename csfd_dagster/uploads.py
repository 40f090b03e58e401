"""Uploaded studies: asked for, followed, and told of to the reader's page.

The page accepts a study: its files lie in the inbox, and its row in the page's database
says so. The sensor here asks for one run of the job ``arrival`` for each version of it,
and tells what becomes of it. Whatever is killed, the row stays: what has no run is
asked for again, under the same key, so that Dagster starts it once.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import dagster as dg
import pydantic
import sqlalchemy as sa

from csfd_core.inference.predict import read_prediction
from csfd_core.ingest.outcomes import Outcome
from csfd_core.settings import WebSettings
from csfd_core.store.stores import Stores
from csfd_core.text import count
from csfd_core.web.database import Database
from csfd_core.web.study_states import OpenStudy, StudyState, open_studies, tell
from csfd_dagster.conditions import ASKED_BY
from csfd_dagster.jobs import arrival
from csfd_dagster.partitions import studies
from csfd_dagster.resources.stores import StoreResource
from csfd_dagster.runs import (
    UNDER_WAY,
    WILL_RETRY,
    fail_if_dead,
    retry_if_given_up,
)

UPLOADS: Final = "uploads"
KEY: Final = "csfd/upload"  # tag: study, version and attempt
PRIORITY: Final = "dagster/priority"  # Dagster's own tag, named in its documentation
_PRIORITIES: Final = (0, 10, 20)  # routine, urgent, STAT
_RISES_AFTER_S: Final = 600.0  # a routine study, to urgent
_RETRIED_WITHIN_S: Final = 60.0  # by Dagster; then it is asked for again
_AT_ONCE: Final = 10  # studies asked for in one tick, which waits for each
_STEPS: Final = {
    "study_headers": "reading",
    "slice_store": "slices",
    "vertebra_masks": "vertebrae",
    "vertebra_crops": "crops",
    "study_predictions": "prediction",
}
_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
_FAILED: Final = (
    "The study could not be worked on. Try it again; if it fails again, its run in "
    "Dagster says why."
)
_CANCELLED: Final = "Somebody has stopped the run of the study. Try it again."


class Told(pydantic.BaseModel):
    """What the sensor remembers from tick to tick: its cursor.

    Attributes:
        studies: What was told last of each open study, so that it is told once.
    """

    studies: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is to be told of a study."""

    state: StudyState
    step: str = ""
    reason: str = ""
    run_id: str = ""


@dataclass(slots=True)
class _Tick:
    """What one look at the open studies has come to."""

    asked: list[dg.RunRequest] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    ended: int = 0


def key_of(one: OpenStudy) -> str:
    """Return what a run is asked for by: once for each version and attempt."""
    return f"{one.study_uid}-{one.version}-{one.attempt}"


def priority_of(one: OpenStudy, now: float) -> int:
    """Return the priority of a study's run; a routine study rises after ten minutes."""
    given = _PRIORITIES[min(max(one.priority, 0), len(_PRIORITIES) - 1)]
    has_waited = now - one.accepted_at > _RISES_AFTER_S
    return max(given, _PRIORITIES[1]) if has_waited else given


def open_database() -> Database | None:
    """Open the page's database; ``None`` where nobody has used the page yet."""
    url = WebSettings.read().database
    parsed_url = sa.make_url(url)
    if parsed_url.get_backend_name() != "sqlite":
        return _connect(url, 0)
    path = Path(parsed_url.database or "")
    return _connect(url, path.stat().st_ino) if path.is_file() else None


def studies_on_their_way() -> frozenset[str]:
    """Return the uploaded studies that ``uploads`` has asked for, or will."""
    database = open_database()
    if database is None:
        return frozenset()
    return frozenset(one.study_uid for one in open_studies(database))


@dg.sensor(
    name=UPLOADS,
    job=arrival,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def uploads(
    context: dg.SensorEvaluationContext, store: StoreResource
) -> dg.SensorResult:
    """Ask for the prediction of every uploaded study, and tell the page of it."""
    database = open_database()
    if database is None:
        return _skip("Nobody has used the reader's page: it has no database yet.")
    pending = open_studies(database)
    if not pending:
        return _skip("No uploaded study waits.")
    before = Told.model_validate_json(context.cursor or "{}").studies
    tick = _look(context.instance, database, store.open(), pending, before)
    partitions = set(context.instance.get_dynamic_partitions(str(studies.name)))
    new = {str(one.partition_key) for one in tick.asked} - partitions
    waiting = f"{count(len(pending) - tick.ended, 'uploaded study')} under way."
    return dg.SensorResult(
        run_requests=tick.asked or None,
        skip_reason=None if tick.asked else waiting,
        cursor=Told(studies=tick.told).model_dump_json(),
        dynamic_partitions_requests=[studies.build_add_request(sorted(new))],
    )


def _look(
    instance: dg.DagsterInstance,
    database: Database,
    stores: Stores,
    pending: Sequence[OpenStudy],
    before: Mapping[str, str],
) -> _Tick:
    runs, now, tick = _runs_of(instance, pending), time.time(), _Tick()
    for one in pending:
        study_runs = runs.get(key_of(one), [])
        standing = _standing(instance, stores, one, study_runs, now)
        if standing is None:
            if len(tick.asked) < _AT_ONCE and tell(database, one, StudyState.RUNNING):
                tick.asked.append(_request(one, len(study_runs), now))
            continue
        _rise(instance, one, study_runs, now)
        text = f"{key_of(one)} {standing.state} {standing.step} {standing.run_id}"
        is_known = before.get(one.study_uid) == text and one.state is standing.state
        if not is_known:
            tell(
                database,
                one,
                standing.state,
                step=standing.step,
                reason=standing.reason,
                run_id=standing.run_id,
            )
        if standing.state is StudyState.RUNNING:
            tick.told[one.study_uid] = text
        else:
            tick.ended += 1
    return tick


def _runs_of(
    instance: dg.DagsterInstance, pending: Sequence[OpenStudy]
) -> dict[str, list[dg.RunRecord]]:
    """Return the runs of each key, the newest first."""
    runs = defaultdict(list)
    wanted = dg.RunsFilter(tags={KEY: [key_of(one) for one in pending]})
    for record in instance.get_run_records(wanted):
        runs[record.dagster_run.tags[KEY]].append(record)
    return runs


def _request(one: OpenStudy, again: int, now: float) -> dg.RunRequest:
    key = key_of(one)
    return dg.RunRequest(
        run_key=f"{key}~{again}" if again else key,
        partition_key=one.study_uid,
        run_config=_QUIET,
        tags={
            KEY: key,
            ASKED_BY: UPLOADS,
            PRIORITY: str(priority_of(one, now)),
        },
    )


def _standing(
    instance: dg.DagsterInstance,
    stores: Stores,
    one: OpenStudy,
    runs: Sequence[dg.RunRecord],
    now: float,
) -> Standing | None:
    """Return where a study is; ``None``: nobody makes it, so it is to be asked for."""
    if not runs:
        return None
    run, run_id = runs[0].dagster_run, runs[0].dagster_run.run_id
    if run.status is dg.DagsterRunStatus.NOT_STARTED and len(runs) == 1:
        return None  # the daemon was killed before it stood in the queue
    if run.status in UNDER_WAY:
        if run.status is not dg.DagsterRunStatus.QUEUED:
            fail_if_dead(instance, run)  # Dagster then starts it again
        step = _step_of(instance, run)
        return Standing(state=StudyState.RUNNING, step=step, run_id=run_id)
    if run.status is dg.DagsterRunStatus.CANCELED:
        return Standing(state=StudyState.FAILED, reason=_CANCELLED, run_id=run_id)
    if run.tags.get(WILL_RETRY) == "true":
        if now - (runs[0].end_time or now) > _RETRIED_WITHIN_S:
            return None
        return Standing(state=StudyState.RUNNING, run_id=run_id)
    if retry_if_given_up(instance, run):
        return Standing(state=StudyState.RUNNING, run_id=run_id)
    return _end(instance, stores, one, run)


def _end(
    instance: dg.DagsterInstance, stores: Stores, one: OpenStudy, run: dg.DagsterRun
) -> Standing:
    """Return what has come of a study whose run is over."""
    record = stores.metadata.read_record(one.study_uid)
    is_read = "study_headers" not in _failed_steps(instance, run)
    if record is not None and record.is_quarantined and is_read:
        told = " ".join(record.reasons)
        return Standing(state=StudyState.REFUSED, reason=told, run_id=run.run_id)
    note = read_prediction(stores, one.study_uid) or {}
    is_of_these_files = (
        record is not None and note.get("content_hash") == record.content_hash
    )
    if run.status is dg.DagsterRunStatus.SUCCESS and is_of_these_files:
        return Standing(state=StudyState.DONE, run_id=run.run_id)
    reason = _failure_of(instance, run) or _FAILED
    return Standing(state=StudyState.FAILED, reason=reason, run_id=run.run_id)


def _step_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return what a run is doing; empty while it waits or starts."""
    if run.status is not dg.DagsterRunStatus.STARTED:
        return ""
    begun = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
    return _STEPS.get(begun[-1].step_key or "", "") if begun else ""


def _failed_steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    failed = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return {entry.step_key or "" for entry in failed}


def _failure_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return why a study could not be worked on, as its step has noted it."""
    made = dg.DagsterEventType.ASSET_MATERIALIZATION
    for entry in reversed(instance.all_logs(run.run_id, of_type=made)):
        materialization = entry.asset_materialization
        outcome = materialization and materialization.metadata.get("outcome")
        if materialization and outcome and outcome.value == Outcome.FAILED:
            return str(materialization.metadata["note"].value)
    return ""


def _rise(
    instance: dg.DagsterInstance,
    one: OpenStudy,
    runs: Sequence[dg.RunRecord],
    now: float,
) -> None:
    """Let a run that waits have the priority that its study has by now."""
    run = runs[0].dagster_run
    wanted = str(priority_of(one, now))
    if run.status is dg.DagsterRunStatus.QUEUED and run.tags.get(PRIORITY) != wanted:
        instance.add_run_tags(run.run_id, {PRIORITY: wanted})


def _skip(why: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=why, cursor="{}")


@lru_cache(maxsize=1)
def _connect(url: str, _file: int) -> Database:
    """Open a database once; another file is another database."""
    return Database(url)
