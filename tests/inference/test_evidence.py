"""Where a fracture is suspected: pixels of the original slice, mm of the patient."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from nibabel.affines import apply_affine
from support.dicom_studies import STUDY_UID, neck_mask
from support.spots import (
    LEVEL,
    SPACING_MM,
    SPOT,
    known_mask,
    spot_ensemble,
    spot_hounsfield,
    write_spot_study,
)

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.inference.evidence import LevelHeat, evidence_of
from csfd_core.inference.heatmap import heat_volume, write_heatmap
from csfd_core.inference.predict import predict_input
from csfd_core.inference.reading import Reading

TILT = np.deg2rad(20)
TURN = np.deg2rad(-12)
ORIENTATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "rows to the right": ((-1, 0, 0), (0, 1, 0)),
    "tilted": ((1, 0, 0), (0, np.cos(TILT), np.sin(TILT))),
    "tilted back": ((1, 0, 0), (0, np.cos(TILT), -np.sin(TILT))),
    "turned and tilted": (
        (np.cos(TURN), np.sin(TURN), 0),
        (-np.sin(TURN) * np.cos(TILT), np.cos(TURN) * np.cos(TILT), np.sin(TILT)),
    ),
    "steep": ((1, 0, 0), (0, np.cos(2 * TILT), np.sin(2 * TILT))),
}


def predict(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    ensemble = spot_ensemble()
    (found,) = predict_input(
        str(source), out, known_mask(), ensemble, print, Reading(), **options
    )
    assert found.message == ""
    note: dict[str, Any] = json.loads((out / f"{STUDY_UID}.json").read_text())
    return note


def affine_of(folder: Path) -> npt.NDArray[np.float64]:
    """From (slice, row, column) to LPS mm, by the files as pydicom reads them.

    Equation C.7.6.2.1-1 of DICOM PS3.3; slices are counted from the head.
    """
    files = [pydicom.dcmread(file) for file in folder.iterdir()]
    rows, columns = np.reshape(files[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(rows, columns)
    normal *= np.sign(normal[np.argmax(np.abs(normal))])
    files.sort(key=lambda file: -float(normal @ np.array(file.ImagePositionPatient)))
    first, second = (np.array(file.ImagePositionPatient, float) for file in files[:2])
    between_rows, between_columns = (float(mm) for mm in files[0].PixelSpacing)
    steps = [second - first, columns * between_rows, rows * between_columns]
    return nib.affines.from_matvec(np.array(steps).T, first)


@pytest.mark.parametrize("feet_first", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_box_lies_on_the_spot_in_pixels_and_in_mm(
    name: str, feet_first: bool, tmp_path: Path
) -> None:
    folder = write_spot_study(
        tmp_path / "source", *ORIENTATIONS[name], feet_first=feet_first
    )
    note = predict(tmp_path / "source", tmp_path / "out")
    assert LEVEL in note["suspicious"]
    found = note["evidence"][LEVEL]
    assert found["peak"] > 0.8  # the spot lies between two slices of the crops
    # The slice is one that shows the spot, by its own UID.
    files = [pydicom.dcmread(file) for file in folder.iterdir()]
    (shown,) = (f for f in files if f.SOPInstanceUID == found["sop_instance_uid"])
    dense = shown.pixel_array >= 2000
    assert dense.sum() == 36
    assert found["slice_index"] in range(SPOT[0].start, SPOT[0].stop)
    # Its box is that of the dense pixels, to a pixel of the crops.
    box, tolerance = found["box_px"], 0.5 / min(SPACING_MM)
    ys, xs = np.nonzero(dense)
    assert box["x"] == pytest.approx(xs.min(), abs=tolerance)
    assert box["y"] == pytest.approx(ys.min(), abs=tolerance)
    assert box["x"] + box["width"] == pytest.approx(xs.max() + 1, abs=tolerance)
    # Eight mm at least: six rows of 1.25 mm are less.
    assert box["y"] + box["height"] == pytest.approx(ys.max() + 1, abs=tolerance)
    # In mm it is the same box: its eight corners by the affine of the files.
    affine = affine_of(folder)
    spans = [(part.start - 0.5, part.stop - 0.5) for part in SPOT]
    corners = np.array(np.meshgrid(*spans)).reshape(3, -1).T
    expected = apply_affine(affine, corners)
    lower, upper = (np.array(found["box_lps_mm"][end]) for end in ("lower", "upper"))
    assert lower == pytest.approx(expected.min(axis=0), abs=1.1)
    assert upper == pytest.approx(expected.max(axis=0), abs=1.1)


@pytest.mark.parametrize("seed", range(12))
def test_a_place_in_the_crops_is_mapped_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    geometry, affine = random_geometry(rng)
    order = rng.permutation(3)
    to_crop = np.zeros((4, 4))
    for crop_axis, axis in enumerate(order):
        step_mm = rng.choice((-1, 1)) * rng.uniform(0.6, 2.0)
        to_crop[axis, crop_axis] = step_mm / geometry.spacing_zyx_mm[axis]
    to_crop[:3, 3] = [440, 510, 455]
    to_crop[3, 3] = 1
    crop_affine = affine @ to_crop  # any grid along the axes of the slices
    heat = np.zeros((6, 30, 40), dtype=np.float32)
    span = (slice(2, 5), slice(8, 24), slice(5, 30))
    heat[span] = 0.6
    peak = (3, 12, 20)
    heat[peak] = 0.9
    masks = np.full(heat.shape, 255, dtype=np.uint8)
    found = evidence_of(
        LevelHeat(level="C3", heat=heat, masks=masks, affine_lps=crop_affine), geometry
    )
    assert found is not None
    edges = [(part.start - 0.5, part.stop - 0.5) for part in span]
    corners = np.array(np.meshgrid(*edges)).reshape(3, -1).T
    in_lps = apply_affine(crop_affine, corners)
    in_voxels = apply_affine(np.linalg.inv(affine), in_lps)
    assert found.lower == pytest.approx(in_voxels.min(axis=0), abs=1e-6)
    assert found.upper == pytest.approx(in_voxels.max(axis=0), abs=1e-6)
    place = apply_affine(np.linalg.inv(affine), apply_affine(crop_affine, peak))
    assert found.peak_zyx == pytest.approx(place, abs=1e-6)
    uids = [f"1.2.{index}" for index in range(900)]
    told = found.to_json(geometry, uids)
    assert told["slice_index"] == round(place[0])
    assert told["sop_instance_uid"] == f"1.2.{round(place[0])}"
    assert told["box_lps_mm"]["lower"] == pytest.approx(in_lps.min(axis=0), abs=0.006)
    assert told["box_lps_mm"]["upper"] == pytest.approx(in_lps.max(axis=0), abs=0.006)
    box = told["box_px"]
    assert [box["y"], box["x"]] == pytest.approx(
        in_voxels.min(axis=0)[1:] + 0.5, abs=0.006
    )


def random_geometry(
    rng: np.random.Generator,
) -> tuple[VolumeGeometry, npt.NDArray[np.float64]]:
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    spacing = rng.uniform(0.3, 3.0, size=3)
    affine = nib.affines.from_matvec(matrix * spacing, rng.normal(0, 80, size=3))
    geometry = VolumeGeometry(
        shape_zyx=(900, 1000, 950),
        spacing_zyx_mm=tuple(spacing.tolist()),
        affine_lps=tuple(tuple(row) for row in affine.tolist()),
        z_extent_mm=float(899 * spacing[0]),
        z_descending=True,
    )
    return geometry, affine


def test_a_box_ends_with_the_scan() -> None:
    geometry, affine = random_geometry(np.random.default_rng(0))
    heat = np.zeros((3, 20, 20), dtype=np.float32)
    heat[:, :4] = 0.5
    to_crop = nib.affines.from_matvec(np.diag([2.0, 2.0, 2.0]), [1, -3, 60])
    masks = np.zeros(heat.shape, dtype=np.uint8)
    masks[:, 2:] = 255
    found = evidence_of(
        LevelHeat(level="C3", heat=heat, masks=masks, affine_lps=affine @ to_crop),
        geometry,
    )
    assert found is not None
    assert found.lower[1] == -0.5
    assert found.to_json(geometry, [None] * 900)["box_px"]["y"] == 0


def test_without_any_heat_there_is_no_place() -> None:
    geometry, affine = random_geometry(np.random.default_rng(0))
    heat = np.zeros((3, 20, 20), dtype=np.float32)
    heat[0, 0, 0] = 1  # beside the vertebra
    masks = np.zeros(heat.shape, dtype=np.uint8)
    masks[:, 5:] = 255
    level = LevelHeat(level="C3", heat=heat, masks=masks, affine_lps=affine)
    assert evidence_of(level, geometry) is None


@pytest.mark.parametrize("feet_first", [False, True])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_heatmap_lies_on_the_ct_in_any_viewer(
    name: str, feet_first: bool, tmp_path: Path
) -> None:
    folder = write_spot_study(
        tmp_path / "source", *ORIENTATIONS[name], feet_first=feet_first
    )
    out = tmp_path / "out"
    predict(tmp_path / "source", out, beside=[write_heatmap])
    image = nib.load(out / f"{STUDY_UID}_heatmap.nii.gz")
    heat = np.asarray(image.dataobj)
    assert heat.dtype == np.uint8
    assert heat.max() > 200
    # Each voxel's place in RAS, through the affine of the files, is a voxel of the CT.
    hot = np.argwhere(heat > 127)
    lps = apply_affine(image.affine, hot) * [-1, -1, 1]
    voxels = apply_affine(np.linalg.inv(affine_of(folder)), lps)
    assert np.abs(voxels - np.rint(voxels)).max() < 1e-3
    seen = np.zeros(spot_hounsfield().shape, dtype=bool)
    seen[tuple(np.rint(voxels).astype(int).T)] = True
    spot = np.zeros_like(seen)
    spot[SPOT] = True
    assert 2 * (seen & spot).sum() / (seen.sum() + spot.sum()) > 0.95
    assert heat[~(neck_mask() > 0).transpose(2, 1, 0)].max() < 60


def test_of_overlapping_crops_the_stronger_one_counts() -> None:
    geometry, affine = random_geometry(np.random.default_rng(1))
    shape = (4, 10, 10)
    heats = [
        LevelHeat(
            level=level,
            heat=np.full(shape, value, dtype=np.float32),
            masks=np.full(shape, 255, dtype=np.uint8),
            affine_lps=affine @ nib.affines.from_matvec(np.eye(3), [start, 20, 20]),
        )
        for level, value, start in (("C3", 0.8, 10), ("C4", 0.4, 12))
    ]
    geometry = replace(geometry, shape_zyx=(30, 40, 50))
    volume = heat_volume(heats, geometry)
    assert (
        volume[10:16, 20:30, 20:30].max(axis=(1, 2)).tolist() == [204] * 4 + [102] * 2
    )
    assert volume[:, 20:30, 20:30].sum() == volume.sum()
    assert np.array_equal(volume, heat_volume(heats[::-1], geometry))
