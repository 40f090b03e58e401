"""Charts and pictures of fracture boxes."""

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from csfd_core.reports.eda.images import stored_studies
from csfd_core.reports.eda.sampling import generator, ranked
from csfd_core.reports.eda.statistics import bin_edges
from csfd_core.reports.palette import UNKNOWN, level_colour
from csfd_core.reports.render import (
    INK,
    NEUTRAL,
    chart,
    new_figure,
    picture,
    say_nothing_to_show,
)
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXAMPLES: Final = 4
_JITTER: Final = 0.32  # of the distance between levels


@chart
def plot_boxes(boxes: pd.DataFrame) -> "Figure":
    """Where boxes lie in the slice and in the stack, and how large they are.

    Args:
        boxes: Of ``describe_boxes``; at least one.
    """
    figure = new_figure(6.2)
    panels = figure.subplot_mosaic(
        [["plane", "size"], ["depth", "depth"]], width_ratios=[3, 2]
    )
    _plot_centres(panels["plane"], boxes)
    _plot_depth(panels["depth"], boxes)
    _plot_sizes(panels["size"], boxes)
    return figure


def _plot_centres(axes: "Axes", boxes: pd.DataFrame) -> None:
    # Those of unknown level first, so that they cover no other.
    boxes = boxes.sort_values(
        "level", key=lambda level: level != UNKNOWN, kind="stable"
    )
    x, y = boxes["x"] + boxes["width"] / 2, boxes["y"] + boxes["height"] / 2
    # Few dots stay readable when they are large, many when they are small.
    size = float(np.clip(4000 / len(boxes), 4, 30))
    axes.scatter(
        x,
        y,
        s=size,
        c=[level_colour(level) for level in boxes["level"]],
        alpha=0.7,
        edgecolors="none",
        rasterized=True,
    )
    axes.invert_yaxis()
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(visible=True, axis="both")
    axes.set_xlabel("column of the centre (pixels)")
    axes.set_ylabel("row (pixels)")
    axes.set_title(f"In the slice (n = {len(boxes)})")


def _plot_depth(axes: "Axes", boxes: pd.DataFrame) -> None:
    """Show the position of every box along the stack, one column per level."""
    has_depth = boxes["depth"].notna().any()
    positions = (
        boxes["depth"] * 100 if has_depth else boxes["slice_number"].astype(float)
    )
    counts = []
    for rank, level in enumerate((*LEVEL_NAMES, UNKNOWN)):
        values = positions[boxes["level"] == level].dropna().to_numpy()
        counts.append(len(values))
        if not len(values):
            continue
        spread = generator("jitter", level).uniform(-_JITTER, _JITTER, len(values))
        axes.scatter(
            rank + spread,
            values,
            s=float(np.clip(4000 / len(boxes), 4, 30)),
            color=level_colour(level),
            alpha=0.7,
            edgecolors="none",
            rasterized=True,
        )
        median = float(np.median(values))
        axes.hlines(median, rank - 0.42, rank + 0.42, color=INK, linewidth=1.6)
    names = [*LEVEL_NAMES, "?"]
    axes.set_xticks(
        range(len(names)),
        [f"{name}\n{count}" for name, count in zip(names, counts, strict=True)],
        fontsize=8.5,
    )
    axes.set_xlim(-0.7, len(names) - 0.3)
    if has_depth:
        axes.set_ylim(102, -2)
    else:
        axes.invert_yaxis()
    axes.set_xlabel("level; below it: boxes (line: median)")
    if has_depth:
        axes.set_ylabel("first to last slice (%)")
    else:
        axes.set_ylabel("slice number")
    axes.set_title("Along the stack")


def _plot_sizes(axes: "Axes", boxes: pd.DataFrame) -> None:
    unit, suffix = ("mm", "_mm") if boxes["width_mm"].notna().any() else ("pixels", "")
    sides = [boxes[f"{side}{suffix}"].dropna() for side in ("width", "height")]
    edges = list(bin_edges(np.concatenate([side.to_numpy() for side in sides])))
    for side, name, colour in zip(
        sides, ("width", "height"), (NEUTRAL, "#D55E00"), strict=True
    ):
        median = float(side.median())
        axes.hist(
            side,
            bins=edges,
            histtype="step",
            linewidth=1.6,
            color=colour,
            label=f"{name}, median {median:.3g}",
        )
    axes.set_ylim(0, axes.get_ylim()[1] * 1.45)
    axes.legend(fontsize=8.5, loc="upper right", handlelength=1.2)
    axes.set_xlabel(unit)
    axes.set_ylabel("boxes")
    axes.set_title(f"Size (n = {len(sides[0])})")


@picture
def plot_box_examples(
    boxes: pd.DataFrame, stores: Stores
) -> "tuple[Figure, int] | None":
    """Draw boxes on their slices, of up to four studies.

    Returns:
        The figure and the number of studies in it; ``None`` where no box has its slice
        in the store.
    """
    placed = boxes.dropna(subset=["slice_index"])
    uids = ranked(placed["study_uid"].unique(), "boxes")
    chosen = stored_studies(stores, uids, _EXAMPLES)
    if not chosen:
        return None
    figure = new_figure(3.2 * ((len(chosen) + 1) // 2), 6.2)
    panels = figure.subplots((len(chosen) + 1) // 2, 2, squeeze=False).ravel()
    for axes in panels[len(chosen) :]:
        say_nothing_to_show(axes, "")
    for axes, study_uid in zip(panels, chosen, strict=False):
        part = placed[placed["study_uid"] == study_uid]
        index = generator("boxes", study_uid).choice(np.unique(part["slice_index"]))
        _draw_example(axes, part[part["slice_index"] == index], stores, int(index))
    return figure, len(chosen)


def _draw_example(axes: "Axes", part: pd.DataFrame, stores: Stores, index: int) -> None:
    from matplotlib.patches import Rectangle

    study_uid = str(part["study_uid"].iloc[0])
    grey = stores.slices.read_volume(study_uid, index, index + 1)[0]
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    for row in part.itertuples():
        colour = level_colour(str(row.level))
        corner = (float(row.x) - 0.5, float(row.y) - 0.5)  # type: ignore[arg-type]
        axes.add_patch(
            Rectangle(
                corner,
                float(row.width),  # type: ignore[arg-type]
                float(row.height),  # type: ignore[arg-type]
                fill=False,
                edgecolor=colour,
                linewidth=1.8,
            )
        )
    levels = ", ".join(sorted(set(part["level"])))
    number = int(part["slice_number"].iloc[0])
    axes.set_title(f"slice {number}, {levels}")
    axes.set_xlabel("column (pixels)")
    axes.set_ylabel("row (pixels)")
