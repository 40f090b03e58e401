"""Predicted masks and crops of a store's studies, made where they are not current."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pandas as pd

from csfd_core.crops.cutting import CropConfig
from csfd_core.crops.study import MaskedStudy, StudyFacts, cut_study
from csfd_core.errors import CsfdError, StoreError
from csfd_core.evaluation.folds import fold_of, is_test, key_of
from csfd_core.segmentation.models import ModelChoice, ModelStore, choose_model
from csfd_core.segmentation.prediction import Prediction, VertebraPredictor
from csfd_core.segmentation.reading import geometry_of, read_reduced
from csfd_core.store.convert import FAILED, QUARANTINED, UNCHANGED, WRITTEN, Stores
from csfd_core.store.metadata import StudyRecord
from csfd_core.vocabulary import LEVEL_NAMES

MASK_FORMAT: Final = 1  # raised when predicted masks must be made again


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOutcome:
    """What was done for one study."""

    study_uid: str
    action: str  # WRITTEN, UNCHANGED, QUARANTINED or FAILED
    message: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)  # of the stored result
    seconds: float = 0.0


class MaskMaker:
    """Predicts masks with the models of a store; loads each model once."""

    def __init__(self, stores: Stores, folds: Collection[int] | None = None) -> None:
        """Take the stores, and the folds whose models may be used; None: all.

        No model is read yet.
        """
        self._stores = stores
        self._models = ModelStore(stores.root)
        self._cards = {
            fold: card
            for fold, card in self._models.cards().items()
            if folds is None or fold in folds
        }
        self._loaded: dict[int, VertebraPredictor] = {}

    def choice(self, study_uid: str) -> ModelChoice:
        """Return the model for a study.

        Raises:
            StoreError: If the store has no model.
        """
        choice = choose_model(study_uid, self._cards)
        if choice is None:
            raise StoreError(
                "The store has no segmentation model. Materialize segmentation_model "
                "first."
            )
        return choice

    def predict(self, study_uid: str) -> Prediction:
        """Predict the mask of a study with its model, without keeping it."""
        predictor = self._predictor(self.choice(study_uid).fold)
        volume = read_reduced(self._stores.slices, study_uid, predictor.step_mm)
        return predictor.predict(volume)

    def make(self, study_uid: str) -> MaskOutcome:
        """Predict and keep the mask of a study, unless it is current."""
        record = self._stores.metadata.read_record(study_uid)
        if record is None or record.is_quarantined:
            return MaskOutcome(study_uid=study_uid, action=QUARANTINED)
        if self.is_current(record):
            note = self._stores.predicted_masks.read_note(study_uid) or {}
            return MaskOutcome(study_uid=study_uid, action=UNCHANGED, note=note)
        prediction = self.predict(study_uid)
        note = self._note(record, prediction)
        self._stores.predicted_masks.write(study_uid, prediction.mask, note)
        return MaskOutcome(
            study_uid=study_uid,
            action=WRITTEN,
            note=note,
            seconds=sum(prediction.seconds.values()),
        )

    def is_current(self, record: StudyRecord) -> bool:
        """Say whether a predicted mask is what its model would give again."""
        note = self._stores.predicted_masks.read_note(record.study_uid)
        if note is None or not self._cards:
            return False
        choice = self.choice(record.study_uid)
        wanted = {
            "format": MASK_FORMAT,
            "content_hash": record.content_hash,
            "model_id": choice.model_id,
            "standing": choice.standing,
        }
        return {name: note[name] for name in wanted} == wanted

    def _predictor(self, fold: int) -> VertebraPredictor:
        if fold not in self._loaded:
            self._loaded[fold] = VertebraPredictor(self._models.read(fold))
            self._loaded[fold].load()
        return self._loaded[fold]

    def _note(self, record: StudyRecord, prediction: Prediction) -> dict[str, Any]:
        choice = self.choice(record.study_uid)
        geometry = record.volume_geometry()
        assert geometry is not None
        return {
            "study_uid": record.study_uid,
            "format": MASK_FORMAT,
            "content_hash": record.content_hash,
            **asdict(choice),
            "levels": {
                level.level: {
                    "volume_ml": level.volume_ml,
                    "confidence": level.confidence,
                    "is_cut": level.is_cut,
                    "centre_zyx_mm": [round(v, 2) for v in level.centre_zyx_mm],
                }
                for level in prediction.review.levels
            },
            "flags": list(prediction.review.flags),
            **asdict(geometry),
        }


class CropMaker:
    """Cuts the vertebrae of studies whose masks were predicted."""

    def __init__(self, stores: Stores, config: CropConfig, boxes: pd.DataFrame) -> None:
        """Take the stores, the settings, and the table of fracture boxes."""
        self._stores = stores
        self._config = config
        self._boxes = boxes
        studies = stores.metadata.read_studies().drop_duplicates("study_uid")
        self._studies = studies.set_index("study_uid")

    def inputs(self, study_uid: str) -> str:
        """Identify what the crops of a study are made from."""
        mask = self._stores.predicted_masks.read_note(study_uid) or {}
        boxes = self._boxes[self._boxes["study_uid"] == study_uid]
        facts = [
            self._config.to_note(),
            [mask.get(key) for key in ("format", "content_hash", "model_id")],
            mask.get("levels"),
            self._labels(study_uid),
            boxes.to_numpy().tolist(),
        ]
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def is_current(self, study_uid: str) -> bool:
        """Say whether the crops of a study are what they would be again."""
        note = self._stores.crops.read_note(study_uid)
        if note is None or study_uid not in self._studies.index:
            return False
        return bool(note["inputs"] == self.inputs(study_uid))

    def make(self, study_uid: str) -> MaskOutcome:
        """Cut and keep the vertebrae of a study, unless they are current."""
        mask_note = self._stores.predicted_masks.read_note(study_uid)
        if mask_note is None or study_uid not in self._studies.index:
            return MaskOutcome(study_uid=study_uid, action=QUARANTINED)
        if self.is_current(study_uid):
            note = self._stores.crops.read_note(study_uid) or {}
            return MaskOutcome(study_uid=study_uid, action=UNCHANGED, note=note)
        inputs = self.inputs(study_uid)
        study = MaskedStudy(
            grey=self._stores.slices.read_volume(study_uid),
            mask=self._stores.predicted_masks.read_volume(study_uid),
            geometry=geometry_of(mask_note),
            levels=mask_note["levels"],
        )
        rows = cut_study(study, self._facts(study_uid), self._config)
        note = {
            "study_uid": study_uid,
            "inputs": inputs,
            "crop": self._config.to_note(),
            "model_id": mask_note["model_id"],
            "standing": mask_note["standing"],
            "levels": sorted({row["level"] for row in rows}),
        }
        size = self._stores.crops.write(study_uid, rows, note)
        return MaskOutcome(
            study_uid=study_uid, action=WRITTEN, note={**note, "size_bytes": size}
        )

    def _facts(self, study_uid: str) -> StudyFacts:
        patient = key_of(study_uid, self._studies.at[study_uid, "patient_key"])
        return StudyFacts(
            labels=self._labels(study_uid),
            boxes=self._boxes_of(study_uid),
            fold=fold_of(patient),
            is_test=is_test(patient),
        )

    def _labels(self, study_uid: str) -> dict[str, int | None]:
        row = self._studies.loc[study_uid]
        return {
            name: None if pd.isna(row[name]) else int(row[name]) for name in LEVEL_NAMES
        }

    def _boxes_of(self, study_uid: str) -> pd.DataFrame | None:
        """Return a study's fracture boxes by slice index; None: none were drawn."""
        own = self._boxes[self._boxes["study_uid"] == study_uid]
        if own.empty:
            return None
        numbers = self._stores.slices.read_instance_numbers(study_uid)
        index_of = {number: index for index, number in enumerate(numbers)}
        found = own.assign(slice_index=own["slice_number"].map(index_of))
        found = found.dropna(subset=["slice_index"])
        return found[["x", "y", "width", "height", "slice_index"]]


def studies_without_crops(
    stores: Stores, config: CropConfig, boxes: pd.DataFrame
) -> set[str]:
    """Return the studies whose predicted mask or crops are missing or not current."""
    masks, crops = MaskMaker(stores), CropMaker(stores, config, boxes)
    return {
        record.study_uid
        for record in stores.metadata.read_records()
        if not record.is_quarantined
        and not (masks.is_current(record) and crops.is_current(record.study_uid))
    }


def make_all(
    make: Callable[[str], MaskOutcome], study_uids: Sequence[str]
) -> Iterator[MaskOutcome]:
    """Make many; a study that fails on purpose is an outcome and the others go on."""
    for study_uid in study_uids:
        try:
            yield make(study_uid)
        except CsfdError as error:
            yield MaskOutcome(study_uid=study_uid, action=FAILED, message=str(error))
