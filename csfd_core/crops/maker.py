"""Cuts the vertebrae of studies with predicted masks, where crops are not current."""

import pandas as pd

from csfd_core.crops.cutting import CropConfig
from csfd_core.crops.study import MaskedStudy, StudyFacts, cut_study
from csfd_core.evaluation.folds import fold_of, is_test, key_of
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.store.notes import CropNote
from csfd_core.store.stamp import is_current, stamp
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES


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
        mask = self._stores.predicted_masks.read_note(study_uid)
        boxes = self._boxes[self._boxes["study_uid"] == study_uid]
        facts = [
            self._config.to_note(),
            [None, None, None]
            if mask is None
            else [mask.format, mask.content_hash, mask.model_id],
            None if mask is None else mask.to_json()["levels"],
            self._labels(study_uid),
            boxes.to_numpy().tolist(),
        ]
        return stamp(facts)

    def is_current(self, study_uid: str) -> bool:
        """Say whether the crops of a study are what they would be again."""
        if study_uid not in self._studies.index:
            return False
        note = self._stores.crops.read_note(study_uid)
        return is_current(note, inputs=self.inputs(study_uid))

    def make(self, study_uid: str) -> StudyOutcome:
        """Cut and keep the vertebrae of a study, unless they are current."""
        mask_note = self._stores.predicted_masks.read_note(study_uid)
        if mask_note is None or study_uid not in self._studies.index:
            return StudyOutcome(study_uid=study_uid, action=Outcome.QUARANTINED)
        note = self._stores.crops.read_note(study_uid)
        if note is not None and self.is_current(study_uid):
            return _outcome(Outcome.UNCHANGED, note)
        inputs = self.inputs(study_uid)
        study = MaskedStudy(
            grey=self._stores.slices.read_volume(study_uid),
            mask=self._stores.predicted_masks.read_volume(study_uid),
            geometry=mask_note.geometry,
            levels=mask_note.levels,
        )
        rows = cut_study(study, self._facts(study_uid), self._config)
        note = CropNote(
            study_uid=study_uid,
            inputs=inputs,
            crop=self._config.to_note(),
            model_id=mask_note.model_id,
            standing=mask_note.standing,
            levels=tuple(sorted({row["level"] for row in rows})),
        )
        size = self._stores.crops.write(study_uid, rows, note)
        return _outcome(Outcome.WRITTEN, note, size)

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


def _outcome(action: Outcome, note: CropNote, size: int = 0) -> StudyOutcome:
    return StudyOutcome(
        study_uid=note.study_uid,
        action=action,
        stored_bytes=size,
        model_id=note.model_id,
        standing=note.standing,
        levels=note.levels,
    )
