"""csfd predict: from DICOM files to one JSON of probabilities per study."""

import json
import os
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest.mock import ANY

import numpy as np
import pytest
from pydicom.dataset import Dataset
from support.cards import segmentation_card
from support.dicom_studies import STUDY_UID, add_series, neck_mask, write_study
from support.drawn_crops import (
    manifest_of,
    uid_of,
    write_trained_store,
)
from typer.testing import CliRunner

from csfd_core.classification.assessment import NOTHING_FOUND
from csfd_core.classification.ensemble import Ensemble
from csfd_core.cli.main import app
from csfd_core.errors import SettingsError, SourceError
from csfd_core.evaluation.folds import is_test
from csfd_core.inference.predict import (
    PredictedStudy,
    StoredPredictor,
    predict_input,
    predict_stored,
    prediction_is_current,
    prediction_path,
    read_prediction,
)
from csfd_core.inference.reading import Reading, read_scans, reading_ahead
from csfd_core.inference.segment import segment_input
from csfd_core.ingest.outcomes import Outcome
from csfd_core.registry.serving import open_ensemble
from csfd_core.segmentation.bundle import ModelBundle
from csfd_core.segmentation.postprocess import LevelFinding, Review
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES

pytestmark = pytest.mark.usefixtures("bright")
OTHER_UID = "1.2.826.0.1.3680043.12"
NAME = "basic_cnn"


class KnownMask:
    """In place of the segmentation: the mask of the builder, with C7 cut short."""

    bundle = ModelBundle(card=segmentation_card(model_id="known"), weights=[])
    step_mm = 1.5

    def predict(self, volume: object) -> Prediction:
        levels = tuple(
            LevelFinding(
                level=name,
                volume_ml=1.0 if name == "C7" else 9.0,
                confidence=0.9,
                centre_zyx_mm=(1.0, 2.0, 3.0),
                is_cut=name == "C7",
            )
            for name in LEVEL_NAMES[1:]
        )
        mask = neck_mask()
        mask[mask == 1] = 0  # C1 was not found
        review = Review(levels=levels, flags=("C1 is missing.",))
        return Prediction(mask=mask, review=review, seconds={"locate": 0.1})


PREDICTOR = cast(VertebraPredictor, KnownMask())


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_trained_store(tmp_path_factory.mktemp("predict"), NAME, folds=(0, 3))


