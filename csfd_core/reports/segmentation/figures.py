"""Figures of the report on the segmentation."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from csfd_core.dicom.grids import Axes
from csfd_core.reports.render import (
    INK,
    NEUTRAL,
    chart,
    new_figure,
    picture,
    say_nothing_to_show,
)
from csfd_core.segmentation.data import Sample, to_batch
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes as PlotAxes
    from matplotlib.figure import Figure

_ALPHA: Final = 0.42
# Apart from the levels' colours; told apart by their lines as well.
_FOLD_LINES: Final[tuple[tuple[str, Any], ...]] = (
    ("#3F7FC4", "-"),
    ("#D9544D", "--"),
    ("#2E9152", "-."),
    ("#9A6FC0", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    ("#B07D10", (0, (3, 1))),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sagittal plane of one study with the predicted and the given mask."""

    title: str
    grey: npt.NDArray[np.uint8]  # (Z, Y)
    predicted: npt.NDArray[np.uint8]
    given: npt.NDArray[np.uint8]
    aspect: float  # height of a pixel in its widths


def side_view(
    title: str,
    grey: npt.NDArray[np.uint8],
    masks: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    affine: npt.NDArray[np.float64],
) -> Example:
    """Cut the middle of the column out of a study, head up, front to the left.

    Args:
        title: Says which study it is.
        grey: Shape (slice, row, column).
        masks: The predicted and the given mask, of the same shape.
        affine: Maps (slice, row, column, 1) to LPS mm.
    """
    axes = Axes.of(affine)
    spacing = axes.pick(tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()))
    turned = [np.asarray(axes.turn(part), dtype=np.uint8) for part in (grey, *masks)]
    both = np.maximum(turned[1], turned[2])
    voxels = np.argwhere((both > 0) & (both <= len(LEVEL_NAMES)))
    column = int(np.median(voxels[:, 2])) if len(voxels) else turned[0].shape[2] // 2
    low, high = np.zeros(2, dtype=int), np.array(turned[0].shape[:2])
    if len(voxels):
        margin = np.round(25 / np.array(spacing[:2])).astype(int)
        low = np.maximum(voxels.min(axis=0)[:2] - margin, 0)
        high = np.minimum(voxels.max(axis=0)[:2] + margin + 1, high)
    plane = (slice(low[0], high[0]), slice(low[1], high[1]), column)
    return Example(
        title=title,
        grey=turned[0][plane],
        predicted=turned[1][plane],
        given=turned[2][plane],
        aspect=spacing[0] / spacing[1],
    )


def sample_overlay(model: "keras.Model", sample: Sample) -> bytes:
    """Return a PNG of a training sample: predicted and given levels side by side."""
    inputs, targets = to_batch([sample])
    logits = np.asarray(model.predict_on_batch(inputs)["segmenter"])[0]
    grey = inputs["segmenter"][0, ..., 0]
    column = grey.shape[2] // 2
    palette = np.zeros((len(LEVEL_NAMES) + 1, 3))
    for label, name in enumerate(LEVEL_NAMES, start=1):
        code = LEVEL_COLOURS[name]
        palette[label] = [int(code[start : start + 2], 16) for start in (1, 3, 5)]
    panels = []
    for labels in (logits.argmax(axis=-1), targets["segmenter"][0]):
        plane = labels[:, :, column]
        share = np.where(plane > 0, _ALPHA, 0.0)[..., None]
        panels.append(
            grey[:, :, column, None] * 255 * (1 - share) + palette[plane] * share
        )
    shown = np.concatenate(panels, axis=1).clip(0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(shown.repeat(3, axis=0).repeat(3, axis=1)).save(sink, "PNG")
    return sink.getvalue()


@chart
def plot_levels(by_level: pd.DataFrame) -> "Figure":
    """Draw the Dice of each level with its interval."""
    figure = new_figure(2.8)
    axes = figure.subplots()
    _bars(axes, by_level, "dice")
    axes.set_ylim(0, 1)
    axes.set_ylabel("Dice")
    return figure


@chart
def plot_distances(distances: pd.DataFrame) -> "Figure":
    """Draw both distances of surfaces of each level with their intervals, in mm."""
    figure = new_figure(2.8)
    for axes, (column, title) in zip(
        figure.subplots(1, 2),
        (
            ("surface_distance_mm", "Average distance"),
            ("hd95_mm", "95 % Hausdorff"),
        ),
        strict=True,
    ):
        _bars(axes, distances, column)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("mm")
        axes.set_title(title)
    return figure


@chart
def plot_studies(frame: pd.DataFrame) -> "Figure":
    """Draw the mean Dice of each study.

    Args:
        frame: From the worst study to the best.
    """
    figure = new_figure(2.4)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(frame) + 1), frame["dice"], "o-", color=NEUTRAL)
    axes.set_ylim(0, 1)
    axes.set_xlim(0.5, len(frame) + 0.5)
    _count_along(axes)
    axes.set_xlabel("study, from the worst")
    axes.set_ylabel("Dice")
    return figure


