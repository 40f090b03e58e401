"""Figures of the drift report: new studies over those of the reference."""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from csfd_core.evaluation.intervals import wilson_interval
from csfd_core.reports.drift.features import (
    GEOMETRY,
    GREY_LEVELS,
    INTENSITY,
    LABELS,
    PROBABILITIES,
    Feature,
    features_of,
)
from csfd_core.reports.drift.observe import Drift, Finding
from csfd_core.reports.render import (
    INK,
    MUTED,
    NEUTRAL,
    chart,
    new_figure,
    say_nothing_to_show,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REFERENCE: Final = NEUTRAL
_CURRENT: Final = "#D55E00"  # Okabe and Ito's vermillion
_BARS: Final = 20
_GREY_STEP: Final = 4  # grey levels drawn as one
_LARGEST: Final = 8.0  # times the margin; beyond, a bar is cut and says its number


@chart
def plot_effects(drift: Drift) -> "Figure":
    """How far each feature has moved, in units of the margin that is warned of."""
    from matplotlib.patches import Patch

    figure = new_figure(0.25 * len(drift.findings) + 1.3)
    axes = figure.subplots()
    for y, finding in enumerate(drift.findings):
        _plot_effect(axes, y, finding)
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    names = [finding.feature.title for finding in drift.findings]
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlim(0, _LARGEST * 1.12)
    axes.set_xlabel("distance of both groups, times the margin (dashed)")
    handles = [
        Patch(facecolor=_CURRENT, label="drifted: beyond margin and chance"),
        Patch(facecolor=_REFERENCE, label="not drifted; p is adjusted"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=8.5)
    return figure


@chart
def plot_intensity(drift: Drift) -> "Figure":
    """Mean histograms of grey levels, and two numbers of each study, cumulated."""
    figure = new_figure(6.2)
    panels = figure.subplot_mosaic([["top", "top"], ["left", "right"]])
    _plot_grey(panels["top"], drift)
    singles = [f for f in features_of(INTENSITY) if f is not GREY_LEVELS]
    for name, feature in zip(("left", "right"), singles, strict=True):
        _plot_cumulated(panels[name], drift, feature)
    _name_groups(figure)
    return figure


@chart
def plot_geometry(drift: Drift) -> "Figure":
    """Histograms of spacings and sizes, both groups over each other."""
    figure = new_figure(5.8)
    panels = figure.subplots(2, 2).ravel()
    for axes, feature in zip(panels, features_of(GEOMETRY), strict=True):
        _plot_histograms(axes, drift, feature)
    _name_groups(figure)
    return figure


@chart
def plot_labels(drift: Drift) -> "Figure":
    """Share of fractured studies of both groups, with 95 % intervals."""
    figure = new_figure(3.8)
    axes = figure.subplots()
    findings = [f for f in drift.findings if f.feature.group == LABELS]
    groups = ((-0.2, _REFERENCE, "reference"), (0.2, _CURRENT, "current"))
    for shift, colour, which in groups:
        counts = np.array([getattr(f.comparison, f"{which}_n") for f in findings])
        rates = np.array([getattr(f.comparison, f"{which}_mean") for f in findings])
        percent = np.nan_to_num(rates * 100)
        low, high = wilson_interval(np.nan_to_num(rates) * counts, counts)
        positions = np.arange(len(findings)) + shift
        axes.bar(positions, percent, width=0.38, color=colour)
        spread = np.nan_to_num([percent - low * 100, high * 100 - percent])
        axes.errorbar(
            positions, percent, yerr=np.clip(spread, 0, None), fmt="none",
            ecolor=INK, elinewidth=1.1, capsize=3,
        )  # fmt: skip
    names = [
        _short(f.feature) + ("\ndrifted" if f.is_drifted else "") for f in findings
    ]
    axes.set_xticks(range(len(findings)), names)
    axes.set_ylim(0, None)
    axes.set_ylabel("fractured studies (%)")
    axes.set_title("Fractured studies, 95 % interval")
    _name_groups(figure)
    return figure


@chart
def plot_probabilities(drift: Drift) -> "Figure":
    """Cumulated probabilities of both groups, overall and per level."""
    figure = new_figure(8.2)
    panels = figure.subplots(4, 2, sharex=True, sharey=True).ravel()
    highest = 0.05
    for axes, feature in zip(panels, features_of(PROBABILITIES), strict=True):
        _plot_cumulated(axes, drift, feature)
        values = np.concatenate(_values(drift, feature))
        highest = max(highest, values.max(initial=0.0))
        axes.set_title(_titled(drift, feature, _short(feature)), fontsize=10)
        axes.set_xlabel("")
    panels[0].set_xlim(0, min(1.0, highest * 1.05))  # of all: the axis is shared
    for axes in panels[-2:]:
        axes.set_xlabel("probability of a fracture")
    for axes in panels[1::2]:
        axes.set_ylabel("")
    _name_groups(figure)
    return figure


def _plot_effect(axes: "Axes", y: int, finding: Finding) -> None:
    if not finding.is_judged:
        axes.text(1.08, y, "not judged", va="center", color=MUTED, fontsize=8)
        return
    comparison = finding.comparison
    times = comparison.effect / comparison.margin
    colour = _CURRENT if finding.is_drifted else _REFERENCE
    axes.barh(y, min(times, _LARGEST), color=colour, height=0.62)
    text = f"p {finding.p_adjusted:.2g}"
    if times > _LARGEST:
        axes.text(
            _LARGEST - 0.1, y, f"{times:.0f} times, {text}",
            ha="right", va="center", fontsize=8, color="white",
        )  # fmt: skip
        return
    axes.annotate(
        text, (max(times, 1), y), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=8, color=MUTED,
    )  # fmt: skip


def _plot_grey(axes: "Axes", drift: Drift) -> None:
    """Draw the mean share of pixels per grey level; air makes a logarithm useful."""
    axes.set_title(_titled(drift, GREY_LEVELS, "Grey levels of the bone window"))
    samples = ((drift.reference, _REFERENCE), (drift.current, _CURRENT))
    if not any(len(sample.grey) for sample, _ in samples):
        say_nothing_to_show(axes)
        return
    edges = np.arange(0, 257, _GREY_STEP)
    for sample, colour in samples:
        if not len(sample.grey):
            continue
        mean = sample.grey.to_numpy().mean(axis=0)
        percent = mean.reshape(-1, _GREY_STEP).sum(axis=1) * 100
        axes.stairs(np.maximum(percent, 1e-3), edges, color=colour, linewidth=1.6)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, 256)
    axes.set_xlabel("grey level: 0 is -500 HU and less, 255 is 1300 HU and more")
    axes.set_ylabel("pixels (%)")


def _plot_cumulated(axes: "Axes", drift: Drift, feature: Feature) -> None:
    """Draw the share of studies up to each value."""
    axes.set_title(_titled(drift, feature, feature.title), fontsize=10)
    before, after = _values(drift, feature)
    if not before.size and not after.size:
        say_nothing_to_show(axes)
        return
    for values, colour in ((before, _REFERENCE), (after, _CURRENT)):
        if values.size:
            axes.ecdf(values, color=colour, linewidth=1.6)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share of studies")
    axes.set_xlabel(feature.unit)


def _plot_histograms(axes: "Axes", drift: Drift, feature: Feature) -> None:
    """Draw the share of studies per bin, both groups over each other."""
    axes.set_title(_titled(drift, feature, feature.title), fontsize=10)
    before, after = _values(drift, feature)
    every = np.concatenate([before, after])
    if not every.size:
        say_nothing_to_show(axes)
        return
    low, high = float(every.min()), float(every.max())
    room = 0.01 * max(abs(low), 1.0) if low == high else 0.0
    edges = np.linspace(low - room, high + room, _BARS + 1)
    for values, colour in ((before, _REFERENCE), (after, _CURRENT)):
        if not values.size:
            continue
        weights = np.full(values.size, 100 / values.size)
        axes.hist(values, bins=list(edges), weights=weights, color=colour, alpha=0.45)
        axes.hist(
            values, bins=list(edges), weights=weights, color=colour,
            histtype="step", linewidth=1.4,
        )  # fmt: skip
    axes.set_xlabel(feature.unit)
    axes.set_ylabel("studies (%)")


def _values(
    drift: Drift, feature: Feature
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    before = drift.reference.frame[feature.name].dropna().to_numpy(dtype=np.float64)
    after = drift.current.frame[feature.name].dropna().to_numpy(dtype=np.float64)
    return before, after


def _titled(drift: Drift, feature: Feature, title: str) -> str:
    finding = next(f for f in drift.findings if f.feature is feature)
    return f"{title}: drifted" if finding.is_drifted else title


def _short(feature: Feature) -> str:
    last = feature.title.rpartition(", ")[2]
    return "any" if last == "any level" else last


def _name_groups(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=_REFERENCE, label="reference"),
        Patch(facecolor=_CURRENT, label="new studies"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9)
