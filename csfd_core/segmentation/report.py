"""The report on the segmentation: how well, where it fails, what it looks like."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from csfd_core.reports.banner import banner_of
from csfd_core.reports.page import Page, Section, Table, Written, to_csv, write_page
from csfd_core.reports.render import (
    NEUTRAL,
    chart,
    new_figure,
    picture,
    say_nothing_to_show,
)
from csfd_core.segmentation.data import Sample, to_batch
from csfd_core.segmentation.evaluate import Scores
from csfd_core.segmentation.grids import Axes
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes as PlotAxes
    from matplotlib.figure import Figure

FOLDER: Final = "reports/segmentation"
STUDIES_CSV: Final = "studies.csv"
_ALPHA: Final = 0.42


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sagittal plane of one study with the predicted and the given mask."""

    title: str
    grey: npt.NDArray[np.uint8]  # (Z, Y)
    found: npt.NDArray[np.uint8]
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
    places = np.argwhere((both > 0) & (both <= len(LEVEL_NAMES)))
    column = int(np.median(places[:, 2])) if len(places) else turned[0].shape[2] // 2
    low, high = np.zeros(2, dtype=int), np.array(turned[0].shape[:2])
    if len(places):
        margin = np.round(25 / np.array(spacing[:2])).astype(int)
        low = np.maximum(places.min(axis=0)[:2] - margin, 0)
        high = np.minimum(places.max(axis=0)[:2] + margin + 1, high)
    plane = (slice(low[0], high[0]), slice(low[1], high[1]), column)
    return Example(
        title=title,
        grey=turned[0][plane],
        found=turned[1][plane],
        given=turned[2][plane],
        aspect=spacing[0] / spacing[1],
    )


def write_report(
    location: Location,
    scores: Scores,
    facts: Mapping[str, Any],
    examples: Sequence[Example],
) -> Written:
    """Write the page, its figures and tables, and ``studies.csv`` beside it."""
    columns = ["study_uid", "level", "dice", "hd95_mm"]
    rest = [name for name in scores.levels.columns if name not in columns]
    location.write(STUDIES_CSV, to_csv(scores.levels[[*columns, *rest]]))
    return write_page(location, build_report(scores, facts, examples))


def build_report(
    scores: Scores, facts: Mapping[str, Any], examples: Sequence[Example]
) -> Page:
    """Put the report together.

    Args:
        scores: Of studies that the model has not seen.
        facts: Of the model, as kept with it, and the kind of data it is scored on.
        examples: Best, median and worst study.
    """
    history = pd.DataFrame(facts.get("history", []))
    return Page(
        title="Segmentation of C1 to C7",
        banner=banner_of(facts["data_kind"]),
        facts=(
            ("model", str(facts.get("model_id"))),
            ("started from", str(facts.get("initial"))),
            ("studies trained on", str(len(facts.get("training_studies", {})))),
            ("studies scored, unseen", str(len(scores.studies))),
            ("seconds of training", str(facts.get("seconds", 0))),
        ),
        sections=(
            _overlap(scores),
            _studies(scores),
            _distances(scores),
            _curves(history),
            _looks(examples),
        ),
    )


def _overlap(scores: Scores) -> Section:
    by_level = scores.by_level()
    numbers = scores.summary()
    if scores.levels.empty:
        return Section(
            key="levels", title="Overlap per level", sentence="Nothing could be scored."
        )
    swaps = numbers["level_swap_rate"]
    return Section(
        key="levels",
        title="Overlap per level",
        sentence=(
            f"Mean Dice {numbers['dice']:.3f} over {len(scores.studies)} unseen "
            f"studies at full resolution, {numbers['dice_worst_level']:.3f} for the "
            f"worst level; {swaps:.1%} of the vertebrae carry another level's label."
        ),
        figure=_plot_levels(by_level),
        tables=(
            Table(name="levels", title="Mean per level, 95 % interval", frame=by_level),
        ),
    )


