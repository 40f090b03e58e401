"""When the weekly look at drift starts, and why it does not."""

import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from support.drawn_crops import uid_of
from support.ticks import Asked, begin_job, begin_run, tick_of

from csfd_core.classification.classifier_store import CARD, ClassifierStore
from csfd_core.errors import SettingsError
from csfd_core.reports.drift.report import NOTE, report_location
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.stores import Stores
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.stores import StoreResource
from csfd_dagster.schedules import build_schedules

MONDAY = datetime(2026, 3, 2, 3, tzinfo=UTC)
UIDS = [uid_of(index) for index in range(1, 13)]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Twelve good studies, of which the last report knows ten; and a classifier."""
    found = Stores(Location(tmp_path / "store"))
    write_studies(found, UIDS)
    ClassifierStore(found.root).of_fold("resnet50", 0).write(CARD, b"{}")
    report(found, UIDS[:10])
    return found


def write_studies(stores: Stores, uids: list[str], status: str = "good") -> None:
    empty = dict.fromkeys([name for name, _, _ in STUDIES_COLUMNS])
    rows = [
        {**empty, "study_uid": uid, "status": status, "warning_codes": []}
        for uid in uids
    ]
    stores.metadata.write_studies(pd.DataFrame(rows), "inputs", "phantom")


def report(stores: Stores, uids: list[str]) -> None:
    note = json.dumps({"studies": uids}).encode()
    report_location(stores).write(NOTE, note)


def tick(stores: Stores, instance: dg.DagsterInstance) -> Asked:
    """Evaluate the schedule once: what it asks for, or why it does not."""
    resources = {"store": StoreResource(store_url=str(stores.root))}
    return tick_of("drift_watch", MONDAY, resources, instance)


def test_new_studies_start_a_run(stores: Stores, instance: dg.DagsterInstance) -> None:
    (request,), reason = tick(stores, instance)
    assert reason is None
    assert request.run_key == "drift_watch-2026-03-02T03:00:00+00:00"
    assert request.tags["csfd/new_studies"] == "2"


def test_nothing_starts_without_new_studies(
    stores: Stores, instance: dg.DagsterInstance
) -> None:
    report(stores, UIDS)
    requests, reason = tick(stores, instance)
    assert not requests
    assert reason == "No good study has come since the last report on drift."


def test_quarantined_studies_are_not_new(
    stores: Stores, instance: dg.DagsterInstance
) -> None:
    write_studies(stores, UIDS, status="quarantined")
    assert "No good study has come" in str(tick(stores, instance)[1])


def test_first_report_needs_a_classifier(
    stores: Stores, instance: dg.DagsterInstance
) -> None:
    report_location(stores).remove(NOTE)
    assert len(tick(stores, instance)[0]) == 1
    ClassifierStore(stores.root).of_fold("resnet50", 0).remove(CARD)
    requests, reason = tick(stores, instance)
    assert not requests
    assert str(reason).startswith("No classifier has been trained yet")


def test_empty_store_is_told(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    empty = Stores(Location(tmp_path / "empty"))
    assert "No classifier has been trained" in str(tick(empty, instance)[1])
    ClassifierStore(empty.root).of_fold("resnet50", 0).write(CARD, b"{}")
    assert tick(empty, instance)[1] == "The store has no good study yet."


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED]
)
def test_nothing_starts_while_a_job_that_measures_drift_runs(
    stores: Stores, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run = begin_job(instance, "drift", status)
    requests, reason = tick(stores, instance)
    assert not requests
    assert str(reason).startswith(f"Run {run.run_id[:8]} looks for drift already")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("data_drift", "looks for drift already"),
        ("resnet50", "trains classifiers"),
        ("eda_report", "None"),
    ],
)
def test_what_follows_from_others_counts_too(
    stores: Stores, instance: dg.DagsterInstance, key: str, expected: str
) -> None:
    begin_run(instance, key)
    assert expected in str(tick(stores, instance)[1])


def test_runs_that_are_over_hold_nothing_up(
    stores: Stores, instance: dg.DagsterInstance
) -> None:
    job = build_defs().resolve_job_def("drift")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
    assert len(tick(stores, instance)[0]) == 1


def weekly() -> dg.ScheduleDefinition:
    (schedule,) = [s for s in build_schedules() if s.name == "drift_watch"]
    return schedule


def test_time_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSFD_DRIFT_CRON", raising=False)
    schedule = weekly()
    assert schedule.cron_schedule == "0 3 * * 1"
    monkeypatch.setenv("CSFD_DRIFT_CRON", "30 4 * * 6")
    schedule = weekly()
    assert schedule.cron_schedule == "30 4 * * 6"
    monkeypatch.setenv("CSFD_DRIFT_CRON", "on mondays")
    with pytest.raises(SettingsError, match="CSFD_DRIFT_CRON must be a cron string"):
        weekly()


def test_schedule_runs_by_itself_and_makes_the_report_alone() -> None:
    defs = build_defs()
    schedule = defs.resolve_schedule_def("drift_watch")
    assert schedule.job_name == "drift"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    selected = defs.resolve_job_def("drift").asset_layer.executable_asset_keys
    assert selected == {dg.AssetKey("data_drift")}
