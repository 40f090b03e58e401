"""NIfTI vertebra masks and their alignment with the slices of a study.

A NIfTI voxel array may lie in any of 48 orientations; only its affine says which. The
affine maps voxel indices to RAS millimetres, DICOM's to LPS: x and y change sign
between them. A mask is aligned by composing the two affines into a map from mask voxels
to slice voxels, which must be a signed permutation of the axes, and by reordering the
axes.
"""

import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, io_orientation
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from csfd_core.dicom.findings import Finding
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.errors import MaskError
from csfd_core.text import join, percent
from csfd_core.vocabulary import HIGHEST_MASK_LABEL

_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
# Affines are float32 in many files and steps are rounded, which adds up over the stack.
_AXIS_TOLERANCE: Final = 0.05  # of one voxel step along each axis
_CORNER_TOLERANCE_VOXELS: Final = 1.0
_BONE_HU: Final = 150.0
_MIN_BONE_SHARE: Final = 0.3  # of the masked voxels; trabecular bone is 100-300 HU
_BETTER_FLIP: Final = 0.15  # a flip that finds this much more bone is the right one
_SAMPLED_SLICES: Final = 24
_SHIFTS_MM: Final = (5.0, 10.0, 20.0)  # that a mask is tried at, in six directions
# C2 with its dens reaches over 40 mm, a thoracic vertebra with its spine over 60.
_TALLEST_MM: Final = 75.0
_LARGEST_ML: Final = 150.0
_ROUNDING: Final = 1e-3  # of a label that was stored with a scale
_GZIP: Final = b"\x1f\x8b"
_NIFTI_2: Final = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # 540, either order
_VOXEL_BYTES: Final = 16  # of the widest type
_HEADER_BYTES: Final = 2**20
_LARGEST_MM: Final = 1e6
_SMALLEST_VOXEL_MM3: Final = 1e-9

_UNREADABLE: Final = (
    EOFError,
    TypeError,
    OverflowError,
    HeaderDataError,
    ImageFileError,
    OSError,
    ValueError,
    WrapStructError,
    zlib.error,
)

