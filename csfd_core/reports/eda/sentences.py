"""What a figure shows, said in a sentence or two computed from its table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from csfd_core.dicom.findings import Status
from csfd_core.reports.eda.quality import syntax_name
from csfd_core.reports.eda.statistics import chance_correlation
from csfd_core.reports.palette import UNKNOWN
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

NO_LABELS = "No study has labels, so there is nothing to count."


def say_fracture_share(share: pd.DataFrame) -> str:
    """Overall share with its interval; the most and the least affected level."""
    overall = share[share["level"] == OVERALL].iloc[0]
    levels = share[(share["level"] != OVERALL) & (share["studies"] > 0)]
    parts = []
    if overall["studies"]:
        low, high = overall["ci_low"], overall["ci_high"]
        parts.append(
            f"{overall['fractured']} of {_count(overall['studies'], 'study')} "
            f"({_percent(overall['share'])}, 95 % interval {100 * low:.1f} to "
            f"{_percent(high)}) {_has(overall['fractured'])} a fracture."
        )
    if len(levels) and levels["fractured"].any():
        most, least = levels["share"].max(), levels["share"].min()
        parts.append(
            f"Most affected: {_names(levels, most)} ({_percent(most)}); least: "
            f"{_names(levels, least)} ({_percent(least)})."
        )
    return " ".join(parts) or NO_LABELS


def say_fractures_per_level(counts: pd.DataFrame) -> str:
    """The range from the lowest to the highest level."""
    total = int(counts["fractures"].sum())
    if not total:
        return "No level is fractured in any study."
    least, most = int(counts["fractures"].min()), int(counts["fractures"].max())
    of_least = counts["level"][counts["fractures"] == least]
    of_most = counts["level"][counts["fractures"] == most]
    share = most / total
    return (
        f"{_count(total, 'fractured level')} in all, from {least} ({_join(of_least)}) "
        f"to {most} ({_join(of_most)}; {_percent(share)} of them"
        f"{' each' if len(of_most) > 1 else ''})."
    )


def say_levels_per_study(counts: pd.DataFrame) -> str:
    """How many studies have none, one and several; the most in one study."""
    per_count = counts["studies"].to_numpy()
    total = int(per_count.sum())
    if not total:
        return NO_LABELS
    several, most = int(per_count[2:].sum()), int(np.flatnonzero(per_count).max())
    fractured = total - int(per_count[0])
    tail = ""
    if fractured:
        tail = (
            f" Of those with a fracture, {_percent(several / fractured)} have it in "
            f"more than one level; the most in one study is {most}."
        )
    return (
        f"{per_count[0]} of {_count(total, 'study')} {_has(per_count[0])} no fractured "
        f"level, {per_count[1]} one, {several} two or more.{tail}"
    )


def say_correlation(correlation: pd.DataFrame, studies_count: int) -> str:
    """The strongest and the weakest pair of levels, and what may be chance."""
    levels = correlation.loc[list(LEVEL_NAMES), list(LEVEL_NAMES)].to_numpy()
    rows, columns = np.triu_indices(len(levels), k=1)
    values = levels[rows, columns]
    known = np.isfinite(values)
    if not known.any():
        return (
            "No two levels can be correlated: at most one level differs between the "
            f"{_count(studies_count, 'labelled study')}."
        )
    rows, columns, values = rows[known], columns[known], values[known]

    def pairs(extreme: float) -> str:
        # Equal but for rounding: several pairs can stand at one end.
        chosen = np.flatnonzero(np.abs(values - extreme) < 1e-9)
        names = [
            f"{LEVEL_NAMES[rows[i]]} with {LEVEL_NAMES[columns[i]]}" for i in chosen
        ]
        return f"{_join(names)} (r = {extreme:.2f})"

    limit = chance_correlation(studies_count)
    chance = ""
    if np.isfinite(limit):
        chance = (
            f" With {studies_count} studies a single coefficient of up to {limit:.2f} "
            "in size may be chance (5 % level)."
        )
    if len(values) == 1:
        return f"The only levels to compare are {pairs(values[0])}.{chance}"
    return (
        f"Fractured together most: {pairs(values.max())}; least: "
        f"{pairs(values.min())}.{chance}"
    )


def say_geometry(summary: pd.DataFrame) -> str:
    """Median and mean of the slices, and the ranges of the rest."""
    rows = {row["measure"]: row for _, row in summary.iterrows()}
    slices = rows["Slices per study"]
    if not slices["n"]:
        return (
            "The geometry of the studies is not known: it comes from images, and there "
            "are none."
        )
    text = (
        f"A study has {slices['median']:g} slices in the median and "
        f"{slices['mean']:.2f} in the mean ({slices['min']:g} to {slices['max']:g})."
    )
    others = [
        f"{name.lower()} {row['median']:.4g} mm ({row['min']:.4g} to {row['max']:.4g})"
        for name, row in rows.items()
        if row["unit"] == "mm" and row["n"]
    ]
    return f"{text} Medians of the rest: {_join(others)}." if others else text


def say_boxes(boxes: pd.DataFrame, per_level: pd.DataFrame) -> str:
    """How many boxes, on which levels, how large, how deep."""
    total, studies = len(boxes), boxes["study_uid"].nunique()
    known = per_level[(per_level["level"] != UNKNOWN) & (per_level["boxes"] > 0)]
    text = f"{_count(total, 'box')} in {_count(studies, 'study')}."
    if len(known):
        most = int(known["boxes"].max())
        text += (
            f" {int(known['boxes'].sum())} of them can be given to a level (that "
            "of the mask there, or the only fractured one), most often "
            f"{_join(known['level'][known['boxes'] == most])} ({most})."
        )
    else:
        text += " None can be given to a level for certain."
    width, height = boxes["width_mm"].median(), boxes["height_mm"].median()
    if np.isfinite(width):
        text += f" In the median a box is {width:.3g} mm wide and {height:.3g} mm high."
    else:
        width, height = boxes["width"].median(), boxes["height"].median()
        text += (
            f" In the median a box is {width:.3g} pixels wide and {height:.3g} high."
        )
    depth = boxes["depth"].dropna()
    if len(depth):
        low, high = depth.quantile(0.1) * 100, depth.quantile(0.9) * 100
        text += (
            f" The middle 80 % lie {low:.0f} to {high:.0f} % of the way from the first "
            "to the last slice."
        )
    return text


def say_quality(
    studies: pd.DataFrame, quality: pd.DataFrame, syntaxes: pd.DataFrame | None
) -> str:
    """Quarantine, labels, copies, direction and compression."""

    def count(topic: str, item: str) -> int:
        chosen = (quality["topic"] == topic) & (quality["item"] == item)
        return int(quality["studies"][chosen].sum())

    if studies["slice_count"].isna().all():
        missing = count("labels", "missing or incomplete")
        return (
            f"Without images only the labels can be judged: {missing} of "
            f"{_count(len(studies), 'study')} {_is(missing)} without complete labels."
        )
    bad = count("standing", Status.QUARANTINED)
    text = f"{bad} of {_count(len(studies), 'study')} {_is(bad)} quarantined"
    codes = quality[quality["topic"] == "quarantined for"]
    if len(codes):
        top = codes.iloc[0]
        text += f", most often for {top['item'].replace('_', ' ')} ({top['studies']})"
    missing = count("labels", "missing or incomplete")
    copies = count("content", "same slices as another study")
    topic = "instance numbers rise"
    rising, directed = (
        count(topic, "feet to head"),
        int((quality["topic"] == topic).any()),
    )
    text += (
        f"; {missing} of the others {_is(missing)} without complete labels; {copies} "
        f"{_has(copies)} the same slices as another study."
    )
    if directed:
        text += f" In {rising} the instance numbers rise from feet to head."
    if syntaxes is not None and len(syntaxes):
        top = syntaxes.sort_values("slices", ascending=False).iloc[0]
        total = int(syntaxes["slices"].sum())
        share = _percent(top["slices"] / total)
        text += (
            f" {share} of {total} slices are {syntax_name(top['transfer_syntax_uid'])}."
        )
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _names(levels: pd.DataFrame, share: float) -> str:
    return _join(levels["level"][levels["share"] == share])


def _join(names: "Sequence[str] | pd.Series[str]") -> str:
    *first, last = list(names)
    return f"{', '.join(first)} and {last}" if first else str(last)


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"{number} {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('x') else 's'}"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
