"""Cuts the vertebrae of studies with predicted masks, where crops are not current."""

import pandas as pd

from csfd_core.crops.cutting import CropConfig
from csfd_core.crops.study import MaskedStudy, StudyFacts, cut_study
from csfd_core.evaluation.folds import fold_of, is_test, key_of
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.store.box_slices import place_boxes
from csfd_core.store.labels import SLICE_COLUMN, read_all_boxes
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.notes import CropNote
from csfd_core.store.source import Sources
from csfd_core.store.stamp import is_current, stamp
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES


class CropMaker:
    """Cuts the vertebrae of studies whose masks were predicted."""

    def __init__(
        self,
        stores: Stores,
        config: CropConfig,
        labels: pd.DataFrame,
        boxes: pd.DataFrame,
    ) -> None:
        """Take what is known of all studies.

        Args:
            stores: Where masks are and crops go.
            config: How crops are cut.
            labels: Index ``study_uid``, columns C1..C7: 0, 1 or null.
            boxes: Fracture boxes, as in ``BoxTable``.
        """
        self._stores = stores
        self._config = config
        self._labels_of = labels
        self._no_boxes = boxes.iloc[:0]
        self._boxes = {
            str(uid): of_study for uid, of_study in boxes.groupby("study_uid")
        }

    @classmethod
    def of_sources(
        cls, stores: Stores, config: CropConfig, sources: Sources
    ) -> "CropMaker":
        """Take labels and boxes as the sources tell them now.

        Raises:
            SourceError: If a label table cannot be read.
        """
        withdrawn = stores.withdrawn.study_uids()
        labels = stores.label_history.read_labels(sources.locations, withdrawn)
        boxes = read_all_boxes(sources.locations, withdrawn)
        return cls(stores, config, labels.table, boxes.table)

    def of_study(self, study_uid: str) -> "CropMaker":
        """Return what cuts one study alone: with its labels and boxes only."""
        labels = self._labels_of[self._labels_of.index == study_uid]
        boxes = self._boxes.get(study_uid, self._no_boxes)
        return CropMaker(self._stores, self._config, labels, boxes)

    def inputs(self, study_uid: str) -> str:
        """Identify what the crops of a study are made from."""
        mask = self._stores.predicted_masks.read_note(study_uid)
        boxes = self._boxes.get(study_uid, self._no_boxes)
        facts = [
            self._config.to_note(),
            [None, None, None]
            if mask is None
            else [mask.format, mask.content_hash, mask.model_id],
            None if mask is None else mask.to_json()["levels"],
            self._labels(study_uid),
            boxes.drop(columns=SLICE_COLUMN, errors="ignore").to_numpy().tolist(),
        ]
        return stamp(facts)

    def is_current(self, study_uid: str) -> bool:
        """Say whether the crops of a study are what they would be again."""
        note = self._stores.crops.read_note(study_uid)
        return is_current(note, inputs=self.inputs(study_uid))

    def make(self, study_uid: str) -> StudyOutcome:
        """Cut and keep the vertebrae of a study, unless they are current."""
        mask_note = self._stores.predicted_masks.read_note(study_uid)
        record = self._stores.metadata.read_record(study_uid)
        if mask_note is None or record is None or record.is_quarantined:
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
        rows = cut_study(study, self._facts(record), self._config)
        note = CropNote(
            study_uid=study_uid,
            inputs=inputs,
            crop=self._config.to_note(),
            model_id=mask_note.model_id,
            standing=mask_note.standing,
            levels=tuple(sorted({row["level"] for row in rows})),
            spacing_zyx_mm=mask_note.spacing_zyx_mm,
        )
        size = self._stores.crops.write(study_uid, rows, note)
        return _outcome(Outcome.WRITTEN, note, size)

    def _facts(self, record: StudyRecord) -> StudyFacts:
        patient = key_of(record.study_uid, record.patient_key)
        return StudyFacts(
            labels=self._labels(record.study_uid),
            boxes=self._boxes_of(record),
            fold=fold_of(patient),
            is_test=is_test(patient),
        )

    def _labels(self, study_uid: str) -> dict[str, int | None]:
        if study_uid not in self._labels_of.index:
            return dict.fromkeys(LEVEL_NAMES)
        row = self._labels_of.loc[study_uid]
        return {
            name: None if pd.isna(row[name]) else int(row[name]) for name in LEVEL_NAMES
        }

    def _boxes_of(self, record: StudyRecord) -> pd.DataFrame | None:
        """Return a study's fracture boxes by slice index; None: none were drawn.

        Those that lie on another volume tell nothing of this one.
        """
        uid = record.study_uid
        boxes = self._boxes.get(uid)
        if boxes is None:
            return None
        index = place_boxes(
            boxes,
            self._stores.slices.read_instance_numbers(uid),
            self._stores.metadata.read_sop_uids(uid) if record.volumes else (),
            volume=record.volume,
            has_several=bool(record.volumes),
        )
        placed = boxes.assign(slice_index=index).dropna(subset=["slice_index"])
        return placed[["x", "y", "width", "height", "slice_index"]]


def _outcome(action: Outcome, note: CropNote, size: int = 0) -> StudyOutcome:
    return StudyOutcome(
        study_uid=note.study_uid,
        action=action,
        stored_bytes=size,
        model_id=note.model_id,
        standing=note.standing,
        levels=note.levels,
    )
