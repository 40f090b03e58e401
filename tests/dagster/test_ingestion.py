"""Ingestion through Dagster: partitions, quarantine, checks, the sensor."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from support.dicom_studies import (
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.errors import SourceError
from csfd_core.ingest.convert import StudyTask, scan_headers
from csfd_core.ingest.outcomes import StudyOutcome
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster import launch
from csfd_dagster.assets import ingest as ingest_assets
from csfd_dagster.definitions import build_defs
from csfd_dagster.partitions import range_tags
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)
from csfd_dagster.sensors import new_studies

UIDS = [f"1.2.826.0.1.3680043.1{index}" for index in range(1, 4)]
LABELS = "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n"
NEW_UID = "1.2.826.0.1.3680043.19"
STEPS = ["study_headers", "slice_store", "mask_store"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three studies: one good with a mask, one quarantined, one good."""
    folder = tmp_path / "source"
    for uid in UIDS:
        write_study(folder, uid)
    assert UIDS[0] == STUDY_UID
    write_mask(folder, neck_mask(), volume_affine_ras())
    (folder / "train_images" / UIDS[1] / "9.dcm").unlink()
    (folder / "train.csv").write_text(
        LABELS + "".join(f"{uid},1,0,1,0,0,0,0,0\n" for uid in UIDS)
    )
    return folder


@pytest.fixture
def resources(tmp_path: Path, source: Path) -> dict[str, object]:
    return {
        "source": SourceResource(
            source_url=str(source), inbox_url=str(tmp_path / "inbox")
        ),
        "store": StoreResource(store_url=str(tmp_path / "store")),
        "executor": ExecutorResource(workers=1),
    }


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


def ingest(
    instance: dg.DagsterInstance, resources: dict[str, object], uids: list[str]
) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions("studies", uids)
    job = build_defs(resources).resolve_job_def("ingestion")
    return job.execute_in_process(
        instance=instance, tags=range_tags(uids), raise_on_error=False
    )


def materialization(
    instance: dg.DagsterInstance, asset: str, partition: str
) -> dg.AssetMaterialization:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=[partition]
        ),
        limit=1,
    ).records
    found = records[0].asset_materialization
    assert found is not None
    return found


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        evaluation.check_name: evaluation.passed
        for evaluation in result.get_asset_check_evaluations()
    }


def test_one_run_ingests_a_range_and_tells_of_each_study(
    instance: dg.DagsterInstance, resources: dict[str, object], tmp_path: Path
) -> None:
    result = ingest(instance, resources, UIDS)
    assert result.success
    for step in STEPS:
        done = instance.get_materialized_partitions(dg.AssetKey(step))
        assert done == set(UIDS), step
    good = materialization(instance, "slice_store", UIDS[0]).metadata
    assert good["outcome"].value == "written"
    assert "data:image/jpeg;base64" in good["montage"].value
    bad = materialization(instance, "slice_store", UIDS[1]).metadata
    assert (bad["outcome"].value, bad["findings"].value) == (
        "quarantined",
        "missing_slices",
    )
    assert "montage" not in bad
    headers = materialization(instance, "study_headers", UIDS[0]).metadata
    assert "data:image/png;base64" in headers["slices_per_study"].value
    mask = materialization(instance, "mask_store", UIDS[0]).metadata
    assert "data:image/jpeg;base64" in mask["montage"].value
    without = materialization(instance, "mask_store", UIDS[2]).metadata
    assert "montage" not in without
    stores = Stores(Location(tmp_path / "store"))
    table = stores.metadata.read_studies().set_index("study_uid")
    assert table["status"].to_dict() == dict(
        zip(UIDS, ["good", "quarantined", "good"], strict=True)
    )
    assert table["C2"].tolist() == [1, 1, 1]
    assert stores.slices.read_note(UIDS[1]) is None
    assert stores.masks.read_note(UIDS[0]) is not None


def test_checks_pass_on_good_data(
    instance: dg.DagsterInstance, resources: dict[str, object]
) -> None:
    checks = checks_of(ingest(instance, resources, UIDS))
    assert checks == {
        "slices_decode": True,
        "rows_agree_with_source": True,
        "study_uids_are_unique": True,
        "overall_is_any_level": True,
        "spacing_is_uniform": True,
        "columns_match_contract": True,
    }


