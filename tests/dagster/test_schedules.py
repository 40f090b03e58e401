"""When the nightly retraining starts, and why it does not."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from support.cards import classifier_card
from support.ticks import Asked, begin_job, begin_run, tick_of

from csfd_core.classification.classifier_store import CARD, ClassifierStore
from csfd_core.classification.config import CLASSIFIER_PROFILES
from csfd_core.errors import SettingsError
from csfd_core.evaluation.folds import is_test
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS
from csfd_dagster.definitions import build_defs
from csfd_dagster.resources.stores import SourceResource, StoreResource
from csfd_dagster.schedules import build_schedules

UIDS = [uid for uid in (f"1.2.{i}" for i in range(1, 99)) if not is_test(uid)][:30]
NIGHT = datetime(2026, 3, 1, 2, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of thirty labelled studies; ten of them trained a classifier."""
    rows = [
        {**dict.fromkeys([name for name, _, _ in STUDIES_COLUMNS]),
         **dict.fromkeys(LABEL_COLUMNS, 0), "study_uid": uid, "status": "good",
         "warning_codes": []}
        for uid in UIDS
    ]  # fmt: skip
    stores = Stores(Location(tmp_path / "store"))
    stores.metadata.write_studies(pd.DataFrame(rows), "inputs", "phantom")
    write_card(tmp_path, UIDS[:10])
    return tmp_path


def write_card(folder: Path, uids: list[str], **facts: Any) -> None:
    place = ClassifierStore(Location(folder / "store")).of_fold("resnet50", 0)
    card = classifier_card(
        model="resnet50",
        model_id="resnet50-fold0-abc",
        config=CLASSIFIER_PROFILES["full"],
        training_studies=dict.fromkeys(uids, "a"),
        **facts,
    )
    place.write(CARD, card.to_json())


def tick(folder: Path, instance: dg.DagsterInstance) -> Asked:
    """Evaluate the schedule once: what it asks for, or why it does not."""
    resources = {
        "source": SourceResource(
            source_url=str(folder / "source"), inbox_url=str(folder / "inbox")
        ),
        "store": StoreResource(store_url=str(folder / "store")),
    }
    return tick_of("nightly_retraining", NIGHT, resources, instance)


def test_enough_new_studies_start_a_run(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    (request,), reason = tick(folder, instance)
    assert reason is None
    assert request.run_key == "nightly_retraining-2026-03-01T02:00:00+00:00"
    assert request.tags["csfd/new_studies"] == "20"
    assert request.tags["csfd/corrected_studies"] == "0"


def test_too_few_new_studies_are_told(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_RETRAIN_STUDIES", "21")
    requests, reason = tick(folder, instance)
    assert not requests
    assert reason == (
        "20 newly labelled studies have come and 0 were corrected since "
        "resnet50-fold0-abc was trained on 10. 21 are needed."
    )


def test_nothing_starts_twice_for_one_tick(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    first, second = tick(folder, instance)[0], tick(folder, instance)[0]
    assert first[0].run_key == second[0].run_key


def test_studies_that_were_trained_do_not_count_again(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    write_card(folder, UIDS)
    requests, reason = tick(folder, instance)
    assert not requests
    assert reason is not None
    assert reason.startswith("0 newly labelled studies have come")


def test_corrected_labels_count_for_a_training(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_card(folder, UIDS, label_digests=dict.fromkeys(UIDS, "0000000"))
    header = ",".join(["StudyInstanceUID", *LABEL_COLUMNS])
    rows = [f"{uid},1,0,0,0,0,1,0,0" for uid in UIDS[:3]]
    rows += [f"{uid},0,0,0,0,0,0,0,0" for uid in UIDS[3:]]
    (folder / "source").mkdir()
    (folder / "source" / "train.csv").write_text("\n".join([header, *rows]))
    requests, reason = tick(folder, instance)
    assert not requests
    assert str(reason).startswith(
        "0 newly labelled studies have come and 3 were corrected since"
    )
    monkeypatch.setenv("CSFD_RETRAIN_STUDIES", "3")
    (request,), _ = tick(folder, instance)
    assert request.tags["csfd/corrected_studies"] == "3"
    write_card(folder, UIDS)  # of an older csfd
    assert not tick(folder, instance)[0]


def test_first_training_starts_by_itself_too(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ClassifierStore(Location(folder / "store")).of_fold("resnet50", 0)
    place.remove(CARD)
    (request,), _ = tick(folder, instance)
    assert request.tags["csfd/newest_candidate"] == "none"
    monkeypatch.setenv("CSFD_RETRAIN_STUDIES", "31")
    requests, reason = tick(folder, instance)
    assert not requests
    assert reason == (
        "30 newly labelled studies have come and 0 were corrected and no classifier "
        "has been trained yet. 31 are needed."
    )


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED]
)
def test_nothing_starts_while_the_job_runs(
    folder: Path, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run = begin_job(instance, "retraining", status)
    requests, reason = tick(folder, instance)
    assert not requests
    assert reason == (
        f"Run {run.run_id[:8]} trains already; retraining waits for the next tick."
    )


def test_nothing_starts_while_what_follows_trains(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    for key in ("eda_report", "resnet50"):
        begin_run(instance, key)
    assert "trains already" in str(tick(folder, instance)[1])


def test_runs_that_train_nothing_hold_nothing_up(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    defs = build_defs()
    instance.create_run_for_job(
        defs.resolve_job_def("exploration"), status=dg.DagsterRunStatus.STARTED
    )
    instance.create_run_for_job(
        defs.resolve_job_def("retraining"), status=dg.DagsterRunStatus.FAILURE
    )
    assert len(tick(folder, instance)[0]) == 1


def nightly() -> dg.ScheduleDefinition:
    (schedule,) = [s for s in build_schedules() if s.name == "nightly_retraining"]
    return schedule


def test_time_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = nightly()
    assert schedule.cron_schedule == "0 2 * * *"
    monkeypatch.setenv("CSFD_RETRAIN_CRON", "30 4 * * 6")
    schedule = nightly()
    assert schedule.cron_schedule == "30 4 * * 6"
    monkeypatch.setenv("CSFD_RETRAIN_CRON", "at night")
    with pytest.raises(SettingsError, match="must be a cron string"):
        build_schedules()


@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_number_that_cannot_be_meant_is_told(
    folder: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
) -> None:
    monkeypatch.setenv("CSFD_RETRAIN_STUDIES", value)
    wanted = f"CSFD_RETRAIN_STUDIES must be .* at least 1. Received: {value}"
    with pytest.raises(SettingsError, match=wanted):
        tick(folder, instance)


def test_schedule_makes_the_root_of_what_is_trained() -> None:
    defs = build_defs()
    schedule = defs.resolve_schedule_def("nightly_retraining")
    assert schedule.job_name == "retraining"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    selected = defs.resolve_job_def("retraining").asset_layer.executable_asset_keys
    roots = {"segmentation_model", "training_manifest"}
    assert {key.to_user_string() for key in selected} == roots