@pytest.fixture
def ensemble(stores: Stores) -> Ensemble:
    """Of drawn discs; without their reference, as the necks here are unlike them."""
    found = open_ensemble(stores, NAME)
    cards = [card.model_copy(update={"reference": None}) for card in found.cards]
    return replace(found, cards=cards)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two studies; the second lacks a slice."""
    folder = tmp_path / "source"
    write_study(folder)
    (write_study(folder, OTHER_UID) / "9.dcm").unlink()
    return folder


def predict(place: Path, out: Path, ensemble: Ensemble) -> dict[str, PredictedStudy]:
    found = predict_input(str(place), out, PREDICTOR, ensemble, print, Reading())
    return {study.name: study for study in found}


def test_a_study_becomes_the_json_of_the_contract(
    source: Path, tmp_path: Path, ensemble: Ensemble
) -> None:
    found = predict(source, tmp_path / "out", ensemble)
    note = json.loads((tmp_path / "out" / f"{STUDY_UID}.json").read_text())
    assert note["study_uid"] == STUDY_UID
    assert note["model"] == NAME
    assert note["model_ids"] == ensemble.model_ids
    assert list(note["probabilities"]) == list(LABEL_COLUMNS)
    missing = ["C1", "C7"]  # not found, and barely in the scan
    assert [n for n, p in note["probabilities"].items() if p is None] == missing
    assert all(0 <= p <= 1 for p in note["probabilities"].values() if p is not None)
    assert note["outcome"] == "predicted"
    assert note["not_assessed"] == missing
    assert note["overall_rests_on"] == list(LEVEL_NAMES[1:6])
    assert not set(note["suspicious"]) & set(missing)
    assert note["segmentation"]["flags"] == ["C1 is missing."]
    assert "C1 and C7 were not assessed" in note["needs_eyes"][0]
    assert note["needs_eyes"][1:] == ["C1 is missing."]
    assert note["trained_on"] == "phantom"
    assert "synthetic phantom" in note["notice"]
    study = found[STUDY_UID]
    assert study.action == Outcome.PREDICTED
    for name, told in note["probabilities"].items():
        assert study.probabilities[name] == pytest.approx(told, abs=1e-6)
    assert list(study.flags) == note["needs_eyes"]
    text = json.dumps(note)
    assert "Sensitive" not in text
    assert "19700101" not in text


def test_a_bad_study_is_refused_and_the_others_go_on(
    source: Path, tmp_path: Path, ensemble: Ensemble
) -> None:
    found = predict(source, tmp_path / "out", ensemble)
    assert {uid: study.action for uid, study in found.items()} == {
        STUDY_UID: Outcome.PREDICTED,
        OTHER_UID: Outcome.REFUSED,
    }
    assert "missing" in found[OTHER_UID].message
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"{STUDY_UID}.json"]


class EmptyMask(KnownMask):
    """A segmentation that finds no vertebra, as in a scan of the head."""

    def predict(self, volume: object) -> Prediction:
        review = Review(levels=(), flags=("No cervical vertebra was found.",))
        mask = np.zeros_like(neck_mask())
        return Prediction(mask=mask, review=review, seconds={"locate": 0.1})


def test_a_scan_without_a_vertebra_is_a_result_without_numbers(
    tmp_path: Path, ensemble: Ensemble
) -> None:
    write_study(tmp_path / "source")
    head = cast(VertebraPredictor, EmptyMask())
    (study,) = predict_input(
        str(tmp_path / "source"), tmp_path / "out", head, ensemble, print, Reading()
    )
    assert study.action == Outcome.NOT_ASSESSED
    assert study.flags == (NOTHING_FOUND,)
    note = json.loads((tmp_path / "out" / f"{STUDY_UID}.json").read_text())
    assert note["probabilities"] == dict.fromkeys(LABEL_COLUMNS)
    assert note["outcome"] == "not assessed"
    assert note["needs_eyes"] == [NOTHING_FOUND]
    assert (note["suspicious"], note["overall_rests_on"]) == ([], [])
    assert note["not_assessed"] == list(LEVEL_NAMES)


@pytest.mark.parametrize("is_head", [True, False])
def test_csfd_predict_tells_of_a_scan_without_a_vertebra_and_ends_well(
    is_head: bool,
    stores: Stores,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mask = EmptyMask() if is_head else KnownMask()
    monkeypatch.setenv("CSFD_STORE", str(stores.root))
    monkeypatch.setattr("csfd_core.segmentation.model_store.open_model", no_network)
    monkeypatch.setattr(
        "csfd_core.segmentation.predict.VertebraPredictor", lambda bundle: mask
    )
    monkeypatch.setattr(
        "csfd_core.inference.reading.reading_ahead",
        lambda every_volume: nullcontext(Reading()),
    )
    call = ["predict", str(source), "--out", str(tmp_path / "out"), "--model", NAME]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0
    lines = " ".join(result.output.split())
    if is_head:
        assert f"look at it: {NOTHING_FOUND}" in lines
        assert "0 studies predicted by basic_cnn" in lines
        assert "1 without a vertebra, 1 left out" in lines
        assert " no level " in lines
    else:
        assert "look at it: C1 and C7 were not assessed" in lines
        assert "1 study predicted by basic_cnn" in lines
        assert "without a vertebra" not in lines
        assert " C2 to C6 " in lines
        assert "– not assessed: not found, or hardly in the scan" in lines


def no_network(name: str, root: object) -> None:
    """In place of a segmentation that is opened."""


class FailsOnce(KnownMask):
    """A segmentation that one study is too much for."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, volume: object) -> Prediction:
        self.calls += 1
        if self.calls == 1:
            raise MemoryError("planted")
        return super().predict(volume)


def test_a_study_that_the_networks_fail_on_stops_no_other(
    tmp_path: Path, ensemble: Ensemble
) -> None:
    for uid in (STUDY_UID, OTHER_UID):
        write_study(tmp_path / "source", uid)
    out, fails = tmp_path / "out", cast(VertebraPredictor, FailsOnce())
    source = str(tmp_path / "source")
    found = list(predict_input(source, out, fails, ensemble, print, Reading()))
    assert [study.action for study in found] == [Outcome.FAILED, Outcome.PREDICTED]
    assert found[0].name == STUDY_UID
    assert found[0].message.startswith("It cannot be judged")
    assert [file.name for file in out.iterdir()] == [f"{OTHER_UID}.json"]
    again = cast(VertebraPredictor, FailsOnce())
    segmented = list(segment_input(source, tmp_path / "masks", again, print, Reading()))
    assert [one.action for one in segmented] == [Outcome.FAILED, Outcome.SEGMENTED]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SettingsError, match="Cannot write"):
        list(
            predict_input(
                source, tmp_path / "file", PREDICTOR, ensemble, print, Reading()
            )
        )


