"""Validation of the settings, and what the plans of many studies look like."""

import numpy as np
import pytest

from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.study import has_mask, plan_study, study_uid_of
from csfd_core.vocabulary import is_uid


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"studies": -1}, r"`studies` must be 0 or more.*-1"),
        ({"seed": -3}, r"`seed` must be 0 or more.*-3"),
        ({"profile": "tiny"}, r"`profile` must be 'demo' or 'full'.*'tiny'"),
        ({"masked_share": 1.5}, r"`masked_share` must be between 0 and 1.*1.5"),
        ({"fracture_gap_mm": (2, 1)}, r"`fracture_gap_mm` must be \(low, high\)"),
        ({"mask_orientation": "LRS"}, r"`mask_orientation` must name each.*'LRS'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PhantomConfig(**{"studies": 1, **settings})


def test_a_grid_without_voxels_is_refused():
    with pytest.raises(ValueError, match=r"`shape_zyx` must be three counts"):
        GridOverride(shape_zyx=(0, 4, 4), spacing_zyx_mm=(1, 1, 1))


def test_study_uids_are_valid_unique_and_depend_on_seed_and_index():
    uids = [
        study_uid_of(PhantomConfig(studies=1, version=version, seed=seed), i)
        for version in (1, 2)
        for seed in (0, 1)
        for i in range(50)
    ]
    assert all(is_uid(uid) for uid in uids)
    assert len(set(uids)) == 200
    assert study_uid_of(PhantomConfig(studies=9, seed=1), 7) == uids[157]


def test_a_plan_does_not_depend_on_the_number_of_studies():
    few = plan_study(PhantomConfig(studies=1), 3)
    many = plan_study(PhantomConfig(studies=900), 3)
    assert (few.study_uid, few.labels, few.scan) == (
        many.study_uid,
        many.labels,
        many.scan,
    )
    assert few.has_mask == many.has_mask


@pytest.mark.parametrize("share", [0.0, 0.043, 0.4, 1.0])
def test_the_share_of_masked_studies_holds_and_the_first_has_one(share):
    config = PhantomConfig(studies=1000, masked_share=share)
    masked = [has_mask(config, i) for i in range(1000)]
    assert sum(masked) == pytest.approx(1000 * share, abs=1)
    assert masked[0] == (share > 0)


def test_full_profile_follows_the_real_stacks():
    config = PhantomConfig(studies=1, profile="full")
    scans = [plan_study(config, i).scan for i in range(400)]
    slices = np.array([s.shape_zyx[0] for s in scans])
    extent = np.array([s.shape_zyx[0] * s.spacing_zyx_mm[0] for s in scans])
    pixel = np.array([s.spacing_zyx_mm[1] for s in scans])
    thickness = np.array([s.thickness_mm for s in scans])
    assert slices.min() >= 69
    assert slices.max() <= 1082
    quartiles = np.quantile(slices, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [257, 314, 429], rtol=0.1)
    assert np.median(extent) == pytest.approx(198, abs=15)
    assert 48 <= extent.min() <= extent.max() <= 335
    assert np.median(pixel) == pytest.approx(0.312, abs=0.02)
    assert 0.19 <= pixel.min() <= pixel.max() <= 0.713
    assert 0.488 <= thickness.min() <= thickness.max() <= 1.0
    assert np.mean(thickness == 0.625) == pytest.approx(0.516, abs=0.15)
    assert np.mean([s.z_falling for s in scans]) == pytest.approx(0.9024, abs=0.04)
