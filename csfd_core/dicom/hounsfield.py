"""Whether the values of a study are Hounsfield units.

The rescale of a header may be missing, wrong, of another quantity, or of some slices
only; the stored values may be signed ones that are called unsigned, or the grey levels
of a window. None of it is an error to a decoder, and all of it makes a network see
another patient. So values are looked at in every study: air, soft tissue and bone must
lie where Hounsfield units have them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.findings import Finding
from csfd_core.dicom.headers import SliceHeader
from csfd_core.text import percent, safe_name

Sample = npt.NDArray[np.float32]  # Hounsfield units of one slice, in no order
ReadSample = Callable[[SliceHeader], Sample]

_LOOKED_AT: Final = (0.2, 0.5, 0.8)  # of the way from head to feet
_MOST_ODD: Final = 8  # slices that are looked at one by one
_AIR_HU: Final = (-1100.0, -850.0)
_SOFT_TISSUE_HU: Final = (-150.0, 150.0)
_LEAST_SHARE: Final = 0.02
_DENSE_HU: Final = 700.0  # cortical bone
_LUNG_HU: Final = (-850.0, -180.0)  # and nothing else
_MOST_ELSEWHERE: Final = 0.25  # of the pixels, however narrow a slice is cut
_DENSEST_HU: Final = 4096.0  # what lies above is metal
_MOST_METAL: Final = 0.05
_MOST_AIR: Final = 0.95  # a slice above the head shows nothing else
_LEAST_RANGE_HU: Final = 400.0  # from fat to bone
_LEAST_PIXELS: Final = 50
_SLOPES: Final = (1e-3, 1e3)  # magnitudes that any scanner has used
_JUMP_HU: Final = 250.0  # between the mean of a slice and those of its neighbours
_NEIGHBOURS: Final = 2  # on either side


def check_hounsfield(
    ordered: Sequence[SliceHeader],
    read: ReadSample,
    means_hu: Sequence[float | None],
) -> Iterator[Finding]:
    """Look at a few slices of a stack, and at each that differs from the others.

    Args:
        ordered: Slices of one volume, head to feet.
        read: Gives some values of a slice in HU, without padding. It may raise
            ``PixelDataError``.
        means_hu: Mean of each slice, where it is known: a slice is looked at if its
            mean differs from those of its neighbours.
    """
    if not ordered:
        return
    unusable = [header for header in ordered if not _has_usable_rescale(header)]
    if unusable:
        yield _no_hounsfield(
            unusable, ordered, "have a rescale slope of 0 or beyond use"
        )
        return
    is_proven = all(_says_hounsfield(header) for header in ordered)
    middle = [ordered[int(share * (len(ordered) - 1))] for share in _LOOKED_AT]
    together = np.concatenate([read(header) for header in middle])
    if together.size < _LEAST_PIXELS:
        wrong = "hardly any pixel is no padding"
    else:
        wrong = _tell_wrong(together) if is_proven else _tell_unproven(together)
    if wrong:
        told = f"{_tell_claim(ordered)}{wrong}."
        yield Finding("no_hounsfield", told[0].upper() + told[1:])
        return
    odd = _odd_slices(ordered, means_hu)[:_MOST_ODD]
    seen = [(header, _tell_odd(read(header))) for header in odd]
    if deviating := [(header, told) for header, told in seen if told]:
        headers, (told, *_) = zip(*deviating, strict=True)
        yield _no_hounsfield(headers, ordered, f"deviate: {told}")
        return
    if any(_has_no_rescale(header) for header in ordered):
        without = sum(map(_has_no_rescale, ordered))
        detail = f"{without} of {len(ordered)} slices have no rescale; air and soft "
        yield Finding("no_rescale", f"{detail}tissue lie at Hounsfield units.")


def mean_hu(values: npt.NDArray[np.floating]) -> float | None:
    """Return the mean of a slice's values; ``None`` where it has hardly any."""
    return float(values.mean()) if values.size >= _LEAST_PIXELS else None


def _has_no_rescale(header: SliceHeader) -> bool:
    return header.rescale_slope is None or header.rescale_intercept is None


def _has_usable_rescale(header: SliceHeader) -> bool:
    slope = header.rescale_slope
    return slope is None or _SLOPES[0] <= abs(slope) <= _SLOPES[1]


