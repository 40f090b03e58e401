"""The cervical column from the side, for the summary of a study."""

from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.dicom_objects.source import ResultSource
from csfd_core.reports.summary_pdf import Column
from csfd_core.vocabulary import LEVELS

_AROUND_MM: Final = 60.0  # shown before and behind the column
_ALONG: Final = 0.7  # of a direction along an axis of the body, at least


def column_of(source: ResultSource) -> Column | None:
    """Cut a study through its cervical column, from the side.

    ``None`` where there are no pictures, no vertebra, or no axial slices.
    """
    first = source.headers[0]
    row, column = np.reshape([float(v) for v in first.ImageOrientationPatient], (2, 3))
    is_axial = abs(float(np.cross(row, column)[2])) > _ALONG
    if source.grey is None or not is_axial or abs(column[1]) < _ALONG:
        return None
    by_level = _middles(source.mask)
    if not by_level:
        return None
    down_mm, back_mm = _slice_step_mm(source), float(first.PixelSpacing[0])
    _, rows, columns = source.mask.shape
    middles = np.array(list(by_level.values()))
    across = int(np.clip(np.rint(middles[:, 2].mean()), 0, columns - 1))
    reach = _AROUND_MM / back_mm
    start = int(np.clip(middles[:, 1].min() - reach, 0, rows - 1))
    stop = int(np.clip(middles[:, 1].max() + reach, start + 1, rows))
    lines = [_line(source, i, across)[start:stop] for i in range(len(source.headers))]
    grey = np.stack(lines)
    backs = {name: middle[1] - start for name, middle in by_level.items()}
    if column[1] < 0:  # rows run to the front
        grey = grey[:, ::-1]
        backs = {name: grey.shape[1] - 1 - back for name, back in backs.items()}
    return Column(
        grey=grey,
        spacing_mm=(down_mm, back_mm),
        places_mm={
            name: (middle[0] * down_mm, backs[name] * back_mm)
            for name, middle in by_level.items()
        },
    )


def _line(source: ResultSource, index: int, across: int) -> npt.NDArray[np.uint8]:
    plane = source.plane(index)
    assert plane is not None  # there are pictures
    return plane[:, across].copy()


def _middles(
    mask: npt.NDArray[np.uint8],
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the mean slice, row and column of each level."""
    sums = np.zeros((len(LEVELS) + 1, 4))  # voxels, then slices, rows, columns
    for index, plane in enumerate(mask):
        rows, columns = np.nonzero(plane)
        labels = plane[rows, columns]
        is_level = labels <= LEVELS[-1]
        rows, columns, labels = rows[is_level], columns[is_level], labels[is_level]
        for axis, values in enumerate((None, rows, columns)):
            level_sums = np.bincount(labels, weights=values, minlength=len(sums))
            sums[:, 0 if axis == 0 else axis + 1] += level_sums
        sums[:, 1] += np.bincount(labels, minlength=len(sums)) * index
    return {
        level.name: sums[level, 1:] / sums[level, 0]
        for level in LEVELS
        if sums[level, 0]
    }


def _slice_step_mm(source: ResultSource) -> float:
    """Return how far slices lie apart, from the first to the last."""
    ends = (source.headers[0], source.headers[-1])
    first, last = ([float(v) for v in one.ImagePositionPatient] for one in ends)
    far = float(np.linalg.norm(np.subtract(last, first)))
    return far / max(1, len(source.headers) - 1) or 1.0
