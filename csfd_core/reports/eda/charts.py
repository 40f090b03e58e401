"""Charts of labels, geometry and quality: one function per figure.

Each takes a table of ``statistics`` or ``quality`` and returns a figure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from csfd_core.reports.eda.quality import syntax_name
from csfd_core.reports.eda.statistics import MEASURES, bin_edges, measured
from csfd_core.reports.palette import level_colour
from csfd_core.reports.render import (
    INK,
    MUTED,
    NEUTRAL,
    chart,
    new_figure,
    say_nothing_to_show,
)
from csfd_core.vocabulary import OVERALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EDGE: Final = 0.6  # points; keeps the yellow of C4 visible on white
_TOPIC_TITLES: Final = {
    "standing": "Standing",
    "quarantined for": "Quarantined for",
    "warned of": "Warned of",
    "instance numbers rise": "Instance numbers rise",
    "labels": "Labels",
    "content": "Content found twice",
}


@chart
def plot_fracture_share(share: pd.DataFrame) -> "Figure":
    """Share of fractured studies overall and per level, with 95 % intervals."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    percent = share["share"].fillna(0).to_numpy() * 100
    low = percent - share["ci_low"].fillna(0).to_numpy() * 100
    high = share["ci_high"].fillna(0).to_numpy() * 100 - percent
    names = [_short(level) for level in share["level"]]
    axes.bar(
        names,
        percent,
        color=[level_colour(level) for level in share["level"]],
        edgecolor=INK,
        linewidth=_EDGE,
    )
    axes.errorbar(
        names,
        percent,
        yerr=np.clip([low, high], 0, None),
        fmt="none",
        ecolor=INK,
        elinewidth=1.1,
        capsize=4,
    )
    tops = percent + np.clip(high, 0, None)
    for x, (value, top, count) in enumerate(
        zip(percent, tops, share["fractured"], strict=True)
    ):
        text = f"{value:.1f} %\n{count}"
        axes.annotate(
            text,
            (x, top),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    axes.set_ylim(0, min(118.0, max(10.0, float(tops.max()) * 1.22)))
    axes.set_ylabel("fractured studies (%)")
    axes.set_xlabel("label; below the share: fractured studies")
    axes.set_title(f"Fractured studies, 95 % interval ({_n(share['studies'])})")
    return figure


@chart
def plot_fractures_per_level(counts: pd.DataFrame) -> "Figure":
    """Number of fractures per level, lowest first."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    bars = axes.bar(
        counts["level"],
        counts["fractures"],
        color=[level_colour(level) for level in counts["level"]],
        edgecolor=INK,
        linewidth=_EDGE,
    )
    axes.bar_label(bars, padding=2)
    axes.set_ylim(0, max(1.0, float(counts["fractures"].max()) * 1.12))
    _whole_numbers(axes, "y")
    axes.set_ylabel("studies with a fracture")
    axes.set_xlabel("level")
    total = int(counts["fractures"].sum())
    axes.set_title(f"Fractures per level, lowest to highest (n = {total})")
    return figure


@chart
def plot_levels_per_study(counts: pd.DataFrame) -> "Figure":
    """How many levels are fractured in a study."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    bars = axes.bar(counts["fractured_levels"], counts["studies"], color=NEUTRAL)
    axes.bar_label(bars, padding=2)
    axes.set_ylim(0, max(1.0, float(counts["studies"].max()) * 1.12))
    axes.set_xticks(counts["fractured_levels"])
    _whole_numbers(axes, "y")
    axes.set_ylabel("studies")
    axes.set_xlabel("fractured levels in a study")
    total = int(counts["studies"].sum())
    axes.set_title(f"Fractured levels per study (n = {total} studies)")
    return figure


@chart
def plot_correlation(correlation: pd.DataFrame, studies_count: int) -> "Figure":
    """Correlation of the labels at the level of studies, as a matrix."""
    figure = new_figure(4.3)
    axes = figure.subplots()
    values = correlation.to_numpy()
    outside = values[~np.eye(len(values), dtype=bool)]
    outside = outside[np.isfinite(outside)]
    limit = max(0.1, float(np.abs(outside).max())) if len(outside) else 1.0
    shown = values.copy()
    np.fill_diagonal(shown, np.nan)
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
    names = [_short(level) for level in correlation.columns]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        coloured = np.isfinite(shown[row, column])
        ink = "black" if abs(value) < 0.65 * limit else "white"
        axes.text(
            column,
            row,
            _coefficient(float(value)),
            ha="center",
            va="center",
            fontsize=8,
            color=ink if coloured else MUTED,
        )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("Pearson's r")
    bar.outline.set_visible(False)
    axes.set_title(f"Correlation of labels (n = {studies_count} studies)")
    return figure


@chart
def plot_geometry(studies: pd.DataFrame) -> "Figure":
    """Distributions of slices per study, thickness, pixel spacing and extent."""
    figure = new_figure(5.8)
    panels = figure.subplots(2, 2).ravel()
    for axes, (column, name, unit) in zip(panels, MEASURES, strict=True):
        values = measured(studies, column)
        axes.set_title(f"{name} (n = {len(values)})")
        if not len(values):
            say_nothing_to_show(axes, "not known")
            continue
        axes.hist(values, bins=list(bin_edges(values)), color=NEUTRAL)
        median, mean = float(np.median(values)), float(values.mean())
        axes.axvline(median, color=INK, linewidth=1.4)
        axes.axvline(mean, color="#D55E00", linewidth=1.4, linestyle="--")
        lines = f"line: median {_number(median)}\ndashed: mean {_number(mean)}"
        axes.set_xlabel(f"{unit}\n{lines}", fontsize=9)
        axes.set_ylabel("studies")
        _whole_numbers(axes, "y")
    return figure


@chart
def plot_quality(quality: pd.DataFrame, syntaxes: pd.DataFrame | None) -> "Figure":
    """Standing, findings, labels, copies and transfer syntaxes, as bars."""
    parts = [
        (_TOPIC_TITLES[str(topic)], part["item"].tolist(), part["studies"].tolist())
        for topic, part in quality.groupby("topic", sort=False)
    ]
    if syntaxes is not None and len(syntaxes):
        ordered = syntaxes.sort_values("slices", ascending=False)
        names = [syntax_name(uid) for uid in ordered["transfer_syntax_uid"]]
        parts.append(("Transfer syntax", names, ordered["studies"].tolist()))
    heights = [len(names) + 1.6 for _, names, _ in parts]
    figure = new_figure(0.27 * sum(heights) + 0.5)
    panels = figure.subplots(
        len(parts), 1, sharex=True, squeeze=False, height_ratios=heights
    )
    widest = max(max(counts, default=0) for _, _, counts in parts)
    for axes, (title, names, counts) in zip(panels.ravel(), parts, strict=True):
        _plot_counts(axes, title, names, counts)
        axes.set_xlim(0, max(1.0, widest * 1.1))
    panels.ravel()[-1].set_xlabel("studies")
    _whole_numbers(panels.ravel()[-1], "x")
    return figure


def _plot_counts(
    axes: "Axes", title: str, names: Sequence[str], counts: Sequence[int]
) -> None:
    bars = axes.barh(range(len(names)), counts, color=NEUTRAL, height=0.7)
    axes.bar_label(bars, padding=3, fontsize=8.5)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.tick_params(axis="y", labelsize=8.5, length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.set_title(title)


def _coefficient(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _short(level: str) -> str:
    return "overall" if level == OVERALL else level


def _n(counts: "pd.Series[int]") -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def _whole_numbers(axes: "Axes", which: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
