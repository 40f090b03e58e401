"""A withdrawn study is gone, stays gone, and takes nothing else with it."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.dicom_studies import write_study
from support.drawn_crops import CROPS, manifest_of
from support.lineage_store import (
    FIRST,
    FOURTH,
    NEW,
    REASON,
    SECOND,
    TESTED,
    UIDS,
    UNKNOWN,
    contents,
    model_id,
    own_files,
    sources_of,
)
from typer.testing import CliRunner

from csfd_core.classification.manifest import read_manifest
from csfd_core.cli.main import app
from csfd_core.errors import IdentifierError, SettingsError, SourceError
from csfd_core.ingest import convert
from csfd_core.ingest.convert import (
    StudyTask,
    convert_slices,
    convert_studies,
    convert_study,
    scan_headers,
    study_tasks,
)
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.studies_table import studies_table_inputs, write_studies_table
from csfd_core.learning.checkpoint import Checkpoint
from csfd_core.lineage.mlflow_records import RecordedRuns
from csfd_core.lineage.withdrawal import foresee, withdraw
from csfd_core.registry.frozen import damages, frozen_digests
from csfd_core.registry.new_labels import count_arrivals
from csfd_core.reports.eda.inputs import read_inputs
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal

PATIENT = (b"Sensitive", b"19700101", b"patient-of")


def test_a_withdrawn_study_is_gone_and_what_is_of_others_stays(
    stores: Stores, folder: Path
) -> None:
    before = contents(folder)
    table, manifest = stores.metadata.read_studies(), read_manifest(stores.root).table
    withdraw(stores, FIRST, REASON, "tester")
    after = contents(folder)
    shared = {f"store/{path}" for path in (paths.STUDIES, paths.MANIFEST)}
    versions = [
        {p for p in each if paths.LABEL_VERSIONS in p} for each in (before, after)
    ]
    assert [len(each) for each in versions] == [1, 1]  # named by what it holds
    records = {f"store/withdrawn/{FIRST}{suffix}" for suffix in (".json", ".done")}
    removed = own_files(before, FIRST)
    assert {Path(path).parts[1] for path in removed} == {
        "crops", "features", "metadata", "pictures", "predicted_masks", "predictions",
        "slices",
    }  # fmt: skip
    # It is described by the report on the data; no other report names it.
    removed.add("store/reports/eda/state.json")
    assert set(before) - set(after) == removed | versions[0]
    assert set(after) - set(before) == records | versions[1]
    changed = {path for path in set(before) & set(after) if before[path] != after[path]}
    models = {path for path in before if path.startswith("store/models/")}
    assert changed - models == shared
    # Cards name it no more; what a frozen version consists of is noted anew.
    assert {Path(path).name for path in changed & models} == {
        "card.json", "ensemble.json", "model.json",
    }  # fmt: skip
    assert not any(f'"{FIRST}"'.encode() in after[path] for path in models)
    (digest,) = frozen_digests(stores)
    assert damages(stores, digest) == []
    pd.testing.assert_frame_equal(
        stores.metadata.read_studies(),
        table[table["study_uid"] != FIRST].reset_index(drop=True),
    )
    pd.testing.assert_frame_equal(
        read_manifest(stores.root).table,
        manifest[manifest["study_uid"] != FIRST].reset_index(drop=True),
        check_dtype=False,
    )


def keep_training(stores: Stores, name: str, studies: list[str]) -> set[str]:
    """Leave the state of a training under way; return its files."""
    checkpoint = Checkpoint(stores.root, name, "inputs", studies)
    nothing = SimpleNamespace(variables=[])
    model: Any = SimpleNamespace(
        get_weights=list, weights=[], variables=[], optimizer=nothing
    )
    checkpoint.write(model, [], {"history": []})
    entries = stores.root.entries("checkpoints")
    return {e.path for e in entries if e.name.startswith(f"{name}-")}


def test_the_state_of_a_training_that_learns_from_a_withdrawn_study_goes(
    stores: Stores, folder: Path
) -> None:
    own = keep_training(stores, "basic_cnn-fold_0", [FIRST, SECOND])
    other = keep_training(stores, "basic_cnn-fold_1", [SECOND, UIDS[-1]])
    assert (len(own), len(other)) == (2, 2)
    recorded = RecordedRuns(stores, f"sqlite:///{folder}/none/mlflow.db")
    usage = foresee(stores, sources_of(folder), FIRST, recorded).usage
    assert own <= set(usage.holds)
    withdraw(stores, FIRST, REASON, "tester")
    assert {entry.path for entry in stores.root.entries("checkpoints")} == other


@pytest.mark.parametrize(
    ("uid", "report"),
    [(TESTED, "comparison"), (SECOND, "segmentation"), (NEW, "leakage")],
)
def test_a_report_that_names_it_is_gone_as_a_whole(
    stores: Stores, uid: str, report: str
) -> None:
    others = {"comparison", "segmentation", "leakage"} - {report}
    withdraw(stores, uid, REASON, "tester")
    assert stores.root.find(f"reports/{report}")[0] == []
    assert all(stores.root.find(f"reports/{other}")[0] for other in others)


def test_the_record_says_who_when_and_why_and_nothing_of_the_patient(
    stores: Stores, folder: Path
) -> None:
    withdraw(stores, FIRST, f"  {REASON}\n", "tester")
    content = (folder / "store" / "withdrawn" / f"{FIRST}.json").read_bytes()
    note = json.loads(content)
    assert set(note) == {"study_uid", "when", "who", "why"}
    assert (note["study_uid"], note["who"], note["why"]) == (FIRST, "tester", REASON)
    assert note["when"].endswith("+00:00")
    assert not any(text in content for text in PATIENT)


def test_a_withdrawn_study_never_comes_back(stores: Stores, folder: Path) -> None:
    withdraw(stores, FIRST, REASON, "tester")
    sources = sources_of(folder)
    tasks = study_tasks(sources.studies(), stores)
    assert [task.folder.name for task in tasks] == sorted(set(UIDS) - {FIRST})
    list(convert_studies(tasks, InlineExecutor()))
    table, _ = write_studies_table(stores, sources)
    assert FIRST not in set(table["study_uid"])
    assert FIRST not in set(stores.metadata.read_studies()["study_uid"])
    assert FIRST not in set(manifest_of(stores).table["study_uid"])
    assert FIRST not in count_arrivals(stores, sources).waiting
    inputs = read_inputs(sources, stores)
    assert inputs.labels_without_images == 0
    left = own_files(contents(folder / "store"), FIRST)
    assert left == {f"withdrawn/{FIRST}.json"}


@pytest.mark.parametrize("step", [scan_headers, convert_study])
def test_a_step_that_was_asked_all_the_same_keeps_nothing(
    stores: Stores, folder: Path, step: convert.Step
) -> None:
    withdraw(stores, FIRST, REASON, "tester")
    study = Source(folder / "source").study(FIRST)
    assert study is not None
    assert step(StudyTask(study, stores)).action == Outcome.WITHDRAWN
    left = own_files(contents(folder / "store"), FIRST)
    assert left == {f"withdrawn/{FIRST}.json"}


def test_a_folder_with_another_name_does_not_bring_it_back(
    stores: Stores, tmp_path: Path
) -> None:
    withdraw(stores, FIRST, REASON, "tester")
    plain = tmp_path / "plain"
    write_study(plain, FIRST).rename(plain / "case 7")
    (plain / "train_images").rmdir()
    tasks = study_tasks(Source(plain).studies(), stores)
    (outcome,) = convert_studies(tasks, InlineExecutor())
    assert (outcome.study_uid, outcome.action) == (FIRST, Outcome.WITHDRAWN)
    left = own_files(contents(tmp_path / "store"), FIRST)
    assert left == {f"withdrawn/{FIRST}.json"}


def test_a_study_withdrawn_while_it_is_converted_is_not_written(
    stores: Stores, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.root.remove(stores.slices.path(FIRST))
    study = Source(folder / "source").study(FIRST)
    assert study is not None
    encode = convert.encode_slice

    def withdraw_first(*arguments: object) -> bytes:
        withdraw(stores, FIRST, REASON, "tester")
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(convert, "encode_slice", withdraw_first)
    assert convert_slices(StudyTask(study, stores)).action == Outcome.WITHDRAWN
    assert stores.slices.read_note(FIRST) is None


def test_the_table_is_built_anew_by_who_compares_inputs(
    stores: Stores, folder: Path
) -> None:
    sources = sources_of(folder)
    inputs = studies_table_inputs(stores, sources)
    assert stores.metadata.read_studies_inputs() == inputs
    withdraw(stores, FIRST, REASON, "tester")
    assert stores.metadata.read_studies_inputs() == inputs
    assert studies_table_inputs(stores, sources) != inputs


@pytest.mark.parametrize("cut_after", range(17))
def test_a_withdrawal_that_was_cut_off_is_finished_by_repeating_it(
    stores: Stores, folder: Path, cut_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at each of its writes and removals in turn."""
    calls = 0

    def counted(do: object) -> object:
        def call(self: Location, path: str, *rest: object) -> object:
            nonlocal calls
            if calls == cut_after:
                raise SourceError("planted: the process died here")
            calls += 1
            return do(self, path, *rest)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove", counted(Location.remove))
        patch.setattr(Location, "write", counted(Location.write))
        with pytest.raises(SourceError, match="planted"):
            withdraw(stores, FIRST, REASON, "tester")
    if cut_after:  # recorded: it cannot come back even now
        tasks = study_tasks(sources_of(folder).studies(), stores)
        assert FIRST not in {task.folder.name for task in tasks}
    first = stores.withdrawn.read(FIRST)
    again = withdraw(stores, FIRST, "another reason", "another")
    assert first in (None, again)
    left = own_files(contents(folder / "store"), FIRST)
    assert left == {f"withdrawn/{FIRST}.json"}
    assert FIRST not in set(stores.metadata.read_studies()["study_uid"])
    assert FIRST not in set(read_manifest(stores.root).table["study_uid"])
    after = contents(folder)
    withdraw(stores, FIRST, REASON, "tester")
    assert contents(folder) == after