def test_every_volume_is_judged_where_that_is_asked_for(
    tmp_path: Path, ensemble: Ensemble
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    add_series(write_study(source), "9", edit=to_bone_kernel)
    reading = Reading(every_volume=True, threads=2)
    found = list(predict_input(str(source), out, PREDICTOR, ensemble, print, reading))
    assert [study.name for study in found] == [STUDY_UID, f"{STUDY_UID}-2"]
    notes = [json.loads((out / f"{study.name}.json").read_text()) for study in found]
    assert [note["volume"] for note in notes] == [1, 2]
    assert {note["study_uid"] for note in notes} == {STUDY_UID}
    assert notes[0]["content_hash"] != notes[1]["content_hash"]
    assert list(predict(source, tmp_path / "alone", ensemble)) == [STUDY_UID]


def to_bone_kernel(dataset: Dataset) -> None:
    dataset.ConvolutionKernel = "B70s"


def test_another_process_reads_the_same(source: Path) -> None:
    alone = list(read_scans(str(source), print, Reading()))
    with reading_ahead() as reading:
        ahead = list(read_scans(str(source), print, reading))
    for one, other in zip(ahead, alone, strict=True):
        assert one.scan is not None
        assert other.scan is not None
        assert one.scan.headers == other.scan.headers
        assert one.scan.findings == other.scan.findings
    assert [one.name for one in ahead] == [STUDY_UID, OTHER_UID]
    assert ahead[0].grey is not None
    assert np.array_equal(ahead[0].grey, np.asarray(alone[0].grey))
    assert ahead[1].grey is None


def test_a_zip_file_gives_the_same(
    source: Path, tmp_path: Path, ensemble: Ensemble
) -> None:
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in (source / "train_images" / STUDY_UID).iterdir():
            archive.write(file, file.name)
    zipped = predict(tmp_path / "study.zip", tmp_path / "a", ensemble)[STUDY_UID]
    plain = predict(source, tmp_path / "b", ensemble)[STUDY_UID]
    assert zipped.probabilities == plain.probabilities


def test_an_empty_folder_is_told(tmp_path: Path, ensemble: Ensemble) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="There are no files in"):
        predict(tmp_path / "empty", tmp_path / "out", ensemble)


def test_a_stored_study_is_predicted_from_its_crops(stores: Stores) -> None:
    manifest = manifest_of(stores)
    ensemble = open_ensemble(stores, NAME)
    locked = next(uid for uid in map(uid_of, range(1, 40)) if is_test(uid))
    note = predict_stored(stores, locked, ensemble)
    kept = json.loads(stores.root.read(f"predictions/{locked}.json"))
    assert kept == json.loads(json.dumps(note))
    assert note["not_assessed"] == []
    assert note["needs_eyes"] == []
    assert note["overall_rests_on"] == list(LEVEL_NAMES)
    rows = manifest.usable[manifest.usable["study_uid"] == locked]
    for row in rows.itertuples():
        is_high = note["probabilities"][row.level] > ensemble.thresholds["vertebra"]
        assert is_high == bool(row.label)
    shown = stores.crops.read_note(locked)
    assert shown is not None
    stores.crops.write(locked, [], shown)
    nothing = predict_stored(stores, locked, ensemble)
    assert nothing["not_assessed"] == list(LEVEL_NAMES)
    assert nothing["probabilities"] == dict.fromkeys(LABEL_COLUMNS)


def test_a_prediction_of_before_is_told_as_today_and_made_again(
    stores: Stores,
) -> None:
    ensemble = open_ensemble(stores, NAME)
    study_uid = next(uid for uid in map(uid_of, range(1, 40)) if not is_test(uid))
    today = predict_stored(stores, study_uid, ensemble)
    assert prediction_is_current(stores, study_uid, ensemble)
    # As 0.2 wrote it: what was not seen had its prevalence for a number.
    new = ("outcome", "not_assessed", "overall_rests_on", "needs_eyes")
    before = {name: value for name, value in today.items() if name not in new}
    before["probabilities"] = {**today["probabilities"], "C1": 0.9, "C7": 0.2}
    before["suspicious"] = ["C1"]
    before["not_seen"] = ["C1", "C7"]
    before["made_from"] = {
        k: today["made_from"][k] for k in ("crops", "models", "version")
    }
    path = prediction_path(study_uid)
    stores.root.write(path, json.dumps(before).encode())
    told = read_prediction(stores, study_uid)
    assert told is not None
    assert "not_seen" not in told
    assert told["not_assessed"] == ["C1", "C7"]
    assert told["probabilities"]["C1"] is told["probabilities"]["C7"] is None
    assert told["probabilities"]["C2"] == today["probabilities"]["C2"]
    assert "C1" not in told["suspicious"]
    assert told["model"] == NAME
    made = StoredPredictor(stores, lambda: ensemble).make(study_uid)
    assert made.action == Outcome.WRITTEN
    assert json.loads(stores.root.read(path)) == {**today, "seconds": ANY}


def run_csfd(*arguments: object, store: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-W", "ignore", "-m", "csfd_core.cli.main", "predict"]
    return subprocess.run(
        [*call, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CSFD_STORE": str(store)},
    )


@pytest.mark.slow
def test_without_a_trained_classifier_csfd_says_so_in_one_line(
    source: Path, tmp_path: Path
) -> None:
    for alias in ("best", "resnet50"):
        result = run_csfd(
            source, "--out", tmp_path / "o", "--model", alias, store=tmp_path / "none"
        )
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert f"has no trained classifier '{alias}'. It has: none." in result.stderr
        assert "csfd run" in result.stderr
    assert not (tmp_path / "o").exists()


def test_wrong_usage_of_csfd_predict_is_status_2(tmp_path: Path) -> None:
    assert run_csfd(store=tmp_path).returncode == 2
