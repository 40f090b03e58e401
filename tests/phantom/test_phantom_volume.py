"""The painted volume: anatomy, densities, fractures and boxes."""

import numpy as np
import pytest
from scipy import ndimage

from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.study import plan_study
from csfd_core.phantom.volume import build_phantom_volume
from csfd_core.vocabulary import LEVEL_NAMES, T1_LABEL

CONFIG = PhantomConfig(studies=8, seed=11)
NONE: dict[str, int] = {}
ALL = dict.fromkeys(LEVEL_NAMES, 1)
WHOLE_NECK = GridOverride(
    shape_zyx=(140, 128, 128),
    spacing_zyx_mm=(1.5, 1.2, 1.2),
    centre_lps_mm=(0.0, 8.0, 0.0),
    z_falling=False,
)


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def pair(request):
    """Return one neck without and with a fracture of every level."""
    index = request.param
    return tuple(
        build_phantom_volume(CONFIG, index, labels=labels, grid=WHOLE_NECK)
        for labels in (NONE, ALL)
    )


def test_the_same_seed_and_index_give_the_same_volume():
    first, second = (build_phantom_volume(CONFIG, 4) for _ in range(2))
    np.testing.assert_array_equal(first.hounsfield, second.hounsfield)
    np.testing.assert_array_equal(first.mask, second.mask)
    other = build_phantom_volume(PhantomConfig(studies=8, seed=12), 4)
    assert first.plan.study_uid != other.plan.study_uid
    assert first.hounsfield.shape != other.hounsfield.shape or not np.array_equal(
        first.hounsfield, other.hounsfield
    )


def test_vertebrae_lie_in_anatomical_order(pair):
    whole, _ = pair
    z = [np.argwhere(whole.mask == i)[:, 0].mean() for i in range(1, T1_LABEL + 1)]
    assert (np.diff(z) < 0).all()  # this grid's z rises towards the head


def test_every_level_is_seen_and_one_connected_height(pair):
    whole, _ = pair
    assert whole.seen_levels == LEVEL_NAMES
    for level in range(1, T1_LABEL + 1):
        slices = np.flatnonzero((whole.mask == level).any(axis=(1, 2)))
        assert slices.size == slices[-1] - slices[0] + 1


def test_vertebrae_have_plausible_volumes(pair):
    whole, _ = pair
    voxel_ml = np.prod(whole.spacing_zyx_mm) / 1000
    scale = whole.plan.spine.scale**3
    volumes = np.bincount(whole.mask.ravel(), minlength=9)[1:9] * voxel_ml / scale
    assert ((volumes > 5) & (volumes < 32)).all()
    assert volumes[6] > 1.1 * volumes[2]  # C7 exceeds C3
    assert volumes[1] > volumes[2]  # C2 with its dens exceeds C3


def test_bodies_grow_towards_the_feet_on_average():
    config = PhantomConfig(studies=1500, seed=3)
    spines = [plan_study(config, i).spine for i in range(1500)]
    for measure in ("half_width", "half_depth", "height"):
        mean = [
            np.mean([getattr(s.sizes[level], measure) for s in spines])
            for level in range(3, 8)
        ]
        assert (np.diff(mean) > -0.06).all()
        assert mean[-1] > 1.05 * mean[0]


def test_the_ring_of_c1_is_hollow(pair):
    """The dens and the cord lie inside; nothing of C1 does."""
    whole, _ = pair
    frame = whole.plan.spine.frames[1]
    for local in ((0, 0, 0), (0, 14, 0), (0, 18, 0)):
        at = voxel_of(whole, frame.to_world(local))
        around = whole.mask[tuple(slice(i - 1, i + 2) for i in at)]
        assert not (around == 1).any()
    dens = voxel_of(whole, frame.to_world((0, 0, 0)))
    assert whole.mask[dens] == 2
    arch = voxel_of(whole, frame.to_world((0, -10.2, 0)))
    assert whole.mask[arch] == 1


def test_the_spinal_canal_is_free_of_bone(pair):
    whole, _ = pair
    for level in range(3, 8):
        size, frame = whole.plan.spine.sizes[level], whole.plan.spine.frames[level]
        middle = (0, size.half_depth + size.canal_depth / 2, 0)
        at = voxel_of(whole, frame.to_world(middle))
        assert whole.mask[at] == 0
        assert -60 < whole.hounsfield[at] < 250


