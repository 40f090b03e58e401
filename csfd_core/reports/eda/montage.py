"""A strip of slices of one study, to see at a glance what it shows."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from csfd_core.reports.palette import paint
from csfd_core.store.masks import MaskStore
from csfd_core.store.slices import SliceStore

_COUNT: Final = 6
_SIDE: Final = 128  # pixels
_GAP: Final = 2
_CAPTION: Final = 12  # pixels of text under each slice
_QUALITY: Final = 80


def study_montage(store: SliceStore, study_uid: str) -> bytes:
    """Return a JPEG of six slices from head to feet, each with its z in mm."""
    table = store.read_table(study_uid)
    pictures, captions = [], []
    for index in _spread(0, table.num_rows):
        ct_slice = Image.open(io.BytesIO(table.column("jpeg")[index].as_py()))
        ct_slice.draft("L", (_SIDE, _SIDE))  # scaled while it is decoded
        pictures.append(ct_slice.convert("RGB"))
        captions.append(f"z {table.column('z_mm')[index].as_py():.0f} mm")
    return _strip(pictures, captions)


def mask_montage(store: MaskStore, study_uid: str) -> bytes:
    """Return a JPEG of six slices of the mask, from its first to its last vertebra."""
    mask = store.read_volume(study_uid)
    occupied = np.flatnonzero(mask.any(axis=(1, 2)))
    if not occupied.size:
        return _strip([Image.fromarray(paint(mask[0]))], ["no vertebra"])
    indices = _spread(int(occupied[0]), int(occupied[-1]) + 1)
    pictures = [Image.fromarray(paint(mask[index])) for index in indices]
    return _strip(pictures, [f"slice {index}" for index in indices])


def _spread(start: int, stop: int) -> list[int]:
    """Return the middles of six equal parts of a range, fewer where it is shorter."""
    parts = start + (np.arange(_COUNT) + 0.5) / _COUNT * (stop - start)
    return [int(index) for index in np.unique(parts.astype(int))]


def _strip(pictures: Sequence[Image.Image], captions: Sequence[str]) -> bytes:
    width = len(pictures) * (_SIDE + _GAP) - _GAP
    strip = Image.new("RGB", (width, _SIDE + _CAPTION))
    draw = ImageDraw.Draw(strip)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        picture.thumbnail((_SIDE, _SIDE))
        left = index * (_SIDE + _GAP)
        strip.paste(picture, (left + (_SIDE - picture.width) // 2, 0))
        draw.text((left + 4, _SIDE), caption, fill=(200, 200, 200))
    sink = io.BytesIO()
    strip.save(sink, "JPEG", quality=_QUALITY)
    return sink.getvalue()
