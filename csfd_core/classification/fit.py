"""Training a classifier on a store: from what, with what result, and what is kept.

The model of a fold learns from the other folds. The held-out fold stops its training,
calibrates it and chooses its operating points; the locked test set is only scored. What
a model was made from is recorded with it, so that nothing is trained again while that
has not changed.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.card import Calibrations, ClassifierCard
from csfd_core.classification.classifier import Classifier, CropShape, TrainingSet
from csfd_core.classification.classifier_store import (
    ClassifierStore,
    FoldResult,
)
from csfd_core.classification.classifiers import has_backbone, open_classifier
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.general import initial_digest
from csfd_core.classification.manifest import Manifest, labels_of
from csfd_core.classification.probabilities import Calibrated, probabilities_of
from csfd_core.classification.trained_labels import label_words
from csfd_core.classification.training_reference import build_reference
from csfd_core.classification.transfer.weights import file_digest
from csfd_core.classification.vertebrae import read_vertebrae
from csfd_core.errors import StoreError
from csfd_core.learning.checkpoint import Checkpoint, require_not_withdrawn
from csfd_core.learning.loop import EpochRow, OnEpoch, Trained
from csfd_core.learning.splits import Split, is_in_split
from csfd_core.runtime.versions import lock_digest
from csfd_core.store import paths
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

CODE_VERSION: Final = "4"  # raised when the same inputs must be trained again
_TIMED: Final = 3  # studies


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierFit:
    """One training: the rows of the manifest, the settings and their identity."""

    name: str
    fold: int
    config: ClassifierConfig
    manifest: Manifest
    inputs: str
    natural: Split  # whose studies break as often as those that will be judged

    def rows(self, split: Split) -> pd.DataFrame:
        """Return the usable vertebrae that are for this."""
        usable = self.manifest.usable
        return usable[is_in_split(usable, split, self.fold)]

    @property
    def epochs(self) -> int:
        """How many the training takes at most."""
        return self.config.planned_epochs(has_backbone=has_backbone(self.name))

    @property
    def training(self) -> pd.DataFrame:
        """Rows to learn from."""
        return self.rows(Split.TRAINING)

    @property
    def validation(self) -> pd.DataFrame:
        """Rows of the held-out fold."""
        return self.rows(Split.VALIDATION)

    @property
    def test(self) -> pd.DataFrame:
        """Rows of the locked test set."""
        return self.rows(Split.TEST)


def plan_classifier(
    name: str,
    fold: int,
    config: ClassifierConfig,
    manifest: Manifest,
    natural: Split = Split.TRAINING,
) -> ClassifierFit:
    """Say what a training would be made from, without starting it.

    Args:
        name: In the registry of classifiers.
        fold: Held out.
        config: How it is trained.
        manifest: Of the vertebrae.
        natural: Whose studies break as often as those that will be judged.
    """
    rows = manifest.usable
    on_backbone = has_backbone(name)
    facts = {
        "code": CODE_VERSION,
        "name": name,
        "fold": fold,
        "config": config.identity(has_backbone=on_backbone),
        "weights": file_digest(config.weights)
        if on_backbone
        else initial_digest(name, config.initial) or NONE,
        "crop": dict(manifest.crop),
        "rows": rows[
            ["study_uid", "level", "label", "fold", "is_test", "content_hash"]
        ].values.tolist(),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    inputs = hashlib.sha256(text.encode()).hexdigest()
    return ClassifierFit(
        name=name,
        fold=fold,
        config=config,
        manifest=manifest,
        inputs=inputs,
        natural=natural,
    )


def is_current(stores: Stores, fit: ClassifierFit) -> bool:
    """Say whether the store holds the very model that a training would give."""
    card = ClassifierStore(stores.root).card(fit.name, fit.fold)
    return card is not None and card.inputs == fit.inputs


def fit_classifier(
    stores: Stores,
    fit: ClassifierFit,
    on_epoch: OnEpoch | None = None,
    run_id: str | None = None,
) -> FoldResult:
    """Train, calibrate, score and keep a classifier; a killed training goes on.

    Args:
        stores: Where the crops are and the classifier goes.
        fit: What it is trained on, and how.
        on_epoch: Told of every epoch.
        run_id: The MLflow run that records the training, for the way back to it.

    Raises:
        StoreError: If there is nothing to learn from, or to stop by; or if a study was
            withdrawn while it learnt from it.
        SettingsError: If the weights to start from cannot be used.
    """
    if reason := why_untrainable(fit):
        raise StoreError(reason)
    checkpoint = checkpoint_of(stores, fit)
    classifier = open_classifier(
        fit.name, fit.config, CropShape.of(fit.manifest.crop), stores.root
    )
    start = classifier.start()
    data = TrainingSet(
        crops=stores.crops,
        training=fit.training,
        validation=fit.validation,
        checkpoint=checkpoint,
    )

    def told(row: EpochRow) -> None:
        require_not_withdrawn(stores, checkpoint)
        if on_epoch is not None:
            on_epoch(row)

    begun = time.monotonic()
    trained = classifier.train(data, told)
    seconds = time.monotonic() - begun
    rows, calibrated = _predict(stores, fit, classifier)
    card = _card(fit, trained, start, calibrated).model_copy(
        update={
            "train_s": round(seconds, 1),
            "ms_per_study": _time_of_study(stores, fit, classifier),
            "parameters": classifier.parameters,
            "reference": build_reference(
                stores,
                fit.training["study_uid"],
                fit.validation["study_uid"],
                pd.DataFrame(rows),
            ),
            "mlflow_run_id": run_id,
        }
    )
    require_not_withdrawn(stores, checkpoint)
    store = ClassifierStore(stores.root)
    card = store.write(card, classifier.get_weights(), rows)
    checkpoint.remove()
    return store.result(fit.name, fit.fold, card)


def checkpoint_of(stores: Stores, fit: ClassifierFit) -> Checkpoint:
    """Return where a training goes on that was cut off."""
    learnt = pd.concat([fit.training, fit.validation])["study_uid"]
    return Checkpoint(
        stores.root,
        f"{fit.name}-fold_{fit.fold}",
        inputs=fit.inputs,
        studies=tuple(learnt.unique()),
    )


def open_trained(
    stores: Stores,
    name: str,
    fold: int,
    folder: str = paths.CLASSIFIERS,
    card: ClassifierCard | None = None,
) -> Classifier:
    """Open a classifier that the store holds.

    Args:
        stores: Where it is.
        name: In the registry of backbones.
        fold: That it was trained without.
        folder: Of the newest, or of a frozen version.
        card: That was read of it; ``None``: that of its newest training.

    Raises:
        StoreError: If there is none, or its files belong to another network.
        SettingsError: If the weights it started from cannot be had any more.
    """
    store = ClassifierStore(stores.root, folder)
    card = card or store.require_card(name, fold)
    shape = CropShape.of(card.crop)
    classifier = open_classifier(name, card.config, shape, stores.root)
    if classifier.needs_start and classifier.start()["digest"] != card.start["digest"]:
        raise StoreError(
            f"The weights that {name} started from ({card.weights}) are not what "
            "they were when it was trained. Bring them back, or train it again."
        )
    classifier.set_weights(store.read_weights(name, fold, card))
    return classifier


def why_untrainable(fit: ClassifierFit) -> str | None:
    """Return why a training cannot be started on these studies, ``None`` if it can."""
    training, validation = fit.training, fit.validation
    if training.empty or validation.empty:
        return (
            f"Fold {fit.fold} cannot be trained: {len(training)} vertebrae to learn "
            f"from and {len(validation)} of its own to stop by. Add labelled studies."
        )
    positives = int((training["label"] == 1).sum())
    if positives in (0, len(training)):
        return (
            f"Fold {fit.fold} cannot be trained: {positives} of {len(training)} "
            "vertebrae to learn from are fractured; both kinds are needed."
        )
    return None


def _predict(
    stores: Stores, fit: ClassifierFit, classifier: Classifier
) -> tuple[list[dict[str, Any]], Calibrated]:
    """Calibrate on the held-out fold; return the rows of it and of the test set."""
    groups = {Split.VALIDATION: fit.validation, Split.TEST: fit.test}
    tables = {
        name: _wide(
            rows, classifier.stored_logits(stores.crops, rows), fit.manifest.table
        )
        for name, rows in groups.items()
    }
    calibrated = Calibrated.fit(
        tables[Split.VALIDATION].logits,
        tables[Split.VALIDATION].labels,
        prevalence=_prevalence(fit.rows(fit.natural)),
    )
    rows = []
    for group, table in tables.items():
        probabilities = probabilities_of(calibrated, table.logits)
        for index, study_uid in enumerate(table.study_uids):
            for column, level in enumerate((OVERALL, *LEVEL_NAMES)):
                label = table.labels[index, column]
                logit = table.logits[index, column - 1] if column else math.nan
                rows.append(
                    {
                        "study_uid": study_uid,
                        "patient": table.patients[index],
                        "level": level,
                        "label": None if math.isnan(label) else int(label),
                        "group": group,
                        "logit": None if math.isnan(logit) else float(logit),
                        "probability": float(probabilities[index, column]),
                    }
                )
    return rows, calibrated


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wide:
    """Studies in rows: logits of C1..C7 (N, 7), labels of overall, C1..C7 (N, 8)."""

    study_uids: list[str]
    patients: list[str]
    logits: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]


def _wide(rows: pd.DataFrame, logits: npt.ArrayLike, table: pd.DataFrame) -> _Wide:
    """Turn vertebrae into studies; labels also of vertebrae that were not found."""
    studies = sorted(rows["study_uid"].unique())
    wide = rows.assign(logit=np.asarray(logits, dtype=float)).pivot_table(
        index="study_uid", columns="level", values="logit", dropna=False
    )
    wide = wide.reindex(index=studies, columns=list(LEVEL_NAMES))
    listed = table[table["study_uid"].isin(studies)]
    patients = listed.drop_duplicates("study_uid").set_index("study_uid")["patient"]
    return _Wide(
        study_uids=studies,
        patients=[str(patients[uid]) for uid in studies],
        logits=wide.to_numpy(dtype=float),
        labels=labels_of(table, studies).to_numpy(dtype=float),
    )


def _prevalence(vertebrae: pd.DataFrame) -> dict[str, float]:
    """Return the share of fractured vertebrae per level, and of fractured studies.

    One study more of each kind keeps a level without a fracture off zero (Laplace).
    """
    shares = {}
    for level in LEVEL_NAMES:
        of_level = vertebrae.loc[vertebrae["level"] == level, "label"]
        shares[level] = (float(of_level.sum()) + 1) / (len(of_level) + 2)
    studies = vertebrae.groupby("study_uid")["label"].max()
    return {OVERALL: (float(studies.sum()) + 1) / (len(studies) + 2), **shares}


def _card(
    fit: ClassifierFit,
    trained: Trained,
    start: Mapping[str, str],
    calibrated: Calibrated,
) -> ClassifierCard:
    def contents(split: Split) -> dict[str, str]:
        pairs = fit.rows(split).drop_duplicates("study_uid")
        return dict(zip(pairs["study_uid"], pairs["content_hash"], strict=True))

    training, validation = contents(Split.TRAINING), contents(Split.VALIDATION)
    table = fit.manifest.table
    return ClassifierCard(
        model=fit.name,
        model_id=f"{fit.name}-fold{fit.fold}-{fit.inputs[:12]}",
        fold=fit.fold,
        inputs=fit.inputs,
        config=fit.config,
        start=dict(start),
        crop=dict(fit.manifest.crop),
        history=tuple(trained.history),
        best_epoch=trained.best_epoch,
        before=dict(trained.before),
        stopped=trained.stopped,
        training_studies=training,
        validation_studies=validation,
        test_studies=contents(Split.TEST),
        label_digests=label_words(
            table[table["study_uid"].isin({*training, *validation})]
        ),
        trained_at=datetime.now(UTC).isoformat("T", "seconds"),
        manifest=fit.manifest.inputs,
        data_kind=fit.manifest.data_kind,
        calibration=Calibrations(
            vertebra=calibrated.vertebra, overall=calibrated.overall
        ),
        thresholds={
            "vertebra": calibrated.vertebra_point,
            "overall": calibrated.overall_point,
        },
        bounds=dict(calibrated.bounds),
        prevalence=dict(calibrated.prevalence),
        code_version=CODE_VERSION,
        lock_sha256=lock_digest(),
    )


def _time_of_study(stores: Stores, fit: ClassifierFit, classifier: Classifier) -> float:
    """Return the milliseconds from a study's crops in memory to its logits."""
    rows = pd.concat([fit.test, fit.validation])
    chosen = rows["study_uid"].unique()[:_TIMED]
    studies = [
        [v for _, v in read_vertebrae(stores.crops, rows[rows["study_uid"] == uid])]
        for uid in chosen
    ]
    classifier.logits(studies[0])  # the first call builds the graph
    begun = time.perf_counter()
    for vertebrae in studies:
        classifier.logits(vertebrae)
    return round((time.perf_counter() - begun) / len(studies) * 1000, 1)
