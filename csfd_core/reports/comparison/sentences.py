"""What the scores say, in sentences computed from the tables."""

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from csfd_core.classification.ensemble_predictions import What
from csfd_core.classification.score_tables import EVEN, PREVALENCE
from csfd_core.reports.comparison.differences import SIGNIFICANT
from csfd_core.reports.comparison.styles import STAR
from csfd_core.reports.comparison.summary import Comparison
from csfd_core.text import count, plural
from csfd_core.vocabulary import LABEL_COLUMNS

NO_TEST: Final = "There is no test study that every model was scored on."
_FEW_SUBJECTS: Final = 50
_FEW_POSITIVES: Final = 10
_FEW_ROWS: Final = 1000  # of a calibration curve


def say_models(c: Comparison) -> str:
    """The best model with its intervals, the test set, and how far to trust both."""
    if c.predictions.empty:
        return NO_TEST + _left_out(c)
    parts = []
    if c.leaked:
        parts.append(
            f"These scores are too good: {count(len(c.leaked), 'test study')} "
            f"{'was' if len(c.leaked) == 1 else 'were'} used in the training or the "
            "calibration of some fold."
        )
    if c.best is None:
        parts.append("No test study has a label, so no model can be scored.")
    else:
        row = _row(c, c.best)
        place = (
            "has the lowest competition log loss"
            if len(c.models) > 1
            else "is the only model; its competition log loss"
        )
        parts.append(
            f"{STAR} {c.best} {place} on the locked test set"
            f"{':' if len(c.models) > 1 else ' is'} "
            f"{_with_interval(row, 'competition_log_loss')}. Its area under the ROC "
            f"curve is {_with_interval(row, 'auc_vertebra')} for single vertebrae and "
            f"{_with_interval(row, 'auc_overall')} for whole studies."
        )
        parts += _largest_auc(c)
        losses = c.references.set_index("reference")["competition_log_loss"]
        if row["competition_log_loss"] >= losses[PREVALENCE]:
            parts.append(
                "That is no better than saying how often each label was 1 in training "
                f"({losses[PREVALENCE]:.3f}), without looking at an image."
            )
    row = c.models.iloc[0]
    parts.append(
        f"The test set holds {count(row['test_studies'], 'study')} of "
        f"{count(row['test_patients'], c.subject)}; {row['test_fractures']} of "
        f"{count(row['test_vertebrae'], 'vertebra')} and "
        f"{row['test_fractured_studies']} of the studies are labelled as fractured."
    )
    return " ".join([*parts, *say_uncertainty(c)]) + _left_out(c)


def say_uncertainty(c: Comparison) -> list[str]:
    """How little a small test set tells; nothing where it is large."""
    rows = c.rows()[next(iter(c.results))]
    parts = []
    for what, name in (("vertebra", "vertebrae"), ("overall", "whole studies")):
        labels = rows[what].labels
        if labels.size and not rows[what].has_both:
            kind = "fractured" if labels.any() else "intact"
            parts.append(
                f"All {name} of the test set are labelled {kind}: with one class only, "
                "the AUC is not defined and stands empty."
            )
    facts = c.models.iloc[0]
    positives = min(facts["test_fractures"], facts["test_fractured_studies"])
    intact = rows["overall"].labels.size - facts["test_fractured_studies"]
    few = min(positives, intact) < _FEW_POSITIVES
    if facts["test_patients"] >= _FEW_SUBJECTS and not few:
        return parts
    parts.append("That is a small test set, and every number here is uncertain.")
    if c.best is None:
        return parts
    row = _row(c, c.best)
    low, high = row["auc_vertebra_low"], row["auc_vertebra_high"]
    if math.isnan(low):
        parts.append("No interval of the AUC can be given.")
    elif high - low < 0.0005:
        parts.append(
            f"That the interval of the AUC of {c.best} has no width says that every "
            "draw of this set separated the classes, not that another set would."
        )
    else:
        parts.append(
            f"The 95 % interval of the AUC of {c.best} is {high - low:.2g} wide."
        )
    return parts


