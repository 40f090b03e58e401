"""Which images of a study form the volume that is read.

A study brings more than one axial series: localizers, screenshots, dose, objects of
other modalities, further reconstructions, copies. ``select_volume`` sets aside what is
no slice of the volume and says so; of several reconstructions it takes the thinnest
that covers the neck, and of equal ones that with a bone kernel.

Nothing is chosen where it is not plain what belongs together: slices that form one even
stack although they name several series stay together, and ``checks`` tells.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.checks import (
    AXIAL_COSINE,
    MIN_SLICES,
    check_slices,
    has_geometry,
    is_one_grey_image,
)
from csfd_core.dicom.findings import Status, status_of
from csfd_core.dicom.geometry import (
    is_even,
    positions_along_normal_mm,
    slice_normal,
)
from csfd_core.dicom.headers import CT_IMAGE_STORAGE, SliceHeader
from csfd_core.text import count, join

_NECK_MM: Final = 120.0  # from the skull's base to the first thoracic vertebra
_MOST_OF: Final = 0.8  # of the longest series
_SAME_DIRECTION: Final = 0.02  # of the direction cosines; one degree
_MOST_PASSES: Final = 4  # step-and-shoot scans number every position

Slices = list[SliceHeader]


class ImageKind(StrEnum):
    """What an image of a study is; the value is its name in a note."""

    SLICE = "slice of another series"
    LOCALIZER = "localizer"
    NO_CT = "non-CT image"
    COLOUR = "colour or multi-frame image"
    UNPLACED = "image without a position"


@dataclass(frozen=True, slots=True)
class Selection:
    """The slices to read, in any order, and what was said of the others."""

    headers: tuple[SliceHeader, ...]
    notes: tuple[str, ...] = ()


def select_volume(headers: Sequence[SliceHeader]) -> Selection:
    """Choose the slices of one volume among all images of a study.

    Args:
        headers: Of all images that name one StudyInstanceUID, in any order.

    Returns:
        The slices of the volume; all images where none is plainly a volume, so that
        the checks say what is wrong with them.
    """
    return select_volumes(headers)[0]


def select_volumes(headers: Sequence[SliceHeader]) -> list[Selection]:
    """Separate the volumes of a study, first that of ``select_volume``.

    The others are the axial volumes that it leaves out, the thinnest first.
    """
    images, copies = _without_copies(headers)
    notes = [f"{count(copies, 'copy')} of slices left out."] if copies else []
    everything = Selection(tuple(images), tuple(notes))
    slices, aside = _set_aside(images)
    patients = {h.patient_key for h in images if h.patient_key is not None}
    if not slices or len(patients) > 1:
        return [everything]
    groups = [part for series in _by_series(slices) for part in _parts(series)]
    candidates = [group for group in groups if _is_axial_stack(group)]
    if not candidates or _belong_together(groups):
        if not aside or not candidates:
            return [everything]
        return [Selection(tuple(slices), (*notes, *_tell_aside(aside)))]
    ranked = sorted(candidates, key=lambda group: _rank(group, candidates))
    chosen, others = ranked[0], ranked[1:]
    rest = [group for group in groups if group is not chosen]
    aside += [(h, ImageKind.SLICE) for g in rest if g not in others for h in g]
    notes += _tell_aside(aside)
    if others:
        notes.append(_tell_choice(chosen, others))
    return [
        Selection(tuple(chosen), tuple(notes)),
        *(Selection(tuple(group), (_tell_other(group),)) for group in others),
    ]


def _without_copies(headers: Sequence[SliceHeader]) -> tuple[Slices, int]:
    """Leave out what a study holds twice: one instance, in the same place."""
    first: dict[object, SliceHeader] = {}
    for header in headers:
        key: object = header.digest if header.sop_uid is None else _identity(header)
        first.setdefault(key or id(header), header)
    return list(first.values()), len(headers) - len(first)


def _identity(header: SliceHeader) -> tuple[object, ...]:
    """Tell instances apart; two that differ in these are no copies of each other."""
    return (
        header.sop_uid,
        header.series_uid,
        header.study_uid,
        header.patient_key,
        header.instance_number,
        header.position_mm,
        header.orientation,
        header.rows,
        header.columns,
        header.rescale_slope,
        header.rescale_intercept,
        header.has_pixel_data,
    )


def _set_aside(images: Slices) -> tuple[Slices, list[tuple[SliceHeader, ImageKind]]]:
    """Separate CT slices from images of another kind, each with what it is."""
    kinds = [(header, _kind(header)) for header in images]
    series = {header.series_uid for header, kind in kinds if kind is ImageKind.SLICE}
    slices: Slices = []
    aside: list[tuple[SliceHeader, ImageKind]] = []
    for header, kind in kinds:
        # What stands in the series of the slices, and calls itself a CT image, is one
        # of them with a defect.
        is_of_them = header.series_uid in series and (
            header.sop_class_uid in (CT_IMAGE_STORAGE, None)
        )
        if kind is ImageKind.SLICE or (is_of_them and kind is not ImageKind.LOCALIZER):
            slices.append(header)
        else:
            aside.append((header, kind))
    return slices if series else [], aside


def _kind(header: SliceHeader) -> ImageKind:
    if header.is_localizer:
        return ImageKind.LOCALIZER
    if header.modality not in ("CT", None):
        return ImageKind.NO_CT
    if not is_one_grey_image(header):
        return ImageKind.COLOUR
    if not has_geometry(header) or not header.has_pixel_data:
        return ImageKind.UNPLACED
    return ImageKind.SLICE


def _by_series(slices: Slices) -> Iterator[Slices]:
    groups: dict[str | None, Slices] = defaultdict(list)
    for header in slices:
        groups[header.series_uid].append(header)
    yield from groups.values()


def _parts(series: Slices) -> list[Slices]:
    """Split a series that holds several kernels or passes, each a stack of its own."""
    for key in ("kernel_key", "acquisition_number"):
        parts: dict[object, Slices] = defaultdict(list)
        for header in series:
            parts[getattr(header, key)].append(header)
        is_split = 1 < len(parts) <= _MOST_PASSES
        stacks = list(parts.values())
        is_split = is_split and all(map(_is_axial_stack, stacks))
        if is_split and all(map(_is_even_stack, stacks)) and _overlap(stacks):
            return stacks
    return [series]


def _overlap(parts: list[Slices]) -> bool:
    """Say whether stacks run beside each other instead of following each other."""
    ends = [(z.min(), z.max()) for z in map(_positions, parts)]
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    shortest = min(high - low for low, high in ends)
    return bool(high - low > shortest / 2)


def _is_axial_stack(group: Slices) -> bool:
    if len(group) < MIN_SLICES or not all(has_geometry(header) for header in group):
        return False
    return bool(abs(slice_normal(group[0])[2]) >= AXIAL_COSINE)


def _is_even_stack(group: Slices) -> bool:
    return is_even(np.sort(_positions(group)))


def _positions(group: Slices) -> npt.NDArray[np.float64]:
    return positions_along_normal_mm(group)


def _belong_together(groups: list[Slices]) -> bool:
    """Say whether slices of several series form one even stack.

    An export that gave one volume several SeriesInstanceUIDs looks like that: then to
    take one of them would leave out the slices between, or half of the neck.
    """
    if len({header.series_uid for group in groups for header in group}) < 2:
        return False
    stacks = [group for group in groups if all(has_geometry(h) for h in group)]
    by_grid: dict[object, list[Slices]] = defaultdict(list)
    for group in stacks:
        by_grid[_grid(group[0])].append(group)
    return any(
        _is_even_stack([header for group in some for header in group])
        for same in by_grid.values()
        for some in [*combinations(same, 2), same]
        if len({header.series_uid for group in some for header in group}) > 1
    )


def _grid(header: SliceHeader) -> tuple[object, ...]:
    spacing = header.pixel_spacing_mm or ()
    directions = np.round(np.array(header.orientation or ()) / _SAME_DIRECTION)
    return (
        header.rows,
        header.columns,
        header.kernel_key,
        tuple(round(value, 3) for value in spacing),
        tuple(int(value) for value in directions),
    )


def _rank(group: Slices, candidates: list[Slices]) -> tuple[object, ...]:
    """Order candidates: without a defect, covering the neck, thin, bone, long."""
    longest = max(_extent_mm(candidate) for candidate in candidates)
    covers = _extent_mm(group) >= min(_NECK_MM, _MOST_OF * longest)
    return (
        status_of(check_slices(group)) is Status.QUARANTINED,
        not covers,
        round(_step_mm(group), 2),
        not group[0].is_bone_kernel,
        -len(group),
        group[0].series_uid or "",
        str(group[0].kernel_key),
        group[0].acquisition_number or 0,
    )


def _extent_mm(group: Slices) -> float:
    return float(np.ptp(_positions(group)))


def _step_mm(group: Slices) -> float:
    steps = [low - high for high, low in pairwise(np.sort(_positions(group)))]
    return float(np.median(np.abs(steps)))


def _tell_aside(aside: list[tuple[SliceHeader, ImageKind]]) -> list[str]:
    if not aside:
        return []
    kinds = Counter(kind for _, kind in aside)
    told = join(f"{n} x {kind}" for kind, n in sorted(kinds.items()))
    return [f"Set aside, as no slices of the volume: {told}."]


def _tell_choice(chosen: Slices, others: list[Slices]) -> str:
    kernel = ", with a bone kernel" if chosen[0].is_bone_kernel else ""
    rest = join([_tell_stack(group) for group in others])
    return (
        f"The study has {len(others) + 1} axial volumes. That of {_tell_stack(chosen)} "
        f"is read: the thinnest that covers the neck{kernel}. Not read: {rest}."
    )


def _tell_other(group: Slices) -> str:
    kernel = " with a bone kernel" if group[0].is_bone_kernel else ""
    return f"A further axial volume of the study: {_tell_stack(group)}{kernel}."


def _tell_stack(group: Slices) -> str:
    return f"{len(group)} slices, {_step_mm(group):.3g} mm apart"
