"""The way back from a prediction and forward from a study, and that both agree."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cards import classifier_card
from support.lineage_store import (
    CLASSIFIERS,
    FIRST,
    FOURTH,
    NEW,
    SECOND,
    SEGMENTATION,
    SEGMENTATION_ID,
    TESTED,
    THIRD,
    UIDS,
    UNKNOWN,
    crop_content,
    freeze_champion,
    model_id,
    write_classifier,
    write_lineage_store,
    write_prediction,
    write_vertebrae,
)
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import CsfdError, IdentifierError, SettingsError, StoreError
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.learning.splits import Split
from csfd_core.lineage.back import (
    CHANGED,
    GONE,
    SAME,
    WITHDRAWN,
    find_prediction,
    trace_prediction,
)
from csfd_core.lineage.forward import (
    CLASSIFIER,
    DESCRIBED,
    NAMED,
    PREDICTED,
    PREDICTION,
    REPORT,
    THROUGH,
    VERSION,
    trace_usage,
)
from csfd_core.lineage.forward import SEGMENTATION as SEGMENTING
from csfd_core.lineage.mlflow_records import RecordedRuns
from csfd_core.runtime.tracking import RunIdentity, open_client, tracked_run
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lineage")
    write_lineage_store(folder)
    return folder


@pytest.fixture
def stores(written: Path, tmp_path: Path) -> Stores:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return Stores(Location(tmp_path / "store"))


@pytest.fixture
def recorded(stores: Stores, tmp_path: Path) -> RecordedRuns:
    """An MLflow that was never used."""
    return RecordedRuns(stores, f"sqlite:///{tmp_path}/none/mlflow.db")


def test_the_way_back_names_models_studies_and_conversion(
    stores: Stores, recorded: RecordedRuns
) -> None:
    write_prediction(stores, NEW)
    found = trace_prediction(stores, NEW, recorded)
    assert [member.model_id for member in found.members] == [model_id(0), model_id(3)]
    for member, (training, validation, _) in zip(
        found.members, CLASSIFIERS.values(), strict=True
    ):
        seen = {study.study_uid: study.content_hash for study in member.training}
        assert seen == {uid: crop_content(uid) for uid in training}
        assert [study.study_uid for study in member.validation] == validation
        assert {s.standing for s in (*member.training, *member.validation)} == {SAME}
        assert member.lock_sha256 == "e" * 64
        assert member.code_version == "2"
        assert member.manifest == "m" * 64
        assert member.settings["epochs"] > 0
        assert member.run.run_id == f"run-{member.fold}"
    assert found.segmentation is not None
    learnt = [study.study_uid for study in found.segmentation.training]
    assert learnt == SEGMENTATION[0]
    assert {s.standing for s in found.segmentation.training} == {SAME}
    assert found.study.conversion["jpeg_quality"] == 96
    assert found.study.conversion["window"] == {"center_hu": 400.0, "width_hu": 1800.0}
    record = stores.metadata.read_record(NEW)
    assert record is not None
    assert found.study.seen == found.study.content_hash == record.content_hash
    assert found.study.standing == SAME


def test_way_back_and_way_forward_agree(stores: Stores, recorded: RecordedRuns) -> None:
    for uid in (NEW, TESTED):
        write_prediction(stores, uid)
    backward = set()
    for uid in (NEW, TESTED):
        found = trace_prediction(stores, uid, recorded)
        for member in found.members:
            groups = {
                Split.TRAINING: member.training,
                Split.VALIDATION: member.validation,
            }
            backward |= {
                (study.study_uid, f"predictions/{uid}.json", member.place, role)
                for role, studies in groups.items()
                for study in studies
            }
    forward = set()
    for study_uid in UIDS:
        usage = trace_usage(stores, study_uid, recorded)
        for model in usage.of_kind(CLASSIFIER):
            forward |= {
                (study_uid, one.place, model.place, role)
                for one in usage.of_kind(PREDICTION)
                for role in model.how
                if role in one.how
            }
    assert forward == backward
    assert len(forward) == 2 * sum(len(t) + len(v) for t, v, _ in CLASSIFIERS.values())


def test_the_way_forward_says_how_each_thing_used_a_study(
    stores: Stores, recorded: RecordedRuns
) -> None:
    frozen = freeze_champion(stores)
    write_prediction(stores, NEW)
    write_prediction(stores, SECOND)

    def uses(uid: str) -> dict[tuple[str, str], tuple[str, ...]]:
        found = trace_usage(stores, uid, recorded).uses
        return {(use.kind, use.place): use.how for use in found}

    champion = (VERSION, f"models/champion/{frozen.digest}")
    comparison, eda = (REPORT, "reports/comparison"), (REPORT, "reports/eda")
    segmenting = (SEGMENTING, "models/segmentation/fold_0")
    own = uses(SECOND)
    assert own[segmenting] == ("validation",)
    assert own[CLASSIFIER, "models/classification/basic_cnn/fold_0"] == ("training",)
    assert own[champion] == ("training",)
    assert own[comparison] == (THROUGH,)
    assert own[REPORT, "reports/segmentation"] == (NAMED, THROUGH)
    assert own[PREDICTION, f"predictions/{SECOND}.json"] == (PREDICTED, "training")
    assert own[PREDICTION, f"predictions/{NEW}.json"] == ("training",)
    assert uses(FIRST)[champion] == ("training", "validation")
    tested = uses(TESTED)
    assert tested[champion] == ("test",)
    assert tested[comparison] == (NAMED, THROUGH)
    assert (PREDICTION, f"predictions/{NEW}.json") not in tested
    # 1.2.3.1 begins 1.2.3.11, which the leakage audit has used.
    assert (REPORT, "reports/leakage") not in uses(FIRST)
    assert uses(NEW) == {
        eda: (DESCRIBED,),
        (REPORT, "reports/leakage"): (NAMED,),
        (PREDICTION, f"predictions/{NEW}.json"): (PREDICTED,),
    }


def test_what_the_store_holds_of_a_study_is_all_that_has_its_name(
    stores: Stores, recorded: RecordedRuns
) -> None:
    write_prediction(stores, FIRST)
    root = Path(stores.root.url)
    named = {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.name.startswith(
            (f"{FIRST}.parquet", f"{FIRST}.json", f"{FIRST}.jpg", f"{FIRST}-")
        )
    }
    holds = trace_usage(stores, FIRST, recorded).holds
    assert set(holds) == named
    assert len(named) == 7  # no given mask
    assert holds[-1] == stores.metadata.path(FIRST)


def test_content_that_has_changed_is_said(
    stores: Stores, recorded: RecordedRuns, tmp_path: Path
) -> None:
    write_prediction(stores, NEW)
    write_vertebrae(stores, SECOND, "cut anew")
    stores.crops.remove(THIRD)
    stores.withdrawn.add(Withdrawal(study_uid=FIRST, reason="asked", by="tester"))
    slices = tmp_path / "source" / "train_images"
    for uid in (NEW, FOURTH):
        (path := slices / uid / "1.dcm").write_bytes(path.read_bytes() + b"\0\0")
    for study in Source(tmp_path / "source").studies():
        convert_study(StudyTask(study, stores))
    found = trace_prediction(stores, NEW, recorded)
    standing = {study.study_uid: study.standing for study in found.members[0].training}
    assert standing == {FIRST: WITHDRAWN, SECOND: CHANGED}
    assert [study.standing for study in found.members[0].validation] == [GONE]
    assert found.segmentation is not None
    masked = {s.study_uid: s.standing for s in found.segmentation.training}
    assert masked == {FIRST: WITHDRAWN, FOURTH: CHANGED}
    assert found.study.standing == CHANGED


def test_a_version_is_read_from_its_frozen_files(
    stores: Stores, recorded: RecordedRuns
) -> None:
    frozen = freeze_champion(stores)
    write_classifier(stores, 0, [FOURTH], [THIRD], [])  # trained again since
    write_prediction(stores, NEW, version=1)
    found = trace_prediction(stores, NEW, recorded)
    assert found.digest == frozen.digest
    trained = [study.study_uid for study in found.members[0].training]
    assert trained == CLASSIFIERS[0][0]


def test_a_model_that_is_gone_is_said(stores: Stores, recorded: RecordedRuns) -> None:
    note = write_prediction(stores, NEW)
    note["model_ids"] = ["basic_cnn-fold0-older"]
    stores.root.write(f"predictions/{NEW}.json", json.dumps(note).encode())
    (member,) = trace_prediction(stores, NEW, recorded).members
    assert (member.place, member.training) == ("", ())


def test_mlflow_tells_the_run_the_model_and_the_version(
    stores: Stores, tmp_path: Path, start_mlflow: Callable[[Path], str]
) -> None:
    uri = start_mlflow(tmp_path)
    identity = RunIdentity(asset="basic_cnn", code_version="7", partition="fold_0")
    with tracked_run(uri, "classification", identity) as run:
        run.log_params({"inputs": "inputs-0"})
        experiment = open_client(uri).get_run(run.run_id).info.experiment_id
        model = open_client(uri).create_logged_model(
            experiment, name="basic_cnn", source_run_id=run.run_id
        )
    recorded = RecordedRuns(stores, uri)
    found = recorded.training_run(classifier_card(inputs="inputs-0"))
    assert (found.run_id, found.model_id) == (run.run_id, model.model_id)
    assert found.code_version == "7"
    assert recorded.training_run(classifier_card(inputs="other")).run_id is None
    lost = classifier_card(inputs="inputs-0", mlflow_run_id="lost")
    told = recorded.training_run(lost)
    assert (told.run_id, told.model_id) == ("lost", None)
    from csfd_core.registry.champion import ChampionRegistry
    from csfd_core.registry.history import Action, Alias, Change

    frozen = freeze_champion(stores)
    registry = ChampionRegistry(stores, uri)
    version = registry.register(frozen, run.run_id)
    change = Change(
        alias=Alias.CHAMPION,
        after=1,
        action=Action.PROMOTE,
        kind="by hand",
        by="t",
        reason="r",
    )
    registry.move(Alias.CHAMPION, version, change)
    write_prediction(stores, NEW, version=version.number)
    lineage = trace_prediction(stores, NEW, RecordedRuns(stores, uri))
    assert (lineage.aliases, lineage.digest) == ((Alias.CHAMPION,), frozen.digest)
    usage = trace_usage(stores, FIRST, RecordedRuns(stores, uri))
    (use,) = usage.of_kind(VERSION)
    assert use.name.startswith("version 1 champion: ")


def test_looking_makes_no_database(
    stores: Stores, recorded: RecordedRuns, tmp_path: Path
) -> None:
    assert recorded.training_run(classifier_card(inputs="x")).run_id is None
    assert "no MLflow database" in recorded.problem
    assert not (tmp_path / "none").exists()


def test_a_prediction_is_found_by_study_or_path(stores: Stores, tmp_path: Path) -> None:
    note = write_prediction(stores, NEW)
    path = tmp_path / "elsewhere.json"
    path.write_text(json.dumps(note))
    assert find_prediction(stores, str(path))[1] == find_prediction(stores, NEW)[1]
    with pytest.raises(SettingsError, match=f"no prediction of study {FIRST}"):
        find_prediction(stores, FIRST)
    with pytest.raises(IdentifierError, match="'../x'"):
        find_prediction(stores, "../x")
    path.write_text('{"study_uid": "../x", "model_ids": []}')
    with pytest.raises((StoreError, IdentifierError), match="UID|no prediction"):
        find_prediction(stores, str(path))
    path.write_text("[]")
    with pytest.raises(StoreError, match="is no prediction of csfd"):
        find_prediction(stores, str(path))


@pytest.fixture
def command(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CliRunner:
    monkeypatch.setenv("CSFD_STORE", str(stores.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    return CliRunner()


def test_the_tree_counts_and_the_json_lists(
    command: CliRunner, stores: Stores, tmp_path: Path
) -> None:
    write_prediction(stores, NEW)
    write_vertebrae(stores, SECOND, "cut anew")
    out = tmp_path / "lineage.json"
    result = command.invoke(app, ["lineage", "prediction", NEW, "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "training studies: 2 (1 as the model saw it, 1 changed since)" in (
        result.output
    )
    assert "MLflow run: run-0" in result.output
    assert "MLflow model: not recorded" in result.output
    assert f"lock file {'e' * 12}" in result.output
    found = json.loads(out.read_text())
    training = found["members"][0]["training"]
    assert [study["study_uid"] for study in training] == CLASSIFIERS[0][0]
    assert training[0]["content_hash"] == crop_content(FIRST)
    forward = command.invoke(app, ["lineage", "study", FIRST])
    assert forward.exit_code == 0, forward.output
    assert f"{model_id(0)}): training" in forward.output
    assert SEGMENTATION_ID in forward.output


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["study", UNKNOWN], SettingsError, "knows no study 1.2.3.99"),
        (["study", "../x"], IdentifierError, "Not a valid DICOM UID: '../x'"),
        (["prediction", UNKNOWN], SettingsError, "no prediction of study 1.2.3.99"),
        (["prediction", "../x"], IdentifierError, "'../x'"),
    ],
)
def test_what_is_unknown_is_refused(
    command: CliRunner, arguments: list[str], kind: type[CsfdError], message: str
) -> None:
    result = command.invoke(app, ["lineage", *arguments])
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)


def test_a_failure_is_one_line_and_exit_1(stores: Stores) -> None:
    call = [sys.executable, "-m", "csfd_core.cli.main", "lineage", "study", UNKNOWN]
    found = subprocess.run(
        call,
        capture_output=True,
        text=True,
        check=False,
        env={"CSFD_STORE": str(stores.root), "PYTHONPATH": ":".join(sys.path)},
    )
    assert found.returncode == 1
    assert len(found.stderr.strip().splitlines()) == 1
    assert UNKNOWN in found.stderr
