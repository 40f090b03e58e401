import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom import dcmread
from support.conversion import OTHER_UID, digests, tasks
from support.dicom_studies import (
    LABEL_HEADER,
    SLICES,
    STUDY_UID,
    neck_hounsfield,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.errors import IdentifierError, SourceError, StoreError
from csfd_core.ingest import convert
from csfd_core.ingest.convert import (
    StudyTask,
    convert_mask,
    convert_slices,
    convert_study,
    needs_work,
    run_studies,
    scan_headers,
)
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.studies_table import studies_table_inputs, write_studies_table
from csfd_core.runtime.executors import InlineExecutor, open_executor
from csfd_core.store.locations import Location
from csfd_core.store.metadata import MetadataStore
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.text import safe_name
from csfd_core.vocabulary import BONE_WINDOW


def test_slices_follow_the_data_contract(source: Path, store: Path) -> None:
    convert_study(tasks(source, store)[0])
    table = pq.read_table(store / "slices" / f"{STUDY_UID}.parquet")
    assert table.column_names == ["slice_index", "instance_number", "z_mm", "jpeg"]
    assert table["slice_index"].to_pylist() == list(range(SLICES))
    assert table["instance_number"].to_pylist() == list(range(1, SLICES + 1))
    np.testing.assert_allclose(table["z_mm"], 100 - 2.0 * np.arange(SLICES))
    expected = window_to_uint8(neck_hounsfield().astype(np.float32), BONE_WINDOW)
    for index, jpeg in enumerate(table["jpeg"]):
        image = Image.open(io.BytesIO(jpeg.as_py()))
        assert (image.format, image.mode) == ("JPEG", "L")
        error = np.asarray(image).astype(float) - expected[index]
        assert np.sqrt((error**2).mean()) < 3


def test_footer_tells_what_the_slices_were_made_from(source: Path, store: Path) -> None:
    task = tasks(source, store)[0]
    outcome = convert_study(task)
    note = task.stores.slices.read_note(STUDY_UID)
    assert note is not None
    assert note.content_hash == outcome.content_hash
    assert note.conversion.model_dump() == {
        "format": 1,
        "jpeg_quality": 96,
        "window": {"center_hu": 400.0, "width_hu": 1800.0},
    }
    assert note.spacing_zyx_mm == (2.0, 1.5, 1.5)
    assert note.encoder.startswith("simplejpeg ")


def test_mask_is_lossless_and_in_the_grid_of_the_slices(
    source: Path, store: Path
) -> None:
    task = tasks(source, store)[0]
    convert_study(task)
    np.testing.assert_array_equal(task.stores.masks.read_volume(STUDY_UID), neck_mask())
    table = pq.read_table(store / "masks" / f"{STUDY_UID}.parquet")
    assert table.column_names == ["slice_index", "mask"]
    png = np.asarray(Image.open(io.BytesIO(table["mask"][5].as_py())))
    np.testing.assert_array_equal(png, neck_mask()[5])


def test_three_steps_give_the_same_bytes_as_one_pass(
    source: Path, tmp_path: Path
) -> None:
    for task in tasks(source, tmp_path / "one"):
        convert_study(task)
    for task in tasks(source, tmp_path / "three"):
        scan_headers(task)
        convert_slices(task)
        convert_mask(task)
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one")) == 5


def test_rerun_changes_nothing_and_reads_no_slice(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in tasks(source, store):
        convert_study(task)
    before = digests(store)
    times = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a slice was read")

    monkeypatch.setattr(Location, "read_beginnings", refuse)
    outcomes = [convert_study(task) for task in tasks(source, store)]
    assert {outcome.action for outcome in outcomes} == {Outcome.UNCHANGED}
    assert digests(store) == before
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*.parquet")} == times


def test_touched_files_with_the_same_content_are_not_written_again(
    source: Path, store: Path
) -> None:
    convert_study(tasks(source, store)[0])
    path = store / "slices" / f"{STUDY_UID}.parquet"
    before = path.stat().st_mtime_ns
    for file in (source / "train_images" / STUDY_UID).iterdir():
        os.utime(file)
    assert needs_work(tasks(source, store)[0])
    assert convert_study(tasks(source, store)[0]).action == Outcome.UNCHANGED
    assert path.stat().st_mtime_ns == before
    assert not needs_work(tasks(source, store)[0])


def test_changed_pixel_is_noticed_and_only_that_study_redone(
    source: Path, store: Path
) -> None:
    first = {o.study_uid: o for o in map(convert_study, tasks(source, store))}
    path = source / "train_images" / OTHER_UID / "3.dcm"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    second = {o.study_uid: o for o in map(convert_study, tasks(source, store))}
    assert second[STUDY_UID].action == Outcome.UNCHANGED
    assert second[OTHER_UID].action == Outcome.WRITTEN
    assert second[OTHER_UID].content_hash != first[OTHER_UID].content_hash


def test_changed_settings_redo_the_slices_but_not_the_masks(
    source: Path, store: Path
) -> None:
    for task in tasks(source, store):
        convert_study(task)
    before = digests(store)
    outcomes = [convert_study(task) for task in tasks(source, store, quality=80)]
    assert {outcome.action for outcome in outcomes} == {Outcome.WRITTEN}
    changed = {
        name for name, digest in digests(store).items() if digest != before[name]
    }
    assert {name.split("/")[0] for name in changed} == {"slices"}


def test_new_mask_is_stored_for_a_known_study(source: Path, store: Path) -> None:
    for task in tasks(source, store):
        convert_study(task)
    write_mask(source, neck_mask(), volume_affine_ras(), OTHER_UID)
    assert [needs_work(task) for task in tasks(source, store)] == [False, True]
    for task in tasks(source, store):
        convert_study(task)
    stored = Stores(Location(store)).masks.read_volume(OTHER_UID)
    np.testing.assert_array_equal(stored, neck_mask())


def test_quarantined_study_does_not_stop_the_others_and_keeps_what_was_there(
    source: Path, store: Path
) -> None:
    for task in tasks(source, store):
        convert_study(task)
    before = digests(store)
    (source / "train_images" / STUDY_UID / "9.dcm").unlink()
    outcomes = {o.study_uid: o for o in map(convert_study, tasks(source, store))}
    assert outcomes[STUDY_UID].action == Outcome.QUARANTINED
    assert outcomes[STUDY_UID].codes == ("missing_slices",)
    assert outcomes[OTHER_UID].action == Outcome.UNCHANGED
    slices = f"slices/{STUDY_UID}.parquet"
    assert digests(store)[slices] == before[slices]
    table, _ = write_studies_table(Stores(Location(store)), Sources([Source(source)]))
    row = table.set_index("study_uid").loc[STUDY_UID]
    assert (row["status"], row["quarantine_code"]) == ("quarantined", "missing_slices")


def test_folder_that_is_no_uid_becomes_a_row_and_no_file(
    source: Path, store: Path
) -> None:
    write_study(source, "1.2.3").rename(source / "train_images" / "not-a-uid")
    outcomes = {o.study_uid: o for o in map(convert_study, tasks(source, store))}
    shown = safe_name("not-a-uid")  # it could be the name of a patient
    assert outcomes[shown].codes == ("invalid_uid",)
    assert not any("not-a-uid" in name for name in digests(store))
    table, _ = write_studies_table(Stores(Location(store)), Sources([Source(source)]))
    row = table.set_index("study_uid").loc[shown]
    assert row["quarantine_code"] == "invalid_uid"


def test_identifiers_never_leave_the_store(store: Path) -> None:
    with pytest.raises(IdentifierError, match=r"\.\./\.\./x"):
        Stores(Location(store)).slices.path("../../x")
    with pytest.raises(SourceError, match="must not leave its location"):
        Location(store).read("slices/../../x")


def test_slices_need_current_headers(source: Path, store: Path) -> None:
    task = tasks(source, store)[0]
    with pytest.raises(SourceError, match="Materialize study_headers first"):
        convert_slices(task)
    scan_headers(task)
    os.utime(source / "train_images" / STUDY_UID / "4.dcm")
    with pytest.raises(SourceError, match="changed since they were read"):
        convert_slices(tasks(source, store)[0])


def test_failing_study_does_not_stop_the_others(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(task: StudyTask) -> convert.StudyOutcome:
        if task.folder.name == STUDY_UID:
            raise SourceError("Cannot access the disk.")
        return convert_study(task)

    outcomes = list(run_studies(fail_once, tasks(source, store), InlineExecutor()))
    assert {o.study_uid: o.action for o in outcomes} == {
        STUDY_UID: Outcome.FAILED,
        OTHER_UID: Outcome.WRITTEN,
    }


def test_pool_of_processes_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for task in tasks(source, tmp_path / "one"):
        convert_study(task)
    with open_executor(2) as executor:
        work = tasks(source, tmp_path / "two")
        outcomes = list(run_studies(convert_study, work, executor))
    assert {outcome.action for outcome in outcomes} == {Outcome.WRITTEN}
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_store_holds_no_text_of_the_patient(source: Path, store: Path) -> None:
    for task in tasks(source, store):
        convert_study(task)
    write_studies_table(Stores(Location(store)), Sources([Source(source)]))
    for path in store.rglob("*.parquet"):
        table = pq.read_table(path)
        text = str(table.to_pylist()) + str(table.schema.metadata)
        assert "Sensitive" not in text
        assert "patient-of" not in text
        assert "19700101" not in text


def test_damaged_slice_is_found(source: Path, store: Path) -> None:
    task = tasks(source, store)[0]
    convert_study(task)
    assert task.stores.slices.verify(STUDY_UID) == (SLICES, 64, 64)
    path = store / "slices" / f"{STUDY_UID}.parquet"
    table = pq.read_table(path)
    jpegs = table["jpeg"].to_pylist()
    jpegs[3] = b"no jpeg"
    broken = table.set_column(3, table.schema.field("jpeg"), [jpegs])
    pq.write_table(broken, path)
    with pytest.raises(StoreError, match="is no readable JPEG"):
        task.stores.slices.verify(STUDY_UID)


def test_file_of_another_program_in_the_store_is_told(
    source: Path, store: Path
) -> None:
    task = tasks(source, store)[0]
    path = store / "metadata" / "slices" / f"{STUDY_UID}.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not parquet")
    with pytest.raises(StoreError, match="is no Parquet file"):
        convert_study(task)


def test_studies_table_follows_records_labels_and_boxes(
    source: Path, store: Path
) -> None:
    stores, sources = Stores(Location(store)), Sources([Source(source)])
    for task in tasks(source, store):
        convert_study(task)
    (source / "train.csv").write_text(
        f"{LABEL_HEADER}{STUDY_UID},1,0,1,0,0,0,0,0\n1.2.9,0,0,0,0,0,0,0,0\n"
    )
    (source / "train_bounding_boxes.csv").write_text(
        "StudyInstanceUID,x,y,width,height,slice_number\n"
        f"{STUDY_UID},1,2,3,4,5\n{STUDY_UID},1,2,3,4,6\n"
    )
    table, notes = write_studies_table(stores, sources)
    assert notes == ["1 labelled study has no images."]
    stored = MetadataStore(Location(store)).read_studies().set_index("study_uid")
    assert stored.loc[STUDY_UID, "C2"] == 1
    assert stored.loc[OTHER_UID, ["C2", "patient_overall"]].isna().all()
    assert stored["box_count"].to_dict() == {STUDY_UID: 2, OTHER_UID: 0}
    assert stored["has_mask"].to_dict() == {STUDY_UID: True, OTHER_UID: False}
    assert stored["z_descending"].to_dict() == {STUDY_UID: True, OTHER_UID: False}
    assert stored["slice_count"].tolist() == [SLICES] * 2
    assert len(table) == 2
    assert stores.metadata.read_studies_inputs() == studies_table_inputs(
        stores, sources
    )
    os.utime(source / "train.csv")
    built = stores.metadata.read_studies_inputs()
    assert built == studies_table_inputs(stores, sources)
    for name in ("train.csv", "train_bounding_boxes.csv"):
        content = (source / name).read_text()
        (source / name).write_text(content.replace(",1,", ",0,", 1))
        assert built != studies_table_inputs(stores, sources)
        (source / name).write_text(content)


def test_several_studies_in_one_folder_are_refused(tmp_path: Path, store: Path) -> None:
    write_study(tmp_path / "a")
    write_study(tmp_path / "b", OTHER_UID)
    flat = tmp_path / "flat"
    flat.mkdir()
    for place, uid in (("a", STUDY_UID), ("b", OTHER_UID)):
        for file in (tmp_path / place / "train_images" / uid).iterdir():
            dcmread(file).save_as(flat / f"{place}{file.name}")
    with pytest.raises(SourceError, match="holds 2 studies"):
        convert_study(tasks(flat, store)[0])
