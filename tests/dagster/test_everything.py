"""The whole graph on a tiny phantom: all reports, then nothing, then what follows."""

import csv
import io
import json
import os
import re
from pathlib import Path

import dagster as dg
import pydicom
import pytest
from support.coarse import coarse_phantoms
from support.search import naming
from typer.testing import CliRunner

from csfd_core.classification import classifiers as registry
from csfd_core.cli.main import app
from csfd_core.errors import CsfdError, StoreError
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES
from csfd_dagster import commands, engine
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource

# Chosen so that the locked test set, fold 0 and the other folds have fractured
# vertebrae and whole studies each.
PHANTOM = PhantomConfig(
    studies=9,
    seed=19,
    version=1,
    masked_share=1.0,
    boxed_share=1.0,
    compressed_share=0.0,
)
FAST = {
    "segmentation": SegmentationResource(epochs=1, steps_per_epoch=1),
    "classification": ClassificationResource(
        epochs=1, steps_per_epoch=2, weights="none"
    ),
}


def read_table(store: Path, name: str) -> list[dict[str, str]]:
    content = (store / "reports" / name).read_text()
    return list(csv.DictReader(io.StringIO(content)))


def runs_of(said: str) -> list[str]:
    """The lines that name a run of Dagster."""
    return [line for line in said.splitlines() if "done (run " in line]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("cheap")
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras and NumPy 2
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
def test_everything_is_made_once_and_again_where_a_label_changed(
    places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantom_source(places / "source", PHANTOM, executor=InlineExecutor())
    of_patients = plant_texts(places / "source")
    commands.run_graph(FAST)
    said = capsys.readouterr().out
    assert "9 studies, 9 new or changed" in said
    store = places / "store"
    for report in ("eda", "segmentation", "comparison", "leakage", "drift"):
        assert (store / "reports" / report / "index.html").is_file()
    models = read_table(store, "comparison/models.csv")
    assert {row["model"] for row in models} == set(registry.CLASSIFIERS)
    assert all(float(row["competition_log_loss"]) > 0 for row in models)
    predicted = sorted(path.stem for path in (store / "predictions").iterdir())
    rows = read_table(store, "comparison/predictions.csv")
    locked = sorted({row["study_uid"] for row in rows})
    assert len(locked) == 2
    assert set(locked) < set(predicted)
    assert len(predicted) == PHANTOM.studies

    commands.run_graph(FAST)
    said = capsys.readouterr().out
    assert "9 studies, 0 new or changed" in said
    assert runs_of(said) == []

    before = written(store)
    touch_all(places / "source")
    commands.run_graph(FAST)
    said = capsys.readouterr().out
    assert "9 studies, 9 new or changed" in said
    assert len(runs_of(said)) == 1  # which finds everything unchanged
    after = written(store)
    listings = {path for path in after if path.startswith("metadata/listings/")}
    assert {path: after[path] for path in set(after) - listings} == before

    uid = change_label(places / "source" / "train.csv", locked)
    before = written(store)
    commands.run_graph(FAST)
    said = capsys.readouterr().out
    assert "9 studies, 1 new or changed" in said
    changed = {
        path for path, stamp in written(store).items() if before.get(path) != stamp
    }
    assert f"crops/{uid}.parquet" in changed
    assert "metadata/manifest.parquet" in changed
    assert "models/classification/basic_cnn/fold_0/card.json" in changed
    folders = {path.split("/")[0] for path in changed}
    assert not folders & {"slices", "masks", "predicted_masks"}
    assert [path for path in changed if path.startswith("crops/")] == [
        f"crops/{uid}.parquet"
    ]
    assert not any(path.startswith("models/segmentation") for path in changed)
    again = {path for path in changed if path.startswith("predictions/")}
    assert again == {f"predictions/{one}.json" for one in (uid, *locked)}

    predict_one(places, locked[0])
    assert naming(places, of_patients, but=["source"]) == {}
    withdraw_one(places, locked[0])
    commands.run_graph(FAST)
    said = capsys.readouterr().out
    assert "8 studies, 0 new or changed" in said
    assert named(places, locked[0]) == {f"store/withdrawn/{locked[0]}.{end}"
        for end in ("done", "json")
    }  # fmt: skip


def plant_texts(source: Path) -> list[bytes]:
    """Give every patient a name and a place; return what is to be found nowhere.

    The PatientID of a phantom is its study, as in the data of the competition.
    """
    for path in (source / "train_images").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientName = dataset.AccessionNumber = "DOE^JANE"
        dataset.InstitutionName = dataset.StudyDescription = "St. Planted"
        dataset.save_as(path)
    return [b"DOE^JANE", b"St. Planted"]


def withdraw_one(places: Path, uid: str) -> None:
    """Nothing but the record of it names the study or shows it afterwards."""
    (places / "out" / f"{uid}.json").unlink()
    picture = places / "store" / "pictures" / "slice_store" / f"{uid}.jpg"
    shown = [picture.read_bytes()]
    assert len(named(places, uid)) > 20
    call = ["withdraw", uid, "--reason", "a test", "--yes"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert named(places, uid) == {
        f"store/withdrawn/{uid}.{end}" for end in ("done", "json")
    }
    assert naming(places, shown) == {}


def named(places: Path, uid: str) -> set[str]:
    return set(naming(places, [uid.encode()], but=["source"]))


def touch_all(source: Path) -> None:
    for folder in ("train_images", "segmentations"):
        for path in (source / folder).rglob("*.*"):
            os.utime(path)


def change_label(table: Path, locked: list[str]) -> str:
    """Break C4 of a whole study that trains; return the study."""
    lines = table.read_text().splitlines()
    whole = "," + ",".join(["0"] * len(LABEL_COLUMNS))
    at = next(
        index
        for index, line in enumerate(lines)
        if line.endswith(whole) and line.split(",")[0] not in locked
    )
    uid = lines[at].split(",")[0]
    values = ["1", *("1" if level == "C4" else "0" for level in LEVEL_NAMES)]
    lines[at] = ",".join([uid, *values])
    table.write_text("\n".join(lines) + "\n")
    return uid


def written(store: Path) -> dict[str, int]:
    return {
        str(path.relative_to(store)): path.stat().st_mtime_ns
        for path in store.rglob("*")
        if path.is_file()
    }


def predict_one(places: Path, uid: str) -> None:
    """csfd predict on a study of the source gives what the store holds of it."""
    place = places / "source" / "train_images" / uid
    out = places / "out"
    result = CliRunner().invoke(app, ["predict", str(place), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "1 study predicted by" in result.output
    assert "Not for clinical use" in " ".join(result.output.split())
    own = json.loads((out / f"{uid}.json").read_text())
    kept = json.loads((places / "store" / "predictions" / f"{uid}.json").read_text())
    assert own["model"] == kept["model"]
    # The store's slices went through JPEG; those read here did not.
    assert own["probabilities"] == pytest.approx(kept["probabilities"], abs=0.1)


@pytest.mark.slow
def test_a_run_that_fails_says_why(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse_phantoms(monkeypatch)
    few = PhantomConfig(studies=1, seed=19, compressed_share=0.0)
    write_phantom_source(places / "source", few, executor=InlineExecutor())

    def fail(*_: object) -> None:
        raise StoreError("There is nothing to learn from. Add labelled studies.")

    monkeypatch.setattr("csfd_dagster.assets.segmentation.run_folds", fail)
    why = "There is nothing to learn from. Add labelled studies."
    with pytest.raises(CsfdError, match=f"^Run .*{re.escape(why)}"):
        commands.run_graph(FAST)


def test_resources_that_are_given_are_those_that_run(places: Path) -> None:
    project = engine.open_project(FAST)
    assert project.classification.settings().epochs == 1
    assert str(project.stores.root) == str(Location(places / "store"))
    assert isinstance(project.stores, Stores)
    assert isinstance(project.defs, dg.Definitions)
