"""The graph through the real daemon: what arrives is made, whatever is killed."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from support.coarse import coarse_phantoms

from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster import commands
from csfd_dagster.conditions import ASKED_BY, CONDITIONS
from csfd_dagster.instance.files import lay_instance, workspace_file

PATIENCE_S = 600
STUDIES = 3
MADE = ("slices", "masks", "predicted_masks", "crops")
UNTRAINABLE = "cannot be trained"


@contextmanager
def daemon(folder: Path) -> Iterator[psutil.Popen]:
    """Run Dagster's daemon on the project; the sensor looks every five seconds."""
    environment = {**os.environ, "CSFD_LOOK_EVERY_S": "5"}
    workspace = str(workspace_file())
    call = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", workspace]
    with (folder / "daemon.log").open("ab") as log:
        process = psutil.Popen(
            call, cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            kill(process)


def kill(process: psutil.Popen) -> None:
    """Kill the daemon, its code server and the runs at once, as a power cut does."""
    if not process.is_running():
        return
    family: list[psutil.Process] = []
    while more := set(_family(process)) - set(family):  # one stopped starts no others
        _signal(more, signal.SIGSTOP)
        family += more
    _signal(family, signal.SIGKILL)
    psutil.wait_procs(family, 60)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_until(
    holds: Callable[[], bool], folder: Path, instance: dg.DagsterInstance
) -> None:
    """Wait; where nothing comes of it, fail and say what the runs have done."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > PATIENCE_S:
            log = (folder / "daemon.log").read_text(errors="replace")
            runs = "\n".join(told_of(instance, run) for run in instance.get_runs())
            pytest.fail(f"Nothing has come of it:\n{log[-2000:]}\n{runs}")
        time.sleep(0.5)


def told_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return what a run was to make, what has become of it, and why it has failed."""
    made = sorted(key.to_user_string() for key in run.asset_selection or [])
    errors = [
        str(entry.dagster_event.event_specific_data)[:500] + entry.user_message[:500]
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event is not None and entry.dagster_event.is_failure
    ]
    return f"{run.run_id[:8]} {run.status.value} {made} {run.tags} {errors}"


def files_of(store: Path) -> dict[str, str]:
    """The content of everything that was made of studies."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in MADE
        for path in sorted((store / folder).glob("*.parquet"))
    }


def not_taken_up(runs: Sequence[dg.DagsterRun]) -> list[str]:
    """Return what failed runs were to make, where no other run has taken it up."""
    failed = [run for run in runs if run.status is dg.DagsterRunStatus.FAILURE]
    started_again = {run.parent_run_id for run in runs}
    return [
        f"{run.run_id}: {sorted(k.to_user_string() for k in run.asset_selection or [])}"
        for run in failed
        if run.run_id not in started_again
    ]


def is_idle(instance: dg.DagsterInstance, stores: Stores) -> bool:
    """Say whether all studies have crops, and classifiers have said why not yet."""
    if len(stores.root.entries("crops")) < STUDIES or not_taken_up(instance.get_runs()):
        return False
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
    return any(
        UNTRAINABLE in entry.user_message
        for run in instance.get_runs(wanted)
        for entry in instance.all_logs(run.run_id)
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_arrives_is_made_though_all_is_killed_and_as_csfd_run_makes_it(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse_phantoms(monkeypatch)
    few = PhantomConfig(studies=STUDIES, seed=19, masked_share=0, compressed_share=0)
    write_phantom_source(places / "inbox", few, executor=InlineExecutor())
    (places / "inbox" / "train.csv").unlink()  # so that no classifier can be trained
    stores = Stores(Location(places / "store"))
    lay_instance(places / "dagster")
    with dg.DagsterInstance.get() as instance:
        with daemon(places) as process:
            wait_until(lambda: bool(stores.root.entries("slices")), places, instance)
            kill(process)
        begun = {
            path: path.stat().st_mtime_ns
            for path in (places / "store" / "slices").glob("*.parquet")
        }
        with daemon(places):
            wait_until(lambda: is_idle(instance, stores), places, instance)
        runs = instance.get_runs()
    assert {run.tags[ASKED_BY] for run in runs} == {CONDITIONS}
    assert not_taken_up(runs) == []
    for path, written in begun.items():
        assert path.stat().st_mtime_ns == written  # nothing done twice
    by_daemon = files_of(places / "store")
    assert len(by_daemon) == 3 * STUDIES  # no study has a mask of its own

    (places / "other").mkdir()
    monkeypatch.setenv("CSFD_STORE", str(places / "alone"))
    monkeypatch.setenv("DAGSTER_HOME", str(places / "other"))
    commands.run_graph()
    assert files_of(places / "alone") == by_daemon
    alone = Stores(Location(places / "alone")).metadata.read_studies()
    assert alone.equals(stores.metadata.read_studies())
