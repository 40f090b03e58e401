"""Checks of one study's slices: can they be trusted as one axial CT volume?

Each check looks at the headers and yields findings; none raises for a bad study. Checks
of geometry run only once every slice has a geometry. Tolerances are given where they
are used, with their reason.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.elements import is_native
from csfd_core.dicom.findings import Finding
from csfd_core.dicom.geometry import (
    is_even,
    off_line_mm,
    order_head_to_feet,
    positions_along_normal_mm,
    slice_normal,
)
from csfd_core.dicom.headers import SliceHeader
from csfd_core.dicom.pixels import READABLE_BITS, expected_pixel_bytes
from csfd_core.text import safe_name

# A neck of 50 mm at the coarsest spacing in use, 5 mm, has ten slices.
MIN_SLICES: Final = 10
_TILT_TOLERANCE_DEG: Final = 1.0  # below the smallest tilt that scanners offer in steps
# Directions that tremble move the corner of a slice by less than a pixel or half a
# millimetre, and never by more than a whole one.
_CORNER_MM: Final = (0.5, 1.0)
_COSINE_TOLERANCE: Final = 0.01
# Closer or wider pixels are no CT of a neck, whatever a header says.
_PIXEL_MM: Final = (0.05, 10.0)
_SAME_POSITION_MM: Final = 1e-2  # positions are written with at least two decimals
_SPACING_TOLERANCE: Final = 0.1  # of the median spacing; positions are often rounded
AXIAL_COSINE: Final = 0.7  # the normal is within 45 degrees of the body's axis
_MAX_NAMED: Final = 3


def check_slices(headers: Sequence[SliceHeader]) -> list[Finding]:
    """Return what the headers of one study tell against it.

    Args:
        headers: All slices found in the study's folder, in any order.
    """
    findings = [*_check_series(headers), *_check_pixel_data(headers)]
    findings += _check_modality(headers)
    if missing := [header for header in headers if not has_geometry(header)]:
        detail = f"{_share(missing, headers)} lack position, orientation or spacing"
        return [*findings, Finding("no_geometry", f"{detail}: {_names(missing)}.")]
    findings += _check_grid(headers)
    if len(headers) < MIN_SLICES:
        detail = f"The series has {len(headers)} slices, fewer than {MIN_SLICES}."
        findings.append(Finding("too_few_slices", detail))
    return findings


def _check_series(headers: Sequence[SliceHeader]) -> Iterator[Finding]:
    series = {header.series_uid for header in headers}
    if len(series) > 1:
        yield Finding("several_series", f"The folder holds {len(series)} series.")
    patients = {header.patient_key for header in headers}
    if len(patients) > 1:
        detail = f"The slices name {len(patients)} different PatientIDs."
        yield Finding("several_patients", detail)
    uids = [header.sop_uid for header in headers]
    repeated = len(uids) - len(set(uids))
    if repeated:
        detail = f"{repeated} of {len(uids)} slices repeat a SOPInstanceUID."
        yield Finding("duplicate_sop_uid", detail)
    numbers = [header.instance_number for header in headers]
    first = min((number for number in numbers if number is not None), default=1)
    if first > 1:
        detail = f"The lowest instance number is {first}."
        yield Finding("first_slices_missing", detail)


def _check_modality(headers: Sequence[SliceHeader]) -> Iterator[Finding]:
    modalities = sorted({header.modality or "not given" for header in headers})
    if modalities != ["CT"]:
        named = ", ".join(modalities)
        detail = f"The modality is {named}, not CT."
        yield Finding("wrong_modality", detail)


def _check_pixel_data(headers: Sequence[SliceHeader]) -> Iterator[Finding]:
    without = [header for header in headers if not header.has_pixel_data]
    if without:
        detail = f"{_share(without, headers)} have no pixel data: {_names(without)}."
        yield Finding("no_pixel_data", detail)
    unsupported = [header for header in headers if not is_one_grey_image(header)]
    if unsupported:
        detail = f"{_share(unsupported, headers)} have several frames or colours, or "
        detail += f"not 8, 16 or 32 bits a pixel: {_names(unsupported)}."
        yield Finding("unsupported_pixels", detail)
        return
    cut = [header for header in headers if _is_cut_off(header)]
    if cut:
        detail = f"{_share(cut, headers)} end before their pixel data do"
        yield Finding("truncated_file", f"{detail}: {_names(cut)}.")
    wrong = [header for header in headers if _has_wrong_length(header)]
    if wrong:
        first = wrong[0]
        yield Finding(
            "pixel_data_length",
            f"{_share(wrong, headers)} have pixel data of the wrong length; "
            f"{safe_name(first.file_name)} has {first.pixel_length} bytes, its "
            "size demands "
            f"{expected_pixel_bytes(first)}.",
        )


def is_one_grey_image(header: SliceHeader) -> bool:
    """Say whether a file holds one grey-scale image of a width that can be read."""
    is_single = (header.frame_count or 1) == 1 and (header.samples_per_pixel or 1) == 1
    return is_single and (header.bits_allocated or 16) in READABLE_BITS


def _is_cut_off(header: SliceHeader) -> bool:
    if header.pixel_offset is None or header.pixel_length is None:
        return False
    return header.pixel_offset + header.pixel_length > header.size_bytes


def _has_wrong_length(header: SliceHeader) -> bool:
    if not header.has_pixel_data or not is_native(header.transfer_syntax_uid):
        return False
    expected = expected_pixel_bytes(header)
    if expected is None:
        return True
    # PS3.5 section 8.1.1: what follows the pixels is padding, to be ignored.
    return header.pixel_length is None or header.pixel_length < expected


def has_geometry(header: SliceHeader) -> bool:
    """Say whether position, orientation and spacing are there and can be true."""
    if header.position_mm is None or header.pixel_spacing_mm is None:
        return False
    if header.orientation is None or not header.rows or not header.columns:
        return False
    low, high = min(header.pixel_spacing_mm), max(header.pixel_spacing_mm)
    if not _PIXEL_MM[0] <= low <= high <= _PIXEL_MM[1]:
        return False
    # PS3.3 C.7.6.2.1.1: unit vectors, orthogonal; files round the cosines. In plain
    # Python, as NumPy takes ten times as long for three numbers.
    row, column = header.orientation[:3], header.orientation[3:]
    are_units = all(abs(math.hypot(*v) - 1) < _COSINE_TOLERANCE for v in (row, column))
    product = sum(a * b for a, b in zip(row, column, strict=True))
    return are_units and abs(product) < _COSINE_TOLERANCE


def _check_grid(headers: Sequence[SliceHeader]) -> Iterator[Finding]:
    sizes = {(header.rows, header.columns) for header in headers}
    if len(sizes) > 1:
        named = ", ".join(
            f"{rows}x{columns}" for rows, columns in sorted(sizes, key=str)
        )
        yield Finding("mixed_matrix_size", f"The slices are {named} pixels.")
    spacings = np.array([header.pixel_spacing_mm for header in headers])
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.max():
        low, high = spacings.min(), spacings.max()
        detail = f"The pixel spacing ranges from {low:.4f} to {high:.4f} mm."
        yield Finding("mixed_pixel_spacing", detail)
    if not _are_parallel(headers):
        detail = "The slices have more than one orientation."
        yield Finding("mixed_orientation", detail)
        return
    if abs(slice_normal(headers[0])[2]) < AXIAL_COSINE:
        detail = "The slice normal is more than 45 degrees off the body's axis."
        yield Finding("not_axial", detail)
    yield from _check_spacing(order_head_to_feet(headers))


def _are_parallel(headers: Sequence[SliceHeader]) -> bool:
    """Judge directions by what they do at the corner of a slice, in mm."""
    cosines = np.array([header.orientation for header in headers]).reshape(-1, 2, 3)
    first = headers[0]
    row_mm, column_mm = first.pixel_spacing_mm or (1.0, 1.0)
    half = np.array([(first.columns or 0) * column_mm, (first.rows or 0) * row_mm]) / 2
    turned = np.linalg.norm(cosines - np.median(cosines, axis=0), axis=2)
    least, most = _CORNER_MM
    allowed = min(max(row_mm, column_mm, least), most)
    return bool((turned @ half).max() <= allowed)


def _check_spacing(ordered: Sequence[SliceHeader]) -> Iterator[Finding]:
    """Look at the gaps of a stack ordered head to feet."""
    if len(ordered) < 2:
        return
    gaps_mm = -np.diff(positions_along_normal_mm(ordered))
    same = int((gaps_mm < _SAME_POSITION_MM).sum())
    if same:
        detail = f"{same} of {len(ordered)} slices repeat another one's position."
        yield Finding("duplicate_position", detail)
        return
    tilt_deg = _shear_deg(ordered)
    if tilt_deg > _TILT_TOLERANCE_DEG:
        detail = f"The stack is sheared by {tilt_deg:.1f} degrees."
        yield Finding("gantry_tilt", detail)
    yield from _check_line(ordered)
    if is_even(positions_along_normal_mm(ordered)):
        return
    median_mm = float(np.median(gaps_mm))
    odd = np.abs(gaps_mm - median_mm) > _SPACING_TOLERANCE * median_mm
    lost = _count_lost(ordered, gaps_mm, median_mm)
    if lost:
        yield Finding(
            "missing_slices",
            f"{lost} slices are missing in {int(odd.sum())} gaps of a stack of "
            f"{len(ordered)}, {median_mm:.3g} mm apart.",
        )
    else:
        yield Finding(
            "uneven_spacing",
            f"The distance between slices ranges from {gaps_mm.min():.3g} to "
            f"{gaps_mm.max():.3g} mm (median {median_mm:.3g} mm).",
        )


def _check_line(ordered: Sequence[SliceHeader]) -> Iterator[Finding]:
    """Require that every slice lies on one line, not only the first and the last."""
    off_mm = off_line_mm(ordered)
    pixel_mm = min(ordered[0].pixel_spacing_mm or (1.0,))
    aside = int((off_mm > pixel_mm).sum())
    if aside:
        yield Finding(
            "shifted_slices",
            f"{aside} of {len(ordered)} slices lie up to {off_mm.max():.1f} mm beside "
            "the line of the stack.",
        )


def _shear_deg(ordered: Sequence[SliceHeader]) -> float:
    """Return the angle between the slice normal and the line of the positions."""
    if ordered[0].position_mm is None or ordered[-1].position_mm is None:
        return 0.0
    line = np.subtract(ordered[0].position_mm, ordered[-1].position_mm)
    cosine = float(line @ slice_normal(ordered[0]) / np.linalg.norm(line))
    return float(np.degrees(np.arccos(np.clip(abs(cosine), 0, 1))))


def _count_lost(
    ordered: Sequence[SliceHeader],
    gaps_mm: npt.NDArray[np.float64],
    median_mm: float,
) -> int:
    """Count lost slices, where odd gaps are whole multiples that numbers jump over."""
    lost = 0
    for upper, lower, gap_mm in zip(ordered, ordered[1:], gaps_mm, strict=False):
        steps = gap_mm / median_mm
        if abs(steps - 1) <= _SPACING_TOLERANCE:
            continue
        whole = round(steps)
        if whole < 2 or abs(steps - whole) > _SPACING_TOLERANCE * whole:
            return 0
        numbers = (upper.instance_number, lower.instance_number)
        if None not in numbers and abs((numbers[0] or 0) - (numbers[1] or 0)) < 2:
            return 0
        lost += whole - 1
    return lost


def _share(some: Sequence[SliceHeader], headers: Sequence[SliceHeader]) -> str:
    return f"{len(some)} of {len(headers)} slices"


def _names(some: Sequence[SliceHeader]) -> str:
    named = ", ".join(safe_name(header.file_name) for header in some[:_MAX_NAMED])
    return named + (", ..." if len(some) > _MAX_NAMED else "")
