"""Which images of a study form the volume that is read.

A study brings more than one axial series: localizers, screenshots, dose, objects of
other modalities, further reconstructions, copies. ``select_volumes`` sets aside what is
no slice of the volume and says so; of several reconstructions it takes the thinnest
that covers the neck, and of equal ones that with a bone kernel; or else that which a
reader has chosen.

Nothing is chosen where it is not plain what belongs together: slices that form one even
stack although they name several series stay together, and ``checks`` tells.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from csfd_core.vocabulary import is_uid

_NECK_MM: Final = 120.0  # from the skull's base to the first thoracic vertebra
_MOST_OF: Final = 0.8  # of the longest series
_SAME_DIRECTION: Final = 0.02  # of the direction cosines; one degree
_MOST_PASSES: Final = 4  # step-and-shoot scans number every position
_CHOICE_IS_GONE: Final = "The volume that a reader has chosen is not among the images."

Slices = list[SliceHeader]


class ImageKind(StrEnum):
    """What an image of a study is; the value is its name in a note."""

    SLICE = "slice of another series"
    LOCALIZER = "localizer"
    NO_CT = "non-CT image"
    COLOUR = "colour or multi-frame image"
    UNPLACED = "image without a position"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFacts:
    """What tells an axial volume of a study from its others; no text of a header.

    Attributes:
        slice_uid: SOPInstanceUID of a slice that no other volume has; ``None``: it has
            none, and cannot be chosen.
        slice_count: Slices.
        step_mm: From slice to slice, the median.
        thickness_mm: As in the header.
        extent_mm: From the first to the last slice.
        is_bone_kernel: Reconstructed with a sharp kernel.
        is_usable: Its headers have no defect that quarantines a study.
    """

    slice_uid: str | None
    slice_count: int
    step_mm: float
    thickness_mm: float | None
    extent_mm: float
    is_bone_kernel: bool
    is_usable: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """The slices to read, in any order, and what was said of the others.

    Attributes:
        headers: Of the slices.
        notes: Sentences.
        number: Of the volume, as they are ranked: 1 is read unless another is chosen.
        facts: Of the volume; ``None``: there is nothing to choose from.
    """

    headers: tuple[SliceHeader, ...]
    notes: tuple[str, ...] = ()
    number: int = 1
    facts: VolumeFacts | None = None


def select_volumes(
    headers: Sequence[SliceHeader], chosen_slice: str | None = None
) -> list[Selection]:
    """Separate the volumes of a study, first that which is read.

    Args:
        headers: Of all images that name one StudyInstanceUID, in any order.
        chosen_slice: SOPInstanceUID of a slice of the volume that is to be read;
            ``None``: nobody has chosen.

    Returns:
        The slices of the volume that is read; all images where none is plainly a
        volume, so that the checks say what is wrong with them. Then the axial volumes
        that it leaves out, the thinnest first.
    """
    images, copies = _without_copies(headers)
    notes = [f"{count(copies, 'copy')} of slices left out."] if copies else []
    everything = Selection(tuple(images), tuple(notes))
    slices, aside = _set_aside(images)
    patients = {h.patient_key for h in images if h.patient_key is not None}
    if not slices or len(patients) > 1:
        return [_without_choice(everything, chosen_slice)]
    groups = [part for series in _by_series(slices) for part in _parts(series)]
    candidates = [group for group in groups if _is_axial_stack(group)]
    if not candidates or _belong_together(groups):
        if aside and candidates:
            everything = Selection(tuple(slices), (*notes, *_tell_aside(aside)))
        return [_without_choice(everything, chosen_slice)]
    ranked = sorted(candidates, key=lambda group: _rank(group, candidates))
    rest = [group for group in groups if group not in ranked]
    aside += [(h, ImageKind.SLICE) for group in rest for h in group]
    first = Selection(tuple(ranked[0]), (*notes, *_tell_aside(aside)))
    if len(ranked) == 1:
        return [_without_choice(first, chosen_slice)]
    return _chosen_first(ranked, first.notes, chosen_slice)


def _chosen_first(
    ranked: list[Slices], notes: tuple[str, ...], chosen_slice: str | None
) -> list[Selection]:
    """Return several volumes, first that which is read."""
    facts = [_facts_of(group, ranked) for group in ranked]
    has_it = [any(h.sop_uid == chosen_slice for h in group) for group in ranked]
    is_chosen = chosen_slice is not None and has_it.count(True) == 1
    read = has_it.index(True) if is_chosen else 0
    others = [number for number in range(len(ranked)) if number != read]
    told = _tell_choice(ranked[read], [ranked[n] for n in others], is_chosen=is_chosen)
    first = Selection(tuple(ranked[read]), (*notes, told), read + 1, facts[read])
    if not is_chosen:
        first = _without_choice(first, chosen_slice)
    return [
        first,
        *(
            Selection(tuple(ranked[n]), (_tell_other(ranked[n]),), n + 1, facts[n])
            for n in others
        ),
    ]


def _without_choice(selection: Selection, chosen_slice: str | None) -> Selection:
    """Say that there is no such volume, where one was chosen."""
    if chosen_slice is None:
        return selection
    return replace(selection, notes=(*selection.notes, _CHOICE_IS_GONE))


def _facts_of(group: Slices, ranked: list[Slices]) -> VolumeFacts:
    counts = Counter(header.sop_uid for one in ranked for header in one)
    uids = [h.sop_uid for h in group if h.sop_uid is not None and is_uid(h.sop_uid)]
    return VolumeFacts(
        slice_uid=min((uid for uid in uids if counts[uid] == 1), default=None),
        slice_count=len(group),
        step_mm=round(_step_mm(group), 3),
        thickness_mm=group[0].slice_thickness_mm,
        extent_mm=round(_extent_mm(group), 1),
        is_bone_kernel=group[0].is_bone_kernel,
        is_usable=status_of(check_slices(group)) is not Status.QUARANTINED,
    )


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


def _tell_choice(read: Slices, others: list[Slices], *, is_chosen: bool) -> str:
    kernel = ", with a bone kernel" if read[0].is_bone_kernel else ""
    why = "a reader has chosen it" if is_chosen else "the thinnest that covers the neck"
    rest = join([_tell_stack(group) for group in others])
    return (
        f"The study has {len(others) + 1} axial volumes. That of {_tell_stack(read)} "
        f"is read: {why}{kernel}. Not read: {rest}."
    )


def _tell_other(group: Slices) -> str:
    kernel = " with a bone kernel" if group[0].is_bone_kernel else ""
    return f"A further axial volume of the study: {_tell_stack(group)}{kernel}."


def _tell_stack(group: Slices) -> str:
    return f"{len(group)} slices, {_step_mm(group):.3g} mm apart"
