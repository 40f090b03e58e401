"""Predicted masks and crops of a store's studies, made where they are not current."""

import threading
from collections.abc import Collection
from dataclasses import asdict
from typing import Any, Final

from csfd_core.dicom.grids import Reduced
from csfd_core.errors import StoreError
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.runtime.cache import cached
from csfd_core.segmentation.bundle import builtin_location, read_bundle, read_card
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.model_store import ModelChoice, ModelStore, choose_model
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.segmentation.reading import read_reduced
from csfd_core.store.metadata import StudyRecord
from csfd_core.store.notes import PredictedMaskNote
from csfd_core.store.stamp import is_current
from csfd_core.store.stores import Stores

MASK_FORMAT: Final = 1  # raised when predicted masks must be made again
GENERAL_FOLD: Final = -1  # of the model that comes with csfd: it holds out none


def usable_cards(
    stores: Stores, folds: Collection[int] | None = None
) -> dict[int, SegmentationCard]:
    """Return the cards of the models that may predict masks, by fold.

    Args:
        stores: Hold the models; where they hold none, it is the general one.
        folds: Whose models may be used; ``None``: all, and the general one.
    """
    cards = ModelStore(stores.root).cards()
    if folds is not None:
        return {fold: card for fold, card in cards.items() if fold in folds}
    general = read_card(builtin_location()) if not cards else None
    return cards if general is None else {GENERAL_FOLD: general}


class MaskMaker:
    """Predicts masks with the models of a store; loads each model once.

    Before the store has a model, the general one speaks, which comes with csfd. May be
    used from several threads: one study is read while another is predicted. Pickles as
    the names of its models: the process that gets it loads each once for all studies.
    """

    def __init__(self, stores: Stores, folds: Collection[int] | None = None) -> None:
        """Take the stores, and the folds whose models may be used; None: all.

        No model is read yet.
        """
        self._stores = stores
        self._folds = None if folds is None else tuple(sorted(folds))
        self._models = ModelStore(stores.root)
        self._cards = usable_cards(stores, folds)
        self._loaded: dict[int, VertebraPredictor] = {}
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what names the models: networks do not travel between processes."""
        return _cached_maker, (self._stores, self._folds, tuple(self.model_ids))

    def of_study(self, study_uid: str) -> "MaskMaker":  # noqa: ARG002
        """Return itself: which model a study has, every process sees by itself."""
        return self

    @property
    def model_ids(self) -> list[str]:
        """Identity of each model that it uses; another list, another maker."""
        return [card.model_id for card in self._cards.values()]

    def warm_up(self, volume: Reduced, study_uid: str) -> None:
        """Let the model of a study look at a volume, so that the next look is fast."""
        self._predictor(self.choice(study_uid).fold).predict(volume)

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

    def make(self, study_uid: str) -> StudyOutcome:
        """Predict and keep the mask of a study, unless it is current."""
        record = self._stores.metadata.read_record(study_uid)
        if record is None or record.is_quarantined:
            return StudyOutcome(study_uid=study_uid, action=Outcome.QUARANTINED)
        note = self._stores.predicted_masks.read_note(study_uid)
        if note is not None and self.is_current(record):
            return _outcome(Outcome.UNCHANGED, note)
        prediction = self.predict(study_uid)
        note = self._note(record, prediction)
        self._stores.predicted_masks.write(study_uid, prediction.mask, note)
        return _outcome(Outcome.WRITTEN, note, sum(prediction.seconds.values()))

    def is_current(self, record: StudyRecord) -> bool:
        """Say whether a predicted mask is what its model would give again."""
        if not self._cards:
            return False
        choice = self.choice(record.study_uid)
        return is_current(
            self._stores.predicted_masks.read_note(record.study_uid),
            format=MASK_FORMAT,
            content_hash=record.content_hash,
            model_id=choice.model_id,
            standing=choice.standing,
        )

    def _predictor(self, fold: int) -> VertebraPredictor:
        with self._loading:
            if fold not in self._loaded:
                is_general = fold == GENERAL_FOLD
                predictor = VertebraPredictor(
                    read_bundle(builtin_location())
                    if is_general
                    else self._models.read(fold, self._cards[fold])
                )
                predictor.load()
                self._loaded[fold] = predictor
            return self._loaded[fold]

    def _note(self, record: StudyRecord, prediction: Prediction) -> PredictedMaskNote:
        choice = self.choice(record.study_uid)
        geometry = record.volume_geometry()
        assert geometry is not None
        return PredictedMaskNote(
            study_uid=record.study_uid,
            format=MASK_FORMAT,
            content_hash=record.content_hash,
            **asdict(choice),
            levels=prediction.review.notes(),
            flags=prediction.review.flags,
            **asdict(geometry),
        )


def _cached_maker(
    stores: Stores, folds: tuple[int, ...] | None, model_ids: tuple[str, ...]
) -> MaskMaker:
    """Return the one maker of this process with certain models.

    Raises:
        StoreError: If the store has other models by now.
    """

    def build() -> MaskMaker:
        maker = MaskMaker(stores, folds)
        if tuple(maker.model_ids) != model_ids:
            raise StoreError(
                "The segmentation models of the store have changed while studies "
                "waited for them. Make the masks again."
            )
        return maker

    return cached(("masks", stores.root.url, folds, model_ids), build)


def _outcome(
    action: Outcome, note: PredictedMaskNote, seconds: float = 0.0
) -> StudyOutcome:
    return StudyOutcome(
        study_uid=note.study_uid,
        action=action,
        content_hash=note.content_hash,
        model_id=note.model_id,
        standing=note.standing,
        levels=tuple(note.levels),
        flags=note.flags,
        seconds=seconds,
    )