def say_differences(c: Comparison) -> str:
    """Which models are worse than the best by more than chance."""
    if len(c.models) == 1:
        return "There is one model, so there is nothing to compare it with."
    if c.differences.empty:
        return "No metric is defined for two models, so nothing can be compared."
    names = {"competition_log_loss": "competition log loss", "auc_vertebra": "AUC"}
    parts = []
    for metric, part in c.differences.groupby("metric", sort=False):
        sure = part[part["p_holm"] < SIGNIFICANT]["model"].tolist()
        unsure = [name for name in part["model"] if name not in sure]
        best = part["best"].iloc[0]
        text = f"By {names[str(metric)]}, "
        if sure:
            text += f"{best} is better than {join(sure)} by more than chance"
            text += f", but not than {join(unsure)}." if unsure else "."
        else:
            text += f"{best} cannot be told from {join(unsure)}."
        parts.append(text)
    return (
        f"{' '.join(parts)} (Two-sided p below {SIGNIFICANT} in a paired bootstrap "
        f"over {plural(c.subject)}, corrected by Holm for "
        f"{count(len(c.models) - 1, 'comparison')}. The same test set chose the best, "
        "so p is somewhat too small.)"
    )


def say_references(c: Comparison) -> str:
    """What a model must beat: the prevalences, and even odds."""
    losses = c.references.set_index("reference")["competition_log_loss"]
    known, even = float(losses[PREVALENCE]), float(losses[EVEN])
    if math.isnan(even):
        return "Without labelled test studies there is no reference either."
    if math.isnan(known):
        return (
            "How often each label is 1 in training is not known. Saying 0.5 for every "
            f"label scores {even:.4f} on this test set."
        )
    scores = c.models.set_index("model")["competition_log_loss"]
    better, rest = scores[scores < known].index, scores[~(scores < known)].index
    text = (
        "Without looking at any image, saying for each label how often it was 1 among "
        f"the training studies scores {known:.4f} on this test set, and 0.5 for every "
        f"label {even:.4f}. "
    )
    if len(rest):
        return text + (
            f"{join(rest)} {'does' if len(rest) == 1 else 'do'} not beat the "
            f"prevalences; {join(better) if len(better) else 'no model'} "
            f"{'do' if len(better) > 1 else 'does'}."
        )
    if len(better) == 1:
        return text + f"{better[0]} beats the prevalences."
    return text + f"All {len(better)} models beat the prevalences."


def say_areas(c: Comparison, what: What) -> str:
    """The range of areas under the ROC curve."""
    noun = "single vertebrae" if what == "vertebra" else "whole studies"
    return _range(c.models, f"auc_{what}", f"the AUC of {noun}", is_up_good=True)


def say_roc(c: Comparison) -> str:
    """The ranges of both areas."""
    first = say_areas(c, "vertebra")
    return f"{first} {say_areas(c, 'overall')} Dotted: chance."


def say_precision(c: Comparison) -> str:
    """The range of average precision, and what knowing nothing reaches."""
    text = _range(c.models, "pr_auc", "average precision of vertebrae", is_up_good=True)
    row = c.models.iloc[0]
    if row["test_vertebrae"] and row["test_fractures"]:
        share = row["test_fractures"] / row["test_vertebrae"]
        text += (
            f" A model that knows nothing reaches the share of fractured vertebrae, "
            f"{share:.3f} (dotted)."
        )
    return text


def say_calibration(c: Comparison, bins: pd.DataFrame) -> str:
    """The range of calibration errors, and where the probabilities lie."""
    text = _range(c.models, "ece", "the expected calibration error", is_up_good=False)
    total = int(c.models["test_vertebrae"].iloc[0])
    if c.best is not None and total:
        lowest = bins[(bins["model"] == c.best) & (bins["low"] == 0)].iloc[0]
        text += (
            f" {100 * lowest['n'] / total:.0f} % of the probabilities of {c.best} lie "
            f"below {lowest['high']:.1f}."
        )
    if total < _FEW_ROWS:
        text += (
            f" With {count(total, 'vertebra')}, bins of few rows wander, and some "
            "error is expected of perfect probabilities too."
        )
    return text


