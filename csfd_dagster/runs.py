"""Runs under way: which they are, and which of them have died.

A run whose process was killed stays as it was in Dagster's history: only the code
server that has started it would notice, and it may have died with it. So a run is asked
for its process, which its events name.
"""

from collections.abc import Collection
from typing import Final

import dagster as dg
import psutil

UNDER_WAY: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RUNNING: Final = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_CLOCK_S: Final = 2.0  # by which times of a process and of an event may differ


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


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone, so that they can be taken up again.

    Runs of launchers that watch their workers, as on Kubernetes, are left to these.

    Returns:
        Identities of the runs that were marked.
    """
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        return []
    marked = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_RUNNING)):
        run = record.dagster_run
        if _has_died(instance, run.run_id):
            instance.report_run_failed(
                run, "The process of this run is gone; it was killed, or the machine."
            )
            marked.append(run.run_id)
    return marked


def _has_died(instance: dg.DagsterInstance, run_id: str) -> bool:
    started = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_START)
    pids = [(e.dagster_event.pid, e.timestamp) for e in started if e.dagster_event]
    if not pids or pids[-1][0] is None:
        return False
    pid, started_at = pids[-1]
    try:
        process = psutil.Process(pid)
        is_other = process.create_time() > started_at + _CLOCK_S
        return bool(is_other or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
