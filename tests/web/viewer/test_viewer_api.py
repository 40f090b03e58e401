"""What the server tells a viewer, against NumPy, pydicom and nibabel."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_rescale
from support.dicom_studies import STUDY_UID, volume_affine_ras
from support.viewed_study import (
    BOX,
    COLUMNS,
    EVIDENCE_SLICE,
    PATH,
    ROWS,
    SLICES,
    ViewedStudy,
    place_study,
    study_mask,
)
from support.web import set_environment, web_app

from csfd_core.vocabulary import LEVEL_COLOURS
from csfd_core.web.audit import Action
from csfd_core.web.database import audit
from csfd_core.web.viewer import api

SHAPE = (SLICES, ROWS, COLUMNS)


def test_geometry_tells_grid_levels_and_evidence(viewed: ViewedStudy) -> None:
    facts = viewed.web.client.get(f"{PATH}/geometry").json()
    mask = study_mask()
    assert facts["shape_zyx"] == list(SHAPE)
    assert facts["spacing_zyx_mm"] == [2.0, 1.5, 1.5]
    assert facts["window"] == {"center_hu": 400.0, "width_hu": 1800.0}
    assert facts["has_mask"]
    assert facts["has_heat"]
    assert facts["has_hounsfield"]
    assert facts["findings"] == ["C5", "C2"]  # the most probable first
    assert facts["evidence"]["C5"]["slice_index"] == EVIDENCE_SLICE
    assert list(facts["evidence"]) == ["C5"]
    assert [one["level"] for one in facts["levels"]] == list(LEVEL_COLOURS)
    for label, one in enumerate(facts["levels"], 1):
        voxels = np.argwhere(mask == label)
        np.testing.assert_allclose(one["centroid_zyx"], voxels.mean(axis=0))
        assert one["first_slice"] == voxels[:, 0].min()
        assert one["last_slice"] == voxels[:, 0].max()
        assert one["label"] == label
        assert one["colour"] == LEVEL_COLOURS[one["level"]]


def test_geometry_maps_voxels_as_nibabel_does(viewed: ViewedStudy) -> None:
    facts = viewed.web.client.get(f"{PATH}/geometry").json()
    ras = np.diag([-1, -1, 1, 1]) @ np.array(facts["affine_lps"])
    np.testing.assert_allclose(ras, volume_affine_ras())
    # Of slices, rows and columns; H and F are S and I to nibabel.
    codes = nib.aff2axcodes(ras)  # type: ignore[no-untyped-call]  # no types
    letters = {"S": "H", "I": "F"}
    told = tuple(facts["orientation"][axis]["high"] for axis in "zyx")
    assert told == tuple(letters.get(code, code) for code in codes) == ("F", "P", "L")


@pytest.mark.parametrize(
    ("directions", "letters"),
    [
        ([-1, 0, 0, 0, -1, 0], {"y": ("P", "A"), "x": ("L", "R")}),  # lying prone
        ([0, 1, 0, 1, 0, 0], {"y": ("R", "L"), "x": ("A", "P")}),  # rows to the back
        ([0.8, 0.6, 0, -0.6, 0.8, 0], {"y": ("AL", "PR"), "x": ("RA", "LP")}),
    ],
)
def test_a_turned_scan_has_turned_letters(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    directions: list[float],
    letters: dict[str, tuple[str, str]],
) -> None:
    def turn(dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = directions

    set_environment(tmp_path, monkeypatch)
    place_study(tmp_path, turn)
    with web_app(tmp_path, monkeypatch) as web:
        facts = web.client.get(f"{PATH}/geometry").json()
    for axis, (low, high) in letters.items():
        assert facts["orientation"][axis] == {"low": low, "high": high}
    column = np.array(facts["affine_lps"])[:3, 2] / 1.5
    np.testing.assert_allclose(column, directions[:3], atol=1e-9)


def test_frames_are_the_stored_jpegs_head_to_feet(viewed: ViewedStudy) -> None:
    content = viewed.get("frames", start=30, stop=37).tobytes()
    stored = viewed.stores.slices.read_table(STUDY_UID).column("jpeg").to_pylist()
    found = {}
    while content:
        index, length = struct.unpack(">II", content[:8])
        found[index] = content[8 : 8 + length]
        content = content[8 + length :]
    assert found == {index: stored[index] for index in range(30, 37)}


@pytest.mark.parametrize("what", ["frames", "volume"])
@pytest.mark.parametrize(
    ("start", "stop"), [(-1, 3), (3, 3), (5, 2), (0, SLICES + 1), (10**9, 10**9 + 1)]
)
def test_slices_that_are_not_there_are_refused(
    viewed: ViewedStudy, what: str, start: int, stop: int
) -> None:
    answer = viewed.web.client.get(
        f"{PATH}/{what}", params={"start": start, "stop": stop}
    )
    assert answer.status_code == 422


def test_hounsfield_units_are_those_of_pydicom(viewed: ViewedStudy) -> None:
    folder = viewed.web.services.sources.study(STUDY_UID)
    assert folder is not None
    datasets = [
        dcmread(Path(str(folder.source)) / entry.path) for entry in folder.files
    ]
    datasets.sort(key=lambda one: -float(one.ImagePositionPatient[2]))
    expected = np.stack([apply_rescale(one.pixel_array, one) for one in datasets])
    parts = [
        viewed.get("volume", start=start, stop=min(SLICES, start + 16)).view("<i2")
        for start in range(0, SLICES, 16)
    ]
    found = np.concatenate(parts).reshape(SHAPE)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, viewed.hounsfield)


def test_too_many_hounsfield_units_at_once_are_refused(viewed: ViewedStudy) -> None:
    answer = viewed.web.client.get(f"{PATH}/volume", params={"start": 0, "stop": 17})
    assert answer.status_code == 422
    assert "16" in answer.json()["detail"]


def test_images_that_are_gone_are_told(viewed: ViewedStudy) -> None:
    folder = viewed.web.services.sources.study(STUDY_UID)
    assert folder is not None
    one = Path(str(folder.source)) / folder.files[3].path
    one.write_bytes(one.read_bytes()[:-2])
    query = {"start": 0, "stop": 16}
    assert viewed.web.client.get(f"{PATH}/volume", params=query).status_code == 409
    for entry in folder.files:
        (Path(str(folder.source)) / entry.path).unlink()
    answer = viewed.web.client.get(f"{PATH}/volume", params=query)
    assert answer.status_code == 404
    assert "not here any more" in answer.json()["detail"]
    assert not viewed.web.client.get(f"{PATH}/geometry").json()["has_hounsfield"]


def test_the_mask_comes_whole_and_as_its_box(viewed: ViewedStudy) -> None:
    mask = study_mask()
    np.testing.assert_array_equal(viewed.get("mask").reshape(SHAPE), mask)
    answer = viewed.web.client.get(f"{PATH}/mask", params={"cropped": True})
    ends = [int(end) for end in answer.headers[api.BOX_HEADER].split(",")]
    z, y, x = (slice(*ends[at : at + 2]) for at in (0, 2, 4))
    part = np.frombuffer(answer.content, np.uint8)
    np.testing.assert_array_equal(part.reshape(mask[z, y, x].shape), mask[z, y, x])
    assert part.sum() == mask.sum()
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["cache-control"] == "no-store"


def test_the_mask_as_nifti_lies_where_the_scan_does(viewed: ViewedStudy) -> None:
    content = viewed.web.client.get(f"{PATH}/mask.nii.gz").content
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    by_slice = np.asarray(image.dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(by_slice, study_mask())
    place = image.affine @ [10, 20, 30, 1]  # column, row, slice
    np.testing.assert_allclose(place, volume_affine_ras() @ [30, 20, 10, 1])
    with viewed.web.services.database.transaction() as connection:
        found = connection.execute(sa.select(audit.c.action, audit.c.subject)).all()
    assert (f"{Action.DOWNLOADED}: mask", STUDY_UID) in [tuple(row) for row in found]


def test_heat_lies_on_the_slices_of_its_crops(viewed: ViewedStudy) -> None:
    heat = viewed.get("heat").reshape(SHAPE)
    hottest = np.argwhere(heat == 255)
    np.testing.assert_array_equal(hottest.min(axis=0), [21, 36, 25])
    np.testing.assert_array_equal(hottest.max(axis=0), [21, 39, 28])


def test_a_blind_reader_gets_neither_heat_nor_evidence(
    viewed: ViewedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "is_blind", lambda *_: True)
    facts = viewed.web.client.get(f"{PATH}/geometry")
    told = facts.json()
    assert told["is_blind"]
    assert not told["has_heat"]
    assert told["evidence"] == {}
    assert told["findings"] == []
    assert str(BOX["x"]) not in facts.text
    assert len(told["levels"]) == len(LEVEL_COLOURS)
    assert viewed.web.client.get(f"{PATH}/heat").status_code == 403
    assert viewed.web.client.get(f"{PATH}/mask").status_code == 200


def test_what_was_made_from_other_slices_is_not_laid_over_these(
    viewed: ViewedStudy,
) -> None:
    note = viewed.stores.predicted_masks.read_note(STUDY_UID)
    assert note is not None
    other = note.model_copy(update={"content_hash": "of an older version"})
    viewed.stores.predicted_masks.write(STUDY_UID, study_mask(), other)
    facts = viewed.web.client.get(f"{PATH}/geometry").json()
    assert not facts["has_mask"]
    assert facts["levels"] == []
    assert viewed.web.client.get(f"{PATH}/mask").status_code == 404


@pytest.mark.parametrize(
    "what", ["geometry", "frames?start=0&stop=1", "volume?start=0&stop=1", "mask",
             "mask.nii.gz", "heat"],
)  # fmt: skip
def test_nothing_is_shown_without_a_session_nor_of_unknown_studies(
    viewed: ViewedStudy, what: str
) -> None:
    client = viewed.web.client
    assert client.get(f"/api/v1/studies/1.2.3/{what}").status_code == 404
    assert client.get(f"/api/v1/studies/..%2Fx/{what}").status_code == 404
    client.cookies.clear()
    assert client.get(f"{PATH}/{what}").status_code == 401