def test_contradictory_labels_fail_their_check(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    (source / "train.csv").write_text(f"{LABELS}{UIDS[0]},0,0,1,0,0,0,0,0\n")
    assert not checks_of(ingest(instance, resources, UIDS))["overall_is_any_level"]


def test_study_without_a_row_fails_its_check(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    checks = checks_of(ingest(instance, resources, UIDS[:2]))
    assert not checks["rows_agree_with_source"]


def test_only_the_new_study_is_done(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    ingest(instance, resources, UIDS)
    new = NEW_UID
    write_study(source, new)
    result = ingest(instance, resources, [new])
    assert result.success
    for step in STEPS:
        assert materialization(instance, step, new).metadata["slices"].value == 24
        event_run = {
            record.run_id
            for record in instance.fetch_materializations(
                dg.AssetRecordsFilter(
                    asset_key=dg.AssetKey(step), asset_partitions=UIDS
                ),
                limit=10,
            ).records
        }
        assert result.run_id not in event_run


def test_vanished_study_fails_with_what_to_do(
    instance: dg.DagsterInstance, resources: dict[str, object]
) -> None:
    result = ingest(instance, resources, [*UIDS, "1.2.3"])
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "1 study has no images" in str(failure.step_failure_data.error)


def test_passing_fault_is_tried_again_and_nothing_done_twice(
    instance: dg.DagsterInstance,
    resources: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[str] = []

    def fail_at_first(task: StudyTask) -> StudyOutcome:
        tries.append(task.folder.name)
        if tries == [UIDS[0], UIDS[1]]:
            raise SourceError("Cannot access the disk: timed out.")
        return scan_headers(task)

    monkeypatch.setattr(ingest_assets, "scan_headers", fail_at_first)
    result = ingest(instance, resources, UIDS)
    assert result.success
    assert tries == UIDS * 2
    first = materialization(instance, "study_headers", UIDS[0]).metadata
    second = materialization(instance, "study_headers", UIDS[1]).metadata
    assert first["outcome"].value == "unchanged"
    assert second["outcome"].value == "written"


def test_no_text_of_the_patient_reaches_dagster(
    instance: dg.DagsterInstance, resources: dict[str, object]
) -> None:
    result = ingest(instance, resources, UIDS)
    events = " ".join(str(record) for record in instance.all_logs(result.run_id))
    assert len(events) > 10_000
    for secret in ("Sensitive", "patient-of", "19700101"):
        assert secret not in events


def tick(
    instance: dg.DagsterInstance, resources: dict[str, object], cursor: str | None
) -> dg.SensorResult:
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        result = new_studies(
            context, source=resources["source"], store=resources["store"]
        )
    assert isinstance(result, dg.SensorResult)
    return result


def test_sensor_waits_a_tick_then_asks_once(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    first = tick(instance, resources, None)
    assert first.run_requests == []
    assert "3 studies have changed" in str(first.skip_reason)
    second = tick(instance, resources, first.cursor)
    (request,) = second.run_requests or []
    assert request.tags == range_tags(UIDS)
    (added,) = second.dynamic_partitions_requests or []
    assert added.partition_keys == UIDS
    ingest(instance, resources, UIDS)
    third = tick(instance, resources, second.cursor)
    assert "Nothing has changed in 3 studies" in str(third.skip_reason)


def test_sensor_leaves_a_study_alone_that_is_still_being_copied(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    ingest(instance, resources, UIDS)
    done = tick(instance, resources, None)
    folder = write_study(source, NEW_UID)
    late = (folder / "24.dcm").read_bytes()
    (folder / "24.dcm").unlink()
    half = tick(instance, resources, done.cursor)
    (folder / "24.dcm").write_bytes(late)
    grown = tick(instance, resources, half.cursor)
    assert half.run_requests == grown.run_requests == []
    whole = tick(instance, resources, grown.cursor)
    assert len(whole.run_requests or []) == 1


def test_sensor_sees_studies_of_the_inbox(
    instance: dg.DagsterInstance, resources: dict[str, object], tmp_path: Path
) -> None:
    ingest(instance, resources, UIDS)
    write_study(tmp_path / "inbox", NEW_UID)
    first = tick(instance, resources, None)
    second = tick(instance, resources, first.cursor)
    (added,) = second.dynamic_partitions_requests or []
    assert added.partition_keys == [NEW_UID]


def test_sensor_and_runs_leave_a_withdrawn_study_alone(
    instance: dg.DagsterInstance, resources: dict[str, object], tmp_path: Path
) -> None:
    stores = Stores(Location(tmp_path / "store"))
    ingest(instance, resources, UIDS)
    withdraw(stores, UIDS[2], "consent withdrawn", "tester")
    settled = tick(instance, resources, None)
    (request,) = settled.run_requests or []  # the table of studies, and no study
    assert request.asset_selection == [dg.AssetKey("metadata_table")]
    result = ingest(instance, resources, UIDS)  # a backfill of all partitions
    assert result.success
    assert UIDS[2] not in set(stores.metadata.read_studies()["study_uid"])
    assert stores.metadata.read_record(UIDS[2]) is None
    assert stores.slices.read_note(UIDS[2]) is None
    assert "Nothing has changed in 2 studies" in str(
        tick(instance, resources, settled.cursor).skip_reason
    )


def test_sensor_waits_for_a_run_that_is_under_way(
    instance: dg.DagsterInstance, resources: dict[str, object]
) -> None:
    first = tick(instance, resources, None)
    job = build_defs(resources).resolve_job_def("ingestion")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    second = tick(instance, resources, first.cursor)
    assert "under way" in str(second.skip_reason)
    assert second.cursor == first.cursor


def test_sensor_asks_for_the_table_alone_when_labels_change(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    ingest(instance, resources, UIDS)
    (source / "train.csv").write_text(f"{LABELS}{UIDS[0]},0,0,0,0,0,0,0,0\n")
    asked = tick(instance, resources, None)
    (request,) = asked.run_requests or []
    assert request.asset_selection == [dg.AssetKey("metadata_table")]


def test_run_without_studies_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("CSFD_SOURCE", str(tmp_path / "nowhere"))
    monkeypatch.setenv("CSFD_INBOX", str(tmp_path / "inbox"))
    monkeypatch.setenv("CSFD_STORE", str(tmp_path / "store"))
    assert launch.run("demo") == 1
    assert "There are no studies in" in capsys.readouterr().err
