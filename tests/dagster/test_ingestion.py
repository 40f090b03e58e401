"""Ingestion through Dagster: partitions, quarantine, checks, the sensor."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image
from support.dicom_studies import (
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.instances import small_instance
from support.sensing import Sensing

from csfd_core.errors import SourceError
from csfd_core.ingest.convert import StudyTask, scan_headers
from csfd_core.ingest.outcomes import StudyOutcome
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster import commands
from csfd_dagster.assets import ingest as ingest_assets
from csfd_dagster.definitions import build_defs
from csfd_dagster.partitions import range_tags
from csfd_dagster.resources.stores import (
    ExecutorResource,
    SourceResource,
    StoreResource,
)
from csfd_dagster.sensors import Seen

pytestmark = pytest.mark.slow

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
    with small_instance() as found:
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


def shown_in(store: Path, markdown: str, picture: str) -> None:
    """Check that a picture lies in the store, and only its address in the metadata."""
    assert f"![{Path(picture).name}](http://127.0.0.1:3001/pictures/{picture})" in (
        markdown
    )
    with Image.open(store / "pictures" / picture) as found:
        assert found.width > 100


def event_bytes(instance: dg.DagsterInstance, asset: str, partition: str) -> int:
    """Return how much Dagster's history holds of a study and asset."""
    index = Path(instance.root_directory) / "history" / "runs" / "index.db"
    with closing(sqlite3.connect(index)) as history:
        (size,) = history.execute(
            "SELECT SUM(LENGTH(event)) FROM event_logs"
            " WHERE asset_key = ? AND partition = ?",
            (f'["{asset}"]', partition),
        ).fetchone()
    return int(size)


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
    shown_in(tmp_path / "store", good["montage"].value, f"slice_store/{UIDS[0]}.jpg")
    for step in STEPS:
        assert 1000 < event_bytes(instance, step, UIDS[0]) < 5000
    bad = materialization(instance, "slice_store", UIDS[1]).metadata
    assert (bad["outcome"].value, bad["findings"].value) == (
        "quarantined",
        "missing_slices",
    )
    assert "montage" not in bad
    mask = materialization(instance, "mask_store", UIDS[0]).metadata
    shown_in(tmp_path / "store", mask["montage"].value, f"mask_store/{UIDS[0]}.jpg")
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
        "no_study_failed": True,
        "slices_decode": True,
        "study_uids_are_unique": True,
        "overall_is_any_level": True,
        "spacing_is_uniform": True,
        "columns_match_contract": True,
    }


