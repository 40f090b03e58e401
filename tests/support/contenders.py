"""Builder: contenders with known qualities, as tables and as a store."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.special import expit

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.manifest import MANIFEST_COLUMNS
from csfd_core.evaluation.calibration import overall_from_levels
from csfd_core.learning.splits import Split
from csfd_core.registry.decision import Contender
from csfd_core.store import paths
from csfd_core.store.parquet import write_parquet
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL
from support.cards import classifier_card, point_of

SHARE = 0.15
CROP = {
    "slices": 8,
    "neighbours": 1,
    "neighbour_mm": 2.0,
    "side_px": 96,
    "pixel_mm": 0.8,
}
PREVALENCE = {**dict.fromkeys(LEVEL_NAMES, SHARE), OVERALL: 1 - (1 - SHARE) ** 7}
THRESHOLDS = {"vertebra": 0.2, "overall": 0.5}


def make_labels(studies: int, seed: int = 7) -> np.ndarray:
    """Labels of C1 to C7, shape (studies, 7)."""
    return (np.random.default_rng(seed).random((studies, 7)) < SHARE).astype(int)


def make_probabilities(labels: np.ndarray, skill: float, seed: int) -> np.ndarray:
    """Calibrated probabilities (studies, 7); ``skill`` is the distance of the classes.

    Scores are normal, of one width in both classes, so that the logit is known.
    """
    scores = np.random.default_rng(seed).normal(size=labels.shape) + skill * labels
    odds = math.log(SHARE / (1 - SHARE))
    return np.asarray(expit(odds + skill * scores - skill**2 / 2))


def make_table(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Predictions of test studies, one patient each."""
    overall = overall_from_levels(probabilities)
    rows = []
    for place, truth in enumerate(labels):
        study = {"study_uid": uid_of(place), "patient": f"p{place}"}
        rows.append(
            {**study, "level": OVERALL, "label": float(truth.max()),
             "probability": overall[place]}
        )  # fmt: skip
        rows += [
            {**study, "level": level, "label": float(truth[i]),
             "probability": probabilities[place, i]}
            for i, level in enumerate(LEVEL_NAMES)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def uid_of(place: int) -> str:
    return f"1.2.{place + 1}"


def make_contender(
    name: str, skill: float, labels: np.ndarray, seed: int = 0, **changes: Any
) -> Contender:
    """A contender whose test table has the labels given."""
    probabilities = make_probabilities(labels, skill, seed)
    contender = Contender(
        name=name,
        predictions=make_table(labels, probabilities),
        thresholds=THRESHOLDS,
        ms_per_study=100.0,
        prevalence=PREVALENCE,
        learnt_from=frozenset({"9.9.1"}),
    )
    return replace(contender, **changes)


def write_store_manifest(
    stores: Stores, labels: np.ndarray, content: Mapping[str, str] | None = None
) -> None:
    """Write a manifest whose usable rows are all of the locked test set."""
    rows = [
        {
            "study_uid": uid_of(place), "patient": f"p{place}", "level": level,
            "label": int(truth[i]), "fold": 0, "is_test": True,
            "crop_path": f"crops/{uid_of(place)}.parquet", "crop_row": 8 * i,
            "crop_count": 8, "content_hash": (content or {}).get(uid_of(place), "c"),
            "visible_share": 1.0, "confidence": 1.0, "standing": "unseen",
            "slice_labels": None, "left_out": None,
        }
        for place, truth in enumerate(labels)
        for i, level in enumerate(LEVEL_NAMES)
    ]  # fmt: skip
    schema = pa.schema([(name, kind) for name, kind, _ in MANIFEST_COLUMNS])
    note = {"crop": CROP, "data_kind": "phantom", "inputs": f"manifest{len(labels)}"}
    table = pa.Table.from_pylist(rows, schema=schema)
    write_parquet(stores.root, paths.MANIFEST, table, note)


def write_classifier(
    stores: Stores,
    labels: np.ndarray,
    skill: float,
    *,
    model: str = "basic_cnn",
    seed: int = 0,
    **facts: Any,
) -> ClassifierCard:
    """Write fold 0 of a classifier whose predictions have a known skill."""
    probabilities = make_probabilities(labels, skill, seed)
    frame = make_table(labels, probabilities)
    rows = [
        {
            **row,
            "label": int(row["label"]),
            "group": Split.TEST,
            "logit": None if row["level"] == OVERALL else 0.0,
        }
        for row in frame.to_dict(orient="records")
    ]
    rows.append(
        {"study_uid": "9.9.2", "patient": "v", "level": "C1", "label": 0,
         "group": Split.VALIDATION, "logit": 0.0, "probability": 0.1}
    )  # fmt: skip
    values = {
        "model": model, "model_id": f"{model}-fold0-{skill}-{seed}",
        "inputs": f"inputs-{model}-{skill}-{seed}",
        "manifest": f"manifest{len(labels)}", "crop": CROP,
        "thresholds": {k: point_of(v) for k, v in THRESHOLDS.items()},
        "prevalence": {name: PREVALENCE[name] for name in LABEL_COLUMNS},
        "ms_per_study": 100.0, "parameters": 10, "train_s": 1.0,
        "training_studies": {"9.9.1": "a"}, "validation_studies": {"9.9.2": "b"},
        "test_studies": {uid_of(place): "c" for place in range(len(labels))},
        **facts,
    }  # fmt: skip
    weights = [np.full(3, skill, dtype=np.float32)]
    return ClassifierStore(stores.root).write(classifier_card(**values), weights, rows)