def test_what_a_killed_writer_left_of_the_study_goes_too(
    stores: Stores, folder: Path
) -> None:
    left = folder / "store" / "slices" / f"{FIRST}.parquet.tmp-0123"
    left.write_bytes(b"slices")
    os.utime(left, (0, 0))
    withdraw(stores, FIRST, REASON, "tester")
    assert not left.exists()


def test_the_manifest_of_the_others_is_what_it_would_be_built_as(
    stores: Stores, folder: Path
) -> None:
    withdraw(stores, FIRST, REASON, "tester")
    dropped = pq.read_table(folder / "store" / paths.MANIFEST)
    manifest_of(stores)
    assert pq.read_table(folder / "store" / paths.MANIFEST).equals(dropped)
    assert read_manifest(stores.root).crop == CROPS.to_note()


def test_consequences_name_models_reports_and_the_source(
    stores: Stores, folder: Path
) -> None:
    recorded = RecordedRuns(stores, f"sqlite:///{folder}/none.db")
    found = foresee(stores, sources_of(folder), FIRST, recorded)
    named = {use.place for use in found.to_train_again}
    assert {
        "models/segmentation/fold_0",
        "models/classification/basic_cnn/fold_0",
        "models/classification/basic_cnn/fold_3",
    } < named
    assert len(named) == 4  # and the frozen version
    assert {use.place for use in found.to_make_again} == {
        "reports/comparison", "reports/segmentation", "reports/eda",
        f"predictions/{NEW}.json",
    }  # fmt: skip
    assert found.in_sources == (f"{folder}/source/train_images/{FIRST}",)
    withdraw(stores, FIRST, REASON, "tester")
    again = foresee(stores, sources_of(folder), FIRST, recorded)
    assert again.to_train_again == found.to_train_again
    assert {use.place for use in again.to_make_again} == {
        use.place for use in found.to_make_again
    } - {"reports/eda"}  # it described the study, and is gone with it
    assert again.usage.holds == ()


