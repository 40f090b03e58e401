"""Scans that no neck of the training is like, drawn from nothing but shapes."""

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.geometry import VolumeGeometry

Hounsfield = npt.NDArray[np.float32]
Triple = tuple[float, float, float]

AIR, FAT, MUSCLE, BRAIN = -1000.0, -90.0, 50.0, 35.0


def geometry_of(shape: tuple[int, ...], spacing_zyx_mm: Triple) -> VolumeGeometry:
    """Return the geometry of axial slices, head to feet."""
    z, y, x = shape
    gap, row_mm, column_mm = spacing_zyx_mm
    return VolumeGeometry(
        shape_zyx=(z, y, x),
        spacing_zyx_mm=spacing_zyx_mm,
        affine_lps=(
            (0.0, 0.0, column_mm, -x * column_mm / 2),
            (0.0, row_mm, 0.0, -y * row_mm / 2),
            (-gap, 0.0, 0.0, z * gap),
            (0.0, 0.0, 0.0, 1.0),
        ),
        z_extent_mm=(z - 1) * gap,
        z_descending=True,
    )


def noise(seed: int = 0, shape: tuple[int, int, int] = (100, 128, 128)) -> Hounsfield:
    """Draw every voxel by itself, over all that the bone window shows."""
    rng = np.random.default_rng(seed)
    return rng.normal(400, 500, shape).astype(np.float32)


def head(spacing_zyx_mm: Triple = (1.5, 1.0, 1.0), seed: int = 0) -> Hounsfield:
    """Draw a skull around a brain, and nothing below it."""
    shape = (round(150 / spacing_zyx_mm[0]), 220, 220)
    z, y, x = _grid(shape, spacing_zyx_mm)
    radius = np.sqrt((z / 80) ** 2 + (y / 95) ** 2 + (x / 75) ** 2)
    volume = np.full(shape, AIR, dtype=np.float32)
    volume[radius < 1.0] = MUSCLE
    volume[radius < 0.95] = 1100.0
    volume[radius < 0.87] = BRAIN
    return _grainy(volume, 12.0, seed)


def abdomen(spacing_zyx_mm: Triple = (5.0, 0.8, 0.8), seed: int = 0) -> Hounsfield:
    """Draw a belly with five lumbar vertebrae."""
    shape = (round(240 / spacing_zyx_mm[0]), 440, 440)
    z, y, x = _grid(shape, spacing_zyx_mm)
    volume = np.full(shape, AIR, dtype=np.float32)
    body = (y / 115) ** 2 + (x / 165) ** 2 < 1
    volume[np.broadcast_to(body, shape)] = FAT
    inner = (y / 95) ** 2 + (x / 140) ** 2 < 1
    volume[np.broadcast_to(inner, shape)] = MUSCLE
    back = y - 55
    is_bone = np.mod(z, 38.0) < 28.0
    column = ((back / 18) ** 2 + (x / 24) ** 2 < 1) & is_bone
    core = ((back / 15) ** 2 + (x / 21) ** 2 < 1) & is_bone
    arch = (np.abs(back - 28) < 14) & (np.abs(x) < 40 - np.abs(back - 28)) & is_bone
    canal = (back - 26) ** 2 + x**2 < 9**2
    volume[column | arch] = 700.0
    volume[core] = 180.0
    volume[np.broadcast_to(canal, shape)] = 20.0
    return _grainy(volume, 15.0, seed)


def chest(spacing_zyx_mm: Triple = (2.5, 0.9, 0.9), seed: int = 0) -> Hounsfield:
    """Draw lungs, ribs and thoracic vertebrae."""
    shape = (round(220 / spacing_zyx_mm[0]), 400, 400)
    z, y, x = _grid(shape, spacing_zyx_mm)
    volume = np.full(shape, AIR, dtype=np.float32)
    body = (y / 120) ** 2 + (x / 165) ** 2
    volume[np.broadcast_to(body < 1, shape)] = MUSCLE
    wall = np.abs(np.sqrt(body) - 0.88) < 0.03
    volume[wall & (np.mod(z + 0.5 * y, 26.0) < 9.0)] = 500.0
    lung = (y / 85) ** 2 + ((np.abs(x) - 75) / 55) ** 2 < 1
    volume[np.broadcast_to(lung, shape)] = -850.0
    is_bone = np.mod(z, 25.0) < 20.0
    column = (((y - 75) / 15) ** 2 + (x / 17) ** 2 < 1) & is_bone
    volume[column] = 300.0
    return _grainy(volume, 15.0, seed)


def _grid(shape: tuple[int, int, int], spacing: Triple) -> list[Hounsfield]:
    """Return the mm from the middle along each axis, to be broadcast."""
    axes = [
        (np.arange(count) - (count - 1) / 2) * step
        for count, step in zip(shape, spacing, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return [np.asarray(axis, dtype=np.float32) for axis in (z, y, x)]


def _grainy(volume: Hounsfield, deviation: float, seed: int) -> Hounsfield:
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, deviation, volume.shape)
    return np.asarray(volume + grain, dtype=np.float32)
