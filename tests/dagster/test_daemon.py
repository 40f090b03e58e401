"""The schedule through the real daemon: it ticks, a run starts and does its work."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from support.cards import classifier_card
from support.coarse import coarse_phantoms

from csfd_core.classification.classifier_store import CARD, ClassifierStore
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.settings import PROJECT_ROOT
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster.schedules import NAME

PATIENCE_S = 300
WAITS = "trains already; retraining waits for the next tick"


@contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """Run Dagster's daemon on the project; the schedule is due every minute."""
    environment = {
        **os.environ,
        "CSFD_RETRAIN_CRON": "* * * * *",
        "CSFD_RETRAIN_STUDIES": "2",
    }
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    call = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", workspace]
    with (folder / "daemon.log").open("wb") as log:
        process = psutil.Popen(
            call, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            yield
        finally:  # with the runs that it has started
            family = [*process.children(recursive=True), process]
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            psutil.wait_procs(family, 60)


def run_of_the_schedule(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    filters = dg.RunsFilter(tags={"dagster/schedule_name": NAME})
    records = instance.get_run_records(filters, ascending=True, limit=1)
    return records[0].dagster_run if records else None


def told(folder: Path) -> str:
    return (folder / "daemon.log").read_text(errors="replace")


def has_happened(instance: dg.DagsterInstance, folder: Path) -> bool:
    """Say whether the run has made the table, and a tick has found it running."""
    run = run_of_the_schedule(instance)
    table = folder / "store" / paths.STUDIES
    ends = run is not None and run.status is dg.DagsterRunStatus.FAILURE
    return ends or (table.exists() and WAITS in told(folder))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_daemon_starts_a_run_that_ingests_what_has_come(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse_phantoms(monkeypatch)
    few = PhantomConfig(studies=3, seed=19, masked_share=0.0, compressed_share=0.0)
    write_phantom_source(places / "inbox", few, executor=InlineExecutor())
    stores = Stores(Location(places / "store"))
    card = classifier_card(
        model="resnet50",
        model_id="resnet50-fold0-abc",
        training_studies={"1.2.3": "a"},
    )
    newest = ClassifierStore(stores.root).of_fold("resnet50", 0)
    newest.write(CARD, card.to_json())
    shutil.copy(PROJECT_ROOT / "dagster.yaml", places / "dagster" / "dagster.yaml")
    with daemon(places), dg.DagsterInstance.get() as instance:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not has_happened(instance, places):
            time.sleep(2)
        run, said = run_of_the_schedule(instance), told(places)
    assert run is not None, said[-2000:]
    assert run.job_name == "everything"
    assert run.tags["csfd/new_studies"] == "3"
    assert run.status is not dg.DagsterRunStatus.FAILURE
    assert WAITS in said  # the next tick has seen that it runs
    table = stores.metadata.read_studies()
    assert table["status"].tolist() == ["good"] * 3
    assert table["label_version"].tolist() == [1] * 3
    assert len(stores.root.entries("slices")) == 3
