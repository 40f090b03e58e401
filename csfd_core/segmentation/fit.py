"""Training on the studies of a store: which of them, from what, and with what result.

The locked test studies take no part. What a model was made from is recorded with it, so
that nothing is trained again while that has not changed.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from csfd_core.errors import StoreError
from csfd_core.evaluation.folds import assign_folds
from csfd_core.learning.checkpoint import Checkpoint, require_not_withdrawn
from csfd_core.learning.loop import EpochRow, Trained
from csfd_core.learning.splits import Split, is_in_split
from csfd_core.runtime.versions import lock_digest
from csfd_core.segmentation.bundle import (
    BUILTIN,
    ModelBundle,
    builtin_location,
    read_bundle,
    read_card,
)
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import FORMAT, SegmentationProfile
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.segmentation.reading import read_training_volume
from csfd_core.segmentation.training import (
    FixedVolumes,
    OnEpoch,
    Plan,
    TrainingData,
    train,
)
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores

if TYPE_CHECKING:
    import keras

CODE_VERSION: Final = "1"  # raised when the same inputs must be trained again
_NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSplit:
    """Studies with a given mask, by what they are for. Each (study, content, mask)."""

    training: tuple[tuple[str, str, str], ...]
    validation: tuple[tuple[str, str, str], ...]
    test: tuple[tuple[str, str, str], ...]  # locked

    @property
    def held_out(self) -> list[str]:
        """Studies that the model has not seen."""
        return [uid for uid, _, _ in (*self.validation, *self.test)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One training: the split, the settings and their identity."""

    fold: int
    split: MaskSplit
    settings: SegmentationProfile
    inputs: str


def split_studies(studies: pd.DataFrame, fold: int) -> MaskSplit:
    """Split the studies whose mask passed its checks.

    Args:
        studies: The table of studies.
        fold: Held out for validation.
    """
    usable = usable_studies(studies).dropna(subset=["mask_hash"])
    assigned = assign_folds(usable)

    def of(split: Split) -> tuple[tuple[str, str, str], ...]:
        rows = usable[is_in_split(assigned, split, fold)]
        columns = (rows["study_uid"], rows["content_hash"], rows["mask_hash"])
        return tuple(
            sorted((str(u), str(c), str(m)) for u, c, m in zip(*columns, strict=True))
        )

    return MaskSplit(
        training=of(Split.TRAINING),
        validation=of(Split.VALIDATION),
        test=of(Split.TEST),
    )


def plan_fit(stores: Stores, settings: SegmentationProfile, fold: int = 0) -> Fit:
    """Say what a training would be made from, without starting it."""
    split = split_studies(stores.metadata.read_studies(), fold)
    initial = settings.training.initial
    if initial == BUILTIN:
        builtin = read_card(builtin_location())
        initial = str(builtin and builtin.model_id)
    facts = {
        "code": CODE_VERSION,
        "model": {"format": FORMAT, **asdict(settings.model)},
        "training": asdict(settings.training),
        "initial": initial,
        "studies": [split.training, split.validation],
    }
    text = json.dumps(facts, sort_keys=True)
    inputs = hashlib.sha256(text.encode()).hexdigest()
    return Fit(fold=fold, split=split, settings=settings, inputs=inputs)


def is_current(stores: Stores, fit: Fit) -> bool:
    """Say whether the store holds the very model that a training would give."""
    card = ModelStore(stores.root).card(fit.fold)
    return card is not None and card.inputs == fit.inputs


def fit_model(
    stores: Stores, fit: Fit, on_epoch: OnEpoch | None = None
) -> tuple[ModelBundle, Trained | None]:
    """Train a model and keep it; go on where a killed training stopped.

    Where no study with a mask may be learnt from, the model that comes with csfd is
    kept as it is, and the result is ``None``.

    Raises:
        StoreError: If there is nothing to learn from and to start from, or if a study
            was withdrawn while it learnt from it.
    """
    started = time.monotonic()
    initial = _initial(fit.settings)
    result = None
    weights = initial.weights if initial else []
    checkpoint = checkpoint_of(stores, fit)
    if fit.split.training:
        result = _train(stores, fit, checkpoint, initial, on_epoch)
        weights = result.weights
    elif initial is None:
        raise StoreError(
            "No study with a mask can be learnt from, and the training is to start "
            "from nothing. Add masks, or start from the builtin model."
        )
    card = _card(fit, initial, result, seconds=time.monotonic() - started)
    require_not_withdrawn(stores, checkpoint)
    bundle = ModelBundle(card=card, weights=weights)
    bundle = ModelStore(stores.root).write(fit.fold, bundle)
    checkpoint.remove()
    return bundle, result


def checkpoint_of(stores: Stores, fit: Fit) -> Checkpoint:
    """Return where a training goes on that was cut off."""
    learnt = (*fit.split.training, *fit.split.validation)
    return Checkpoint(
        stores.root,
        f"segmentation-fold_{fit.fold}",
        inputs=fit.inputs,
        studies=tuple(uid for uid, _, _ in learnt),
    )


def _train(
    stores: Stores,
    fit: Fit,
    checkpoint: Checkpoint,
    initial: ModelBundle | None,
    on_epoch: OnEpoch | None,
) -> Trained:
    step = fit.settings.model.segmenter.spacing_mm

    def read(studies: Sequence[tuple[str, str, str]]) -> list[Any]:
        return [read_training_volume(stores, uid, step) for uid, _, _ in studies]

    data = TrainingData(
        training=FixedVolumes(read(fit.split.training)),
        validation=read(fit.split.validation),
    )
    plan = Plan(
        model=fit.settings.model,
        training=fit.settings.training,
        initial=initial.weights if initial else None,
    )

    def told(row: EpochRow, model: "keras.Model") -> None:
        require_not_withdrawn(stores, checkpoint)
        if on_epoch is not None:
            on_epoch(row, model)

    return train(plan, data, checkpoint, told)


def _initial(settings: SegmentationProfile) -> ModelBundle | None:
    if settings.training.initial == _NONE:
        return None
    name = settings.training.initial
    bundle = read_bundle(builtin_location()) if name == BUILTIN else None
    if bundle is None or bundle.config != settings.model:
        raise StoreError(
            f"The model {name!r} has other networks than the profile. Start from "
            f"{_NONE!r} instead."
        )
    return bundle


def _card(
    fit: Fit, initial: ModelBundle | None, result: Trained | None, *, seconds: float
) -> SegmentationCard:
    return SegmentationCard(
        model_id=f"fold{fit.fold}-{fit.inputs[:12]}",
        inputs=fit.inputs,
        fold=fit.fold,
        networks=fit.settings.model,
        training=fit.settings.training,
        initial=initial.name if initial else _NONE,
        training_studies={uid: (c, m) for uid, c, m in fit.split.training},
        validation_studies={uid: (c, m) for uid, c, m in fit.split.validation},
        history=tuple(_rounded(row) for row in result.history) if result else (),
        best_epoch=result.best_epoch if result else 0,
        before=_rounded(result.before) if result else {},
        stopped=result.stopped if result else None,
        seconds=round(seconds, 1),
        code_version=CODE_VERSION,
        lock_sha256=lock_digest(),
    )


def _rounded(row: EpochRow) -> EpochRow:
    """Return the row of an epoch as it is kept: in full, it would fill the card."""
    digits = {"seconds": 1, "learning_rate": 12}
    return {name: round(value, digits.get(name, 5)) for name, value in row.items()}
