"""One training of a classifier as it is recorded: progress, curves, model, datasets."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from csfd_core.classification.classifier_store import (
    CARD,
    ClassifierStore,
    FoldResult,
)
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.fit import (
    ClassifierFit,
    fit_classifier,
    is_current,
    open_trained,
    plan_classifier,
)
from csfd_core.classification.manifest import read_manifest
from csfd_core.evaluation.metrics import auroc, log_loss
from csfd_core.learning.loop import EpochRow
from csfd_core.learning.outcomes import TrainingOutcome
from csfd_core.learning.splits import Split
from csfd_core.runtime.versions import LOCK_FILE, lock_text
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import OVERALL

if TYPE_CHECKING:
    from csfd_core.runtime.tracking import TrackedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRun:
    """What came of one fold."""

    result: FoldResult
    outcome: TrainingOutcome  # TRAINED or UNCHANGED
    scores: Mapping[str, float]  # on the held-out fold and the locked test set


def run_classifier(
    stores: Stores, name: str, fold: int, config: ClassifierConfig, run: "TrackedRun"
) -> ClassifierRun:
    """Train a classifier without one fold, unless it is current, and record it.

    Args:
        stores: Where the crops are and the model goes.
        name: In the registry.
        fold: Held out.
        config: How it is trained.
        run: Where metrics, curves and the model are recorded, while it trains.
    """
    fit = plan_classifier(name, fold, config, read_manifest(stores.root))
    if is_current(stores, fit):
        result = ClassifierStore(stores.root).result(name, fold)
        outcome = TrainingOutcome.UNCHANGED
        run.log_params({"outcome": outcome, "model_id": result.card.model_id})
        return ClassifierRun(result=result, outcome=outcome, scores=scores_of(result))
    run.log_params(_params(fit))
    run.log_datasets(_datasets(fit))
    result = _train(stores, fit, run)
    scores = scores_of(result)
    run.log_metrics({k: v for k, v in scores.items() if math.isfinite(v)})
    trained = open_trained(stores, name, fold, card=result.card)
    model, example = trained.keras_model()
    files = {CARD: result.card.to_json(), LOCK_FILE: lock_text().encode()}
    run.log_model(name, model, example, files)
    return ClassifierRun(result=result, outcome=TrainingOutcome.TRAINED, scores=scores)


def scores_of(result: FoldResult) -> dict[str, float]:
    """Return the main scores of a classifier; NaN where one class only is there."""
    scores = {}
    for group in (Split.VALIDATION, Split.TEST):
        labelled = result.predictions[result.predictions["group"] == group]
        labelled = labelled.dropna(subset=["label"])
        for name, rows in (
            ("vertebra", labelled[labelled["level"] != OVERALL]),
            ("overall", labelled[labelled["level"] == OVERALL]),
        ):
            labels = rows["label"].to_numpy(dtype=int)
            scores[f"{group}_auc_{name}"] = auroc(labels, rows["probability"])
            scores[f"{group}_loss_{name}"] = log_loss(labels, rows["probability"])
    return scores


def _train(stores: Stores, fit: ClassifierFit, run: "TrackedRun") -> FoldResult:
    epochs = fit.epochs
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{fit.name}, fold {fit.fold}", total=epochs)

        def on_epoch(row: EpochRow) -> None:
            epoch = int(row["epoch"])
            defined = {
                k: v for k, v in row.items() if math.isfinite(v) and k != "epoch"
            }
            run.log_metrics(defined, step=epoch)
            told = f"{fit.name}, fold {fit.fold}: epoch {epoch} of {epochs}, "
            told += f"loss {row['loss']:.3f}, validation AUC {row['val_auc']:.3f}"
            progress.update(task, completed=epoch, description=told)

        result = fit_classifier(stores, fit, on_epoch, run.run_id)
        progress.update(task, total=progress.tasks[task].completed)  # may end early
        return result


def _params(fit: ClassifierFit) -> dict[str, Any]:
    rows = fit.training
    return {
        "fold": fit.fold,
        "inputs": fit.inputs,
        "training_vertebrae": len(rows),
        "training_fractured": int(rows["label"].sum()),
        "validation_vertebrae": len(fit.validation),
        "test_vertebrae": len(fit.test),
        **asdict(fit.config),
    }


def _datasets(fit: ClassifierFit) -> dict[str, tuple[str, str]]:
    groups = {split: fit.rows(split) for split in Split}
    return {
        name: (f"manifest {name}, fold {fit.fold}", _digest(rows))
        for name, rows in groups.items()
        if len(rows)
    }


def _digest(rows: pd.DataFrame) -> str:
    text = repr(rows[["study_uid", "level", "label", "content_hash"]].values.tolist())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
