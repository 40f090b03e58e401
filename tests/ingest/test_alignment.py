"""Masks in all 48 orientations lie on the same voxels, for both directions of z."""

import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dicom_studies import (
    SIZE,
    SLICES,
    STUDY_UID,
    neck_mask,
    reorient,
    volume_affine_ras,
    write_mask,
    write_study,
)

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.dicom.nifti import NiftiMask, align_mask, read_nifti_mask
from csfd_core.errors import MaskError
from csfd_core.ingest.scan import scan_study
from csfd_core.store.source import Source

VOXELS = SLICES * SIZE * SIZE
ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product([False, True], repeat=3)
]


def asymmetric_mask() -> np.ndarray:
    """Three blocks of other sizes: no flip or permutation leaves them as they are."""
    mask = np.zeros((SLICES, SIZE, SIZE), dtype=np.uint8)
    mask[2:4, 5:30, 7:12] = 1
    mask[6:13, 8:14, 40:60] = 2
    mask[20:23, 50:53, 3:4] = 3
    return mask


@pytest.fixture(scope="module", params=[True, False], ids=["z falls", "z rises"])
def geometry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> VolumeGeometry:
    source = tmp_path_factory.mktemp("source")
    write_study(source, z_descending=request.param)
    (folder,) = Source(source).studies()
    found = scan_study(folder)[0].geometry
    assert found is not None
    assert found.z_descending is request.param
    return found


@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_every_orientation_gives_the_same_mask(
    geometry: VolumeGeometry, axes: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    expected = asymmetric_mask()
    moved, affine = reorient(expected, volume_affine_ras(), axes, flips)
    aligned = align_mask(NiftiMask(moved, affine), geometry)
    np.testing.assert_array_equal(aligned, expected)


def test_the_48_orientations_differ() -> None:
    mask = asymmetric_mask()
    moved = {
        (array.shape, np.ascontiguousarray(array).tobytes())
        for axes, flips in ORIENTATIONS
        for array in [reorient(mask, volume_affine_ras(), axes, flips)[0]]
    }
    assert len(moved) == 48


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    voxel=st.tuples(
        st.integers(0, SLICES - 1), st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)
    ),
)
def test_a_voxel_stays_where_it_is_in_the_patient(
    orientation: tuple[tuple[int, ...], tuple[bool, ...]], voxel: tuple[int, int, int]
) -> None:
    """Both affines send the same labelled voxel to the same millimetres."""
    mask = np.zeros((SLICES, SIZE, SIZE), dtype=np.uint8)
    mask[voxel] = 5
    moved, affine = reorient(mask, volume_affine_ras(), *orientation)
    in_file = np.argwhere(moved == 5)[0]
    ras = affine @ [*in_file, 1]
    geometry = VolumeGeometry(
        shape_zyx=mask.shape,
        spacing_zyx_mm=(2.0, 1.5, 1.5),
        affine_lps=tuple(
            tuple(row) for row in (np.diag([-1, -1, 1, 1]) @ volume_affine_ras())
        ),
        z_extent_mm=46.0,
        z_descending=True,
    )
    aligned = align_mask(NiftiMask(moved, affine), geometry)
    lps = geometry.affine() @ [*np.argwhere(aligned == 5)[0], 1]
    np.testing.assert_allclose(lps[:3] * [-1, -1, 1], ras[:3], atol=1e-9)


def test_rounded_affines_are_accepted(geometry: VolumeGeometry) -> None:
    mask = asymmetric_mask()
    affine = np.round(volume_affine_ras() + 0.004, 2)
    np.testing.assert_array_equal(align_mask(NiftiMask(mask, affine), geometry), mask)


def test_mask_of_another_place_is_refused(geometry: VolumeGeometry) -> None:
    affine = volume_affine_ras()
    affine[2, 3] += 6
    with pytest.raises(MaskError, match=r"3\.0 voxels off"):
        align_mask(NiftiMask(asymmetric_mask(), affine), geometry)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_both_file_forms_are_read(tmp_path: Path, suffix: str) -> None:
    path = write_mask(tmp_path, neck_mask(), volume_affine_ras(), suffix=suffix)
    mask = read_nifti_mask(path.read_bytes(), VOXELS)
    np.testing.assert_array_equal(mask.labels, nib.load(path).get_fdata())
    np.testing.assert_allclose(mask.affine_ras, nib.load(path).affine)


@pytest.mark.parametrize(
    "raw",
    [b"", b"x" * 10, b"x" * 400, gzip.compress(b"x" * 400, mtime=0), b"\x1f\x8bbroken"],
)
def test_unreadable_files_are_told(raw: bytes) -> None:
    with pytest.raises(MaskError, match="No readable NIfTI|three-dimensional"):
        read_nifti_mask(raw, VOXELS)


@pytest.mark.parametrize("dimensions", [(999, 99, 99), (2**14, 2**13, 2**13)])
def test_mask_that_ends_before_its_voxels_do_is_cut_off(
    tmp_path: Path, dimensions: tuple[int, int, int]
) -> None:
    """The larger one is beyond any memory: it must not even be asked for."""
    path = write_mask(tmp_path, neck_mask(), volume_affine_ras(), suffix=".nii")
    raw = bytearray(path.read_bytes())
    raw[42:48] = struct.pack("<3h", *dimensions)  # NIfTI-1, dim[1..3]
    with pytest.raises(MaskError, match="cut off"):
        read_nifti_mask(bytes(raw), VOXELS)


def test_want_of_memory_is_no_fault_of_a_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mask(tmp_path, neck_mask(), volume_affine_ras(), suffix=".nii")

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "asanyarray", exhausted)
    with pytest.raises(MemoryError):
        read_nifti_mask(path.read_bytes(), VOXELS)


def test_study_finds_its_mask_by_its_uid(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_mask(tmp_path, neck_mask(), volume_affine_ras(), suffix=".nii.gz")
    (tmp_path / "segmentations" / "x.nii").write_bytes(b"stray")
    (folder,) = Source(tmp_path).studies()
    assert folder.mask is not None
    assert folder.mask.name == f"{STUDY_UID}.nii.gz"
