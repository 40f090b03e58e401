"""A study whose every voxel tells where it lies, in the store of a web under test."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from csfd_core.inference.evidence import LevelHeat
from csfd_core.inference.predict import prediction_path
from csfd_core.inference.stored_heat import write_heats
from csfd_core.ingest.convert import convert_study
from csfd_core.store.notes import PredictedMaskNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL
from support.conversion import tasks
from support.dicom_studies import STUDY_UID, bone_disc, write_study
from support.web import WebUnderTest

SLICES, ROWS, COLUMNS = 40, 64, 64
EVIDENCE_SLICE = 21
PATH = f"/api/v1/studies/{STUDY_UID}"
BOX = {"x": 20.5, "y": 33.0, "width": 10.0, "height": 8.0}


def study_hounsfield() -> npt.NDArray[np.int16]:
    """A ramp in every direction below a column of bone: no flip maps it onto itself."""
    z, y, x = np.mgrid[:SLICES, :ROWS, :COLUMNS]
    volume: npt.NDArray[np.int16] = (-300 + 5 * x + 11 * y + 7 * z).astype(np.int16)
    volume[:, :8, :20] = 1200  # a corner: front right, at the head ...
    volume[:10, 40:50, 50:60] = -900  # ... and a hole: back left
    for index in range(SLICES):
        volume[index][bone_disc(index, SLICES, ROWS)] = 800 + index
    return volume


def study_mask() -> npt.NDArray[np.uint8]:
    """C1 to C7 down the column, from the fifth slice to the fifth last."""
    mask = np.zeros((SLICES, ROWS, COLUMNS), dtype=np.uint8)
    for index in range(4, SLICES - 4):
        label = 1 + (index - 4) * 7 // (SLICES - 8)
        mask[index][bone_disc(index, SLICES, ROWS)] = label
    return mask


def place_study(
    web_home: Path, edit: Callable[[Dataset], None] | None = None
) -> tuple[Stores, npt.NDArray[np.int16]]:
    """Write, convert, segment and predict the study; return its store and values."""
    hounsfield = study_hounsfield()
    write_study(web_home / "source", hounsfield=hounsfield, edit=edit)
    (task,) = tasks(web_home / "source", web_home / "store")
    assert convert_study(task).action.name == "WRITTEN"
    write_mask(task.stores, study_mask())
    write_prediction(task.stores)
    return task.stores, hounsfield


def write_mask(
    stores: Stores, mask: npt.NDArray[np.uint8], study_uid: str = STUDY_UID
) -> None:
    note = stores.slices.read_note(study_uid)
    assert note is not None
    stores.predicted_masks.write(
        study_uid,
        mask,
        PredictedMaskNote(
            study_uid=study_uid,
            format=1,
            content_hash=note.content_hash,
            model_id="drawn",
            fold=0,
            standing="unseen",
            levels={},
            flags=(),
            **asdict(note.geometry),
        ),
    )


def write_prediction(stores: Stores, study_uid: str = STUDY_UID) -> None:
    """C5 is the worst, C2 suspicious; heat lies on C5 alone."""
    note = stores.slices.read_note(study_uid)
    assert note is not None
    evidence = {"slice_index": EVIDENCE_SLICE, "box_px": BOX, "peak": 0.9}
    probabilities = dict.fromkeys(LEVEL_NAMES, 0.05)
    prediction = {
        "study_uid": study_uid,
        "content_hash": note.content_hash,
        "verdict": "suspicious",
        "model": "drawn",
        "model_version": None,
        "trained_on": "phantom",
        "probabilities": probabilities | {"C2": 0.6, "C5": 0.9, OVERALL: 0.95},
        "thresholds": {"vertebra": 0.3, "overall": 0.5},
        "suspicious": ["C2", "C5", OVERALL],
        "not_assessed": [],
        "overall_rests_on": list(LEVEL_NAMES),
        "needs_eyes": [],
        "uncertainty": {},
        "evidence": {"C5": evidence, "C2": None},
        "unlike": {},
    }
    stores.root.write(prediction_path(study_uid), json.dumps(prediction).encode())
    heat = np.zeros((3, 8, 8), dtype=np.float32)
    heat[1, 2:6, 3:7] = 1.0
    crop_to_voxel = np.eye(4)
    crop_to_voxel[:3, 3] = (20, 34, 22)
    affine = note.geometry.affine() @ crop_to_voxel
    masks = np.full(heat.shape, 255, dtype=np.uint8)
    level = LevelHeat(level="C5", heat=heat, masks=masks, affine_lps=affine)
    write_heats(stores, study_uid, [level])


@dataclass
class ViewedStudy:
    """The web under test, with the study in its store."""

    web: WebUnderTest
    stores: Stores
    hounsfield: npt.NDArray[np.int16]

    def get(self, what: str, **query: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of an answer."""
        answer = self.web.client.get(f"{PATH}/{what}", params=query)
        assert answer.status_code == 200, answer.text
        return np.frombuffer(answer.content, np.uint8)
