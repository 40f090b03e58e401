"""Trainings as they are recorded: progress, curves, overlays, models, one report."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from csfd_core.learning.loop import EpochRow
from csfd_core.learning.outcomes import TrainingOutcome
from csfd_core.learning.splits import Split
from csfd_core.reports.page import INDEX
from csfd_core.reports.segmentation.figures import sample_overlay
from csfd_core.reports.segmentation.summary import (
    Evaluation,
    evaluate_models,
    is_reported,
    reported_fits,
)
from csfd_core.runtime.versions import LOCK_FILE, lock_text
from csfd_core.segmentation.bundle import CARD, WEIGHTS, weights_file
from csfd_core.segmentation.card import SegmentationCard
from csfd_core.segmentation.config import SegmentationProfile
from csfd_core.segmentation.data import draw_sample
from csfd_core.segmentation.fit import Fit, fit_model, is_current, plan_fit
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.segmentation.networks import open_keras_model
from csfd_core.segmentation.reading import read_training_volume
from csfd_core.segmentation.training import VALIDATION_DICE, OnEpoch
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import FOLD_COUNT, LEVEL_NAMES

if TYPE_CHECKING:
    import keras

    from csfd_core.runtime.tracking import RunIdentity, TrackedRun

MODEL_NAME: Final = "vertebra_segmentation"  # in MLflow
_OVERLAYS: Final = 6  # of one training

Identify = Callable[[int], "RunIdentity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """What came of one fold."""

    fit: Fit
    outcome: TrainingOutcome
    card: SegmentationCard
    run: "TrackedRun"
    mlflow_model_id: str | None = None  # None: unchanged, so logged earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationRun:
    """What came of all folds."""

    folds: tuple[FoldRun, ...]
    evaluation: Evaluation | None  # None: models and report are unchanged


def run_folds(
    stores: Stores,
    settings: SegmentationProfile,
    folds: Sequence[int],
    run: "TrackedRun",
    identify: Identify,
) -> SegmentationRun:
    """Train a model without each of some folds, and write one report on all of them.

    A fold that was trained earlier takes part in the report while its model is current.

    Args:
        stores: Where the studies are and the models go.
        settings: Networks and training.
        folds: Each held out for validation by one model.
        run: Where scores and report are recorded; each fold has a run below it.
        identify: Says what the run of a fold belongs to.

    Raises:
        ValueError: If there is no such fold.
    """
    if not folds or not set(folds) <= set(range(FOLD_COUNT)):
        raise ValueError(
            f"`folds` must be some of 0 to {FOLD_COUNT - 1}. Received: {list(folds)}."
        )
    fold_runs = []
    for fold in sorted(set(folds)):
        with run.child(identify(fold)) as child:
            fold_runs.append(_run_fold(stores, settings, fold, child))
    fits = reported_fits(stores, settings, folds)
    run.log_params({f"fold_{one.fit.fold}": one.outcome for one in fold_runs})
    if is_reported(stores, fits):
        return SegmentationRun(folds=tuple(fold_runs), evaluation=None)
    evaluation = evaluate_models(stores, fits)
    _record(evaluation, fold_runs, run)
    return SegmentationRun(folds=tuple(fold_runs), evaluation=evaluation)


def _record(
    evaluation: Evaluation, fold_runs: Sequence[FoldRun], run: "TrackedRun"
) -> None:
    """Record the scores of all folds, the report, and beside each model its scores."""
    run.log_metrics(_finite(evaluation.scores.summary(), "unseen_"))
    run.log_files(
        {
            f"report/{INDEX}": evaluation.written.html.encode(),
            **{f"report/{k}": v for k, v in evaluation.written.figures.items()},
            **{f"report/{k}": v for k, v in evaluation.written.tables.items()},
        }
    )
    for one in fold_runs:
        fold_scores = evaluation.scores.of_fold(one.fit.fold)
        one.run.log_metrics(_finite(fold_scores.summary(), "unseen_"))


def _run_fold(
    stores: Stores, settings: SegmentationProfile, fold: int, run: "TrackedRun"
) -> FoldRun:
    """Train the model without one fold, unless it is current, and record it."""
    fit = plan_fit(stores, settings, fold)
    if is_current(stores, fit):
        card = ModelStore(stores.root).card(fold)
        assert card is not None  # it is current
        outcome = TrainingOutcome.UNCHANGED
        run.log_params({"outcome": outcome, "model_id": card.model_id})
        return FoldRun(fit=fit, outcome=outcome, card=card, run=run)
    run.log_params(_params(fit))
    run.log_datasets(_datasets(fit), source="slice and mask store")
    with _watched(stores, fit, run) as on_epoch:
        bundle, result = fit_model(stores, fit, on_epoch)
    return FoldRun(
        fit=fit,
        outcome=TrainingOutcome.TAKEN if result is None else TrainingOutcome.TRAINED,
        card=bundle.card,
        run=run,
        mlflow_model_id=_log_model(stores, fit, bundle.card, run),
    )


def _log_model(
    stores: Stores, fit: Fit, card: SegmentationCard, run: "TrackedRun"
) -> str:
    """Record the model as csfd reads it, and as a Keras model with its signature."""
    # From the store, not from the training: the weights that studies are predicted by.
    stored = ModelStore(stores.root).read(fit.fold, card)
    alone = card.model_copy(update={"files_mark": ""}).to_json()
    beside = {
        "signature.json": _signature(fit.settings),
        "studies.json": _studies(fit),
        LOCK_FILE: lock_text().encode(),
    }
    files = {CARD: alone, WEIGHTS: weights_file(stored.weights), **beside}
    run.log_files({f"model/{name}": content for name, content in files.items()})
    model, example = open_keras_model(stored)
    return run.log_model(MODEL_NAME, model, example, {CARD: alone, **beside})


@contextmanager
def _watched(stores: Stores, fit: Fit, run: "TrackedRun") -> Iterator[OnEpoch]:
    """Show the progress of a training, and record its curves and overlays."""
    settings = fit.settings
    epochs = settings.training.epochs
    sample = None
    if fit.split.validation:
        step = settings.model.segmenter.spacing_mm
        volume = read_training_volume(stores, fit.split.validation[0][0], step)
        sample = draw_sample(volume, settings.model, np.random.default_rng(0), 0.0)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"Segmentation, fold {fit.fold}", total=epochs)

        def on_epoch(row: EpochRow, model: "keras.Model") -> None:
            epoch = int(row["epoch"])
            run.log_metrics(_metrics(row), step=epoch)
            if sample is not None and epoch % max(1, epochs // _OVERLAYS) == 0:
                name = f"overlays/epoch_{epoch:03d}.png"
                run.log_files({name: sample_overlay(model, sample)})
            told = f"epoch {epoch} of {epochs}: loss {row['loss']:.3f}, "
            told += f"validation Dice {row[VALIDATION_DICE.score]:.3f}"
            progress.update(task, completed=epoch, description=told)

        yield on_epoch
        progress.update(task, total=progress.tasks[task].completed)  # may end early


def _params(fit: Fit) -> dict[str, object]:
    network = fit.settings.model.segmenter
    return {
        "fold": fit.fold,
        "inputs": fit.inputs,
        "training_studies": len(fit.split.training),
        "validation_studies": len(fit.split.validation),
        "test_studies": len(fit.split.test),
        "shape_zyx": network.shape_zyx,
        "spacing_mm": network.spacing_mm,
        "filters": network.filters,
        **asdict(fit.settings.training),
    }


def _metrics(row: EpochRow) -> dict[str, float]:
    """Return the row of an epoch under the names that MLflow knows it by."""
    of_levels = {f"dice_{name}": f"validation_dice_{name}" for name in LEVEL_NAMES}
    return _finite({of_levels.get(k, k): v for k, v in row.items() if k != "epoch"})


def _finite(values: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    return {f"{prefix}{k}": v for k, v in values.items() if not math.isnan(v)}


def _signature(settings: SegmentationProfile) -> bytes:
    """Describe what goes into the networks and what comes out."""
    networks = {
        name: {
            "input": {
                "shape": ["N", *network.shape_zyx, network.channels],
                "dtype": "float32",
                "channels": ["grey level 0..1 of the bone window"]
                + ["z -1..1", "y -1..1", "x -1..1"] * network.coordinates,
                "axes": ["to the feet", "to the back", "to the left"],
                "spacing_mm": network.spacing_mm,
            },
            "output": {
                "shape": ["N", *network.shape_zyx, network.classes],
                "dtype": "float32",
                "meaning": "logits",
            },
        }
        for name, network in (
            ("locator", settings.model.locator),
            ("segmenter", settings.model.segmenter),
        )
    }
    return (json.dumps(networks, indent=2) + "\n").encode()


def _datasets(fit: Fit) -> dict[str, tuple[str, str]]:
    """Name the studies of a training with a digest of their slices and masks."""
    return {
        group: (
            f"segmentation {group}, fold {fit.fold}",
            hashlib.sha256(json.dumps(studies).encode()).hexdigest()[:16],
        )
        for group, studies in _groups(fit)
        if studies
    }


def _studies(fit: Fit) -> bytes:
    """List the studies of a training with the digests of their content."""
    groups = {
        group: [
            {"study_uid": uid, "content_hash": content, "mask_hash": mask}
            for uid, content, mask in studies
        ]
        for group, studies in _groups(fit)
    }
    return (json.dumps(groups, indent=2) + "\n").encode()


def _groups(fit: Fit) -> tuple[tuple[Split, tuple[tuple[str, str, str], ...]], ...]:
    split = fit.split
    return (Split.TRAINING, split.training), (Split.VALIDATION, split.validation)
