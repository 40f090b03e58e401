"""Charts of models: scores with intervals, learning, ROC, precision, calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.ensemble_predictions import Rows
from csfd_core.evaluation.metrics import CALIBRATION_BINS, auroc, average_precision
from csfd_core.reports.comparison.styles import Style, starred, styles_of
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

_METRICS: Final = (
    ("competition_log_loss", "Competition log loss (lower is better)"),
    ("auc_vertebra", "AUC of vertebrae (higher is better)"),
    ("auc_overall", "AUC of whole studies (higher is better)"),
)
_VALIDATION_COLOUR: Final = "#D55E00"
_CHANCE: Final[dict[str, Any]] = {
    "color": MUTED,
    "linewidth": 1,
    "linestyle": (0, (1, 2)),
}


@chart
def plot_models(
    table: pd.DataFrame, references: pd.DataFrame, best: str | None
) -> "Figure":
    """Loss and areas of each model with 95 % intervals, the best one on top."""
    height = 0.26 * len(table) + 0.95
    figure = new_figure(height * len(_METRICS))
    styles = styles_of(table["model"])
    for axes, (metric, title) in zip(
        figure.subplots(len(_METRICS), 1), _METRICS, strict=True
    ):
        axes.set_title(title)
        _plot_metric(axes, table, metric, styles)
        axes.set_yticks(
            range(len(table)), [starred(name, best) for name in table["model"]]
        )
        axes.set_ylim(len(table) - 0.5, -0.6)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        if metric == "competition_log_loss":
            _mark_references(axes, references)
        else:
            axes.axvline(0.5, **_CHANCE)
            axes.set_xlim(min(0.45, axes.get_xlim()[0]), 1.06)
            axes.set_xticks(np.arange(np.ceil(axes.get_xlim()[0] * 10) / 10, 1.01, 0.1))
    return figure


def _plot_metric(
    axes: "Axes", table: pd.DataFrame, metric: str, styles: Mapping[str, Style]
) -> None:
    for y, (_, row) in enumerate(table.iterrows()):
        value = row[metric]
        if np.isnan(value):
            axes.text(0.02, y, "not defined", transform=axes.get_yaxis_transform(),
                      va="center", color=MUTED, fontsize=9)  # fmt: skip
            continue
        style = styles[row["model"]]
        axes.plot([row[f"{metric}_low"], row[f"{metric}_high"]], [y, y],
                  color=style.colour, linewidth=2, solid_capstyle="butt")  # fmt: skip
        axes.plot(value, y, style.marker, color=style.colour, markersize=7)
        axes.annotate(f"{value:.3f}", (value, y), xytext=(0, 6), fontsize=8,
                      textcoords="offset points", ha="center")  # fmt: skip


def _mark_references(axes: "Axes", references: pd.DataFrame) -> None:
    defined = references[references["competition_log_loss"].notna()]
    for dots, (_, row) in zip(
        ((0, (1, 1)), (0, (5, 2))), defined.iterrows(), strict=False
    ):
        loss = row["competition_log_loss"]
        axes.axvline(loss, color=INK, linewidth=1.1, linestyle=dots,
                     label=f"{row['reference']} {loss:.3f}")  # fmt: skip
    if len(defined):
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=2.4, ncols=2,
            fontsize=8.5,
        )  # fmt: skip


@chart
def plot_curves(histories: Mapping[str, Sequence[pd.DataFrame]]) -> "Figure":
    """Loss and accuracy by epoch: a row per model, a pair of lines per fold."""
    figure = new_figure(1.75 * len(histories) + 0.35)
    panels = figure.subplots(len(histories), 2, squeeze=False)
    for row, (model, folds) in zip(panels, histories.items(), strict=True):
        for axes, what in zip(row, ("loss", "accuracy"), strict=True):
            axes.set_title(f"{model}: {what}", fontsize=9.5)
            _plot_history(axes, folds, what)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    handles, names = panels[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _plot_history(axes: "Axes", folds: Sequence[pd.DataFrame], what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    kinds = (
        (what, "training", NEUTRAL, "-", "o"),
        (f"val_{what}", "validation", _VALIDATION_COLOUR, "--", "s"),
    )
    recorded = [fold for fold in folds if len(fold)]
    if not recorded:
        say_nothing_to_show(axes, "not recorded")
        return
    alpha = 1.0 if len(recorded) == 1 else 0.75
    for column, name, colour, line, marker in kinds:
        for index, fold in enumerate(recorded):
            if column in fold:
                axes.plot(fold["epoch"], fold[column].astype(float), color=colour,
                          linestyle=line, linewidth=1.4, marker=marker, markersize=2.5,
                          alpha=alpha, label=None if index else name)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


@chart
def plot_roc(rows: Mapping[str, Mapping[str, Rows]]) -> "Figure":
    """ROC curves of vertebrae and of whole studies, one line per model."""
    from sklearn.metrics import roc_curve

    def draw(axes: "Axes", predictions: Rows, style: Style, model: str) -> None:
        false, true, _ = roc_curve(predictions.labels, predictions.probabilities)
        area = auroc(predictions.labels, predictions.probabilities)
        _line(axes, false, true, style, f"{model} {area:.3f}")

    figure, panels = _two_panels(rows, draw)
    for axes in panels:
        axes.plot([0, 1], [0, 1], **_CHANCE)
        axes.set_xlabel("1 − specificity")
    panels[0].set_ylabel("sensitivity")
    return figure


@chart
def plot_precision(rows: Mapping[str, Mapping[str, Rows]]) -> "Figure":
    """Precision by sensitivity, of vertebrae and of whole studies."""
    from sklearn.metrics import precision_recall_curve

    def draw(axes: "Axes", predictions: Rows, style: Style, model: str) -> None:
        precision, recall, _ = precision_recall_curve(
            predictions.labels, predictions.probabilities, drop_intermediate=True
        )
        area = average_precision(predictions.labels, predictions.probabilities)
        # Without scikit-learn's last point, a precision of 1 that no threshold has.
        _line(axes, recall[:-1], precision[:-1], style, f"{model} {area:.3f}")
        axes.axhline(float(predictions.labels.mean()), **_CHANCE)

    figure, panels = _two_panels(rows, draw)
    for axes in panels:
        axes.set_xlabel("sensitivity")
    panels[0].set_ylabel("precision")
    return figure


def _two_panels(
    rows: Mapping[str, Mapping[str, Rows]],
    draw: "Callable[[Axes, Rows, Style, str], None]",
) -> tuple["Figure", Sequence["Axes"]]:
    """Draw one panel of vertebrae and one of whole studies, legends below."""
    any_model = next(iter(rows.values()))
    styles = styles_of(rows)
    figure = new_figure(3.05 + 0.2 * len(rows))
    panels = figure.subplots(1, len(any_model))
    for axes, what in zip(panels, any_model, strict=True):
        predictions = any_model[what]
        noun = "Vertebrae" if what == "vertebra" else "Whole studies"
        count = f"{int(predictions.labels.sum())} of {predictions.labels.size}"
        axes.set_title(f"{noun}\n{count} fractured", fontsize=9.5)
        if not predictions.has_both:
            say_nothing_to_show(axes, "one class only")
            continue
        for model, parts in rows.items():
            draw(axes, parts[what], styles[model], model)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_box_aspect(1)
        axes.grid(visible=True, axis="both")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), fontsize=8.5)
    return figure, list(panels)


def _line(
    axes: "Axes",
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    style: Style,
    label: str,
) -> None:
    axes.plot(
        x, y, color=style.colour, linestyle=style.line, linewidth=1.8, label=label
    )


def reliability(rows: Rows, bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """Return mean probability and share of positives in bins of equal width.

    Columns ``low``, ``high``, ``n``, ``positives``, ``mean_probability`` and
    ``share``; bins as in ``calibration_error``; empty bins are NaN.
    """
    edges = np.linspace(0, 1, bins + 1)
    bin_indices = np.searchsorted(edges[1:-1], rows.probabilities)
    counts = np.bincount(bin_indices, minlength=bins)
    positives = np.bincount(bin_indices, weights=rows.labels, minlength=bins)
    total = np.bincount(bin_indices, weights=rows.probabilities, minlength=bins)
    full = np.where(counts > 0, counts, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": counts,
            "positives": positives.astype(int),
            "mean_probability": total / full,
            "share": positives / full,
        }
    )


@chart
def plot_calibration(bins: pd.DataFrame) -> "Figure":
    """Left: share of positives by probability; right: how many rows it rests on."""
    models = list(dict.fromkeys(bins["model"]))
    styles = styles_of(models)
    figure = new_figure(1.85 * len(models) + 0.2)
    panels = figure.subplots(len(models), 2, squeeze=False, width_ratios=(1, 1.25))
    for (left, right), model in zip(panels, models, strict=True):
        part, style = bins[bins["model"] == model], styles[model]
        filled = part[part["n"] > 0]
        left.plot([0, 1], [0, 1], **_CHANCE)
        left.plot(
            filled["mean_probability"], filled["share"], color=style.colour,
            marker=style.marker, linestyle=style.line, markersize=4.5,
        )  # fmt: skip
        left.set_xlim(-0.03, 1.03)
        left.set_ylim(-0.03, 1.03)
        left.set_title(model, fontsize=9.5)
        left.set_ylabel("share fractured", fontsize=9)
        _plot_counts(right, part, style)
    for axes in panels[-1]:
        axes.set_xlabel("predicted probability")
    return figure


def _plot_counts(axes: "Axes", part: pd.DataFrame, style: Style) -> None:
    middles = (part["low"] + part["high"]) / 2
    bars = axes.bar(middles, part["n"], width=0.085, color=style.colour)
    labels = [str(count) if count else "" for count in part["n"]]
    axes.bar_label(bars, labels, padding=1, fontsize=7.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(0, max(1.0, float(part["n"].max()) * 1.2))
    axes.set_title("vertebrae per bin", fontsize=9.5)