def _says_hounsfield(header: SliceHeader) -> bool:
    return header.is_rescaled_to_hu and not _has_no_rescale(header)


def _tell_claim(ordered: Sequence[SliceHeader]) -> str:
    """Say what the headers claim where that is no Hounsfield units."""
    other = sum(not header.is_rescaled_to_hu for header in ordered)
    without = sum(map(_has_no_rescale, ordered))
    if other:
        return f"{other} of {len(ordered)} slices have a RescaleType other than HU; "
    if without:
        return f"{without} of {len(ordered)} slices have no rescale; "
    return ""


def _tell_unproven(values: Sample) -> str:
    """Say what speaks against values whose header does not promise Hounsfield units."""
    if wrong := _tell_wrong(values):
        return wrong
    air = _share(values, *_AIR_HU)
    soft = _share(values, *_SOFT_TISSUE_HU)
    if min(air, soft) < _LEAST_SHARE:
        return f"only {percent(air)} of the pixels are air, {percent(soft)} soft tissue"
    return ""


def _tell_odd(values: Sample) -> str:
    """Say what is wrong with one slice, which may lie in air alone."""
    is_air = values.size and _share(values, *_AIR_HU) > _MOST_AIR
    return "" if is_air else _tell_wrong(values)


def _tell_wrong(values: Sample) -> str:
    """Say what cannot be so in Hounsfield units of a neck; empty: nothing."""
    if values.size < _LEAST_PIXELS:
        return ""
    low, high = np.percentile(values, (0.2, 99.8))
    beyond = _share(values, _DENSEST_HU, np.inf)
    soft = _share(values, *_SOFT_TISSUE_HU)
    dense = _share(values, _DENSE_HU, np.inf)
    air = _share(values, -np.inf, _AIR_HU[1])
    if beyond > _MOST_METAL:
        return f"{percent(beyond)} of the pixels lie above {_DENSEST_HU:.0f} HU"
    if high - low < _LEAST_RANGE_HU:
        return f"the values span no more than {high - low:.0f} HU"
    if soft < _LEAST_SHARE:
        return f"only {percent(soft)} of the pixels lie where soft tissue is"
    between = _share(values, *_LUNG_HU)
    if air < _LEAST_SHARE and max(dense, between) > _MOST_ELSEWHERE:
        what = "dense bone" if dense > between else "lung"
        share = percent(max(dense, between))
        return f"nothing lies where air is, and {share} of the pixels would be {what}"
    return ""


def _share(values: Sample, low: float, high: float) -> float:
    return float(((values > low) & (values < high)).mean())


def _odd_slices(
    ordered: Sequence[SliceHeader], means_hu: Sequence[float | None]
) -> list[SliceHeader]:
    """Return the slices whose header or mean differs, those that jump most first."""
    kinds = [_storage(header) for header in ordered]
    (usual, _), *_ = Counter(kinds).most_common(1)
    jumps_hu = [_jump_hu(means_hu, index) for index in range(len(ordered))]
    odd = [
        index
        for index, (jump_hu, kind) in enumerate(zip(jumps_hu, kinds, strict=True))
        if jump_hu > _JUMP_HU or kind != usual
    ]
    return [ordered[index] for index in sorted(odd, key=lambda i: -jumps_hu[i])]


def _jump_hu(means_hu: Sequence[float | None], index: int) -> float:
    """Return by how much the mean of a slice differs from those around it."""
    mean = means_hu[index]
    if mean is None:
        return 0.0
    around = means_hu[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS + 1]
    return abs(mean - float(np.median([near for near in around if near is not None])))


def _storage(header: SliceHeader) -> tuple[object, ...]:
    """Return how a slice keeps its values; alike in all slices of a scan."""
    return (
        header.rescale_slope,
        header.rescale_intercept,
        header.bits_stored,
        header.is_signed,
        header.is_rescaled_to_hu,
    )


def _no_hounsfield(
    some: Sequence[SliceHeader], ordered: Sequence[SliceHeader], what: str
) -> Finding:
    first = safe_name(some[0].file_name)
    detail = f"{len(some)} of {len(ordered)} slices {what} ({first})."
    return Finding("no_hounsfield", detail)