def test_data_version_of_a_study_follows_its_content_alone(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    def versions() -> dict[str, str]:
        return {
            uid: (materialization(instance, "slice_store", uid).tags or {})[
                "dagster/data_version"
            ]
            for uid in UIDS
        }

    ingest(instance, resources, UIDS)
    before = versions()
    assert len(set(before.values())) == len(UIDS)
    write_study(source, UIDS[2], edit=lambda ds: setattr(ds, "KVP", "140"))
    ingest(instance, resources, UIDS)
    after = versions()
    assert [uid for uid in UIDS if before[uid] != after[uid]] == [UIDS[2]]


def test_contradictory_labels_fail_their_check(
    instance: dg.DagsterInstance, resources: dict[str, object], source: Path
) -> None:
    (source / "train.csv").write_text(f"{LABELS}{UIDS[0]},0,0,1,0,0,0,0,0\n")
    assert not checks_of(ingest(instance, resources, UIDS))["overall_is_any_level"]


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


def test_vanished_study_fails_with_what_to_do_and_the_others_go_on(
    instance: dg.DagsterInstance,
    resources: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    result = ingest(instance, resources, [*UIDS, "1.2.3"])
    assert result.success
    assert not checks_of(result)["no_study_failed"]
    bad = materialization(instance, "study_headers", "1.2.3").metadata
    assert bad["outcome"].value == "failed"
    assert "bring the images back" in str(bad["note"].value)
    good = materialization(instance, "slice_store", UIDS[2]).metadata
    assert good["outcome"].value == "unchanged"  # written by the first try


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


@pytest.fixture
def sensing(instance: dg.DagsterInstance, resources: dict[str, object]) -> Sensing:
    return Sensing(instance, resources)


def observed(result: dg.SensorResult) -> list[str | None]:
    """The studies that a tick tells of."""
    key = dg.AssetKey("source_studies")
    return [event.partition for event in result.asset_events if event.asset_key == key]


def test_sensor_waits_a_tick_then_tells_once(sensing: Sensing) -> None:
    first = sensing.tick()
    assert observed(first) == []
    assert "3 studies have changed" in str(first.skip_reason)
    second = sensing.tick()
    assert observed(second) == UIDS
    (added,) = second.dynamic_partitions_requests or []
    assert added.partition_keys == UIDS
    assert observed(sensing.tick()) == []  # though nothing was done yet
    first_round, second_round = sensing.follow()
    assert first_round == set(STEPS)
    assert second_round == {"metadata_table"}
    third = sensing.tick()
    assert "Nothing has changed in 3 studies" in str(third.skip_reason)
    assert sensing.follow() == []


def test_sensor_leaves_a_study_alone_that_is_still_being_copied(
    sensing: Sensing, source: Path
) -> None:
    sensing.settle()
    folder = write_study(source, NEW_UID)
    late = (folder / "24.dcm").read_bytes()
    (folder / "24.dcm").unlink()
    assert observed(sensing.tick()) == []
    (folder / "24.dcm").write_bytes(late)
    assert observed(sensing.tick()) == []
    assert observed(sensing.tick()) == [NEW_UID]


def test_sensor_sees_studies_of_the_inbox(sensing: Sensing, tmp_path: Path) -> None:
    sensing.settle()
    write_study(tmp_path / "inbox", NEW_UID)
    sensing.tick()
    (added,) = sensing.tick().dynamic_partitions_requests or []
    assert added.partition_keys == [NEW_UID]


def test_only_a_new_study_is_worked_on(sensing: Sensing, source: Path) -> None:
    sensing.settle()
    write_study(source, NEW_UID)
    count = len(sensing.runs)
    sensing.settle()
    made = [
        (event.asset_key.to_user_string(), event.partition)
        for run in sensing.runs[count:]
        for event in run.get_asset_materialization_events()
    ]
    assert {partition for _, partition in made} == {NEW_UID, None}
    assert {asset for asset, _ in made} == {*STEPS, "metadata_table"}


def test_sensor_and_runs_leave_a_withdrawn_study_alone(
    sensing: Sensing, tmp_path: Path
) -> None:
    stores = Stores(Location(tmp_path / "store"))
    sensing.settle()
    withdraw(stores, UIDS[2], "consent withdrawn", "tester")
    gone = sensing.tick()
    assert observed(gone) == []
    assert sensing.follow() == [{"metadata_table"}]
    assert "Nothing has changed in 2 studies" in str(sensing.tick().skip_reason)
    result = ingest(sensing.instance, sensing.resources, UIDS)  # a backfill of all
    assert result.success
    assert UIDS[2] not in set(stores.metadata.read_studies()["study_uid"])
    assert stores.metadata.read_record(UIDS[2]) is None
    assert stores.slices.read_note(UIDS[2]) is None


def test_corrected_label_concerns_its_study_and_the_tables(
    sensing: Sensing, source: Path
) -> None:
    sensing.settle()
    rows = [f"{uid},1,0,1,0,0,0,0,0\n" for uid in UIDS[1:]]
    (source / "train.csv").write_text(
        f"{LABELS}{UIDS[0]},0,0,0,0,0,0,0,0\n{''.join(rows)}"
    )
    sensing.tick()
    told = sensing.tick()
    assert observed(told) == [UIDS[0]]
    rounds = sensing.follow()
    assert "metadata_table" in set.union(*rounds)
    table = Stores(Location(source.parent / "store")).metadata.read_studies()
    assert table.set_index("study_uid").loc[UIDS[0], "C2"] == 0
    assert "Nothing has changed" in str(sensing.tick().skip_reason)


def test_study_that_is_not_done_is_taken_up_again_the_next_day(
    sensing: Sensing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensing.tick()
    assert observed(sensing.tick()) == UIDS  # and then the machine dies
    assert observed(sensing.tick()) == []
    seen = Seen.model_validate_json(str(sensing.cursor))
    sensing.cursor = seen.model_copy(update={"day": "2026-01-01"}).model_dump_json()
    again = sensing.tick()
    assert observed(again) == UIDS
    versions = {
        (event.tags or {})["dagster/data_version"] for event in again.asset_events
    }
    assert all("-" in version for version in versions)


def test_run_without_studies_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("CSFD_SOURCE", str(tmp_path / "nowhere"))
    monkeypatch.setenv("CSFD_INBOX", str(tmp_path / "inbox"))
    monkeypatch.setenv("CSFD_STORE", str(tmp_path / "store"))
    with pytest.raises(SourceError, match="There are no studies in"):
        commands.run_graph()
    assert not (tmp_path / "dagster").exists()
