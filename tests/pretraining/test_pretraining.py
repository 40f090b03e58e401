"""What the general models are trained on, and what stops them; nothing is trained."""

import subprocess
import sys

import numpy as np
import pytest

from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.study import study_uid_of
from csfd_core.pretraining import segmentation
from csfd_core.pretraining.phantoms import PhantomSet, phantom_config
from csfd_core.segmentation.data import GridVolume

HEIGHT = 12  # voxels of each level


def column(seed: int, index: int) -> GridVolume:
    """C1 to T4 below each other, in place of a phantom."""
    labels = np.zeros((20 + 11 * HEIGHT + 20, 9, 9), dtype=np.uint8)
    for level in range(1, 12):
        start = 20 + (level - 1) * HEIGHT
        labels[start : start + HEIGHT, 3:6, 3:6] = level
    grey = np.full(labels.shape, 200, dtype=np.uint8)
    return GridVolume(f"{seed}.{index}", grey, labels, 1.5)


def cervical(volume: GridVolume) -> list[int]:
    return [level for level in range(1, 8) if (volume.labels == level).any()]


def test_every_second_neck_that_stops_a_training_ends_within_its_column(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whole necks alone do not show that levels are told by where the scan ends."""
    monkeypatch.setattr(segmentation, "phantom_volume", column)
    volumes = segmentation.validation_volumes()
    assert [len(cervical(volume)) == 7 for volume in volumes] == [True, False] * 4
    for volume in volumes[1::2]:
        assert len(cervical(volume)) >= 2
        assert not volume.labels[volume.grey == 0].any()
    again = segmentation.validation_volumes()
    for one, other in zip(volumes, again, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


def test_four_necks_in_five_are_of_version_2() -> None:
    versions = [phantom_config(9, neck).version for neck in range(20)]
    assert versions == [2, 2, 2, 2, 1] * 4


def test_the_first_variant_of_a_neck_has_the_uid_of_its_phantom() -> None:
    """So that a data set of that seed is known to be learnt from."""
    necks = PhantomSet(seed=9, necks=5, is_training=True)
    for neck, version in enumerate((2, 2, 2, 2, 1)):
        config = PhantomConfig(studies=1, seed=9, version=version)
        assert necks.study_uid(neck, 0) == study_uid_of(config, neck)
    every = [uid for uids in necks.study_uids() for uid in uids]
    assert len(set(every)) == len(every) == 10


@pytest.mark.slow
@pytest.mark.parametrize("module", ["segmentation", "classifier", "reference"])
def test_each_command_answers(module: str) -> None:
    call = [sys.executable, "-m", f"csfd_core.pretraining.{module}", "--help"]
    answer = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "usage:" in answer.stdout
