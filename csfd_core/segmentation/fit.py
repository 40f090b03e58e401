"""Training on the studies of a store: which of them, from what, and with what result.

The locked test studies take no part. What a model was made from is recorded with it, so
that nothing is trained again while that has not changed.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from csfd_core.errors import StoreError
from csfd_core.evaluation.folds import assign_folds
from csfd_core.segmentation.bundle import (
    BUILTIN,
    ModelBundle,
    builtin_location,
    read_bundle,
    read_card,
    write_bundle,
)
from csfd_core.segmentation.config import SegmentationProfile
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.segmentation.reading import read_training_volume
from csfd_core.segmentation.training import (
    FixedVolumes,
    OnEpoch,
    Plan,
    TrainingData,
    TrainingResult,
    train,
)
from csfd_core.settings import lock_digest
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores

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
    folds = assign_folds(usable)
    groups: dict[str, list[tuple[str, str, str]]] = {}
    rows = zip(usable.itertuples(), folds.itertuples(), strict=True)
    for study, place in rows:
        own = "validation" if place.fold == fold else "training"
        group = "test" if place.is_test else own
        found = (str(study.study_uid), str(study.content_hash), str(study.mask_hash))
        groups.setdefault(group, []).append(found)
    return MaskSplit(
        training=tuple(sorted(groups.get("training", ()))),
        validation=tuple(sorted(groups.get("validation", ()))),
        test=tuple(sorted(groups.get("test", ()))),
    )


def plan_fit(stores: Stores, settings: SegmentationProfile, fold: int = 0) -> Fit:
    """Say what a training would be made from, without starting it."""
    split = split_studies(stores.metadata.read_studies(), fold)
    initial = settings.training.initial
    if initial == BUILTIN:
        initial = str((read_card(builtin_location()) or {}).get("model_id"))
    facts = {
        "code": CODE_VERSION,
        "model": settings.model.to_note(),
        "training": settings.training.to_note(),
        "initial": initial,
        "studies": [split.training, split.validation],
    }
    text = json.dumps(facts, sort_keys=True)
    inputs = hashlib.sha256(text.encode()).hexdigest()
    return Fit(fold=fold, split=split, settings=settings, inputs=inputs)


def is_current(stores: Stores, fit: Fit) -> bool:
    """Say whether the store holds the very model that a training would give."""
    card = read_card(ModelStore(stores.root).of_fold(fit.fold))
    return card is not None and card.get("inputs") == fit.inputs


def fit_model(
    stores: Stores, fit: Fit, on_epoch: OnEpoch | None = None
) -> tuple[ModelBundle, TrainingResult | None]:
    """Train a model and keep it; go on where a killed training stopped.

    Where no study with a mask may be learnt from, the model that comes with csfd is
    kept as it is, and the result is ``None``.
    """
    started = time.monotonic()
    settings = fit.settings
    initial = _initial(settings)
    result = None
    config, weights = settings.model, list(initial.weights) if initial else []
    if fit.split.training:
        result = _train(stores, fit, initial, on_epoch)
        weights = list(result.weights)
    elif initial is None:
        raise StoreError(
            "No study with a mask can be learnt from, and the training is to start "
            "from nothing. Add masks, or start from the builtin model."
        )
    facts = _facts(fit, initial, result)
    facts["seconds"] = round(time.monotonic() - started, 1)
    bundle = ModelBundle(config=config, weights=weights, facts=facts)
    write_bundle(ModelStore(stores.root).of_fold(fit.fold), bundle)
    shutil.rmtree(checkpoint_folder(stores, fit), ignore_errors=True)
    return bundle, result


def checkpoint_folder(stores: Stores, fit: Fit) -> Path:
    """Return where a running training keeps its state: on this machine's disk."""
    name = hashlib.sha256(f"{stores.root} {fit.inputs}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / "csfd-training" / name


def _train(
    stores: Stores, fit: Fit, initial: ModelBundle | None, on_epoch: OnEpoch | None
) -> TrainingResult:
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
    return train(plan, data, checkpoint_folder(stores, fit), on_epoch)


def _initial(settings: SegmentationProfile) -> ModelBundle | None:
    if settings.training.initial == _NONE:
        return None
    place = settings.training.initial
    bundle = read_bundle(builtin_location()) if place == BUILTIN else None
    if bundle is None or bundle.config != settings.model:
        raise StoreError(
            f"The model {place!r} has other networks than the profile. Start from "
            f"{_NONE!r} instead."
        )
    return bundle


def _facts(
    fit: Fit, initial: ModelBundle | None, result: TrainingResult | None
) -> dict[str, Any]:
    history = [] if result is None else [_row(epoch) for epoch in result.history]
    return {
        "model_id": f"fold{fit.fold}-{fit.inputs[:12]}",
        "inputs": fit.inputs,
        "fold": fit.fold,
        "initial": initial.name if initial else _NONE,
        "training_studies": {uid: [c, m] for uid, c, m in fit.split.training},
        "validation_studies": {uid: [c, m] for uid, c, m in fit.split.validation},
        "training": fit.settings.training.to_note(),
        "history": history,
        "best_epoch": result.best_epoch if result else 0,
        "code_version": CODE_VERSION,
        "lock_sha256": lock_digest(),
    }


def _row(epoch: Any) -> dict[str, Any]:  # noqa: ANN401 - an EpochResult
    return {
        "epoch": epoch.epoch,
        "loss": round(epoch.loss, 5),
        "validation_dice": round(epoch.validation_dice, 5),
        "learning_rate": epoch.learning_rate,
        "seconds": round(epoch.seconds, 1),
        **{
            f"dice_C{level}": round(value, 5)
            for level, value in enumerate(epoch.level_dice, start=1)
        },
    }
