"""One training as it is recorded: progress, curves, overlays, the model, its report."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from csfd_core.reports.page import INDEX
from csfd_core.segmentation.bundle import CARD, WEIGHTS, read_card
from csfd_core.segmentation.config import SegmentationProfile
from csfd_core.segmentation.data import draw_sample
from csfd_core.segmentation.fit import Fit, fit_model, is_current, plan_fit
from csfd_core.segmentation.models import ModelStore
from csfd_core.segmentation.reading import read_training_volume
from csfd_core.segmentation.report import FOLDER, sample_overlay
from csfd_core.segmentation.summary import Evaluation, evaluate_model
from csfd_core.segmentation.training import EpochResult, OnEpoch
from csfd_core.settings import lock_file
from csfd_core.store.convert import Stores

if TYPE_CHECKING:
    import keras

    from csfd_core.registry.tracking import TrackedRun

TRAINED: Final = "trained"
UNCHANGED: Final = "unchanged"
TAKEN: Final = "taken from csfd"  # no study with a mask may be learnt from
_OVERLAYS: Final = 6  # of one training


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """What came of one fold."""

    fit: Fit
    outcome: str
    facts: dict[str, Any]
    evaluation: Evaluation | None  # None: unchanged


def run_fold(
    stores: Stores, settings: SegmentationProfile, fold: int, run: "TrackedRun"
) -> FoldRun:
    """Train the model without one fold, score it and write its report.

    Args:
        stores: Where the studies are and the model goes.
        settings: Networks and training.
        fold: Held out for validation.
        run: Where metrics, model and report are recorded, while it trains.
    """
    fit = plan_fit(stores, settings, fold)
    place = ModelStore(stores.root).of_fold(fold)
    page = stores.root.join(FOLDER)
    if is_current(stores, fit) and page.exists(INDEX):
        card = read_card(place) or {}
        run.log_params({"outcome": UNCHANGED, "model_id": card["model_id"]})
        return FoldRun(fit=fit, outcome=UNCHANGED, facts=card, evaluation=None)
    run.log_params(_params(fit))

    if is_current(stores, fit):  # it was trained, but its report is missing
        facts, trained = dict(read_card(place) or {}), True
    else:
        with _watched(stores, fit, run) as on_epoch:
            bundle, result = fit_model(stores, fit, on_epoch)
        facts, trained = dict(bundle.facts), result is not None
    evaluation = evaluate_model(stores, fit, facts)
    numbers = evaluation.scores.summary()
    lock = lock_file()
    run.log_metrics({f"unseen_{k}": v for k, v in numbers.items() if not math.isnan(v)})
    run.log_files(
        {
            "model/" + CARD: place.read(CARD),
            "model/" + WEIGHTS: place.read(WEIGHTS),
            "model/signature.json": _signature(settings),
            "model/studies.json": _studies(fit),
            **({"model/requirements.lock": lock.read_bytes()} if lock.exists() else {}),
            f"report/{INDEX}": evaluation.written.html.encode(),
            **{f"report/{k}": v for k, v in evaluation.written.figures.items()},
            **{f"report/{k}": v for k, v in evaluation.written.tables.items()},
        }
    )
    outcome = TRAINED if trained else TAKEN
    return FoldRun(fit=fit, outcome=outcome, facts=facts, evaluation=evaluation)


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

        def on_epoch(epoch: EpochResult, model: "keras.Model") -> None:
            run.log_metrics(_metrics(epoch), step=epoch.epoch)
            if sample is not None and epoch.epoch % max(1, epochs // _OVERLAYS) == 0:
                name = f"overlays/epoch_{epoch.epoch:03d}.png"
                run.log_files({name: sample_overlay(model, sample)})
            told = f"epoch {epoch.epoch} of {epochs}: loss {epoch.loss:.3f}, "
            told += f"validation Dice {epoch.validation_dice:.3f}"
            progress.update(task, completed=epoch.epoch, description=told)

        yield on_epoch


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
        **fit.settings.training.to_note(),
    }


def _metrics(epoch: EpochResult) -> dict[str, float]:
    values = {
        "loss": epoch.loss,
        "validation_dice": epoch.validation_dice,
        "learning_rate": epoch.learning_rate,
        "seconds": epoch.seconds,
    }
    for level, value in enumerate(epoch.level_dice, start=1):
        values[f"validation_dice_C{level}"] = value
    return {name: value for name, value in values.items() if not math.isnan(value)}


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


def _studies(fit: Fit) -> bytes:
    """List the studies of a training with the digests of their content."""
    groups = {
        name: [
            {"study_uid": uid, "content_hash": content, "mask_hash": mask}
            for uid, content, mask in studies
        ]
        for name, studies in (
            ("training", fit.split.training),
            ("validation", fit.split.validation),
        )
    }
    return (json.dumps(groups, indent=2) + "\n").encode()
