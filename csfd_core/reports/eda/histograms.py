"""Distributions of the geometry of all studies, in one figure."""

import io
from typing import TYPE_CHECKING, Final

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS: Final = (
    ("slice_count", "Slices per study", "slices"),
    ("slice_spacing_mm", "Slice spacing", "mm"),
    ("pixel_spacing_mm", "Pixel spacing", "mm"),
    ("z_extent_mm", "Extent along z", "mm"),
)
_COLOUR: Final = "#0072B2"  # Okabe and Ito's blue


def plot_histograms(studies: pd.DataFrame) -> bytes:
    """Plot how slices and spacings are distributed over the studies.

    Args:
        studies: The table of studies, or a part of it.

    Returns:
        A PNG with one panel each for slices per study, spacings and z-extent.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.6), layout="constrained")
    axes = figure.subplots(1, len(_PANELS))
    for axis, (column, title, unit) in zip(axes, _PANELS, strict=True):
        _draw(axis, studies[column].dropna(), title, unit)
    axes[0].set_ylabel("studies")
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=100)
    return sink.getvalue()


def _draw(
    axis: "Axes", values: "pd.Series[int] | pd.Series[float]", title: str, unit: str
) -> None:
    axis.set_title(f"{title}\n(n = {len(values)})", fontsize=10)
    axis.set_xlabel(unit)
    if values.empty:
        return
    axis.hist(values, bins=min(30, max(5, len(values) // 4)), color=_COLOUR)
    axis.axvline(values.median(), color="black", linestyle="--", linewidth=1)
    axis.annotate(
        f" median {values.median():.4g}",
        (values.median(), 0.9),
        xycoords=("data", "axes fraction"),
        fontsize=8,
    )
