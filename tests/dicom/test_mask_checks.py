"""Each defect of a mask has its own code; a good mask has none."""

from pathlib import Path

import numpy as np
import pytest
from support.dicom_studies import (
    neck_mask,
    reorient,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.scans import Damage, codes, scan

from csfd_core.dicom.findings import Status


def mask_with_label(value: float) -> Damage:
    def apply(source: Path) -> None:
        mask = neck_mask().astype(np.float32)
        mask[5, 0, 0] = value
        write_mask(source, mask, volume_affine_ras())

    return apply


def flipped_without_affine(axis: int) -> Damage:
    def apply(source: Path) -> None:
        write_mask(source, np.flip(neck_mask(), axis), volume_affine_ras())

    return apply


def mirrored_affine(source: Path) -> None:
    affine = volume_affine_ras()
    affine[:3, 0] *= -1
    write_mask(source, neck_mask(), affine)


def shifted_affine(source: Path) -> None:
    affine = volume_affine_ras()
    affine[0, 3] += 20
    write_mask(source, neck_mask(), affine)


MASK_DEFECTS: dict[str, tuple[str, Damage]] = {
    "garbage": (
        "mask_unreadable",
        lambda source: write_mask(source, neck_mask(), np.eye(4)).write_bytes(
            b"x" * 99
        ),
    ),
    "cropped": (
        "mask_shape",
        lambda source: write_mask(source, neck_mask()[:-3], volume_affine_ras()),
    ),
    "label 99": ("mask_labels", mask_with_label(99)),
    "label 2.5": ("mask_labels", mask_with_label(2.5)),
    "label -1": ("mask_labels", mask_with_label(-1)),
    "upside down": ("mask_misaligned", flipped_without_affine(0)),
    "front to back": ("mask_misaligned", flipped_without_affine(1)),
    "left to right": ("mask_misaligned", flipped_without_affine(2)),
    "affine mirrored": ("mask_misaligned", mirrored_affine),
    "affine shifted": ("mask_misaligned", shifted_affine),
    "affine of nowhere": (
        "mask_misaligned",
        lambda source: write_mask(source, neck_mask(), np.diag([3.0, 3, 3, 1])),
    ),
}


@pytest.mark.parametrize("name", MASK_DEFECTS)
def test_mask_defect_has_its_code(tmp_path: Path, name: str) -> None:
    write_study(tmp_path)
    code, damage = MASK_DEFECTS[name]
    damage(tmp_path)
    found = scan(tmp_path)
    assert codes(found) == [code]
    assert found.status is Status.QUARANTINED


def test_higher_labels_are_kept(tmp_path: Path) -> None:
    write_study(tmp_path)
    mask = neck_mask()
    mask[-2:][neck_mask()[-4:-2] > 0] = 8
    write_mask(tmp_path, *reorient(mask, volume_affine_ras(), (2, 0, 1), (True,) * 3))
    assert scan(tmp_path).status is Status.GOOD
