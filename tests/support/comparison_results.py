"""Builder: results of classifiers that never existed, with known qualities."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import expit

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.evaluation.calibration import overall_from_levels
from csfd_core.evaluation.conformal import AnswerBounds, answer_bounds
from csfd_core.evaluation.metrics import OperatingPoint, operating_point
from csfd_core.learning.splits import Split
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL
from support.cards import classifier_card, point_of

MODELS = ("basic_cnn", "inception_v3", "resnet50", "efficientnet_b5")
SKILLS = dict(zip(MODELS, (0.7, 1.4, 1.9, 2.6), strict=True))
WEIGHTS = dict(zip(MODELS, ("none", "imagenet", "none", "file"), strict=True))
PREVALENCE = {OVERALL: 0.45, **dict.fromkeys(LEVEL_NAMES, 0.12)}


def make_labels(patients: int, seed: int) -> np.ndarray:
    """Labels of C1 to C7, one study per patient, shape (patients, 7)."""
    return (np.random.default_rng(seed).random((patients, 7)) < 0.12).astype(int)


def make_frame(
    labels: np.ndarray, group: str, skill: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Rows of studies whose logits are ``skill`` standard deviations apart."""
    logits = rng.normal(-2.2, 1.0, labels.shape) + skill * labels
    probabilities = expit(logits)
    offset = 1000 if group == Split.VALIDATION else 0
    rows = []
    for place, truth in enumerate(labels):
        study = {"study_uid": f"1.2.{offset + place}", "patient": f"p{offset + place}"}
        overall = float(overall_from_levels(probabilities[[place]])[0])
        rows.append(
            {**study, "level": OVERALL, "label": int(truth.any()), "group": group,
             "logit": None, "probability": overall}
        )  # fmt: skip
        rows += [
            {**study, "level": level, "label": int(truth[i]), "group": group,
             "logit": logits[place, i], "probability": probabilities[place, i]}
            for i, level in enumerate(LEVEL_NAMES)
        ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.astype({"label": "Int8", "logit": float, "probability": float})


def make_history(skill: float, epochs: int = 8) -> list[dict[str, float]]:
    at = np.arange(1, epochs + 1)
    falling = 0.25 + 0.45 * np.exp(-at * skill / 6)
    return [
        {"epoch": int(e), "loss": float(v), "accuracy": float(1 - v / 2),
         "val_loss": float(v + 0.02 * e / 2), "val_accuracy": float(0.97 - v / 2),
         "seconds": 1.5}
        for e, v in zip(at, falling, strict=True)
    ]  # fmt: skip


def make_card(
    model: str,
    fold: int,
    thresholds: Mapping[str, OperatingPoint],
    bounds: Mapping[str, AnswerBounds],
) -> ClassifierCard:
    weights = WEIGHTS.get(model, "none")
    return classifier_card(
        model=model, model_id=f"{model}-{fold}", fold=fold,
        start={"weights": weights, "digest": "d"}, parameters=1_500_000,
        disk_bytes=3_000_000, train_s=60.0 + fold, ms_per_study=25.0,
        history=make_history(SKILLS.get(model, 1.0)), thresholds=thresholds,
        bounds=bounds,
        prevalence=PREVALENCE, code_version="0.1.0",
    )  # fmt: skip


def make_result(
    model: str, fold: int, labels: np.ndarray, skill: float | None = None
) -> FoldResult:
    """One fold: 30 validation patients of its own, and the test patients given."""
    rng = np.random.default_rng([fold, *model.encode()])
    strength = SKILLS.get(model, 1.0) if skill is None else skill
    held_out = make_frame(make_labels(30, 100 + fold), Split.VALIDATION, strength, rng)
    test = make_frame(labels, Split.TEST, strength, rng)
    thresholds, bounds = {}, {}
    for what, rows in (
        ("vertebra", held_out[held_out["level"] != OVERALL]),
        ("overall", held_out[held_out["level"] == OVERALL]),
    ):
        point = operating_point(rows["label"].astype(int), rows["probability"])
        thresholds[what] = point_of(point.threshold)
        bounds[what] = answer_bounds(rows["probability"], rows["label"].astype(int))
    return FoldResult(
        model=model,
        fold=fold,
        card=make_card(model, fold, thresholds, bounds),
        predictions=pd.concat([held_out, test], ignore_index=True),
    )


def make_results(
    models: tuple[str, ...] = MODELS, folds: int = 1, patients: int = 40
) -> dict[str, list[FoldResult]]:
    labels = make_labels(patients, seed=7)
    return {
        model: [make_result(model, fold, labels) for fold in range(folds)]
        for model in models
    }
