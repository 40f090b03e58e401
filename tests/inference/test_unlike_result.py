"""A study that is unlike the training says so first: JSON, terminal, page, store."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.dicom_studies import STUDY_UID
from support.drawn_crops import (
    manifest_of,
    put_bright_classifier,
    uid_of,
    write_store,
)
from support.measured import with_limits
from support.spots import LEVEL, known_mask, spot_ensemble, write_spot_study

from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.ensemble import Ensemble
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.unlike import NOT_MEASURED, Unlike
from csfd_core.cli.console import print_predictions
from csfd_core.inference.predict import (
    PredictedStudy,
    predict_input,
    predict_stored,
    prediction_path,
    read_prediction,
)
from csfd_core.inference.reading import Reading
from csfd_core.registry.serving import open_ensemble
from csfd_core.reports.prediction.page import write_prediction_page

FAR, NEAR = 1e-3, 1e9  # limits that every study is above, and none
UNLIKE = "This study is unlike what the classifier has learnt from"
HEADLINE = "Needs eyes: this study is unlike what the classifier has learnt from"


def predict(folder: Path, ensemble: Ensemble) -> tuple[PredictedStudy, Any, str]:
    """Predict a study with a spot in C4; return its result, JSON and page."""
    write_spot_study(folder / "source")
    (study,) = predict_input(
        str(folder / "source"),
        folder / "out",
        known_mask(),
        ensemble,
        print,
        Reading(),
        beside=[write_prediction_page],
    )
    note = json.loads((folder / "out" / f"{STUDY_UID}.json").read_text())
    return study, note, (folder / "out" / f"{STUDY_UID}.html").read_text()


def test_a_study_above_the_limit_says_so_before_anything_else(tmp_path: Path) -> None:
    ensemble = with_limits(spot_ensemble(0.0, 0.5), (FAR, FAR))
    study, note, page = predict(tmp_path, ensemble)
    assert note["format"] == 3
    assert list(note)[:3] == ["study_uid", "verdict", "unlike"]
    assert note["verdict"] == "needs eyes"
    assert note["unlike"]["above"] is True
    assert note["unlike"]["score"] > note["unlike"]["limit"] == FAR
    assert note["needs_eyes"][0] == note["unlike"]["told"]
    assert note["needs_eyes"][0].startswith(UNLIKE)
    assert "C5 is <squeezed>." in note["needs_eyes"]
    assert len(note["unlike"]["farthest"]) == 3
    for one in note["unlike"]["farthest"]:
        assert one["told"] in note["unlike"]["told"]
    assert note["suspicious"] == ["patient_overall", LEVEL]  # told, as numbers
    assert study.flags[0].startswith(UNLIKE)
    head, _, rest = page.partition("<h1")
    assert HEADLINE in rest.partition("</h1>")[0]
    assert "Suspected fracture" not in page
    assert "suspected</span>" not in page
    assert page.index(UNLIKE) < page.index('class="summary"')
    assert f"<title>Cervical spine CT: n{HEADLINE[1:]}</title>" in head


def test_a_study_below_the_limit_reads_as_ever(tmp_path: Path) -> None:
    ensemble = with_limits(spot_ensemble(0.0, 0.5), (NEAR, NEAR))
    study, note, page = predict(tmp_path, ensemble)
    assert note["verdict"] == "suspicious"
    assert note["unlike"]["above"] is False
    assert not any(text.startswith(UNLIKE) for text in study.flags)
    assert f"Suspected fracture: {LEVEL}" in page
    assert "suspected</span>" in page
    assert UNLIKE not in page
    assert "The study is like those of the training" in page


def test_cards_of_before_say_that_nothing_was_measured(tmp_path: Path) -> None:
    study, note, page = predict(tmp_path, spot_ensemble(0.0))
    assert note["unlike"] == {
        "score": None,
        "limit": None,
        "above": None,
        "farthest": [],
        "told": NOT_MEASURED,
    }
    assert note["verdict"] == "suspicious"
    assert NOT_MEASURED not in study.flags
    assert NOT_MEASURED.replace("'", "&#39;") in page


def test_the_table_tells_it_first_and_marks_no_level(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # so that no cell is broken
    names = ["patient_overall", *(f"C{level}" for level in range(1, 8))]
    told = {uid: dict.fromkeys(names, 0.9) for uid in ("1.2.3", "1.2.4")}
    thresholds = {"vertebra": 0.5, "overall": 0.5}
    unlike = {
        "1.2.3": Unlike(score=2.0, limit=1.0),
        "1.2.4": Unlike(score=0.5, limit=1.0),
    }
    print_predictions(told, thresholds, unlike)
    lines = capsys.readouterr().out.splitlines()
    (foreign,) = [line for line in lines if "1.2.3" in line]
    (ordinary,) = [line for line in lines if "1.2.4" in line]
    assert foreign.split()[:3] == ["needs", "eyes", "1.2.3"]
    assert foreign.count("0.90") == ordinary.count("0.90") == 8
    assert (foreign.count("*"), ordinary.count("*")) == (0, 8)
    print_predictions(told, thresholds, {})
    assert "needs eyes" not in capsys.readouterr().out


def test_a_narrow_terminal_shows_the_end_of_a_uid(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = "2.25.15783572513924056154009635432704444904"
    names = ["patient_overall", *(f"C{level}" for level in range(1, 8))]
    told = {uid: dict.fromkeys(names, 0.9)}
    rows = {}
    for columns in ("80", "160"):
        monkeypatch.setenv("COLUMNS", columns)
        print_predictions(told, {"vertebra": 0.5, "overall": 0.5}, {})
        lines = capsys.readouterr().out.splitlines()
        (rows[columns],) = [line.split() for line in lines if "0.90" in line]
    assert rows["80"] == ["…2704444904", *["0.90*"] * 8]
    assert rows["160"] == [uid, *["0.90*"] * 8]


def test_a_stored_prediction_says_it_and_one_of_before_that_it_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bright_classifier(monkeypatch)
    stores = write_store(tmp_path, 60)
    plan = plan_classifier(
        "basic_cnn", 0, ClassifierConfig(epochs=1), manifest_of(stores)
    )
    fit_classifier(stores, plan)
    uid = uid_of(1)
    ensemble = open_ensemble(stores, "basic_cnn")
    own = predict_stored(stores, uid, ensemble)
    assert own["unlike"]["above"] is False  # it is one of those of the training
    predict_stored(stores, uid, with_limits(ensemble, (FAR,)))
    note = read_prediction(stores, uid)
    assert note is not None
    assert note["verdict"] == "needs eyes"
    assert note["needs_eyes"][0].startswith(UNLIKE)
    before = {k: v for k, v in own.items() if k not in ("unlike", "verdict")}
    stores.root.write(prediction_path(uid), json.dumps(before).encode())
    read = read_prediction(stores, uid)
    assert read is not None
    assert read["unlike"]["told"] == NOT_MEASURED
    assert read["verdict"] == own["verdict"]
