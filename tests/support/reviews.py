"""A study on the reader's page that is done: slices in the store, and a prediction."""

import json
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from starlette.testclient import TestClient

from csfd_core.classification.unlike import Unlike
from csfd_core.evaluation.folds import is_test, key_of
from csfd_core.inference.predict import prediction_path
from csfd_core.ingest.convert import convert_study
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES
from csfd_core.web.database import studies
from csfd_core.web.study_states import Accepted, StudyState, accept, open_studies, tell
from support.conversion import tasks
from support.dicom_studies import STUDY_UID, write_study
from support.web import WebUnderTest

API = f"/api/v1/studies/{STUDY_UID}"
BOX = {"level": "C4", "slice_index": 5, "x": 10.5, "y": 20, "width": 8, "height": 6}
PREDICTION = {
    "study_uid": STUDY_UID,
    "verdict": "suspicious",
    "unlike": Unlike(score=0.4, limit=1.0).to_json(),
    "model": "triplanar",
    "model_version": 3,
    "trained_on": "phantom",
    "outcome": "predicted",
    "probabilities": {**dict.fromkeys(LABEL_COLUMNS, 0.1), "C4": 0.82, "C7": None},
    "not_assessed": ["C7"],
    "overall_rests_on": list(LEVEL_NAMES[:6]),
    "needs_eyes": ["C7 was not assessed: not found, or hardly in the scan."],
    "thresholds": {"overall": 0.4, "vertebra": 0.31},
    "suspicious": ["C4"],
    "answers": {**dict.fromkeys(LABEL_COLUMNS, "whole"), "C4": "fractured", "C7": None},
    "uncertainty": dict.fromkeys(LABEL_COLUMNS),
    "evidence": {
        "C4": {
            "slice_index": 5,
            "sop_instance_uid": f"{STUDY_UID}.1.6",
            "box_px": {"x": 20.0, "y": 30.0, "width": 8.0, "height": 6.0},
            "peak": 0.9,
        }
    },
    "notice": "Trained on phantoms.",
}


def add_study(web: WebUnderTest, *, locked: bool = False) -> str:
    """Take in a study of a patient within or outside of the locked test set."""
    inbox = Path(web.services.inbox.url)
    for number in range(400):
        folder = write_study(inbox, edit=_of_patient(number))
        (task,) = tasks(inbox, Path(web.services.stores.root.url))
        convert_study(task)
        record = web.services.stores.metadata.read_record(STUDY_UID)
        assert record is not None
        if is_test(key_of(STUDY_UID, record.patient_key)) is locked:
            break
        for file in folder.iterdir():
            file.unlink()
    web.services.stores.root.write(
        prediction_path(STUDY_UID), json.dumps(PREDICTION).encode()
    )
    come(web)
    return STUDY_UID


def come(web: WebUnderTest) -> None:
    """Accept the study, or further slices of it, and say that it is done."""
    database = web.services.database
    with database.transaction() as connection:
        one = Accepted(study_uid=STUDY_UID, slices=24, priority=0, user_id=web.user_id)
        accept(connection, one)
    (row,) = open_studies(database)
    assert tell(database, row, StudyState.DONE)


def form(version: int = 1, **changes: Any) -> dict[str, Any]:
    """What the page sends to be signed: C4 fractured, the others whole."""
    levels = {**dict.fromkeys(LEVEL_NAMES, "whole"), "C4": "fractured"}
    return {"version": version, "levels": levels, "boxes": [], "comment": ""} | changes


def sign(client: TestClient, version: int = 1, **changes: Any) -> dict[str, Any]:
    """Sign, and return the review."""
    answer = client.post(f"{API}/sign", json=form(version, **changes))
    assert answer.status_code == 201, answer.text
    review: dict[str, Any] = answer.json()
    return review


def study_row(web: WebUnderTest) -> Any:
    """Return the row of the study."""
    with web.services.database.transaction() as connection:
        same = studies.c.study_uid == STUDY_UID
        return connection.execute(studies.select().where(same)).one()


def _of_patient(number: int) -> Any:
    def edit(dataset: Dataset) -> None:
        dataset.PatientID = f"patient {number}"

    return edit