def _studies(scores: Scores) -> Section:
    frame = scores.studies.sort_values("dice")
    times = frame["seconds"]
    sentence = "Nothing could be scored."
    if len(frame):
        sentence = (
            f"The worst study reaches {frame['dice'].iloc[0]:.3f}, the median one "
            f"{frame['dice'].median():.3f}. Predicting one took {times.mean():.1f} s "
            f"on average, {times.max():.1f} s at most."
        )
    return Section(
        key="studies",
        title="Overlap per study",
        sentence=sentence,
        figure=_plot_studies(frame) if len(frame) else None,
        tables=(Table(name="studies", title="Mean per study", frame=frame),),
    )


def _distances(scores: Scores) -> Section:
    numbers = scores.summary()
    sentence = "Nothing could be scored."
    if len(scores.levels):
        sentence = (
            f"Surfaces lie {numbers['surface_distance_mm']:.2f} mm apart on average; "
            f"the 95th percentile Hausdorff distance is {numbers['hd95_mm']:.2f} mm."
        )
    return Section(
        key="distances", title="Distance of surfaces", sentence=sentence, tables=()
    )


def _curves(history: pd.DataFrame) -> Section:
    if history.empty:
        return Section(
            key="curves",
            title="Learning curves",
            sentence="The model is the one that comes with csfd; nothing was trained.",
        )
    best = history["validation_dice"].max()
    return Section(
        key="curves",
        title="Learning curves",
        sentence=(
            f"{len(history)} epochs in {history['seconds'].sum():.0f} s; the best "
            f"validation Dice on the network's grid was {best:.3f}."
        ),
        figure=_plot_curves(history),
        tables=(Table(name="epochs", title="Epochs", frame=history),),
    )


def _looks(examples: Sequence[Example]) -> Section:
    return Section(
        key="examples",
        title="Best, median and worst study",
        sentence="Predicted (left) and given (right) vertebrae on a sagittal plane."
        if examples
        else "Nothing could be scored.",
        figure=_plot_examples(examples) if examples else None,
        is_picture=True,
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
        palette[label] = [int(code[place : place + 2], 16) for place in (1, 3, 5)]
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
def _plot_levels(by_level: pd.DataFrame) -> "Figure":
    figure = new_figure(2.8)
    axes = figure.subplots()
    at = np.arange(len(by_level))
    colours = [LEVEL_COLOURS[name] for name in by_level["level"]]
    axes.bar(at, by_level["dice"].fillna(0), color=colours)
    known = by_level["dice_low"].notna()
    spread = np.stack(
        [
            (by_level["dice"] - by_level["dice_low"])[known],
            (by_level["dice_high"] - by_level["dice"])[known],
        ]
    )
    axes.errorbar(
        at[known], by_level["dice"][known], np.clip(spread, 0, None), fmt="none",
        ecolor="#1b1c1d", capsize=3,
    )  # fmt: skip
    axes.set_xticks(at, by_level["level"])
    axes.set_ylim(0, 1)
    axes.set_ylabel("Dice")
    return figure


@chart
def _plot_studies(frame: pd.DataFrame) -> "Figure":
    figure = new_figure(2.4)
    axes = figure.subplots()
    axes.plot(np.arange(1, len(frame) + 1), frame["dice"], "o-", color=NEUTRAL)
    axes.set_ylim(0, 1)
    axes.set_xlabel("study, from the worst")
    axes.set_ylabel("Dice")
    return figure


@chart
def _plot_curves(history: pd.DataFrame) -> "Figure":
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    left.plot(history["epoch"], history["loss"], color=NEUTRAL)
    left.set_title("Training loss")
    for name in LEVEL_NAMES:
        if f"dice_{name}" in history:
            right.plot(
                history["epoch"], history[f"dice_{name}"], color=LEVEL_COLOURS[name],
                label=name,
            )  # fmt: skip
    right.set_ylim(0, 1)
    right.set_title("Validation Dice")
    right.legend(fontsize=7, ncols=2)
    for axes in (left, right):
        axes.set_xlabel("epoch")
    return figure


@picture
def _plot_examples(examples: Sequence[Example]) -> "Figure":
    figure = new_figure(3.6 * len(examples), 6.6)
    grid = np.reshape(figure.subplots(len(examples), 2), (-1, 2))
    for row, example in zip(grid, examples, strict=True):
        for axes, mask, what in (
            (row[0], example.found, "predicted"),
            (row[1], example.given, "given"),
        ):
            _draw(axes, example, mask)
            axes.set_title(f"{example.title}: {what}")
    return figure


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