ReadHounsfield = Callable[[int], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class NiftiMask:
    """Labels as they lie in the file, and the affine from voxel to RAS millimetres."""

    labels: npt.NDArray[np.generic]
    affine_ras: npt.NDArray[np.float64]


def read_nifti_mask(raw: bytes, voxels: int) -> NiftiMask:
    """Read a ``.nii`` or ``.nii.gz`` file of version 1 or 2 from its bytes.

    Axes of length 1 behind the third are dropped, and labels that are whole numbers but
    for the rounding of a scale are made whole.

    Args:
        raw: The file.
        voxels: Of the slices that the mask is drawn on; a file that inflates to far
            more than that many is not inflated to its end.

    Raises:
        MaskError: If it cannot be read as a three-dimensional NIfTI image of numbers.
    """
    try:
        if raw[:2] == _GZIP:
            raw = _inflate(raw, voxels * _VOXEL_BYTES + _HEADER_BYTES)
        kind = nib.Nifti2Image if raw[:4] in _NIFTI_2 else nib.Nifti1Image
        image = kind.from_bytes(raw)
        stored: Any = image.dataobj
        stored_bytes = math.prod(image.shape) * stored.dtype.itemsize
        if stored_bytes > len(raw):  # asked for first, it would be want of memory
            raise MaskError("The file is cut off.")
        labels = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _UNREADABLE as error:
        raise MaskError(f"No readable NIfTI file ({type(error).__name__}).") from error
    if labels.dtype.kind not in "biuf":
        raise MaskError("A NIfTI image of colours or complex numbers, not of labels.")
    while labels.ndim > 3 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3 or not _is_affine(affine):
        raise MaskError("No three-dimensional NIfTI image with a valid affine.")
    return NiftiMask(_whole(labels), affine)


def _inflate(raw: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    content = inflater.decompress(raw, most + 1)
    if len(content) > most:
        raise MaskError("The file inflates to more than its slices have voxels.")
    if not inflater.eof:
        raise MaskError("The file is cut off.")
    return content


def _is_affine(affine: npt.NDArray[np.float64]) -> bool:
    return bool(
        np.isfinite(affine).all()
        and np.abs(affine).max() < _LARGEST_MM
        and abs(np.linalg.det(affine)) > _SMALLEST_VOXEL_MM3
    )


def _whole(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Round labels that are whole numbers but for the rounding of a scale."""
    if labels.dtype.kind != "f":
        return labels
    numbers = np.asarray(labels, dtype=np.float64)
    rounded = np.rint(numbers)
    with np.errstate(invalid="ignore"):  # infinity is no label, and stays
        is_close = bool((np.abs(numbers - rounded) <= _ROUNDING).all())
    return rounded if is_close else labels


def nifti_content(mask: npt.NDArray[np.uint8], geometry: VolumeGeometry) -> bytes:
    """Return a mask (slice, row, column) as a ``.nii.gz`` that lies on the CT.

    There is no time of writing in it: the same mask gives the same bytes.
    """
    image: Any = nib.Nifti1Image(  # type: ignore[no-untyped-call]  # no types
        mask.transpose(2, 1, 0), nifti_affine(geometry)
    )
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def nifti_affine(geometry: VolumeGeometry) -> npt.NDArray[np.float64]:
    """Return the map from (column, row, slice, 1) to RAS millimetres."""
    by_column = geometry.affine()[:, [2, 1, 0, 3]]
    return np.asarray(_RAS_TO_LPS @ by_column)  # the change of signs is its own inverse


def check_mask(
    mask: NiftiMask, geometry: VolumeGeometry, read_hounsfield: ReadHounsfield
) -> list[Finding]:
    """Return what speaks against a mask of this volume.

    Args:
        mask: As read from its file.
        geometry: Of the slices, head to feet.
        read_hounsfield: Gives the slice of an index, shape (H, W), in HU.
    """
    findings = [
        finding
        for finding in (_check_labels(mask), _check_grid(mask, geometry))
        if finding is not None
    ]
    if findings:
        return findings
    aligned = align_mask(mask, geometry)
    wrong = _check_vertebrae(aligned, geometry)
    return [wrong] if wrong else _check_content(aligned, geometry, read_hounsfield)


def align_mask(mask: NiftiMask, geometry: VolumeGeometry) -> npt.NDArray[np.uint8]:
    """Reorder the axes of a mask so that it lies on the slices.

    Returns:
        Labels in the grid of the slices, shape (Z, H, W), head to feet.

    Raises:
        MaskError: If the mask does not fit the grid; ``check_mask`` says more.
    """
    finding = _check_grid(mask, geometry)
    if finding is not None:
        raise MaskError(finding.reason)
    to_volume = _mask_to_volume(mask, geometry)
    orientation = io_orientation(to_volume)  # type: ignore[no-untyped-call]  # no types
    aligned = apply_orientation(  # type: ignore[no-untyped-call]  # likewise
        mask.labels, orientation
    )
    return np.ascontiguousarray(aligned, dtype=np.uint8)


def _mask_to_volume(
    mask: NiftiMask, geometry: VolumeGeometry
) -> npt.NDArray[np.float64]:
    """Return the affine from mask voxel indices to (slice, row, column) indices."""
    to_lps = _RAS_TO_LPS @ mask.affine_ras
    return np.asarray(np.linalg.solve(geometry.affine(), to_lps))


def _check_labels(mask: NiftiMask) -> Finding | None:
    values = np.unique(mask.labels)
    whole = values == np.round(values)
    unknown = values[~(whole & (values >= 0) & (values <= HIGHEST_MASK_LABEL))]
    if not unknown.size:
        return None
    named = ", ".join(f"{value:g}" for value in unknown[:5])
    return Finding("mask_labels", f"The mask holds the labels {named}.")


def _check_grid(mask: NiftiMask, geometry: VolumeGeometry) -> Finding | None:
    shape = np.array(mask.labels.shape)
    if sorted(mask.labels.shape) != sorted(geometry.shape_zyx):
        return _shape_finding(mask, geometry)
    to_volume = _mask_to_volume(mask, geometry)
    steps = np.abs(to_volume[:3, :3])
    permutation = np.round(steps)
    is_permutation = (permutation.sum(axis=0) == 1).all() and (
        permutation.sum(axis=1) == 1
    ).all()
    if not is_permutation:
        detail = "The mask's axes do not run along those of the slices."
        return Finding("mask_misaligned", detail)
    if tuple(int(n) for n in permutation @ shape) != geometry.shape_zyx:
        return _shape_finding(mask, geometry)
    if np.abs(steps - permutation).max() > _AXIS_TOLERANCE:
        detail = "The mask's voxels have another size than those of the slices."
        return Finding("mask_misaligned", detail)
    corners = np.array([[0, 0, 0, 1], [*(shape - 1), 1]], dtype=np.float64)
    mapped = np.sort((corners @ to_volume.T)[:, :3], axis=0)
    expected = np.array([[0, 0, 0], np.array(geometry.shape_zyx) - 1])
    off = float(np.abs(mapped - expected).max())
    if off > _CORNER_TOLERANCE_VOXELS:
        detail = f"The mask's grid lies {off:.1f} voxels off that of the slices."
        return Finding("mask_misaligned", detail)
    return None


def _shape_finding(mask: NiftiMask, geometry: VolumeGeometry) -> Finding:
    mask_shape = "x".join(str(n) for n in mask.labels.shape)
    volume_shape = "x".join(str(n) for n in geometry.shape_zyx)
    detail = f"The mask has {mask_shape} voxels, the slices have {volume_shape}."
    return Finding("mask_shape", detail)


def _check_vertebrae(
    aligned: npt.NDArray[np.uint8], geometry: VolumeGeometry
) -> Finding | None:
    """Ask whether each label can be one vertebra, and none is left out between."""
    counts = np.bincount(aligned.ravel(), minlength=HIGHEST_MASK_LABEL + 1)
    present = [int(label) for label in np.flatnonzero(counts) if label]
    if not present:
        return Finding("mask_labels", "The mask is empty.")
    lacking = sorted({*range(present[0], present[-1])} - {*present})
    if lacking:
        named = join(lacking)
        detail = f"The mask has labels above and below {named}, but not {named}."
        return Finding("mask_labels", detail)
    step_mm = geometry.spacing_zyx_mm[0]
    voxel_ml = float(np.prod(geometry.spacing_zyx_mm)) / 1000
    for label in present:
        rows = np.flatnonzero((aligned == label).any(axis=(1, 2)))
        tall_mm = float(rows[-1] - rows[0] + 1) * step_mm
        large_ml = float(counts[label]) * voxel_ml
        if tall_mm > _TALLEST_MM or large_ml > _LARGEST_ML:
            detail = f"Label {label} of the mask reaches over {tall_mm:.0f} mm and has "
            detail += f"{large_ml:.0f} ml, more than any vertebra."
            return Finding("mask_labels", detail)
    return None


def _check_content(
    aligned: npt.NDArray[np.uint8],
    geometry: VolumeGeometry,
    read_hounsfield: ReadHounsfield,
) -> list[Finding]:
    """Ask whether vertebrae follow each other downwards and bone lies under them."""
    centres = _slice_centres(aligned)
    if any(lower <= upper for upper, lower in zip(centres, centres[1:], strict=False)):
        detail = "The levels in the mask do not follow each other from head to feet."
        return [Finding("mask_misaligned", detail)]
    occupied = np.flatnonzero(aligned.any(axis=(1, 2)))
    step = max(1, occupied.size // _SAMPLED_SLICES)
    sampled = occupied[::step]
    bone = np.stack([read_hounsfield(int(index)) > _BONE_HU for index in sampled])
    masks = aligned[sampled] > 0
    share = _bone_share(bone, masks)
    flips = (masks[:, ::-1], masks[:, :, ::-1], masks[:, ::-1, ::-1])
    flipped = max(_bone_share(bone, other) for other in flips)
    shifted = max(
        (_bone_share(bone, m) for m in _shifted(aligned, sampled, geometry)),
        default=0.0,
    )
    best = max(flipped, shifted)
    if share < _MIN_BONE_SHARE or best > share + _BETTER_FLIP:
        detail = f"Only {percent(share)} of the mask lies on bone"
        how = "flipped" if flipped >= shifted else "shifted"
        other = f" ({percent(best)} if it were {how})." if best > share else "."
        return [Finding("mask_misaligned", detail + other)]
    return []


def _shifted(
    aligned: npt.NDArray[np.uint8],
    sampled: npt.NDArray[np.intp],
    geometry: VolumeGeometry,
) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the mask at the sampled slices as if it lay a little elsewhere."""
    for axis, spacing_mm in enumerate(geometry.spacing_zyx_mm):
        for shift_mm in (sign * mm for mm in _SHIFTS_MM for sign in (-1, 1)):
            voxels = round(shift_mm / spacing_mm)
            if not 0 < abs(voxels) < aligned.shape[axis]:
                continue
            if axis == 0:
                there = sampled + voxels
                inside = (there >= 0) & (there < len(aligned))
                moved = aligned[np.where(inside, there, 0)] > 0
                moved[~inside] = False
            else:
                moved = np.roll(aligned[sampled] > 0, voxels, axis)
            yield moved


def _bone_share(bone: npt.NDArray[np.bool_], masks: npt.NDArray[np.bool_]) -> float:
    total = int(masks.sum())
    return float((bone & masks).sum() / total) if total else 0.0


def _slice_centres(aligned: npt.NDArray[np.uint8]) -> list[float]:
    """Return the mean slice index of each label that is there, by rising label."""
    counts = np.stack(
        [
            np.bincount(plane.ravel(), minlength=HIGHEST_MASK_LABEL + 1)
            for plane in aligned
        ]
    )[:, 1:]
    totals = counts.sum(axis=0)
    weighted = (counts * np.arange(len(aligned))[:, None]).sum(axis=0)
    present = totals > 0
    return [float(value) for value in weighted[present] / totals[present]]
