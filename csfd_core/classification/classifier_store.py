"""Trained classifiers under a store: what is kept of each, and how it is found again.

``models/classification/<model>/fold_<k>`` holds ``card.json`` (how it was made and how
it is calibrated, and the mark of its other files), ``weights-<mark>.npz`` and
``predictions-<mark>.parquet`` (what it says of studies that it has not seen). Nothing
in these files is code. The card is written last: see ``learning.training_files``.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from csfd_core.classification.card import ClassifierCard, What
from csfd_core.errors import StoreError
from csfd_core.learning.checkpoint import Weights, read_arrays
from csfd_core.learning.training_files import keep_training
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.parquet import parquet_bytes, read_parquet

CARD: Final = "card.json"
WEIGHTS: Final = "weights.npz"
PREDICTIONS: Final = "predictions.parquet"
_SCHEMA: Final = pa.schema(
    [
        pa.field("study_uid", pa.string(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),  # C1 ... C7, patient_overall
        pa.field("label", pa.int8()),  # null: unlabelled
        pa.field("group", pa.string(), nullable=False),  # a Split, not of training
        pa.field("logit", pa.float64()),  # of the network; null: the level is not seen
        pa.field("probability", pa.float64(), nullable=False),  # calibrated
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One trained classifier without its weights.

    Attributes:
        model: Name in the registry of backbones.
        fold: The fold that it was trained without.
        card: How it was made.
        predictions: One row per study and level, and ``patient_overall``: columns
            ``study_uid``, ``patient``, ``level``, ``label``, ``group``, ``logit``,
            ``probability``.
    """

    model: str
    fold: int
    card: ClassifierCard
    predictions: pd.DataFrame

    @property
    def thresholds(self) -> dict[What, float]:
        """Operating points chosen on validation: ``vertebra`` and ``overall``."""
        return {what: point.threshold for what, point in self.card.thresholds.items()}

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch; NaN where a score was undefined."""
        return pd.DataFrame(list(self.card.history), dtype=float)


@dataclass(frozen=True, slots=True)
class ClassifierStore:
    """Classifiers under one store location.

    ``folder`` is that of the newest, or of a frozen version (``registry.frozen``).
    """

    location: Location
    folder: str = paths.CLASSIFIERS

    def of_fold(self, model: str, fold: int) -> Location:
        """Return where a classifier lies."""
        return self.location.join(f"{self.folder}/{model}/fold_{fold}")

    def folds(self, model: str) -> list[int]:
        """Return the folds for which a model is there."""
        names = self.location.folders(f"{self.folder}/{model}")
        folds = [name.removeprefix("fold_") for name in names]
        return sorted(
            int(fold)
            for fold in folds
            if fold.isdigit() and self.of_fold(model, int(fold)).exists(CARD)
        )

    def card(self, model: str, fold: int) -> ClassifierCard | None:
        """Return the card of a classifier, ``None`` where there is none.

        Raises:
            StoreError: If it is of a newer csfd, or no card.
        """
        location = self.of_fold(model, fold)
        if not location.exists(CARD):
            return None
        return ClassifierCard.from_json(location.read(CARD), model=model, fold=fold)

    def cards(self, models: Sequence[str]) -> list[ClassifierCard]:
        """Return the cards of all folds of the named models."""
        cards = [self.card(name, fold) for name in models for fold in self.folds(name)]
        return [card for card in cards if card is not None]

    def require_card(self, model: str, fold: int) -> ClassifierCard:
        """Return the card of a classifier.

        Raises:
            StoreError: If there is none.
        """
        card = self.card(model, fold)
        if card is None:
            raise StoreError(
                f"The store has no {model} of fold {fold}. Materialize {model} first."
            )
        return card

    def result(
        self, model: str, fold: int, card: ClassifierCard | None = None
    ) -> FoldResult:
        """Return a classifier without its weights.

        Args:
            model: Name of the classifier.
            fold: That it was trained without.
            card: That was read of it; ``None``: that of its newest training.

        Raises:
            StoreError: If there is none.
            SourceError: If two trainings have replaced it since the card was read.
        """
        card = card or self.require_card(model, fold)
        name = card.file_name(PREDICTIONS)
        table, _ = read_parquet(self.of_fold(model, fold), name)
        frame = table.to_pandas()
        frame["label"] = frame["label"].astype("Int8")
        return FoldResult(model=model, fold=fold, card=card, predictions=frame)

    def results(self, models: Sequence[str]) -> dict[str, list[FoldResult]]:
        """Return the classifiers of each named model that has any."""
        by_model = {
            model: [self.result(model, fold) for fold in self.folds(model)]
            for model in models
        }
        return {model: results for model, results in by_model.items() if results}

    def read_weights(
        self, model: str, fold: int, card: ClassifierCard | None = None
    ) -> list[npt.NDArray[np.float32]]:
        """Return the weights of a classifier in the order of its network.

        Args:
            model: Name of the classifier.
            fold: That it was trained without.
            card: That was read of it; ``None``: that of its newest training.

        Raises:
            StoreError: If there is none, its file is cut off, or the weights are not
                those that the card speaks of.
            SourceError: If two trainings have replaced it since the card was read.
        """
        card = card or self.require_card(model, fold)
        location, name = self.of_fold(model, fold), card.file_name(WEIGHTS)
        content = location.read(name)
        weights = read_arrays(content, f"{location}/{name}")
        wanted = card.weights_sha256
        if wanted and wanted != hashlib.sha256(content).hexdigest():
            raise StoreError(
                f"The weights of {model} are of another version than their card: "
                f"{location}/{name}. Bring the file back that belongs to it, or "
                "train it again."
            )
        return weights

    def write(
        self,
        card: ClassifierCard,
        weights: Weights,
        predictions: Sequence[Mapping[str, Any]],
    ) -> ClassifierCard:
        """Keep a classifier, its card last; return the card with its size on disk."""
        if card.fold is None:
            raise ValueError(f"The card of {card.model_id} names no fold.")
        location = self.of_fold(card.model, card.fold)
        sink = io.BytesIO()
        arrays = {f"{index:04d}": _small(w) for index, w in enumerate(weights)}
        np.savez(sink, **arrays)  # type: ignore[arg-type]  # a savez option is no array
        table = pa.Table.from_pylist([dict(row) for row in predictions], schema=_SCHEMA)
        content = sink.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        of_file = {"disk_bytes": len(content), "weights_sha256": digest}
        files = {
            WEIGHTS: content,
            PREDICTIONS: parquet_bytes(table, {"model_id": card.model_id}),
        }
        return keep_training(location, CARD, card.model_copy(update=of_file), files)


def _small(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return kernels in half precision, which costs no accuracy here.

    Vectors are few and stay: among them are variances that half precision cannot hold.
    """
    return np.asarray(values, dtype=np.float16 if np.ndim(values) > 1 else np.float32)
