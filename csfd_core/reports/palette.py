"""Colours of the vertebrae in every figure and film, and their names."""

from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.vocabulary import (
    HIGHEST_MASK_LABEL,
    LEVEL_COLOURS,
    LEVEL_NAMES,
    OVERALL,
    T1_LABEL,
)

OTHER_COLOUR: Final = "#9a9a9a"  # vertebrae below C7
OVERALL_COLOUR: Final = "#7f7f7f"  # the label of the whole study
UNKNOWN: Final = "unknown"

_NAMES: Final = {
    **dict(enumerate(LEVEL_NAMES, start=1)),
    **{T1_LABEL + i: f"T{i + 1}" for i in range(HIGHEST_MASK_LABEL - T1_LABEL + 1)},
}


def label_name(label: int) -> str:
    """Return the name of a mask label: C1 to C7, T1 to T12."""
    return _NAMES[label]


def level_colour(name: str) -> str:
    """Return the colour of a level, of ``patient_overall`` or of any other name."""
    if name == OVERALL:
        return OVERALL_COLOUR
    return LEVEL_COLOURS.get(name, OTHER_COLOUR)


def to_rgb(colour: str) -> tuple[int, int, int]:
    """Turn ``#rrggbb`` into three bytes."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def ink_on(colour: str) -> str:
    """Return the colour, black or white, of text that is readable on ``colour``."""
    red, green, blue = to_rgb(colour)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    return "white" if luma < 105 else "black"


def label_colours() -> npt.NDArray[np.uint8]:
    """Return the colour of every possible mask label, shape (256, 3); black for 0."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for label, name in _NAMES.items():
        table[label] = to_rgb(level_colour(name))
    return table


def paint(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Colour a mask: labels of shape (H, W) to RGB of shape (H, W, 3)."""
    return np.asarray(label_colours()[mask], dtype=np.uint8)


def overlay(
    grey: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], opacity: float = 0.5
) -> npt.NDArray[np.uint8]:
    """Lay the colours of a mask over an image.

    Args:
        grey: Grey levels, shape (H, W).
        mask: Labels, the same shape.
        opacity: Of the colours; 0 shows the image only.

    Returns:
        RGB, shape (H, W, 3). Pixels without a label keep their grey.
    """
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    inside = mask > 0
    colours = label_colours()[mask[inside]].astype(np.float32)
    mixed = (1 - opacity) * rgb[inside].astype(np.float32) + opacity * colours
    rgb[inside] = np.rint(mixed).astype(np.uint8)
    return rgb