def say_levels(c: Comparison) -> str:
    """The easiest and the hardest level of the best model; how few fractures."""
    if c.best is None:
        return NO_TEST if c.predictions.empty else "No level has a label."
    part = c.levels[c.levels["model"] == c.best]
    known = part[part["auc"].notna()]
    parts = []
    if len(known):
        shown = known["auc"].round(3)
        top, low = shown.max(), shown.min()
        best, worst = (join(known["level"][shown == value]) for value in (top, low))
        parts.append(
            f"The AUC of {STAR} {c.best} is highest for {best} ({top:.3f}) and lowest "
            f"for {worst} ({low:.3f})."
            if top > low
            else f"The AUC of {STAR} {c.best} is {top:.3f} for {best}."
        )
    few = part[part["positives"] < _FEW_POSITIVES]
    if len(few):
        levels = [
            f"{level} ({positives})"
            for level, positives in zip(few["level"], few["positives"], strict=True)
        ]
        parts.append(
            f"Fewer than {_FEW_POSITIVES} fractures: {join(levels)}; what stands there "
            "is hardly more than single cases."
        )
    hidden = int(part["not_seen"].sum())
    if hidden:
        total = int((c.predictions["model"] == c.best).sum() / len(LABEL_COLUMNS) * 7)
        parts.append(f"{hidden} of {total} vertebrae were not seen by the model.")
    return " ".join(parts)


def say_confusion(c: Comparison) -> str:
    """Hits and false alarms of the best model at its operating points."""
    if c.best is None:
        return NO_TEST if c.predictions.empty else "There are no labels to agree with."
    mine = c.confusion[c.confusion["model"] == c.best].set_index("of")
    vertebra, study = mine.loc["vertebra"], mine.loc["overall"]
    text = (
        f"At thresholds chosen on validation studies, {STAR} {c.best} finds "
        f"{_hits(vertebra)} fractured vertebrae with "
        f"{_alarms(vertebra)} intact ones, and {_hits(study)} studies with a fracture "
        f"with {_alarms(study)} without."
    )
    default = [
        f"{model} ({'vertebrae' if what == 'vertebra' else 'studies'})"
        for model, folds in c.results.items()
        for what in ("vertebra", "overall")
        if any(fold.card["thresholds"][what].get("is_default") for fold in folds)
    ]
    if default:
        text += (
            " The validation studies could not choose a threshold, so that it is 0.5, "
            f"for folds of {join(default)}."
        )
    return text


def join(names: "Sequence[str] | pd.Series[str] | pd.Index[str]") -> str:
    """Return names as a list in a sentence."""
    *first, last = [str(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def _hits(counts: Any) -> str:  # a row of a table
    positives = counts["true_positives"] + counts["false_negatives"]
    return f"{counts['true_positives']} of {positives}"


def _alarms(counts: Any) -> str:  # a row of a table
    negatives = counts["true_negatives"] + counts["false_positives"]
    return f"{count(counts['false_positives'], 'false alarm')} in {negatives}"


def _largest_auc(c: Comparison) -> list[str]:
    """Name the model with the largest AUC, where it is another one."""
    known = c.models[c.models["auc_vertebra"].notna()]
    if known.empty:
        return []
    row = known.sort_values("auc_vertebra", ascending=False, kind="stable").iloc[0]
    if row["model"] == c.best:
        return []
    return [
        f"The largest AUC of vertebrae has {row['model']}: "
        f"{_with_interval(row, 'auc_vertebra')}."
    ]


def _left_out(c: Comparison) -> str:
    if not c.left_out:
        return ""
    noun = count(len(c.left_out), "test study")
    return (
        f" {noun} {'is' if len(c.left_out) == 1 else 'are'} left out, as some fold was "
        "not scored on it or knew other labels; train the models again to compare on "
        "all."
    )


def _range(table: pd.DataFrame, column: str, name: str, *, is_up_good: bool) -> str:
    known = table[table[column].notna()].sort_values(
        column, ascending=not is_up_good, kind="stable"
    )
    text = f"{name[0].upper()}{name[1:]}"
    if known.empty:
        return f"{text} is not defined."
    first, last = known.iloc[0], known.iloc[-1]
    if len(known) == 1:
        return f"{text} is {first[column]:.3f} ({first['model']})."
    return (
        f"{text} goes from {first[column]:.3f} ({first['model']}) "
        f"{'down' if is_up_good else 'up'} to {last[column]:.3f} ({last['model']})."
    )


def _row(c: Comparison, model: str) -> Any:  # a row of a table
    return c.models[c.models["model"] == model].iloc[0]


def _with_interval(row: Any, metric: str) -> str:  # a row of a table
    value, low, high = row[metric], row[f"{metric}_low"], row[f"{metric}_high"]
    if math.isnan(value):
        return "not defined"
    if math.isnan(low):
        return f"{value:.3f} (no interval)"
    return f"{value:.3f} (95 % interval {low:.3f} to {high:.3f})"