def test_tissues_have_plausible_densities(pair):
    whole, _ = pair
    hounsfield, mask = whole.hounsfield, whole.mask
    assert hounsfield.min() >= -1024
    assert hounsfield.max() <= 3071
    assert 0.05 < np.mean(hounsfield < -900) < 0.9  # air
    bone = hounsfield[(mask > 0) & (mask <= T1_LABEL)]
    assert 180 < np.median(bone) < 900
    assert np.quantile(bone, 0.97) > 600
    body = whole.plan.spine.frames[4].to_world((0, -2, 0))
    k, row, column = voxel_of(whole, body)
    core = hounsfield[k - 1 : k + 2, row - 2 : row + 3, column - 2 : column + 3]
    assert 60 < np.median(core) < 700
    soft = hounsfield[(mask == 0) & (np.abs(hounsfield) < 200)]
    assert -110 < np.median(soft) < 80


def test_fractures_change_the_broken_bones_and_not_the_rest(pair):
    whole, broken = pair
    assert broken.labels == ALL
    assert sorted(broken.fractures) == sorted(LEVEL_NAMES)
    changed = np.abs(broken.hounsfield.astype(int) - whole.hounsfield) > 60
    bone = (whole.mask > 0) | (broken.mask > 0)
    near = ndimage.binary_dilation(bone, iterations=4)
    assert changed[near].sum() > 300
    assert changed[~near].sum() < 0.02 * changed.sum()


def test_every_fractured_level_shows_and_its_boxes_hold_what_changed(pair):
    whole, broken = pair
    change = np.abs(broken.hounsfield.astype(float) - whole.hounsfield)
    for number, name in enumerate(LEVEL_NAMES, start=1):
        boxes = [b for b in broken.boxes if b.level == name]
        assert boxes, name
        inside = np.zeros_like(change, dtype=bool)
        for b in boxes:
            rows = slice(int(b.y), int(b.y + b.height))
            columns = slice(int(b.x), int(b.x + b.width))
            inside[b.slice_index, rows, columns] = True
        bone = whole.mask == number
        assert change[inside & bone].mean() > 40, (name, broken.fractures[name])
        elsewhere = bone & ~inside
        if elsewhere.sum() > 500:
            assert change[inside & bone].mean() > change[elsewhere].mean()


def test_boxes_lie_within_the_slices(pair):
    _, broken = pair
    slices, rows, columns = broken.hounsfield.shape
    for b in broken.boxes:
        assert 0 <= b.slice_index < slices
        assert 0 <= b.x < b.x + b.width <= columns
        assert 0 <= b.y < b.y + b.height <= rows


def test_an_unfractured_neck_has_no_boxes(pair):
    whole, _ = pair
    assert whole.boxes == ()
    assert whole.fractures == {}


def test_a_fracture_gap_is_darker_than_the_bone_it_breaks(pair):
    whole, broken = pair
    fall = whole.hounsfield.astype(float) - broken.hounsfield
    name = next(n for n in ("C7", "C6") if any(b.level == n for b in broken.boxes))
    box = [b for b in broken.boxes if b.level == name]
    darkest = max(
        fall[
            b.slice_index,
            int(b.y) : int(b.y + b.height),
            int(b.x) : int(b.x + b.width),
        ].max()
        for b in box
    )
    assert darkest > 120


def test_another_grid_samples_the_same_neck():
    fine = GridOverride(shape_zyx=(70, 64, 64), spacing_zyx_mm=(3.0, 2.4, 2.4))
    coarse = GridOverride(shape_zyx=(35, 32, 32), spacing_zyx_mm=(6.0, 4.8, 4.8))
    a, b = (build_phantom_volume(CONFIG, 2, grid=g) for g in (fine, coarse))
    assert b.mask.shape == (35, 32, 32)
    for level in (2, 4, 6):
        middle = [
            (
                np.argwhere(v.mask == level).mean(axis=0)
                - (np.array(v.mask.shape) - 1) / 2
            )
            * v.spacing_zyx_mm
            for v in (a, b)
        ]
        np.testing.assert_allclose(middle[0], middle[1], atol=3.5)


def voxel_of(volume, world):
    """Return the voxel at a position given relative to C4 (x, y, z)."""
    centre = np.array(volume.plan.scan.centre_lps_mm)[::-1]
    spacing = np.array(volume.spacing_zyx_mm)
    middle = (np.array(volume.mask.shape) - 1) / 2
    steps = (np.asarray(world)[::-1] - centre) / spacing
    if volume.plan.scan.z_falling:
        steps[0] = -steps[0]
    return tuple(int(v) for v in np.rint(middle + steps))
