"""Key images: which slices, where the box lies, and what is burned in."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from support.result_objects import (
    BOX_SLICE,
    headers,
    made,
    prediction,
    result_source,
    validator_errors,
)

from csfd_core.dicom_objects import key_images
from csfd_core.dicom_objects.results import ResultKind, make_results
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES

AMBER = (255, 176, 0)


def evidence(**slices: int) -> dict[str, Any]:
    box = {"x": 16.0, "y": 24.0, "width": 8.0, "height": 12.0}
    return {
        name: {"slice_index": index, "box_px": box, "peak": 1.0}
        for name, index in slices.items()
    }


def picture(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(dcmread(path).pixel_array)


def amber_edges(image: npt.NDArray[np.uint8], band: int) -> tuple[int, int, int, int]:
    """Return the outermost rows and columns of the box, below the words."""
    rows, columns = np.nonzero((image[band:] == AMBER).all(axis=2))
    return (
        int(rows.min()),
        int(rows.max()),
        int(columns.min()),
        int(columns.max()),
    )


def test_a_validator_finds_no_error(tmp_path: Path) -> None:
    (path,) = made(result_source(), ResultKind.KEY_IMAGE, tmp_path)
    assert validator_errors(path) == []
    found = dcmread(path)
    (shown,) = found.SourceImageSequence
    slices = headers()
    assert shown.ReferencedSOPInstanceUID == slices[BOX_SLICE].SOPInstanceUID
    assert (found.PhotometricInterpretation, found.BitsAllocated) == ("RGB", 8)
    assert list(found.PatientOrientation) == ["L", "P"]


def test_the_three_worst_levels_are_shown_the_worst_first(tmp_path: Path) -> None:
    said = {"C1": 0.5, "C2": 0.99, "C3": 0.7, "C4": 0.8, "C5": 0.1}
    note = prediction(said, evidence=evidence(C1=1, C2=2, C3=3, C4=4, C5=5))
    paths = made(result_source(prediction=note), ResultKind.KEY_IMAGE, tmp_path)
    told = [dcmread(path).ImageComments[:2] for path in paths]
    assert told == ["C2", "C4", "C3"]
    assert [dcmread(path).InstanceNumber for path in paths] == [1, 2, 3]
    assert len({dcmread(path).SeriesInstanceUID for path in paths}) == 1
    assert len({dcmread(path).SOPInstanceUID for path in paths}) == 3


def test_where_nothing_is_suspected_or_there_is_no_picture_there_is_none() -> None:
    calm = prediction(dict.fromkeys(LEVEL_NAMES, 0.1), evidence=evidence(C2=3))
    assert make_results(result_source(prediction=calm), [ResultKind.KEY_IMAGE]) == []
    assert make_results(result_source(grey=None), [ResultKind.KEY_IMAGE]) == []


@pytest.mark.parametrize(
    ("spacing", "across", "down"),
    [((1.0, 1.0), 8, 8), ((2.0, 1.0), 8, 16), ((0.5, 1.0), 16, 8)],
)
def test_the_box_lies_around_its_pixels_and_a_mm_is_a_mm(
    tmp_path: Path, spacing: tuple[float, float], across: int, down: int
) -> None:
    source = result_source(
        prediction=prediction(evidence=evidence(C5=BOX_SLICE)),
        headers=headers(spacing=spacing),
    )
    (path,) = made(source, ResultKind.KEY_IMAGE, tmp_path)
    image = picture(path)
    band = image.shape[0] - 64 * down
    assert image.shape == (64 * down + band, 64 * across, 3)
    top, bottom, left, right = amber_edges(image, band)
    thick = 2 * max(2, image.shape[1] // 256) // 2
    assert abs(left + thick - 16 * across) <= thick
    assert abs(right - thick + 1 - 24 * across) <= thick
    assert abs(top + thick - 24 * down) <= thick
    assert abs(bottom - thick + 1 - 36 * down) <= thick
    inside = image[band + 24 * down + 2 : band + 36 * down - 2]
    inside = inside[:, 16 * across + 2 : 24 * across - 2]
    assert (inside[..., 0] == inside[..., 1]).all()  # nothing is drawn over it


def test_the_slice_is_shown_in_the_bone_window(tmp_path: Path) -> None:
    hounsfield = np.full((24, 64, 64), 40, dtype=np.int16)
    hounsfield[BOX_SLICE] = 700
    (path,) = made(result_source(grey=hounsfield), ResultKind.KEY_IMAGE, tmp_path)
    low = BONE_WINDOW.center_hu - 0.5 - (BONE_WINDOW.width_hu - 1) / 2
    expected = round((700 - low) / (BONE_WINDOW.width_hu - 1) * 255)
    assert tuple(picture(path)[-1, -1]) == (expected,) * 3


def test_the_words_say_what_it_is_and_nothing_of_the_patient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    drawing = key_images.ImageDraw.ImageDraw
    plain = drawing.text

    def text(self: Any, at: Any, words: str, **options: Any) -> None:
        told.append(words)
        plain(self, at, words, **options)

    monkeypatch.setattr(drawing, "text", text)
    make_results(result_source(), [ResultKind.KEY_IMAGE])
    assert told == [
        "AI, not verified, research only. Not for diagnostic use.",
        "C5  0.90, above the operating point 0.30",
        "Slice 14 of 24 from the head, bone window",
    ]


@pytest.mark.parametrize("size", [512, 64])
def test_the_words_fit_into_the_picture(tmp_path: Path, size: int) -> None:
    source = result_source(
        headers=headers(2, size),
        mask=np.ones((2, size, size), dtype=np.uint8),
        grey=np.zeros((2, size, size), dtype=np.uint8),
        prediction=prediction(evidence=evidence(C5=1)),
    )
    (path,) = made(source, ResultKind.KEY_IMAGE, tmp_path)
    image = picture(path)
    assert not image[:60, -4:].any()  # no letter reaches the edge
    assert image[:60].any()
