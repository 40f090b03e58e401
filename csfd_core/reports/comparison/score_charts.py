"""Charts of decisions: per level, confusion, folds and some studies one by one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from csfd_core.learning.splits import Split
from csfd_core.reports.comparison.styles import short, starred, styles_of
from csfd_core.reports.render import INK, MUTED, chart, new_figure
from csfd_core.text import percent
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EDGE: Final = 0.6  # points; keeps the yellow of C4 visible on white
_SHADES: Final = "Blues"
_DARK: Final = 0.72  # of a shade, from which text on it is white


@chart
def plot_levels(levels: pd.DataFrame, best: str | None) -> "Figure":
    """AUC and sensitivity of each level, a row per model, in the levels' colours."""
    models = list(dict.fromkeys(levels["model"]))
    figure = new_figure(1.55 * len(models) + 0.6)
    panels = figure.subplots(len(models), 2, squeeze=False, sharey=True)
    for row, model in zip(panels, models, strict=True):
        part = levels[levels["model"] == model]
        for axes, column, name in zip(
            row, ("auc", "sensitivity"), ("AUC", "sensitivity"), strict=True
        ):
            _plot_bars(axes, part, column)
            axes.set_title(f"{starred(model, best)}: {name}", fontsize=9.5)
    last = levels[levels["model"] == models[-1]]
    for axes in panels[-1]:
        axes.set_xticks(
            range(len(last)),
            [
                f"{v}\n{n}"
                for v, n in zip(last["level"], last["positives"], strict=True)
            ],
        )
        axes.set_xlabel("level; below it: fractures in the test set", fontsize=8.5)
    return figure


def _plot_bars(axes: "Axes", part: pd.DataFrame, column: str) -> None:
    at = list(range(len(part)))
    axes.bar(at, part[column].fillna(0), linewidth=_EDGE, edgecolor=INK,
             color=[LEVEL_COLOURS[name] for name in part["level"]])  # fmt: skip
    for x, value in zip(at, part[column], strict=True):
        is_known = np.isfinite(value)
        text = f"{value:.2f}" if is_known else "–"
        axes.text(x, (value if is_known else 0) + 0.03, text, ha="center",
                  fontsize=7, color=INK if is_known else MUTED)  # fmt: skip
    axes.set_xticks(at, part["level"], fontsize=9)
    axes.set_ylim(0, 1.16)
    axes.set_yticks([0, 0.5, 1])


@chart
def plot_confusion(confusion: pd.DataFrame, best: str | None) -> "Figure":
    """Confusion matrices at the operating points: a row per model."""
    models = list(dict.fromkeys(confusion["model"]))
    figure = new_figure(1.6 * len(models) + 0.2)
    panels = figure.subplots(len(models), 2, squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, what in zip(row, ("vertebra", "overall"), strict=True):
            chosen = confusion["model"].eq(model) & confusion["of"].eq(what)
            _plot_matrix(axes, confusion[chosen].iloc[0])
            noun = "vertebrae" if what == "vertebra" else "studies"
            axes.set_title(f"{starred(model, best)}: {noun}", fontsize=9.5)
    return figure


def _plot_matrix(axes: "Axes", counts: pd.Series) -> None:
    from matplotlib import colormaps

    cells = np.array(
        [
            [counts["true_positives"], counts["false_negatives"]],
            [counts["false_positives"], counts["true_negatives"]],
        ],
        dtype=float,
    )
    totals = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, totals, out=np.zeros_like(cells), where=totals > 0)
    axes.imshow(shares, cmap=colormaps[_SHADES], vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(2, 2):
        share = shares[row, column]
        told = percent(share) if totals[row, 0] else "none"
        axes.text(column, row, f"{int(cells[row, column])}\n{told}", ha="center",
                  va="center", fontsize=9,
                  color="white" if share > _DARK else "black")  # fmt: skip
    axes.set_xticks([0, 1], [f"≥ {counts['threshold']:.2g}", "below"])
    axes.set_yticks([0, 1], ["fractured", "intact"])
    axes.tick_params(length=0, labelsize=8.5)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


@chart
def plot_folds(folds: pd.DataFrame, best: str | None) -> "Figure":
    """Loss and area of each fold's network, on validation and on test studies."""
    models = list(dict.fromkeys(folds["model"]))
    styles = styles_of(models)
    figure = new_figure(0.42 * len(models) + 1.2)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"log_loss": "Competition log loss", "auc_vertebra": "AUC of vertebrae"}
    for axes, (score, title) in zip(panels, titles.items(), strict=True):
        for y, model in enumerate(models):
            part, colour = folds[folds["model"] == model], styles[model].colour
            for shift, group, marker, fill in (
                (-0.13, Split.VALIDATION, "s", "none"),
                (0.13, Split.TEST, "o", "full"),
            ):
                axes.plot(
                    part[f"{group}_{score}"], np.full(len(part), y + shift), marker,
                    color=colour, fillstyle=fill, markersize=5, linestyle="none",
                    alpha=0.85,
                )  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.margins(x=0.12)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(models)), [starred(m, best) for m in models])
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    figure.supxlabel("open square: validation; dot: test", fontsize=9)
    return figure


@chart
def plot_studies(true: pd.DataFrame, predicted: Mapping[str, pd.DataFrame]) -> "Figure":
    """Probabilities of some studies: a panel per model, true fractures framed.

    A level that was not assessed has no number: NaN.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    names = list(LABEL_COLUMNS)
    count = len(true)
    figure = new_figure((0.27 * count + 0.42) * len(predicted) + 0.45)
    panels = figure.subplots(len(predicted), 1, squeeze=False, sharex=True).ravel()
    for axes, (model, table) in zip(panels, predicted.items(), strict=True):
        values = table[names].to_numpy(dtype=float)
        axes.imshow(values, cmap=colormaps[_SHADES], vmin=0, vmax=1.15, aspect="auto")
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            axes.text(column, row, "–" if np.isnan(value) else f"{value:.2f}",
                      ha="center", va="center", fontsize=8,
                      color="white" if value > _DARK else "black")  # fmt: skip
            label = true[names[column]].iloc[row]
            if not pd.isna(label) and label == 1:
                axes.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88,
                                         fill=False, edgecolor="#D55E00",
                                         linewidth=2))  # fmt: skip
        axes.set_title(model, fontsize=9.5)
        axes.set_yticks(range(count), [f"study {i + 1}" for i in range(count)])
        axes.set_xticks(range(len(names)), [short(name) for name in names])
        axes.tick_params(length=0, labelsize=8.5, labelbottom=axes is panels[-1])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    panels[-1].set_xlabel("framed: labelled as fractured; –: not assessed", fontsize=9)
    return figure
