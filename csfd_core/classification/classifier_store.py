"""Trained classifiers under a store: what is kept of each, and how it is found again.

``models/classification/<model>/fold_<k>`` holds ``card.json`` (how it was made and how
it is calibrated), ``weights.npz`` and ``predictions.parquet`` (what it says of studies
that it has not seen). Nothing in these files is code.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from csfd_core.errors import StoreError
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.parquet import read_parquet, write_parquet

CARD: Final = "card.json"
WEIGHTS: Final = "weights.npz"
PREDICTIONS: Final = "predictions.parquet"
VALIDATION: Final = "validation"  # of the held-out fold: calibrates, chooses thresholds
TEST: Final = "test"  # the locked set: is only ever scored
_SCHEMA: Final = pa.schema(
    [
        pa.field("study_uid", pa.string(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),  # C1 ... C7, patient_overall
        pa.field("label", pa.int8()),  # null: unlabelled
        pa.field("group", pa.string(), nullable=False),  # VALIDATION or TEST
        pa.field("logit", pa.float64()),  # of the network; null: the level is not seen
        pa.field("probability", pa.float64(), nullable=False),  # calibrated
    ]
)

Weights = Sequence[npt.NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One trained classifier without its weights.

    Attributes:
        model: Name in the registry of backbones.
        fold: The fold that it was trained without.
        card: How it was made; see ``ClassifierStore``.
        predictions: One row per study and level, and ``patient_overall``: columns
            ``study_uid``, ``patient``, ``level``, ``label``, ``group``, ``logit``,
            ``probability``.
    """

    model: str
    fold: int
    card: Mapping[str, Any]
    predictions: pd.DataFrame

    @property
    def thresholds(self) -> dict[str, float]:
        """Operating points chosen on validation: ``vertebra`` and ``overall``."""
        return {k: float(v["threshold"]) for k, v in self.card["thresholds"].items()}

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch; NaN where a score was undefined."""
        return pd.DataFrame(list(self.card.get("history") or []), dtype=float)


@dataclass(frozen=True, slots=True)
class ClassifierStore:
    """Classifiers under one store location.

    ``folder`` is that of the newest, or of a frozen version (``registry.frozen``).

    The card holds: ``model``, ``model_id``, ``fold``, ``inputs``, ``profile``,
    ``seed``, ``weights`` (what the backbone started from), ``parameters``,
    ``disk_bytes``, ``train_s``, ``ms_per_study``, ``history`` (one row per epoch:
    ``epoch``, ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``, ``seconds``),
    ``calibration`` and ``thresholds`` (each for ``vertebra`` and ``overall``),
    ``prevalence`` (of each level among the training studies), ``crop``,
    ``training_studies``, ``validation_studies`` and ``test_studies`` (UID to content
    hash), ``label_digests`` (of training and validation studies: one character per
    level, see ``trained_labels``), ``trained_at`` (UTC), ``weights_sha256``,
    ``data_kind``, ``code_version``, ``lock_sha256`` (of the pinned versions that it was
    trained with) and ``mlflow_run_id``. What is undefined, such as an AUC of one class
    only, is null: JSON knows no NaN.
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

    def card(self, model: str, fold: int) -> dict[str, Any] | None:
        """Return the card of a classifier, ``None`` where there is none."""
        place = self.of_fold(model, fold)
        return dict(json.loads(place.read(CARD))) if place.exists(CARD) else None

    def result(self, model: str, fold: int) -> FoldResult:
        """Return a classifier without its weights.

        Raises:
            StoreError: If there is none.
        """
        card = self.card(model, fold)
        if card is None:
            raise StoreError(
                f"The store has no {model} of fold {fold}. Materialize {model} first."
            )
        table, _ = read_parquet(self.of_fold(model, fold), PREDICTIONS)
        frame = table.to_pandas()
        frame["label"] = frame["label"].astype("Int8")
        return FoldResult(model=model, fold=fold, card=card, predictions=frame)

    def results(self, models: Sequence[str]) -> dict[str, list[FoldResult]]:
        """Return the classifiers of each named model that has any."""
        found = {
            model: [self.result(model, fold) for fold in self.folds(model)]
            for model in models
        }
        return {model: results for model, results in found.items() if results}

    def read_weights(self, model: str, fold: int) -> list[npt.NDArray[np.float32]]:
        """Return the weights of a classifier in the order of its network."""
        content = self.of_fold(model, fold).read(WEIGHTS)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [arrays[key].astype(np.float32) for key in sorted(arrays.files)]

    def write(
        self,
        model: str,
        fold: int,
        weights: Weights,
        predictions: Sequence[Mapping[str, Any]],
        card: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Keep a classifier, its card last; return the card with its size on disk."""
        place = self.of_fold(model, fold)
        sink = io.BytesIO()
        arrays = {f"{index:04d}": _small(w) for index, w in enumerate(weights)}
        np.savez(sink, **arrays)  # type: ignore[arg-type]  # a savez option is no array
        table = pa.Table.from_pylist([dict(row) for row in predictions], schema=_SCHEMA)
        place.write(WEIGHTS, sink.getvalue())
        write_parquet(place, PREDICTIONS, table, {"model_id": card["model_id"]})
        content = sink.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        kept = {**card, "disk_bytes": len(content), "weights_sha256": digest}
        text = json.dumps(_known(kept), indent=2, sort_keys=True, allow_nan=False)
        place.write(CARD, f"{text}\n".encode())
        return kept


def learnt_from(card: Mapping[str, Any]) -> set[str]:
    """Return the studies that a classifier was trained, stopped or calibrated on."""
    names = ("training_studies", "validation_studies")
    return {str(uid) for name in names for uid in card[name]}


def age_of(card: Mapping[str, Any]) -> tuple[str, int]:
    """Return what the newest card has the most of.

    Of cards without a date, the newest is the one that has learnt from most studies.
    """
    return str(card.get("trained_at", "")), len(learnt_from(card))


def _known(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return JSON values with ``None`` for all numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _known(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_known(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _small(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return kernels in half precision, which costs no accuracy here.

    Vectors are few and stay: among them are variances that half precision cannot hold.
    """
    return np.asarray(values, dtype=np.float16 if np.ndim(values) > 1 else np.float32)
