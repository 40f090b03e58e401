"""Pictures of slices, masks and both, with their place in millimetres."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from csfd_core.reports.eda.images import (
    StudyImages,
    cervical_slices,
    midline_column,
    side_view,
)
from csfd_core.reports.eda.sampling import generator
from csfd_core.reports.palette import ink_on, label_name, level_colour, overlay, paint
from csfd_core.reports.render import new_figure, picture
from csfd_core.store.parquet import read_parquet
from csfd_core.store.stores import Stores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SLICES: Final = 12
_ACROSS: Final = 3
_STRIP: Final = 6
_SMALLEST: Final = 24  # pixels; slices that only touch a vertebra show more than it


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedSlice:
    """One slice with its mask, both of shape (H, W)."""

    grey: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    z_mm: float


@picture
def plot_slices(stores: Stores, study_uid: str) -> tuple["Figure", list[int]]:
    """Show twelve random slices of a study from top to bottom.

    Returns:
        The figure, and the indices of the slices shown.
    """
    path = stores.slices.path(study_uid)
    table, note = read_parquet(stores.root, path, ["z_mm"])
    z_mm = np.asarray(table.column("z_mm"), dtype=np.float64)
    indices = random_slices(len(z_mm), study_uid)
    height = -(-len(indices) // _ACROSS)
    figure = new_figure(2.15 * height, 6.2)
    panels = figure.subplots(height, _ACROSS, squeeze=False).ravel()
    _, row_mm, column_mm = note["spacing_zyx_mm"]
    for axes in panels:
        axes.set_axis_off()
    for axes, index in zip(panels, indices, strict=False):
        grey = stores.slices.read_volume(study_uid, index, index + 1)[0]
        axes.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect=row_mm / column_mm)
        below = z_mm[0] - z_mm[index]
        axes.set_title(f"z {z_mm[index]:.0f} mm ({below:.0f} below top)", fontsize=8.5)
    return figure, indices


def random_slices(count: int, study_uid: str, wanted: int = _SLICES) -> list[int]:
    """Choose one slice at random in each of ``wanted`` equal parts of a stack."""
    edges = np.linspace(0, count, min(wanted, count) + 1)
    parts = generator("slices", study_uid).uniform(edges[:-1], edges[1:])
    return [min(int(part), count - 1) for part in parts]


@picture
def plot_side_view(images: StudyImages, mask: npt.NDArray[np.uint8]) -> "Figure":
    """Show a sagittal plane: the CT, the vertebrae in their colours, and both."""
    column = midline_column(mask)
    grey, labels = side_view(images.volume, column), side_view(mask, column)
    depth, height = grey.shape
    slice_mm, row_mm, _ = images.spacing_zyx_mm
    wide, tall = height * row_mm, depth * slice_mm
    figure = new_figure(min(7.0, 1.8 * tall / wide + 0.8), 6.2)
    panels = figure.subplots(1, 3, sharey=True)
    half = slice_mm / 2
    box = (0.0, wide, images.z_mm[-1] - half, images.z_mm[0] + half)
    options: dict[str, Any] = {"extent": box, "aspect": "equal"}
    panels[0].imshow(grey, cmap="gray", vmin=0, vmax=255, **options)
    panels[1].imshow(paint(labels), interpolation="nearest", **options)
    panels[2].imshow(overlay(grey, labels), **options)
    front, back = "front", "back"
    if not images.rows_to_back:
        front, back = back, front
    for axes, title in zip(panels, ("CT", "mask", "both"), strict=True):
        axes.set_title(title)
        axes.set_xlabel(f"{front} to {back} (mm)")
    panels[0].set_ylabel("z (mm)")
    for label in np.unique(labels[labels > 0]):
        rows, columns = np.nonzero(labels == label)
        x = (float(columns.max()) + 1) * row_mm + 4
        y = float(images.z_mm[0]) - float(np.median(rows)) * slice_mm
        for axes in panels[1:]:
            _write_name(axes, (x, y), int(label))
    return figure


def random_masked_slices(
    stores: Stores, study_uids: Sequence[str], count: int
) -> list[MaskedSlice]:
    """Choose slices with vertebrae at random, in turn from each of the studies."""
    masked_slices = []
    for rank, study_uid in enumerate(study_uids):
        mask = stores.masks.read_volume(study_uid)
        candidates = cervical_slices(mask)
        share = count // len(study_uids) + (rank < count % len(study_uids))
        rng = generator("overlay", study_uid)
        share = min(share, len(candidates))
        for index in np.sort(rng.choice(candidates, share, replace=False)):
            masked_slices.append(_read_slice(stores, study_uid, mask, int(index)))
    return masked_slices


def _read_slice(
    stores: Stores, study_uid: str, mask: npt.NDArray[np.uint8], index: int
) -> MaskedSlice:
    path = stores.slices.path(study_uid)
    table, _ = read_parquet(stores.root, path, ["z_mm"])
    return MaskedSlice(
        grey=stores.slices.read_volume(study_uid, index, index + 1)[0],
        mask=mask[index],
        z_mm=table.column("z_mm")[index].as_py(),
    )


@picture
def plot_overlays(slices: Sequence[MaskedSlice]) -> "Figure":
    """Show image, mask, and the image overlaid by the mask; one row per slice.

    Each is cut to a square around its vertebrae.
    """
    figure = new_figure(2.2 * len(slices), 6.2)
    panels = figure.subplots(len(slices), 3, squeeze=False)
    for row, shown in zip(panels, slices, strict=True):
        window = around(shown.mask)
        grey, mask = shown.grey[window], shown.mask[window]
        row[0].imshow(grey, cmap="gray", vmin=0, vmax=255)
        row[1].imshow(paint(mask), interpolation="nearest")
        row[2].imshow(overlay(grey, mask))
        row[0].set_title(f"image, z {shown.z_mm:.0f} mm")
        row[1].set_title(f"mask: {levels_in(shown.mask)}")
        row[2].set_title("overlay")
        for axes in row:
            axes.set_axis_off()
        for axes in row[1:]:
            _write_names(axes, mask)
    return figure


@picture
def plot_film_strip(preview: bytes) -> "Figure":
    """Show six frames of a film, from its animated preview."""
    film = Image.open(io.BytesIO(preview))
    count = int(getattr(film, "n_frames", 1))
    chosen = np.unique(np.linspace(0, count - 1, _STRIP).round().astype(int))
    down = -(-len(chosen) // 2)
    figure = new_figure(2.05 * down, 6.2)
    panels = figure.subplots(down, 2, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, index in zip(panels, chosen, strict=False):
        film.seek(int(index))
        axes.imshow(np.asarray(film.convert("RGB")))
    return figure


def levels_in(mask: npt.NDArray[np.uint8]) -> str:
    """Name the vertebrae in a mask, from head to feet."""
    return ", ".join(label_name(int(label)) for label in np.unique(mask[mask > 0]))


def around(mask: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return a square about twice as large as what a mask shows, within the image."""
    rows, columns = np.nonzero(mask)
    spread = max(int(np.ptp(rows)), int(np.ptp(columns)), _SMALLEST)
    side = min(2 * spread, *mask.shape)
    starts = [
        int(np.clip((int(index.min()) + int(index.max()) - side) // 2, 0, size - side))
        for index, size in zip((rows, columns), mask.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _write_names(axes: "Axes", mask: npt.NDArray[np.uint8]) -> None:
    """Write the name of each vertebra to the right of it, none over another."""
    step, lowest = mask.shape[0] * 0.09, -float(mask.shape[0])
    anchors = []
    for label in np.unique(mask[mask > 0]):
        rows, columns = np.nonzero(mask == label)
        x = min(float(columns.max()) + 3, mask.shape[1] * 0.9)
        anchors.append((float(np.median(rows)), x, int(label)))
    for y, x, label in sorted(anchors):
        lowest = max(y, lowest + step)
        _write_name(axes, (x, lowest), label)


def _write_name(axes: "Axes", position: tuple[float, float], label: int) -> None:
    """Write the name of a vertebra on its colour."""
    name = label_name(label)
    colour = level_colour(name)
    box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.15"}
    axes.text(*position, name, color=ink_on(colour), fontsize=8, va="center", bbox=box)
