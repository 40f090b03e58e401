"""Following the graph from outside: what has been made, what has failed, is it done?"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg

from csfd_dagster.runs import UNDER_WAY
from deploy.demo.machines import DemoError

_READ: Final = ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL")  # by what opens an instance
_FOLLOWERS: Final = "followers"
_SKIPPED: Final = "SKIPPED"  # by Dagster, of a tick that asks for nothing
_QUIET_TICKS: Final = 3
_LOOK_S: Final = 1.0
_RETRIED_WITHIN_S: Final = 120.0  # a failed run is started again by the daemon

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run: what it made, and when.

    Attributes:
        assets: Names of what it was asked for.
        begun_s: Seconds after the beginning.
        took_s: From its start to its end.
        waited_s: In the queue, and for its process.
        partitions: One, a range of them, or nothing.
        status: As Dagster has it.
    """

    assets: str
    begun_s: float
    took_s: float
    waited_s: float
    partitions: str
    status: str


@contextmanager
def instance_at(
    home: Path, variables: Mapping[str, str]
) -> Iterator[dg.DagsterInstance]:
    """Open the instance of a machine, as one more process of it."""
    used = {**variables, "DAGSTER_HOME": str(home)}
    wanted: dict[str, str] = {name: used[name] for name in _READ if name in used}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def made_in(instance: dg.DagsterInstance) -> frozenset[str]:
    """Return the names of the assets that were made."""
    return frozenset(
        key.to_user_string()
        for key in instance.all_asset_keys()
        if instance.get_latest_materialization_event(key) is not None
    )


def wait_until_done(
    instance: dg.DagsterInstance,
    say: Say,
    *,
    studies: int,
    within_s: float,
    wanted: frozenset[str] = frozenset(),
    look: Callable[[], None] = lambda: None,
) -> None:
    """Wait until nothing is under way and the conditions ask for nothing more.

    Args:
        instance: Where the runs are recorded.
        say: Told of each run as it ends.
        studies: How many have to be taken up.
        within_s: Seconds to wait at most.
        wanted: Assets that have to be made.
        look: Called once a second; may raise.

    Raises:
        DemoError: If it takes longer, or a run has failed for good.
    """
    told: set[str] = set()
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        look()
        runs = instance.get_run_records()
        for record in reversed(runs):
            run = record.dagster_run
            if run.is_finished and run.run_id not in told:
                told.add(run.run_id)
                say(f"  {run.status.value.lower():8} {_assets(run)}{_partitions(run)}")
        _raise_failed(instance, runs)
        if _is_done(instance, runs, studies) and wanted <= made_in(instance):
            return
        time.sleep(_LOOK_S)
    missing = ", ".join(sorted(wanted - made_in(instance))) or "nothing"
    raise DemoError(f"Not done after {within_s:.0f} s; {missing} was not made.")


def steps_of(instance: dg.DagsterInstance, begun: float) -> list[Step]:
    """Return the runs in the order in which they were started.

    Args:
        instance: Where they are recorded.
        begun: POSIX seconds that times are counted from.
    """
    records = [r for r in instance.get_run_records() if r.start_time and r.end_time]
    records.sort(key=lambda record: record.start_time or 0.0)
    return [
        Step(
            assets=_assets(record.dagster_run),
            begun_s=(record.start_time or 0.0) - begun,
            took_s=(record.end_time or 0.0) - (record.start_time or 0.0),
            waited_s=(record.start_time or 0.0) - record.create_timestamp.timestamp(),
            partitions=_partitions(record.dagster_run).removeprefix(", "),
            status=record.dagster_run.status.value.lower(),
        )
        for record in records
    ]


def not_taken_up(runs: Sequence[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """Return the runs that have failed, where no other has taken up what they made."""
    started_again = {run.parent_run_id for run in runs}
    later = _made_later(runs)
    return [
        run
        for run in runs
        if run.status is dg.DagsterRunStatus.FAILURE
        and run.run_id not in started_again
        and not (set(run.asset_selection or ()) <= later.get(run.run_id, set()))
    ]


def _made_later(runs: Sequence[dg.DagsterRun]) -> dict[str, set[dg.AssetKey]]:
    """Return what runs after each have made; the newest run is the first."""
    made: set[dg.AssetKey] = set()
    found = {}
    for run in runs:
        found[run.run_id] = set(made)
        if run.status is dg.DagsterRunStatus.SUCCESS:
            made |= set(run.asset_selection or ())
    return found


def _raise_failed(
    instance: dg.DagsterInstance, records: Sequence[dg.RunRecord]
) -> None:
    ended = {r.dagster_run.run_id: r.end_time or time.time() for r in records}
    for run in not_taken_up([record.dagster_run for record in records]):
        if time.time() - ended[run.run_id] > _RETRIED_WITHIN_S:
            why = _failure(instance, run.run_id)
            raise DemoError(f"The run {run.run_id} of {_assets(run)} failed: {why}")


def _failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return what the first step that failed has told, or the run itself."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    for entry in entries:
        event = entry.dagster_event
        if event is not None and event.step_failure_data.error is not None:
            return event.step_failure_data.error.to_string()
    failed = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    return " ".join(entry.message for entry in failed)


def _is_done(
    instance: dg.DagsterInstance, records: Sequence[dg.RunRecord], studies: int
) -> bool:
    runs = [record.dagster_run for record in records]
    if not runs or any(run.status in UNDER_WAY for run in runs) or not_taken_up(runs):
        return False
    if len(instance.get_dynamic_partitions("studies")) < studies:
        return False
    last_end = max(record.end_time or 0.0 for record in records)
    return _asked_for_nothing_since(instance, last_end)


def _asked_for_nothing_since(instance: dg.DagsterInstance, moment: float) -> bool:
    """Say whether ticks of the conditions since a moment have asked for nothing.

    The first ones may have read what was there before the last run has ended.
    """
    for state in instance.all_instigator_state():
        if state.instigator_name == _FOLLOWERS:
            at = (state.instigator_origin_id, state.selector_id)
            newest = instance.get_ticks(*at, limit=_QUIET_TICKS)
            return len(newest) == _QUIET_TICKS and all(
                tick.timestamp > moment and tick.status.value == _SKIPPED
                for tick in newest
            )
    return False


def _assets(run: dg.DagsterRun) -> str:
    names = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(names) or run.job_name


def _partitions(run: dg.DagsterRun) -> str:
    first = run.tags.get("dagster/partition") or run.tags.get(
        "dagster/asset_partition_range_start"
    )
    last = run.tags.get("dagster/asset_partition_range_end")
    if first is None:
        return ""
    return f", {first[-8:]}" if last in (None, first) else f", {first[-8:]} and others"
