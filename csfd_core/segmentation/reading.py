"""Reads studies for the networks: reduced while their JPEGs are decoded.

libjpeg decodes a JPEG at 1/2, 3/8, 1/4 ... of its size for a fraction of the time, by
leaving out high frequencies; slices are then averaged in groups. What comes out has
voxels no larger than those of the networks' grid.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.dicom.grids import Reduced, reduced_axes, resample
from csfd_core.errors import StoreError
from csfd_core.segmentation.data import GridVolume
from csfd_core.store.masks import MaskStore
from csfd_core.store.slices import SliceStore
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import HIGHEST_MASK_LABEL

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Reduction:
    """How far slices and pixels can be reduced without becoming coarser than wanted."""

    slices: int  # averaged into one
    height: int  # wanted at least
    width: int

    @classmethod
    def to(cls, geometry: VolumeGeometry, step_mm: float) -> "_Reduction":
        gap, row_mm, column_mm = geometry.spacing_zyx_mm
        _, rows, columns = geometry.shape_zyx
        return cls(
            slices=max(1, int(step_mm / gap + 0.1)),
            height=min(rows, math.ceil(rows * row_mm / step_mm)),
            width=min(columns, math.ceil(columns * column_mm / step_mm)),
        )


def read_reduced(store: SliceStore, study_uid: str, step_mm: float) -> Reduced:
    """Read a study from the slice store with voxels of at most ``step_mm``.

    Raises:
        SourceError: If the study has no slices in the store.
        StoreError: If a slice cannot be decoded.
    """
    table = store.read_table(study_uid)
    note = store.read_note(study_uid)
    assert note is not None
    geometry = note.geometry
    reduction = _Reduction.to(geometry, step_mm)
    jpegs = (jpeg.as_py() for jpeg in table.column("jpeg"))
    planes = (_decode_reduced(jpeg, reduction, study_uid) for jpeg in jpegs)
    return _gather(planes, geometry, reduction)


def reduce_slices(
    planes: Iterable[Grey], geometry: VolumeGeometry, step_mm: float
) -> Reduced:
    """Reduce slices that are decoded already, head to feet, shape (H, W) each."""
    reduction = _Reduction.to(geometry, step_mm)
    rows, columns = geometry.shape_zyx[1:]
    step = max(1, min(rows // reduction.height, columns // reduction.width))
    return _gather((_shrink(p, step) for p in planes), geometry, reduction)


def read_training_volume(
    stores: Stores, study_uid: str, step_mm: float, masks: MaskStore | None = None
) -> GridVolume:
    """Read a study and its mask on an isotropic grid over the whole scan.

    Labels are taken from the nearest voxel, never interpolated.
    """
    volume = read_reduced(stores.slices, study_uid, step_mm)
    mask = (masks or stores.masks).read_volume(study_uid)
    turned = volume.axes.turn(mask)
    extent = volume.extent_mm
    shape = tuple(max(1, round(mm / step_mm) + 1) for mm in extent)
    z, y, x = shape
    middle = (extent[0] / 2, extent[1] / 2, extent[2] / 2)
    grey = resample(volume, middle, (z, y, x), step_mm)
    picks = []
    for axis, count in enumerate(shape):
        at_mm = middle[axis] + (np.arange(count) - (count - 1) / 2) * step_mm
        index = np.rint(at_mm / volume.full_spacing_mm[axis]).astype(int)
        picks.append(np.clip(index, 0, volume.full_shape[axis] - 1))
    labels = np.asarray(turned[np.ix_(*picks)], dtype=np.uint8)
    labels[labels > HIGHEST_MASK_LABEL] = 0
    return GridVolume(
        study_uid=study_uid,
        grey=np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8),
        labels=labels,
        spacing_mm=step_mm,
    )


def _gather(
    planes: Iterable[Grey], geometry: VolumeGeometry, reduction: _Reduction
) -> Reduced:
    """Average groups of neighbouring slices and turn the result."""
    groups: list[Grey] = []
    waiting: list[Grey] = []
    for plane in planes:
        waiting.append(plane)
        if len(waiting) == reduction.slices:
            groups.append(_mean(waiting))
            waiting = []
    if len(waiting) * 2 >= reduction.slices or not groups:
        groups.append(_mean(waiting))
    stack = np.stack(groups)
    axes, spacing, shape = reduced_axes(geometry)
    _, rows, columns = geometry.shape_zyx
    factors = (
        float(reduction.slices),
        rows / stack.shape[1],
        columns / stack.shape[2],
    )
    turned = np.asarray(axes.turn(stack), dtype=np.uint8)
    return Reduced(
        grey=turned,
        factors=axes.pick(factors),
        full_shape=shape,
        full_spacing_mm=spacing,
        axes=axes,
    )


def _mean(planes: list[Grey]) -> Grey:
    if len(planes) == 1:
        return planes[0]
    total = np.zeros(planes[0].shape, dtype=np.uint16)
    for plane in planes:
        total += plane
    return ((total + len(planes) // 2) // len(planes)).astype(np.uint8)


def _shrink(plane: Grey, step: int) -> Grey:
    if step == 1:
        return plane
    rows, columns = (n // step * step for n in plane.shape)
    total = np.zeros((rows // step, columns // step), dtype=np.uint32)
    for row in range(step):
        for column in range(step):
            total += plane[row:rows:step, column:columns:step]
    cells = step * step
    return ((2 * total + cells) // (2 * cells)).astype(np.uint8)  # to the nearest


def _decode_reduced(jpeg: bytes, reduction: _Reduction, study_uid: str) -> Grey:
    try:
        grey = simplejpeg.decode_jpeg(
            jpeg,
            colorspace="GRAY",
            fastdct=True,
            min_height=reduction.height,
            min_width=reduction.width,
        )
    except ValueError as error:
        raise StoreError(
            f"A slice of {study_uid} is no readable JPEG. Convert the study again."
        ) from error
    return np.asarray(grey, dtype=np.uint8)[:, :, 0]