def test_a_study_that_is_only_in_the_source_can_be_withdrawn(
    stores: Stores, folder: Path
) -> None:
    late = "1.2.3.77"
    write_study(folder / "inbox", late)
    recorded = RecordedRuns(stores, f"sqlite:///{folder}/none.db")
    found = foresee(stores, sources_of(folder), late, recorded)
    assert found.in_sources == (f"{folder}/inbox/train_images/{late}",)
    withdraw(stores, late, REASON, "tester")
    names = {t.folder.name for t in study_tasks(sources_of(folder).studies(), stores)}
    assert late not in names


def test_what_is_no_study_is_refused(stores: Stores, folder: Path) -> None:
    before = contents(folder)
    recorded = RecordedRuns(stores, f"sqlite:///{folder}/none.db")
    with pytest.raises(SettingsError, match=f"Study {UNKNOWN} is neither in"):
        foresee(stores, sources_of(folder), UNKNOWN, recorded)
    with pytest.raises(IdentifierError, match=r"'\.\./x'"):
        foresee(stores, sources_of(folder), "../x", recorded)
    with pytest.raises(IdentifierError, match=r"'\.\./x'"):
        withdraw(stores, "../x", REASON, "tester")
    with pytest.raises(SettingsError, match="needs a reason"):
        withdraw(stores, FIRST, " \n", "tester")
    assert contents(folder) == before


