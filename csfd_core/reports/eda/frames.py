"""Frames of a film through a study: the slice, a side view, and where one is.

Left, the axial slice; right, the names of the vertebrae it shows, its position, and a
sagittal view with a line at the slice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from csfd_core.reports.eda.images import StudyImages, midline_column, side_view
from csfd_core.reports.palette import ink_on, label_name, level_colour, overlay

STEP_MM: Final = 1.0
_SIDE: Final = 512  # pixels of the square that holds the slice
_PANEL: Final = 256  # pixels of width beside it
_MARGIN: Final = 12
_HEADER: Final = 112  # pixels of text above the side view
_OPACITY: Final = 0.45
_LIGHT: Final = (235, 235, 235)
_GREY: Final = (170, 170, 170)
_LINE: Final = (255, 255, 255)
_NAME_STEP: Final = 27.0  # pixels between names

RgbFrame = npt.NDArray[np.uint8]  # (H, W, 3)
FRAME_SIZE: Final = (_SIDE, _SIDE + _PANEL)  # both even, as H.264 demands


@dataclass(frozen=True)
class FrameMaker:
    """Makes the frames of one study, with or without its mask laid over."""

    images: StudyImages
    with_overlay: bool

    def __len__(self) -> int:
        """Return the number of frames: one per millimetre from first to last slice."""
        return int(self.images.extent_mm / STEP_MM + 1e-6) + 1

    def frames(self) -> Iterator[RgbFrame]:
        """Yield the frames from head to feet."""
        for rank in range(len(self)):
            yield self._frame(rank * STEP_MM)

    def mask_at(self, below_mm: float) -> npt.NDArray[np.uint8] | None:
        """Return the mask of the slice nearest to a position below the first one."""
        if self.images.mask is None:
            return None
        index = int(below_mm / self.images.spacing_zyx_mm[0] + 0.5)
        return np.asarray(self.images.mask[min(index, len(self.images.mask) - 1)])

    def _grey_at(self, below_mm: float) -> npt.NDArray[np.uint8]:
        """Interpolate linearly between the two slices around a position."""
        volume = self.images.volume
        position = below_mm / self.images.spacing_zyx_mm[0]
        upper = min(int(position), len(volume) - 1)
        lower = min(upper + 1, len(volume) - 1)
        weight = np.float32(position - upper)
        if weight < 1e-6 or lower == upper:
            return np.asarray(volume[upper])
        mixed = (1 - weight) * volume[upper].astype(np.float32)
        mixed += weight * volume[lower].astype(np.float32)
        return np.asarray(np.rint(mixed), dtype=np.uint8)

    def _frame(self, below_mm: float) -> RgbFrame:
        grey, mask = self._grey_at(below_mm), self.mask_at(below_mm)
        frame = Image.new("RGB", (_SIDE + _PANEL, _SIDE))
        if self.with_overlay and mask is not None:
            plane = Image.fromarray(overlay(grey, mask, _OPACITY))
        else:
            plane = Image.fromarray(grey).convert("RGB")
        scaled = plane.resize(self._plane_size, Image.Resampling.BICUBIC)
        left = (_SIDE - scaled.width) // 2
        top = (_SIDE - scaled.height) // 2
        frame.paste(scaled, (left, top))
        draw = ImageDraw.Draw(frame)
        labels = [] if mask is None else [int(v) for v in np.unique(mask[mask > 0])]
        if self.with_overlay and mask is not None:
            scale = (scaled.width / mask.shape[1], scaled.height / mask.shape[0])
            _name_vertebrae(draw, mask, labels, (left, top), scale)
        self._draw_panel(frame, draw, below_mm, labels)
        return np.asarray(frame)

    @cached_property
    def _plane_size(self) -> tuple[int, int]:
        """Width and height of the slice in pixels, true to its millimetres."""
        _, row_mm, column_mm = self.images.spacing_zyx_mm
        _, rows, columns = self.images.volume.shape
        wide, tall = columns * column_mm, rows * row_mm
        scale = _SIDE / max(wide, tall)
        return max(1, round(wide * scale)), max(1, round(tall * scale))

    @cached_property
    def _side_view(self) -> Image.Image:
        """The sagittal plane, scaled to fit the panel."""
        mask = self.images.mask
        middle = self.images.volume.shape[2] // 2
        column = middle if mask is None else midline_column(mask)
        grey = side_view(self.images.volume, column)
        if self.with_overlay and mask is not None:
            view = Image.fromarray(overlay(grey, side_view(mask, column), _OPACITY))
        else:
            view = Image.fromarray(grey).convert("RGB")
        slice_mm, row_mm, _ = self.images.spacing_zyx_mm
        wide, tall = grey.shape[1] * row_mm, grey.shape[0] * slice_mm
        scale = min((_PANEL - 2 * _MARGIN) / wide, (_SIDE - _HEADER - _MARGIN) / tall)
        size = max(1, round(wide * scale)), max(1, round(tall * scale))
        return view.resize(size, Image.Resampling.BICUBIC)

    def _draw_panel(
        self,
        frame: Image.Image,
        draw: ImageDraw.ImageDraw,
        below_mm: float,
        labels: list[int],
    ) -> None:
        left = _SIDE + _MARGIN
        x = float(left)
        for label in labels:
            x = _write_name(draw, (x, 26), label, 26) + 6
        if self.images.mask is None:
            draw.text((x, 14), "no mask", fill=_GREY, font=_font(20))
        z_mm = float(self.images.z_mm[0]) - below_mm
        draw.text((left, 50), f"z {z_mm:.0f} mm", fill=_LIGHT, font=_font(20))
        whole = f"{below_mm:.0f} of {self.images.extent_mm:.0f} mm"
        draw.text((left, 76), whole, fill=_GREY, font=_font(18))
        view = self._side_view
        x0 = _SIDE + (_PANEL - view.width) // 2
        frame.paste(view, (x0, _HEADER))
        share = below_mm / max(self.images.extent_mm, STEP_MM)
        y = _HEADER + round(share * (view.height - 1))
        draw.line((x0 - 4, y, x0 + view.width + 4, y), fill=_LINE, width=1)


def _name_vertebrae(
    draw: ImageDraw.ImageDraw,
    mask: npt.NDArray[np.uint8],
    labels: list[int],
    origin: tuple[int, int],
    scale: tuple[float, float],
) -> None:
    """Write the name of each vertebra to the right of it, none over another."""
    anchors = []
    for label in labels:
        rows, columns = np.nonzero(mask == label)
        x = origin[0] + (float(columns.max()) + 1) * scale[0] + 6
        y = origin[1] + (float(np.median(rows)) + 0.5) * scale[1]
        anchors.append((y, min(x, _SIDE - 48.0), label))
    lowest = 0.0
    for y, x, label in sorted(anchors):
        lowest = max(y, lowest + _NAME_STEP)
        _write_name(draw, (x, min(lowest, _SIDE - 14.0)), label, 18)


def _write_name(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], label: int, size: int
) -> float:
    """Write a name on its colour, left edge at ``position``; return the right edge."""
    name, font = label_name(label), _font(size)
    colour = level_colour(name)
    x, y = position
    right = x + draw.textlength(name, font=font) + size * 0.5
    box = (x, y - size * 0.68, right, y + size * 0.68)
    draw.rounded_rectangle(box, radius=size * 0.25, fill=colour)
    draw.text((x + size * 0.25, y), name, fill=ink_on(colour), font=font, anchor="lm")
    return right


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that Pillow carries: the same on every machine."""
    return ImageFont.load_default(size)
