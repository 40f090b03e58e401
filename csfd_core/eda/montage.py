"""A strip of slices of one study, to see at a glance what it shows."""

import io
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from csfd_core.store.slice_store import SliceStore

_COUNT: Final = 6
_SIDE: Final = 128  # pixels
_GAP: Final = 2
_CAPTION: Final = 12  # pixels of text under each slice
_QUALITY: Final = 80


def study_montage(store: SliceStore, study_uid: str) -> bytes:
    """Return a JPEG of six slices from head to feet, each with its z in mm."""
    table = store.read_table(study_uid)
    # The middle of six equal parts of the stack.
    parts = (np.arange(_COUNT) + 0.5) / _COUNT * table.num_rows
    indices = np.unique(parts.astype(int))
    width = len(indices) * (_SIDE + _GAP) - _GAP
    strip = Image.new("L", (width, _SIDE + _CAPTION))
    draw = ImageDraw.Draw(strip)
    jpegs, z_mm = table.column("jpeg"), table.column("z_mm")
    for place, index in enumerate(indices):
        ct_slice = Image.open(io.BytesIO(jpegs[int(index)].as_py()))
        ct_slice.draft("L", (_SIDE, _SIDE))  # scaled while it is decoded
        ct_slice.thumbnail((_SIDE, _SIDE))
        left = place * (_SIDE + _GAP)
        strip.paste(ct_slice, (left + (_SIDE - ct_slice.width) // 2, 0))
        caption = f"z {z_mm[int(index)].as_py():.0f} mm"
        draw.text((left + 4, _SIDE), caption, fill=200)
    sink = io.BytesIO()
    strip.save(sink, "JPEG", quality=_QUALITY)
    return sink.getvalue()