def test_the_command_asks_first(command: CliRunner, folder: Path) -> None:
    before = contents(folder)
    call = ["withdraw", FIRST, "--reason", REASON]
    refused = command.invoke(app, call, input="n\n")
    assert refused.exit_code == 1
    assert contents(folder) == before
    assert f"{folder}/source/train_images/{FIRST}" in refused.output
    assert model_id(0) in refused.output
    done = command.invoke(app, [*call, "--by", "tester", "--yes"])
    assert done.exit_code == 0, done.output
    assert f"by tester: {REASON}" in done.output
    again = command.invoke(app, [*call, "--yes"])
    assert again.exit_code == 0, again.output
    assert "It was withdrawn" in again.output
    assert f"study {FIRST} to remove from the store: none" in again.output
    kept = [path for path in contents(folder) if path.startswith("source/")]
    assert kept == [path for path in before if path.startswith("source/")]
    shown = command.invoke(app, ["lineage", "study", FIRST])
    assert f"by tester: {REASON}" in shown.output


def test_the_next_command_finishes_what_was_cut_off(
    command: CliRunner, folder: Path, stores: Stores
) -> None:
    """Whoever withdrew it was killed right after it was recorded."""
    stores.withdrawn.add(Withdrawal(study_uid=FIRST, reason=REASON, by="tester"))
    assert stores.withdrawn.unfinished() == {FIRST}
    shown = command.invoke(app, ["lineage", "study", SECOND])
    assert shown.exit_code == 0, shown.output
    assert "1 withdrawal was finished." in shown.stderr
    assert stores.withdrawn.unfinished() == set()
    left = own_files(contents(folder / "store"), FIRST)
    assert left == {f"withdrawn/{FIRST}.json"}
    again = command.invoke(app, ["lineage", "study", SECOND])
    assert "finished" not in again.stderr


def test_convert_leaves_it_out_and_says_so(command: CliRunner, folder: Path) -> None:
    command.invoke(app, ["withdraw", FOURTH, "--reason", REASON, "--yes"])
    source, store = str(folder / "source"), str(folder / "store")
    result = command.invoke(app, ["convert", source, store, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "1 withdrawn study is left out." in result.output
    left = own_files(contents(folder / "store"), FOURTH)
    assert left == {f"withdrawn/{FOURTH}.json"}


def test_other_studies_of_the_patient_are_named(stores: Stores, folder: Path) -> None:
    recorded = RecordedRuns(stores, f"sqlite:///{folder}/none.db")
    table = stores.metadata.read_studies()
    record = stores.metadata.read_record(SECOND)
    assert record is not None
    table.loc[table["study_uid"] == TESTED, "patient_key"] = record.patient_key
    stores.metadata.write_studies(table, "inputs", "phantom")
    found = foresee(stores, sources_of(folder), SECOND, recorded)
    assert found.siblings == (TESTED,)
