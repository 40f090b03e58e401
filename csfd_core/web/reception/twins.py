"""Whether two files with one SOPInstanceUID are the same image.

A sender that has had no answer sends again, and may have agreed on another transfer
syntax meanwhile: the bytes differ then, and the image is the same.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.headers import read_slice_header
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import DicomError, NotDicomError


def is_same_image(one: bytes, other: bytes) -> bool:
    """Say whether two de-identified files show the same pixels in the same place.

    What cannot be decoded is the same only byte by byte.
    """
    if one == other:
        return True
    try:
        first, second = _look(one), _look(other)
    except DicomError:
        return False
    return first[0] == second[0] and np.array_equal(first[1], second[1])


def _look(content: bytes) -> tuple[tuple[Any, ...], npt.NDArray[np.float32]]:
    """Return where a slice is, and its Hounsfield units."""
    header = read_slice_header(content, "")
    if header is None:
        raise NotDicomError("A slice that was kept is no DICOM file.")
    position = (
        header.study_uid,
        header.series_uid,
        header.instance_number,
        header.position_mm,
        header.orientation,
        header.pixel_spacing_mm,
    )
    return position, DecodedSlice(content, header).hounsfield()
