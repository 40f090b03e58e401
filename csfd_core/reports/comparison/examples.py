"""Single vertebrae with what a model looked at: hits, misses and false alarms."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from csfd_core.reports.render import new_figure, picture, say_nothing_to_show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS: Final = 3
_OPACITY: Final = 0.6  # of the hottest place
_CHARACTERS: Final = 34  # of a caption's line


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One slice of a vertebra and where the model looked.

    Attributes:
        title: Which vertebra of which study it is.
        kind: ``hit``, ``miss``, ``false alarm`` or ``correct rejection``.
        model: Which model judged it.
        grey: Shape (H, W), bone window.
        heat: Shape (H, W), 0 to 1: how much a place counted.
        caption: What was said and what is true.
    """

    title: str
    kind: str
    model: str
    grey: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.floating]
    caption: str


@picture
def plot_examples(examples: Sequence[Example]) -> "Figure":
    """Show each example with its heat laid over, three in a row."""
    rows = -(-len(examples) // _COLUMNS)
    figure = new_figure(3.05 * rows, 6.8)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, example in zip(panels, examples, strict=False):
        _draw(axes, example)
    return figure


def _draw(axes: "Axes", example: Example) -> None:
    if not example.grey.size:
        say_nothing_to_show(axes)
    else:
        height, width = example.grey.shape
        heat = np.clip(np.nan_to_num(example.heat.astype(float)), 0, 1)
        axes.imshow(example.grey, cmap="gray", vmin=0, vmax=255)
        axes.imshow(
            heat, cmap="inferno", vmin=0, vmax=1, alpha=heat * _OPACITY,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest",
        )  # fmt: skip
    axes.set_title(
        f"{example.kind.upper()}: {example.model}\n{_wrap(example.title)}", fontsize=8.5
    )
    axes.text(0, -0.03, _wrap(example.caption), transform=axes.transAxes, va="top",
              fontsize=7.5)  # fmt: skip


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _CHARACTERS))
