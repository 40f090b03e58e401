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
from support.sensing import Place, copy_of, open_place

from csfd_core.errors import SourceError
from csfd_core.ingest.convert import StudyTask, scan_headers
from csfd_core.ingest.outcomes import StudyOutcome
from csfd_core.lineage.withdrawal import withdraw
from csfd_dagster import commands
from csfd_dagster.assets import ingest as ingest_assets
from csfd_dagster.partitions import range_tags
from csfd_dagster.sensors import Seen

pytestmark = pytest.mark.slow

UIDS = [f"1.2.826.0.1.3680043.1{index}" for index in range(1, 4)]
LABELS = "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n"
NEW_UID = "1.2.826.0.1.3680043.19"
STEPS = ["study_headers", "slice_store", "mask_store"]


def write_source(root: Path) -> None:
    """Three studies: one good with a mask, one quarantined, one good."""
    folder = root / "source"
    for uid in UIDS:
        write_study(folder, uid)
    assert UIDS[0] == STUDY_UID
    write_mask(folder, neck_mask(), volume_affine_ras())
    (folder / "train_images" / UIDS[1] / "9.dcm").unlink()
    (folder / "train.csv").write_text(
        LABELS + "".join(f"{uid},1,0,1,0,0,0,0,0\n" for uid in UIDS)
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """The studies, of which nothing has been told yet."""
    write_source(tmp_path)
    with open_place(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def ingested_once(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The studies after one run over all of them."""
    root = tmp_path_factory.mktemp("ingested")
    write_source(root)
    with open_place(root) as found:
        assert ingest(found, UIDS).success
    return found


@pytest.fixture
def ingested(ingested_once: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy of them."""
    with copy_of(ingested_once, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def settled_once(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The studies after the sensor has told of them and all that follows."""
    root = tmp_path_factory.mktemp("settled")
    write_source(root)
    with open_place(root) as found:
        found.settle()
    return found


@pytest.fixture
def settled(settled_once: Place, tmp_path: Path) -> Iterator[Place]:
    """A copy of them."""
    with copy_of(settled_once, tmp_path) as found:
        yield found


def ingest(place: Place, uids: list[str]) -> dg.ExecuteInProcessResult:
    place.instance.add_dynamic_partitions("studies", uids)
    job = place.defs.resolve_job_def("ingestion")
    done = job.execute_in_process(
        instance=place.instance, tags=range_tags(uids), raise_on_error=False
    )
    place.runs.append(done)
    return done


def materialization(
    place: Place, asset: str, partition: str
) -> dg.AssetMaterialization:
    records = place.instance.fetch_materializations(
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


def event_bytes(place: Place, asset: str, partition: str) -> int:
    """Return how much Dagster's history holds of a study and asset."""
    index = Path(place.instance.root_directory) / "history" / "runs" / "index.db"
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


def test_one_run_ingests_a_range_and_tells_of_each_study(ingested: Place) -> None:
    for step in STEPS:
        done = ingested.instance.get_materialized_partitions(dg.AssetKey(step))
        assert done == set(UIDS), step
    good = materialization(ingested, "slice_store", UIDS[0]).metadata
    assert good["outcome"].value == "written"
    shown_in(
        ingested.root / "store", good["montage"].value, f"slice_store/{UIDS[0]}.jpg"
    )
    for step in STEPS:
        assert 1000 < event_bytes(ingested, step, UIDS[0]) < 5000
    bad = materialization(ingested, "slice_store", UIDS[1]).metadata
    assert (bad["outcome"].value, bad["findings"].value) == (
        "quarantined",
        "missing_slices",
    )
    assert "montage" not in bad
    mask = materialization(ingested, "mask_store", UIDS[0]).metadata
    shown_in(
        ingested.root / "store", mask["montage"].value, f"mask_store/{UIDS[0]}.jpg"
    )
    without = materialization(ingested, "mask_store", UIDS[2]).metadata
    assert "montage" not in without
    stores = ingested.stores
    table = stores.metadata.read_studies().set_index("study_uid")
    assert table["status"].to_dict() == dict(
        zip(UIDS, ["good", "quarantined", "good"], strict=True)
    )
    assert table["C2"].tolist() == [1, 1, 1]
    assert stores.slices.read_note(UIDS[1]) is None
    assert stores.masks.read_note(UIDS[0]) is not None


def test_checks_pass_on_good_data(ingested_once: Place) -> None:
    (run,) = ingested_once.runs
    assert checks_of(run) == {
        "no_study_failed": True,
        "slices_decode": True,
        "study_uids_are_unique": True,
        "overall_is_any_level": True,
        "spacing_is_uniform": True,
        "columns_match_contract": True,
    }


def test_data_version_of_a_study_follows_its_content_alone(ingested: Place) -> None:
    def versions() -> dict[str, str]:
        return {
            uid: (materialization(ingested, "slice_store", uid).tags or {})[
                "dagster/data_version"
            ]
            for uid in UIDS
        }

    before = versions()
    assert len(set(before.values())) == len(UIDS)
    source = ingested.root / "source"
    write_study(source, UIDS[2], edit=lambda ds: setattr(ds, "KVP", "140"))
    ingest(ingested, UIDS)
    after = versions()
    assert [uid for uid in UIDS if before[uid] != after[uid]] == [UIDS[2]]


def test_contradictory_labels_fail_their_check(place: Place) -> None:
    table = place.root / "source" / "train.csv"
    table.write_text(f"{LABELS}{UIDS[0]},0,0,1,0,0,0,0,0\n")
    assert not checks_of(ingest(place, UIDS))["overall_is_any_level"]


def test_only_the_new_study_is_done(ingested: Place) -> None:
    new = NEW_UID
    write_study(ingested.root / "source", new)
    result = ingest(ingested, [new])
    assert result.success
    for step in STEPS:
        assert materialization(ingested, step, new).metadata["slices"].value == 24
        event_run = {
            record.run_id
            for record in ingested.instance.fetch_materializations(
                dg.AssetRecordsFilter(
                    asset_key=dg.AssetKey(step), asset_partitions=UIDS
                ),
                limit=10,
            ).records
        }
        assert result.run_id not in event_run


def test_vanished_study_fails_with_what_to_do_and_the_others_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    result = ingest(place, [*UIDS, "1.2.3"])
    assert result.success
    assert not checks_of(result)["no_study_failed"]
    bad = materialization(place, "study_headers", "1.2.3").metadata
    assert bad["outcome"].value == "failed"
    assert "bring the images back" in str(bad["note"].value)
    good = materialization(place, "slice_store", UIDS[2]).metadata
    assert good["outcome"].value == "unchanged"  # written by the first try


def test_passing_fault_is_tried_again_and_nothing_done_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def fail_at_first(task: StudyTask) -> StudyOutcome:
        tries.append(task.folder.name)
        if tries == [UIDS[0], UIDS[1]]:
            raise SourceError("Cannot access the disk: timed out.")
        return scan_headers(task)

    monkeypatch.setattr(ingest_assets, "scan_headers", fail_at_first)
    result = ingest(place, UIDS)
    assert result.success
    assert tries == UIDS * 2
    first = materialization(place, "study_headers", UIDS[0]).metadata
    second = materialization(place, "study_headers", UIDS[1]).metadata
    assert first["outcome"].value == "unchanged"
    assert second["outcome"].value == "written"


def test_no_text_of_the_patient_reaches_dagster(ingested: Place) -> None:
    (run,) = ingested.runs
    logs = ingested.instance.all_logs(run.run_id)
    events = " ".join(str(record) for record in logs)
    assert len(events) > 10_000
    for secret in ("Sensitive", "patient-of", "19700101"):
        assert secret not in events


def observed(result: dg.SensorResult) -> list[str | None]:
    """The studies that a tick tells of."""
    key = dg.AssetKey("source_studies")
    return [event.partition for event in result.asset_events if event.asset_key == key]


def test_sensor_waits_a_tick_then_tells_once(place: Place) -> None:
    first = place.tick()
    assert observed(first) == []
    assert "3 studies have changed" in str(first.skip_reason)
    second = place.tick()
    assert observed(second) == UIDS
    (added,) = second.dynamic_partitions_requests or []
    assert added.partition_keys == UIDS
    assert observed(place.tick()) == []  # though nothing was done yet
    first_round, second_round = place.follow()
    assert first_round == set(STEPS)
    assert second_round == {"metadata_table"}
    third = place.tick()
    assert "Nothing has changed in 3 studies" in str(third.skip_reason)
    assert place.follow() == []


def test_sensor_leaves_a_study_alone_that_is_still_being_copied(settled: Place) -> None:
    folder = write_study(settled.root / "source", NEW_UID)
    late = (folder / "24.dcm").read_bytes()
    (folder / "24.dcm").unlink()
    assert observed(settled.tick()) == []
    (folder / "24.dcm").write_bytes(late)
    assert observed(settled.tick()) == []
    assert observed(settled.tick()) == [NEW_UID]


def test_sensor_sees_studies_of_the_inbox(settled: Place) -> None:
    write_study(settled.root / "inbox", NEW_UID)
    settled.tick()
    (added,) = settled.tick().dynamic_partitions_requests or []
    assert added.partition_keys == [NEW_UID]


def test_only_a_new_study_is_worked_on(settled: Place) -> None:
    write_study(settled.root / "source", NEW_UID)
    count = len(settled.runs)
    settled.settle()
    made = [
        (event.asset_key.to_user_string(), event.partition)
        for run in settled.runs[count:]
        for event in run.get_asset_materialization_events()
    ]
    assert {partition for _, partition in made} == {NEW_UID, None}
    assert {asset for asset, _ in made} == {*STEPS, "metadata_table"}


def test_sensor_and_runs_leave_a_withdrawn_study_alone(settled: Place) -> None:
    stores = settled.stores
    withdraw(stores, UIDS[2], "consent withdrawn", "tester")
    gone = settled.tick()
    assert observed(gone) == []
    assert settled.follow() == [{"metadata_table"}]
    assert "Nothing has changed in 2 studies" in str(settled.tick().skip_reason)
    result = ingest(settled, UIDS)  # a backfill of all
    assert result.success
    assert UIDS[2] not in set(stores.metadata.read_studies()["study_uid"])
    assert stores.metadata.read_record(UIDS[2]) is None
    assert stores.slices.read_note(UIDS[2]) is None


def test_corrected_label_concerns_its_study_and_the_tables(settled: Place) -> None:
    rows = [f"{uid},1,0,1,0,0,0,0,0\n" for uid in UIDS[1:]]
    table = settled.root / "source" / "train.csv"
    table.write_text(f"{LABELS}{UIDS[0]},0,0,0,0,0,0,0,0\n{''.join(rows)}")
    settled.tick()
    told = settled.tick()
    assert observed(told) == [UIDS[0]]
    rounds = settled.follow()
    assert "metadata_table" in set.union(*rounds)
    studies = settled.stores.metadata.read_studies()
    assert studies.set_index("study_uid").loc[UIDS[0], "C2"] == 0
    assert "Nothing has changed" in str(settled.tick().skip_reason)


def test_study_that_is_not_done_is_taken_up_again_the_next_day(place: Place) -> None:
    place.tick()
    assert observed(place.tick()) == UIDS  # and then the machine dies
    assert observed(place.tick()) == []
    seen = Seen.model_validate_json(str(place.cursor))
    place.cursor = seen.model_copy(update={"day": "2026-01-01"}).model_dump_json()
    again = place.tick()
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
