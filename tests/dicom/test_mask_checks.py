"""Each defect of a mask has its own code; a good mask has none."""

import gzip
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.dicom_studies import (
    STUDY_UID,
    neck_hounsfield,
    neck_mask,
    reorient,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.scans import Damage, codes, scan

from csfd_core.dicom.findings import Status
from csfd_core.dicom.nifti import align_mask
from csfd_core.ingest.scan import mask_of
from csfd_core.store.source import Source


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


def labelled(change: Callable[[np.ndarray], object]) -> Damage:
    def apply(source: Path) -> None:
        mask = neck_mask()
        change(mask)
        write_mask(source, mask, volume_affine_ras())

    return apply


def without_level(mask: np.ndarray) -> None:
    mask[mask == 4] = 3


def of_one_label(source: Path) -> None:
    """A spine of 120 mm in one label, as a binary mask has it."""
    shutil.rmtree(source / "train_images")
    write_study(source, hounsfield=neck_hounsfield(60))
    mask = (neck_mask(60) > 0).astype(np.uint8)
    write_mask(source, mask, volume_affine_ras())


def beside_the_bone(source: Path) -> None:
    mask = np.roll(neck_mask(), 7, axis=2)  # 10 mm to the left
    write_mask(source, mask, volume_affine_ras())


def of_colours(source: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    mask = np.zeros(neck_mask().shape, dtype=kind)
    image = nib.Nifti1Image(mask, volume_affine_ras())
    path = write_mask(source, neck_mask(), volume_affine_ras())
    nib.save(image, path)


def bomb(source: Path) -> None:
    """A few kilobytes that inflate to 512 MB."""
    path = write_mask(source, neck_mask(), volume_affine_ras(), suffix=".nii.gz")
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = bytes(2**20)
    packed = [packer.compress(gzip.decompress(path.read_bytes())[:352])]
    packed += [packer.compress(chunk) for _ in range(512)]
    path.write_bytes(b"".join([*packed, packer.flush()]))


MASK_DEFECTS |= {
    "empty": ("mask_labels", labelled(lambda mask: mask.fill(0))),
    "a level left out": ("mask_labels", labelled(without_level)),
    "one label": ("mask_labels", of_one_label),
    "beside the bone": ("mask_misaligned", beside_the_bone),
    "colours": ("mask_unreadable", of_colours),
    "bomb": ("mask_unreadable", bomb),
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


def with_a_fourth_axis(source: Path) -> None:
    write_mask(source, neck_mask()[..., None], volume_affine_ras())


def of_the_second_version(source: Path) -> None:
    path = write_mask(source, neck_mask(), volume_affine_ras())
    nib.save(nib.Nifti2Image(neck_mask(), volume_affine_ras()), path)


def with_a_scale(source: Path) -> None:
    """Stored ten times as large, with a slope that does not undo it exactly."""
    path = write_mask(source, neck_mask(), volume_affine_ras())
    image = nib.Nifti1Image(neck_mask().astype(np.int16) * 10, volume_affine_ras())
    image.header.set_slope_inter(0.0999999, 0)
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:116] = np.float32(0.0999999).tobytes()  # nibabel resets it
    path.write_bytes(raw)


def in_capitals(source: Path) -> None:
    path = write_mask(source, neck_mask(), volume_affine_ras())
    path.rename(path.with_suffix(".NII"))


@pytest.mark.parametrize(
    "write", [with_a_fourth_axis, of_the_second_version, with_a_scale, in_capitals]
)
def test_masks_are_read_as_tools_write_them(tmp_path: Path, write: Damage) -> None:
    write_study(tmp_path)
    write_mask(tmp_path, neck_mask(), volume_affine_ras()).unlink()
    write(tmp_path)
    found = scan(tmp_path)
    assert found.status is Status.GOOD
    assert found.geometry is not None
    mask, _ = mask_of(found.folder, found.geometry)
    assert mask is not None
    aligned = align_mask(mask, found.geometry)
    np.testing.assert_array_equal(aligned, neck_mask())


def test_what_is_not_taken_for_a_mask_is_named(tmp_path: Path) -> None:
    write_study(tmp_path)
    path = write_mask(tmp_path, neck_mask(), volume_affine_ras())
    for suffix in (".nii.gz", "_seg.nii", ".mha"):
        path.with_name(f"{STUDY_UID}{suffix}").write_bytes(path.read_bytes())
    (note,) = Source(tmp_path).mask_notes()
    assert "3 files are not taken for a mask" in note
