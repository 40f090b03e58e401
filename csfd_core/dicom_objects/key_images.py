"""Key images: the slices of the worst levels with a box around what is suspected.

Colour Secondary Capture images. What they say is burned in, as not every viewer shows
an overlay: the level, its number, and that nobody has verified it. No word of the
patient is drawn.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from csfd_core.dicom_objects.findings import Finding, findings_of, worst_levels
from csfd_core.dicom_objects.identity import MANUFACTURER, NOT_VERIFIED, finish
from csfd_core.dicom_objects.kinds import ResultKind, series_uid_of, sop_uid_of
from csfd_core.dicom_objects.source import ResultSource

MOST_LEVELS: Final = 3
_KIND: Final = ResultKind.KEY_IMAGE
_SMALLEST_SIDE: Final = 512  # pixels; smaller slices are enlarged, to be readable
_WHITE: Final = "#FFFFFF"
_BLACK: Final = "#000000"
_AMBER: Final = "#FFB000"
_LETTERS: Final = 1 / 34  # height of a line's letters, of the picture's width
_LINES: Final = 3


def make_key_images(source: ResultSource) -> list[Dataset]:
    """Make the key images of a study, of the worst level first."""
    if source.grey is None:
        return []
    worst = worst_levels(findings_of(source), MOST_LEVELS)
    return [_key_image(source, one, n) for n, one in enumerate(worst, 1)]


def draw_key_image(source: ResultSource, finding: Finding) -> npt.NDArray[np.uint8]:
    """Draw the slice of a finding with its box and words, (row, column, colour)."""
    box = finding.box
    assert box is not None  # it was chosen for it
    plane = source.plane(box.slice_index)
    assert plane is not None
    header = source.headers[box.slice_index]
    row_mm, column_mm = (float(mm) for mm in header.PixelSpacing)
    across, down = _scales(plane.shape, row_mm, column_mm)
    rows, columns = plane.shape
    width, height = round(columns * across), round(rows * down)
    grey = Image.fromarray(np.ascontiguousarray(plane)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    letters = max(14, round(width * _LETTERS))
    band = round(letters * 1.45) * _LINES + letters // 2
    picture = Image.new("RGB", (width, height + band), _BLACK)
    picture.paste(grey.convert("RGB"), (0, band))
    draw = ImageDraw.Draw(picture)
    left, top = box.x * across, box.y * down + band
    right, bottom = left + box.width * across, top + box.height * down
    thick = max(2, width // 256)
    # Around the box, not on it: the pixels within are what is to be seen.
    for colour, off in ((_BLACK, 2 * thick), (_AMBER, thick)):
        edges = (left - off, top - off, right + off, bottom + off)
        draw.rectangle(edges, outline=colour, width=thick)
    _write(draw, source, finding, letters)
    return np.asarray(picture, dtype=np.uint8)


def _write(
    draw: ImageDraw.ImageDraw, source: ResultSource, finding: Finding, letters: int
) -> None:
    assert finding.box is not None
    number = finding.box.slice_index + 1
    lines = (
        (f"{NOT_VERIFIED}. Not for diagnostic use.", _WHITE),
        (f"{finding.name}  {finding.told}", _AMBER),
        (f"Slice {number} of {len(source.headers)} from the head, bone window", _WHITE),
    )
    font = ImageFont.load_default(letters)
    for line, (told, colour) in enumerate(lines):
        at = (letters // 2, letters // 4 + round(line * letters * 1.45))
        draw.text(at, told, fill=colour, font=font)


def _key_image(source: ResultSource, finding: Finding, number: int) -> Dataset:
    assert finding.box is not None
    header = source.headers[finding.box.slice_index]
    study_uid, results = source.study_uid, source.result_set
    orientation = [float(value) for value in header.ImageOrientationPatient]
    dataset = SCImage(
        pixel_array=draw_key_image(source, finding),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=_directions(orientation),
        study_instance_uid=study_uid,
        series_instance_uid=series_uid_of(study_uid, results, _KIND),
        series_number=_KIND.series_number,
        sop_instance_uid=sop_uid_of(study_uid, results, _KIND, number),
        instance_number=number,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dataset.Laterality = ""
    dataset.BurnedInAnnotation = "NO"  # of the patient; there is a warning, but no name
    dataset.ImageComments = f"{finding.name}: {finding.told}. {NOT_VERIFIED}."
    shown = Dataset()
    shown.ReferencedSOPClassUID = header.SOPClassUID
    shown.ReferencedSOPInstanceUID = header.SOPInstanceUID
    dataset.SourceImageSequence = [shown]
    return finish(dataset, source, _KIND)


def _directions(orientation: list[float]) -> tuple[str, str]:
    """Return which way rows and columns run: L, P and so on."""
    row, column = np.reshape(orientation, (2, 3))
    return _letter(row), _letter(column)


def _letter(direction: npt.NDArray[np.float64]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    letters = (("R", "L"), ("A", "P"), ("F", "H"))[axis]
    return letters[int(direction[axis] > 0)]


def _scales(
    shape: tuple[int, ...], row_mm: float, column_mm: float
) -> tuple[float, float]:
    """Return by how much columns and rows are enlarged, so that a mm is a mm."""
    finest = min(row_mm, column_mm)
    across, down = column_mm / finest, row_mm / finest
    rows, columns = shape
    least = min(columns * across, rows * down)
    enlarged = max(1.0, _SMALLEST_SIDE / least)
    return across * enlarged, down * enlarged
