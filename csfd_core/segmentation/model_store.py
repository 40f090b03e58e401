"""Which models the store holds, and which of them may predict a study.

``models/segmentation/fold_<k>`` holds the model that was trained without fold k. A
study with a given mask is predicted by a model that has not seen it, wherever there is
one; where there is none, its mask is marked as in-sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from csfd_core.errors import SettingsError
from csfd_core.segmentation.bundle import (
    BUILTIN,
    ModelBundle,
    builtin_location,
    read_bundle,
    read_card,
    replace_bundle,
)
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.store import paths
from csfd_core.store.locations import Location

OUT_OF_FOLD: Final = "out_of_fold"  # the model held this study's fold out
UNSEEN: Final = "unseen"  # it trained no model
IN_SAMPLE: Final = "in_sample"  # the model was trained on it


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model for a study."""

    fold: int
    model_id: str
    standing: str  # OUT_OF_FOLD, UNSEEN or IN_SAMPLE


@dataclass(frozen=True, slots=True)
class ModelStore:
    """Segmentation models under one store location."""

    location: Location

    def of_fold(self, fold: int) -> Location:
        """Return where the model of a fold lies."""
        return self.location.join(f"{paths.SEGMENTATION_MODELS}/fold_{fold}")

    def cards(self) -> dict[int, SegmentationCard]:
        """Return the card of each model that is there, by fold."""
        cards = {}
        for name in self.location.folders(paths.SEGMENTATION_MODELS):
            fold = name.removeprefix("fold_")
            card = self.card(int(fold)) if fold.isdigit() else None
            if card is not None:
                cards[int(fold)] = card
        return dict(sorted(cards.items()))

    def card(self, fold: int) -> SegmentationCard | None:
        """Return the card of a fold's model, ``None`` where there is none."""
        return read_card(self.of_fold(fold), fold=fold)

    def read(self, fold: int, card: SegmentationCard | None = None) -> ModelBundle:
        """Read the model of a fold: that of a card that was read, or the newest.

        Raises:
            SourceError: If it is absent, or two trainings have replaced it since the
                card was read.
            StoreError: If its files are no model of this csfd.
        """
        return read_bundle(self.of_fold(fold), card)

    def write(self, fold: int, bundle: ModelBundle) -> ModelBundle:
        """Write the model of a fold in place of the one before; return it."""
        return replace_bundle(self.of_fold(fold), bundle)


def choose_model(
    study_uid: str, cards: Mapping[int, SegmentationCard]
) -> ModelChoice | None:
    """Return the model that predicts a study, ``None`` where there is no model."""
    if not cards:
        return None
    ordered = sorted(cards)
    for fold in ordered:
        if study_uid in cards[fold].validation_studies:
            return ModelChoice(fold, cards[fold].model_id, OUT_OF_FOLD)
    for fold in ordered:
        if study_uid not in cards[fold].training_studies:
            return ModelChoice(fold, cards[fold].model_id, UNSEEN)
    return ModelChoice(ordered[0], cards[ordered[0]].model_id, IN_SAMPLE)


def open_model(alias: str | None, store: Location | None = None) -> ModelBundle:
    """Open a model by its alias.

    Args:
        alias: ``builtin``; ``store`` or ``fold_<k>`` for one that was trained in the
            store; or a folder or ``s3://`` URL that holds one. ``None``: the store's
            where it has one, else ``builtin``.
        store: The store that ``store`` and ``fold_<k>`` speak of.

    Raises:
        SettingsError: If the store has no such model.
    """
    if alias is None:
        has_own = store is not None and bool(ModelStore(store).cards())
        alias = "store" if has_own else BUILTIN
    if alias == BUILTIN:
        return read_bundle(builtin_location())
    if alias == "store" or alias.startswith("fold_"):
        models = ModelStore(store) if store is not None else None
        folds = sorted(models.cards()) if models else []
        wanted = folds[:1] if alias == "store" else [alias.removeprefix("fold_")]
        if models and wanted and str(wanted[0]) in {str(fold) for fold in folds}:
            return models.read(int(wanted[0]))
        raise SettingsError(
            f"The store has no segmentation model {alias!r}. It has: "
            f"{', '.join(f'fold_{fold}' for fold in folds) or 'none'}. Use builtin, or "
            "train one with csfd run."
        )
    return read_bundle(Location(alias))
