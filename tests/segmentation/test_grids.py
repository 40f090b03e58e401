"""Turning, reducing and resampling: nothing moves, whatever the orientation."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.dicom.grids import Axes, resample, resampling_weights
from csfd_core.segmentation.reading import reduce_slices

AXIAL = np.array(
    [[0, 0, 0.5, -60.0], [0, 0.5, 0, -80.0], [-1.0, 0, 0, 40.0], [0, 0, 0, 1]]
)


def blob(shape: tuple[int, int, int], at: tuple[float, ...]) -> np.ndarray:
    grids = np.mgrid[tuple(slice(0, n) for n in shape)]
    square = sum((g - a) ** 2 for g, a in zip(grids, at, strict=True))
    return np.asarray(np.exp(-square / 72) * 250, dtype=np.uint8)


def geometry(affine: np.ndarray, shape: tuple[int, int, int]) -> VolumeGeometry:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return VolumeGeometry(
        shape_zyx=shape,
        spacing_zyx_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        affine_lps=tuple(tuple(row) for row in affine.tolist()),
        z_extent_mm=float((shape[0] - 1) * spacing[0]),
        z_descending=True,
    )


def exhaustive_axes(affine: np.ndarray) -> Axes:
    """Of all ways to turn, the one whose axes run most along feet, back and left."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    wanted = np.stack([-directions[2], directions[1], directions[0]])
    best = max(
        permutations(range(3)),
        key=lambda order: sum(abs(wanted[i, axis]) for i, axis in enumerate(order)),
    )
    flipped = tuple(bool(wanted[i, axis] < 0) for i, axis in enumerate(best))
    return Axes(best, flipped)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(40))
def test_a_tilted_scan_turns_as_it_would_without_the_tilt(seed: int) -> None:
    rng = np.random.default_rng(seed)
    signed = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    direction = rng.normal(size=3)
    tilt = np.deg2rad(rng.uniform(0, 35)) * direction / np.linalg.norm(direction)
    affine = np.eye(4)
    spacing = np.diag(rng.uniform(0.3, 3, 3))
    affine[:3, :3] = Rotation.from_rotvec(tilt).as_matrix() @ signed @ spacing
    untilted = np.eye(4)
    untilted[:3, :3] = signed @ spacing
    assert Axes.of(affine) == exhaustive_axes(affine) == Axes.of(untilted)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_turning_undoes_every_orientation(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = AXIAL.copy()
    affine[:3, :3] = AXIAL[:3, :3][:, order] * np.array(signs)
    axes = Axes.of(affine)
    stored = volume.transpose(order)[tuple(slice(None, None, s) for s in signs)]
    np.testing.assert_array_equal(axes.turn(stored), volume)
    np.testing.assert_array_equal(axes.turn_back(axes.turn(stored)), stored)


def test_a_tilted_study_turns_to_the_nearest_axes() -> None:
    angle = np.deg2rad(20)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert Axes.of(tilt @ AXIAL) == Axes((0, 1, 2), (False, False, False))


@pytest.mark.parametrize("step_mm", [0.5, 1.5, 3.0])
def test_a_blob_stays_where_it_is_however_far_it_is_reduced(step_mm: float) -> None:
    shape, at = (60, 120, 130), (33, 70, 41)
    volume = blob(shape, at)
    reduced = reduce_slices(iter(volume), geometry(AXIAL, shape), step_mm)
    middle = tuple(mm / 2 for mm in reduced.extent_mm)
    wanted = tuple(round(mm / 1.5) for mm in reduced.extent_mm)
    grid = resample(reduced, middle, wanted, 1.5)  # type: ignore[arg-type]
    weights = grid / grid.sum()
    for axis, (count, spacing) in enumerate(zip(wanted, (1.0, 0.5, 0.5), strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        positions = middle[axis] + (np.arange(count) - (count - 1) / 2) * 1.5
        centre = float((weights.sum(axis=others) * positions).sum())
        assert centre == pytest.approx(at[axis] * spacing, abs=0.35)


def test_reduced_voxels_are_not_larger_than_wanted() -> None:
    shape = (60, 120, 130)
    reduced = reduce_slices(iter(blob(shape, (3, 3, 3))), geometry(AXIAL, shape), 1.5)
    sizes = np.multiply(reduced.factors, reduced.full_spacing_mm)
    assert (sizes <= 1.5 + 1e-9).all()
    assert (sizes > 0.7).all()


def test_outside_the_scan_is_air() -> None:
    shape = (20, 20, 20)
    volume = np.full(shape, 200, dtype=np.uint8)
    reduced = reduce_slices(iter(volume), geometry(AXIAL, shape), 1.0)
    grid = resample(reduced, (10.0, 5.0, 5.0), (40, 40, 40), 1.0)
    assert grid[0].max() == 0
    assert grid[20, 20, 20] == pytest.approx(200 / 255, abs=0.01)


def test_weights_interpolate_or_average() -> None:
    source = np.arange(6.0)
    fine = resampling_weights(source, np.array([1.25, 4.0]), 0.5)
    assert fine[0].tolist() == pytest.approx([0, 0.75, 0.25, 0, 0, 0])
    assert fine[1].tolist() == pytest.approx([0, 0, 0, 0, 1, 0])
    coarse = resampling_weights(source, np.array([2.5]), 4.0)
    assert coarse[0].tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25, 0])
    assert not resampling_weights(source, np.array([-3.0, 9.0]), 1.0).any()


def test_stored_slices_are_reduced_while_they_are_decoded(tmp_path: Path) -> None:
    import simplejpeg

    from csfd_core.segmentation.reading import _decode_reduced, _Reduction

    plane = blob((1, 512, 512), (0, 300, 200))[0]
    jpeg = simplejpeg.encode_jpeg(
        np.ascontiguousarray(plane)[:, :, None], quality=95, colorspace="GRAY"
    )
    small = _decode_reduced(jpeg, _Reduction(slices=1, height=110, width=110), "1.2")
    assert small.shape == (128, 128)
    row, column = np.unravel_index(small.argmax(), small.shape)
    assert (row * 4 + 1.5, column * 4 + 1.5) == pytest.approx((300, 200), abs=4)
