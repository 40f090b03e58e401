"""Runs under way: which they are, and which of them have died.

A run whose process was killed stays as it was in Dagster's history: only the code
server that has started it would notice, and it may have died with it. So a run is asked
for its process, which its events name.

Dagster starts a run that has died again, but gives up where its code server is away at
that moment, as it is where both were killed. So it is told of the failure once more.
"""

import multiprocessing
import os
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import psutil

from csfd_dagster.conditions import is_asked_by_conditions

UNDER_WAY: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RUNNING: Final = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
WILL_RETRY: Final = "dagster/will_retry"  # Dagster's own tag
_NOT_RETRIED: Final = "Failed to retry run"  # so Dagster's event says
_MOST_TRIES: Final = 20  # where it gives up each time
_LOOKS_BACK_S: Final = 24 * 3600.0
_MOST_FAILED: Final = 100  # runs of that time that are looked at
_GIVES_WAY: Final = 10  # niceness
_CLOCK_S: Final = 2.0  # by which times of a process and of an event may differ
_STARTING: Final = dg.DagsterEventType.RUN_STARTING
_STARTS_WITHIN_S: Final = 90.0  # a run whose process says nothing has none
_TELL_RETRY: Final = {
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.ENGINE_EVENT,
}
_TELL_PROCESS: Final = {
    dg.DagsterEventType.RUN_START,
    dg.DagsterEventType.ENGINE_EVENT,
    _STARTING,
}


def run_that_makes(
    instance: dg.DagsterInstance, assets: Collection[str], job: str
) -> dg.DagsterRun | None:
    """Return a run under way, or queued, that makes one of some assets.

    Args:
        instance: Where the runs are recorded.
        assets: Names of the assets.
        job: All of whose runs make one.
    """
    keys = {dg.AssetKey(name) for name in assets}
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        if run.job_name == job or keys & set(run.asset_selection or ()):
            return run
    return None


def give_way(run: dg.DagsterRun) -> None:
    """Let the process of a run that follows from others give way to the others.

    What somebody waits for is made first. A process that was not made for the run, as
    that of ``csfd run``, stays as it is.
    """
    is_own = multiprocessing.parent_process() is not None
    if is_own and is_asked_by_conditions(run):
        os.setpriority(os.PRIO_PROCESS, 0, _GIVES_WAY)


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone, so that they can be taken up again.

    Runs of launchers that watch their workers, as on Kubernetes, are left to these.

    Returns:
        Identities of the runs that were marked.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=_RUNNING))
    return [
        record.dagster_run.run_id
        for record in records
        if fail_if_dead(instance, record.dagster_run)
    ]


def fail_if_dead(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Mark a run as failed if its process is gone, or never came; return whether so."""
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        return False
    if not _has_died(instance, run.run_id):
        return False
    now = instance.get_run_by_id(run.run_id)  # it may just have ended as it should
    if now is None or now.status is not run.status:
        return False
    instance.report_run_failed(
        run, "The process of this run is gone; it was killed, or the machine."
    )
    return True


def retry_given_up(instance: dg.DagsterInstance) -> list[str]:
    """Let Dagster try again with the runs that it could not start again.

    Returns:
        Identities of the runs that it will start.
    """
    since = datetime.now(UTC) - timedelta(seconds=_LOOKS_BACK_S)
    given_up = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        tags={WILL_RETRY: "false"},
        updated_after=since,
    )
    records = instance.get_run_records(given_up, limit=_MOST_FAILED)
    return [
        record.dagster_run.run_id
        for record in records
        if retry_if_given_up(instance, record.dagster_run)
    ]


def retry_if_given_up(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Let Dagster try again to start a failed run again; return whether it will."""
    entries = instance.all_logs(run.run_id, of_type=_TELL_RETRY)
    told = [e.dagster_event.message for e in entries if e.dagster_event]
    if not told or told[-1] != _NOT_RETRIED or told.count(_NOT_RETRIED) > _MOST_TRIES:
        return False
    instance.report_run_failed(
        run, "It could not be started again, as its code server was away."
    )
    return True


def _has_died(instance: dg.DagsterInstance, run_id: str) -> bool:
    entries = instance.all_logs(run_id, of_type=_TELL_PROCESS)
    told = [(e.dagster_event, e.timestamp) for e in entries if e.dagster_event]
    processes = [(_process_in(event), at) for event, at in told]
    identified = [(pid, at) for pid, at in processes if pid is not None]
    if identified:
        return _is_gone(*identified[-1])
    begun = [at for event, at in told if event.event_type is _STARTING]
    return bool(begun) and time.time() - begun[-1] > _STARTS_WITHIN_S


def _process_in(event: dg.DagsterEvent) -> int | None:
    """Return the process of a run that an event names; others have launched it."""
    if event.event_type is dg.DagsterEventType.RUN_START:
        return event.pid
    if event.event_type is not dg.DagsterEventType.ENGINE_EVENT:
        return None
    pid = event.engine_event_data.metadata.get("pid")
    text = "" if pid is None else str(pid.value)
    return int(text) if text.isdigit() else None


def _is_gone(pid: int, started_at: float) -> bool:
    try:
        process = psutil.Process(pid)
        is_other = process.create_time() > started_at + _CLOCK_S
        return bool(is_other or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
