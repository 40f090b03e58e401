"""What the models started from, how they learned, and what single studies show."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from csfd_core.classification.score_tables import mean_threshold
from csfd_core.data_kind import DataKind
from csfd_core.reports.comparison.examples import Example
from csfd_core.reports.comparison.sentences import join
from csfd_core.reports.comparison.styles import STAR
from csfd_core.reports.comparison.summary import Comparison
from csfd_core.text import count, plural
from csfd_core.vocabulary import LEVEL_NAMES

BASIC: Final = "basic_cnn"  # has no pretrained form; every layer of it is trained


def say_start(c: Comparison) -> str:
    """Say for each kind of weights what it means, and what a network costs."""
    groups: dict[str, list[str]] = {}
    for model, weights in zip(c.models["model"], c.models["weights"], strict=True):
        is_whole = model == BASIC and weights == "none"
        groups.setdefault("whole" if is_whole else weights, []).append(model)
    parts = [_start_of(weights, models) for weights, models in groups.items()]
    costs = c.models[c.models["ms_per_study"].notna()]
    if len(costs):
        ordered = costs.sort_values("ms_per_study", kind="stable")
        fast, slow = ordered.iloc[0], ordered.iloc[-1]
        text = f"One network takes {fast['ms_per_study']:.3g} ms per study"
        if slow["ms_per_study"] > fast["ms_per_study"]:
            text += (
                f" ({fast['model']}) to {slow['ms_per_study']:.3g} ms ({slow['model']})"
            )
        parts.append(f"{text}; all folds of a model take as often as much.")
    return " ".join(parts)


def _start_of(weights: str, models: Sequence[str]) -> str:
    names, are_many = join(models), len(models) > 1
    if weights == "whole":
        return f"{names} has no pretrained form: all of its layers were trained here."
    if weights == "none":
        return (
            f"{names} started from no weights (“none”): the features of "
            f"{'their backbones' if are_many else 'its backbone'} are random and "
            "frozen, and only what follows was trained. "
            f"{'They are baselines' if are_many else 'It is a baseline'} and no test "
            "of transfer learning."
        )
    if weights == "imagenet":
        return f"{names} started from weights trained on ImageNet (“imagenet”)."
    if weights == "file" or weights.startswith("file"):
        return f"{names} started from weights in a file (“{weights}”)."
    if " + " in weights:
        return (
            f"The folds of {names} did not all start from the same weights "
            f"(“{weights}”), so {'their' if are_many else 'its'} numbers mix both."
        )
    return f"{names} started from “{weights}”."


def histories_of(c: Comparison) -> dict[str, list[pd.DataFrame]]:
    """Return the epochs of each fold of each model."""
    return {
        model: [fold.epochs for fold in folds] for model, folds in c.results.items()
    }


def epochs_table(c: Comparison) -> pd.DataFrame:
    """Return the epochs of all models and folds, one row each."""
    parts = [
        fold.epochs.assign(model=model, fold=fold.fold)
        for model, folds in c.results.items()
        for fold in folds
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["model", "fold", *table.columns.drop(["model", "fold"])]]


def say_curves(epochs: pd.DataFrame) -> str:
    """The lowest validation loss of each model, and who fits its training data most."""
    if "val_loss" not in epochs or epochs["val_loss"].isna().all():
        return "No model recorded its epochs."
    parts, gaps = [], {}
    for model, part in epochs.groupby("model", sort=False):
        known = part[part["val_loss"].notna()]
        if known.empty:
            continue
        row = known.sort_values("val_loss", kind="stable").iloc[0]
        last = int(part["epoch"][part["fold"] == row["fold"]].max())
        fold = f", fold {row['fold']}" if part["fold"].nunique() > 1 else ""
        parts.append(
            f"{model} {row['val_loss']:.3f} (epoch {row['epoch']:.0f} of {last}{fold})"
        )
        ends = known.sort_values("epoch").groupby("fold").tail(1)
        gaps[str(model)] = float((ends["accuracy"] - ends["val_accuracy"]).mean())
    text = f"Lowest validation loss: {'; '.join(parts)}."
    gaps = {model: gap for model, gap in gaps.items() if not math.isnan(gap)}
    if gaps:
        model = max(gaps, key=lambda name: gaps[name])
        text += (
            f" At the last epoch training accuracy exceeds validation accuracy most in "
            f"{model} ({gaps[model]:+.3f})."
            if gaps[model] > 0
            else " At the last epoch no model has a higher accuracy in training than "
            "in validation."
        )
    return text


def say_accuracy(c: Comparison) -> str:
    """Why accuracy tells little here."""
    row = c.models.iloc[0]
    if not row["test_vertebrae"]:
        return ""
    share = 1 - row["test_fractures"] / row["test_vertebrae"]
    return (
        f" Calling every vertebra intact would be right for {100 * share:.1f} % of "
        "the test vertebrae: accuracy says little of fractures."
    )


def say_folds(c: Comparison) -> str:
    """One fold, or mean and spread over several."""
    single = [model for model, folds in c.results.items() if len(folds) == 1]
    several = c.folds_summary[c.folds_summary["folds"] > 1]
    parts = []
    if len(single) == len(c.results):
        parts.append(
            "Each model was trained for one fold (fold "
            f"{join(sorted({str(fold) for fold in c.folds['fold']}))}), so how much "
            "the choice of training studies matters is not known."
        )
    elif single:
        parts.append(f"Trained for one fold only, so without a spread: {join(single)}.")
    if len(several):
        rows = [
            f"{row['model']} {_spread(row, 'test_log_loss')} and "
            f"{_spread(row, 'test_auc_vertebra')} ({row['folds']} folds)"
            for _, row in several.iterrows()
        ]
        parts.append(
            "Competition log loss and AUC of vertebrae of single networks on the test "
            f"set, mean ± standard deviation over folds: {'; '.join(rows)}. The spread "
            "comes from other training studies, on the same test set; elsewhere on "
            "this page a model is the mean of its folds' probabilities."
        )
    return " ".join(parts)


def _spread(row: "pd.Series[float]", name: str) -> str:
    mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
    if math.isnan(mean):
        return "not defined"
    return f"{mean:.3f}" + ("" if math.isnan(deviation) else f" ± {deviation:.3f}")


def say_examples(examples: Sequence[Example]) -> str:
    """How many of each kind, and what the colours are."""
    if not examples:
        return "No examples were drawn."
    kinds: dict[str, int] = {}
    for example in examples:
        kinds[example.kind] = kinds.get(example.kind, 0) + 1
    counts = [
        count(n, kind) if kind != "miss" or n == 1 else f"{n} misses"
        for kind, n in kinds.items()
    ]
    return (
        f"{join(counts)}. Bright colour: what raised the probability most. It shows "
        "where a network looked, not that it looked for the right reason."
    )


def say_unseen(
    c: Comparison, true: pd.DataFrame, predicted: Mapping[str, pd.DataFrame]
) -> str:
    """How many fractures of the drawn studies the best model finds."""
    if true.empty:
        return "There is no test study to show."
    text = f"{count(len(true), 'test study')}, drawn by a digest of the UID" + (
        "." if c.leaked else ", which no model was trained or calibrated on."
    )
    if c.best is None:
        return text
    labels = true[list(LEVEL_NAMES)].astype("Float64")
    truth = labels.to_numpy(dtype=float, na_value=math.nan)
    threshold = mean_threshold(c.results[c.best], "vertebra")
    said = predicted[c.best][list(LEVEL_NAMES)].to_numpy(dtype=float) >= threshold
    fractured, intact = truth == 1, truth == 0
    return (
        f"{text} Of their {count(int(fractured.sum()), 'fractured vertebra')}, {STAR} "
        f"{c.best} puts {int((said & fractured).sum())} at or above its threshold of "
        f"{threshold:.2f}; of their {int(intact.sum())} intact ones, "
        f"{int((said & intact).sum())}."
    )


def say_literature(c: Comparison) -> str:
    """That none of it was measured here, before any number."""
    text = (
        "None of these numbers was measured here, and none on the test set of this "
        "page: others published them, of other images, and they cannot be compared "
        "with the tables above. A network in use (Small et al., AJNR 2021) found 76 % "
        "of examinations with a fracture and left 97 % of those without alone; "
        "radiologists reached 93 % and 96 %. On the label table of the RSNA 2022 "
        "competition, 0.5 for every label scores 0.6931 and the labels' prevalences "
        "0.5638."
    )
    if c.data_kind is DataKind.PHANTOM:
        return f"{text} They are of patients; this page is of {plural(c.subject)}."
    return text