@chart
def plot_curves(history: pd.DataFrame, best_epochs: Mapping[int, int]) -> "Figure":
    """Draw loss and validation Dice: per level of one fold, or per fold of several.

    Args:
        history: Rows of epochs with their ``fold``.
        best_epochs: The epoch whose weights were kept, by fold; it is marked.
    """
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    folds = sorted(history["fold"].unique())
    for index, fold in enumerate(folds):
        epochs = history[history["fold"] == fold]
        colour, line = _FOLD_LINES[index % len(_FOLD_LINES)]
        left.plot(epochs["epoch"], epochs["loss"], linestyle=line, color=colour)
        if len(folds) == 1:
            _plot_levels_of(right, epochs)
        else:
            right.plot(epochs["epoch"], epochs["validation_dice"], linestyle=line,
                       color=colour, label=f"fold {fold}")  # fmt: skip
        best = epochs[epochs["epoch"] == best_epochs.get(int(fold))]
        right.plot(best["epoch"], best["validation_dice"], "o", color=INK,
                   markersize=4, label="mean, kept" if len(folds) == 1 else None,
                   )  # fmt: skip
    left.set_title("Training loss")
    right.set_ylim(0, 1)
    right.set_title("Validation Dice")
    right.legend(fontsize=7, ncols=2)
    for axes in (left, right):
        _count_along(axes)
        axes.set_xlabel("epoch")
    return figure


@picture
def plot_examples(examples: Sequence[Example]) -> "Figure":
    """Draw studies with the predicted mask to the left and the given one beside it."""
    figure = new_figure(3.6 * len(examples), 6.6)
    grid = np.reshape(figure.subplots(len(examples), 2), (-1, 2))
    for row, example in zip(grid, examples, strict=True):
        for axes, mask, what in (
            (row[0], example.predicted, "predicted"),
            (row[1], example.given, "given"),
        ):
            _draw(axes, example, mask)
            axes.set_title(f"{example.title}: {what}")
    return figure


def _bars(axes: "PlotAxes", frame: pd.DataFrame, column: str) -> None:
    """Draw one bar per level with its interval, where there is one."""
    at = np.arange(len(frame))
    colours = [LEVEL_COLOURS[name] for name in frame["level"]]
    axes.bar(at, frame[column].fillna(0), color=colours)
    bounded = frame[f"{column}_low"].notna()
    spread = np.stack(
        [
            (frame[column] - frame[f"{column}_low"])[bounded],
            (frame[f"{column}_high"] - frame[column])[bounded],
        ]
    )
    axes.errorbar(
        at[bounded], frame[column][bounded], np.clip(spread, 0, None), fmt="none",
        ecolor=INK, capsize=3,
    )  # fmt: skip
    axes.set_xticks(at, frame["level"])


def _count_along(axes: "PlotAxes") -> None:
    """Let the ticks of the x axis be whole numbers, however few there are."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _plot_levels_of(axes: "PlotAxes", history: pd.DataFrame) -> None:
    for name in LEVEL_NAMES:
        if f"dice_{name}" in history:
            axes.plot(
                history["epoch"], history[f"dice_{name}"], color=LEVEL_COLOURS[name],
                label=name,
            )  # fmt: skip


def _draw(axes: "PlotAxes", example: Example, mask: npt.NDArray[np.uint8]) -> None:
    from matplotlib.colors import to_rgba

    axes.set_axis_off()
    if not example.grey.size:
        say_nothing_to_show(axes)
        return
    axes.imshow(example.grey, cmap="gray", vmin=0, vmax=255, aspect=example.aspect)
    colours = np.zeros((*mask.shape, 4))
    for label, name in enumerate(LEVEL_NAMES, start=1):
        inside = mask == label
        if not inside.any():
            continue
        colours[inside] = to_rgba(LEVEL_COLOURS[name], _ALPHA)
        rows, columns = np.nonzero(inside)
        axes.text(
            float(columns.max()) + 2, float(np.median(rows)), name, fontsize=8,
            va="center", color=LEVEL_COLOURS[name],
        )  # fmt: skip
    axes.imshow(colours, interpolation="nearest", aspect=example.aspect)
