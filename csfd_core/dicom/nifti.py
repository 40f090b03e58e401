"""NIfTI vertebra masks and their alignment with the slices of a study.

A NIfTI voxel array may lie in any of 48 orientations; only its affine says which. The
affine maps voxel indices to RAS millimetres, DICOM's to LPS: x and y change sign
between them. A mask is aligned by composing the two affines into a map from mask voxels
to slice voxels, which must be a signed permutation of the axes, and by reordering the
axes.
"""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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
from csfd_core.text import percent
from csfd_core.vocabulary import HIGHEST_MASK_LABEL

_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
# Affines are float32 in many files and steps are rounded, which adds up over the stack.
_AXIS_TOLERANCE: Final = 0.05  # of one voxel step along each axis
_CORNER_TOLERANCE_VOXELS: Final = 1.0
_BONE_HU: Final = 150.0
_MIN_BONE_SHARE: Final = 0.3  # of the masked voxels; trabecular bone is 100-300 HU
_BETTER_FLIP: Final = 0.15  # a flip that finds this much more bone is the right one
_SAMPLED_SLICES: Final = 24

_UNREADABLE: Final = (
    EOFError,
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


def read_nifti_mask(raw: bytes) -> NiftiMask:
    """Read a ``.nii`` or ``.nii.gz`` file from its bytes.

    Raises:
        MaskError: If it cannot be read as a three-dimensional NIfTI image.
    """
    try:
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        image = nib.Nifti1Image.from_bytes(raw)
        labels = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _UNREADABLE as error:
        raise MaskError(f"No readable NIfTI file ({type(error).__name__}).") from error
    if labels.ndim != 3 or abs(np.linalg.det(affine)) < 1e-9:
        raise MaskError("No three-dimensional NIfTI image with a valid affine.")
    return NiftiMask(labels, affine)


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
    return _check_content(align_mask(mask, geometry), read_hounsfield)


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


def _check_content(
    aligned: npt.NDArray[np.uint8], read_hounsfield: ReadHounsfield
) -> list[Finding]:
    """Ask whether vertebrae follow each other downwards and bone lies under them."""
    centres = _slice_centres(aligned)
    if any(lower <= upper for upper, lower in zip(centres, centres[1:], strict=False)):
        detail = "The levels in the mask do not follow each other from head to feet."
        return [Finding("mask_misaligned", detail)]
    occupied = np.flatnonzero(aligned.any(axis=(1, 2)))
    if not occupied.size:
        return []
    step = max(1, occupied.size // _SAMPLED_SLICES)
    sampled = occupied[::step]
    bone = np.stack([read_hounsfield(int(index)) > _BONE_HU for index in sampled])
    masks = aligned[sampled] > 0
    share = _bone_share(bone, masks)
    flips = (masks[:, ::-1], masks[:, :, ::-1], masks[:, ::-1, ::-1])
    best = max(_bone_share(bone, flipped) for flipped in flips)
    if share < _MIN_BONE_SHARE or best > share + _BETTER_FLIP:
        detail = f"Only {percent(share)} of the mask lies on bone"
        other = f" ({percent(best)} if it were flipped)." if best > share else "."
        return [Finding("mask_misaligned", detail + other)]
    return []


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
