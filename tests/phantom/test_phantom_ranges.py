"""Which necks each version of the phantom draws, and what makes a neck foreign."""

from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.ranges import (
    VERSION_1,
    VERSION_2,
    Normal,
    Outside,
    Ranges,
    Uniform,
    ranges_of,
)
from csfd_core.phantom.spine import Spine
from csfd_core.phantom.study import plan_study
from csfd_core.phantom.volume import build_phantom_volume

DENS = (4.065232442916361, 7.568922359222453, 50.98728039953534)
MIDDLE = range(3, 7)  # C3 to C6, whose discs lie between cervical bodies


def spines_of(count: int, **settings: Any) -> list[Spine]:
    config = PhantomConfig(studies=count, seed=3, **settings)
    return [plan_study(config, index).spine for index in range(count)]


def lordosis_deg(spine: Spine) -> float:
    """Angle between the ends of C2 and T1 in the sagittal plane (Cobb)."""
    lean = [
        np.arctan2(-spine.frames[i].rotation[1, 2], spine.frames[i].rotation[2, 2])
        for i in (2, 8)
    ]
    return float(np.rad2deg(lean[1] - lean[0]))


def test_the_necks_of_version_1_are_what_they_were() -> None:
    """Values of csfd 0.2, before there was a second version."""
    spine = plan_study(PhantomConfig(studies=1, seed=5, version=1), 1).spine
    assert spine.scale == pytest.approx(0.9895808014644724, abs=1e-9)
    assert spine.discs_mm[3] == pytest.approx(4.261151468724573, abs=1e-9)
    assert spine.sizes[3].height == pytest.approx(10.994906019144834, abs=1e-9)
    np.testing.assert_allclose(spine.frames[1].centre, DENS, atol=1e-6)
    np.testing.assert_allclose(spine.skull.centre, DENS, atol=1e-6)


def test_version_1_is_drawn_with_the_uids_of_before() -> None:
    uid = plan_study(PhantomConfig(studies=1, seed=5, version=1), 1).study_uid
    assert uid == "2.25.300522965854107601296712422101381442071"
    assert plan_study(PhantomConfig(studies=1, seed=5), 1).study_uid != uid


def test_discs_are_about_a_third_as_high_as_bodies() -> None:
    """To the eye: the hollow ends of two bodies add a millimetre to a disc of 0.23."""
    shares = [
        spine.discs_mm[level] / spine.sizes[level].height
        for spine in spines_of(300)
        for level in MIDDLE
        if level != spine.fused
    ]
    assert 0.2 < np.mean(shares) < 0.33
    assert np.quantile(shares, 0.95) < 0.4


def test_necks_are_bent_from_kyphosis_to_strong_lordosis() -> None:
    first = [lordosis_deg(spine) for spine in spines_of(300, version=1)]
    second = [lordosis_deg(spine) for spine in spines_of(300)]
    assert np.std(second) > 1.2 * np.std(first)
    assert 0.05 < np.mean(np.array(second) < 0) < 0.3
    assert np.quantile(second, 0.95) > 40


def test_one_neck_in_some_has_a_block_without_a_disc() -> None:
    spines = spines_of(400)
    blocks = [spine for spine in spines if spine.fused is not None]
    assert 0.01 < len(blocks) / len(spines) < 0.06
    assert all(spine.discs_mm[spine.fused or 0] < 1 for spine in blocks)
    assert not any(spine.fused for spine in spines_of(400, version=1))


@pytest.mark.slow
def test_the_vertebrae_of_a_block_grow_together_and_others_hardly_touch() -> None:
    config = PhantomConfig(studies=1, seed=3)
    index, fused = next(
        (i, spine.fused)
        for i, spine in enumerate(spines_of(400))
        if spine.fused is not None and spine.fused > 2
    )
    touching = contacts(build_phantom_volume(config, index).mask)
    block = touching.pop((fused, fused + 1))
    assert block > 10 * max(touching.values())


def contacts(mask: npt.NDArray[np.uint8]) -> Counter[tuple[int, int]]:
    """Count the faces between voxels of two vertebrae, by their labels."""
    found: Counter[tuple[int, int]] = Counter()
    for axis in range(3):
        turned = np.moveaxis(mask, axis, 0)
        pairs = np.stack([turned[:-1], turned[1:]], axis=-1)
        apart = pairs[(pairs > 0).all(axis=-1) & (pairs[..., 0] != pairs[..., 1])]
        found.update((int(min(p)), int(max(p))) for p in apart)
    return found


def limits_of(name: str) -> tuple[float, float]:
    usual = getattr(VERSION_2, name)
    assert isinstance(usual, Normal | Uniform)
    return usual.low, usual.high


def changed(ranges: Ranges) -> list[str]:
    names = [field.name for field in fields(Ranges)]
    return [n for n in names if getattr(ranges, n) != getattr(VERSION_2, n)]


def test_what_makes_a_neck_foreign_is_never_drawn_for_a_training() -> None:
    rng = np.random.default_rng(0)
    respects = set()
    for _ in range(200):
        ranges = ranges_of(2, foreign=True, rng=rng)
        unusual = [n for n in changed(ranges) if not n.startswith("cut_")]
        assert unusual
        respects |= set(unusual)
        for name in unusual:
            low, high = limits_of(name)
            drawn = getattr(ranges, name).draw(rng)
            assert not low <= drawn <= high, name
    assert respects >= {"stature", "lordosis_deg", "head_yaw_deg", "sharpness"}


def test_ordinary_necks_have_the_ranges_of_their_version() -> None:
    rng = np.random.default_rng(0)
    assert ranges_of(1, foreign=False, rng=rng) is VERSION_1
    assert ranges_of(2, foreign=False, rng=rng) is VERSION_2


def test_a_number_outside_comes_from_either_band() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([Outside((0, 1), (5, 6)).draw(rng) for _ in range(200)])
    low, high = drawn < 2, drawn > 4
    assert (low | high).all()
    assert 60 < low.sum() < 140


def test_foreign_scans_end_within_the_column_and_hide_no_fracture() -> None:
    config = PhantomConfig(studies=1, seed=4, foreign=True, masked_share=0.0)
    ends = 0
    for index in range(120):
        plan = plan_study(config, index)
        z_mm = plan.scan.grid().z_mm
        heights = [plan.spine.frames[level].centre[2] for level in range(1, 8)]
        ends += heights[1] > z_mm.max() or heights[5] < z_mm.min()
        for height, label in zip(heights, plan.labels.values(), strict=True):
            assert not label or z_mm.min() < height < z_mm.max()
    assert ends > 20
