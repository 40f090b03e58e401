"""What a study looks like in a few numbers, each of which can be said in words.

They are taken from what a classifier is shown: sizes and spacing of the vertebrae, how
sure the segmentation is, grey levels and sharpness of the crops, and the resolution of
the scan. None of them depends on whether a vertebra is broken.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.vertebrae import Vertebra
from csfd_core.crops.cutting import CropConfig
from csfd_core.dicom.grids import Triple
from csfd_core.vocabulary import LEVEL_NAMES

Floats = npt.NDArray[np.float64]

VOLUME: Final = "volume"
SPACING: Final = "spacing"
CONFIDENCE: Final = "confidence"
# Of each vertebra, or between it and the next; a study's is the median of its levels.
LEVEL_FACTS: Final = (
    VOLUME,
    SPACING,
    CONFIDENCE,
    "bone_dark",
    "bone_middle",
    "bone_bright",
    "around",
    "edges",
    "along",
    "grain",
)
UNEVEN: Final = {"volume_uneven": VOLUME, "spacing_uneven": SPACING}
PIXEL, GAP = "pixel", "gap"
_FINE: Final = 0.5  # of the distance of neighbours; finer slices are averaged
_WHOLE: Final = 0.999  # share of a vertebra that the scan shows
_SURE: Final = 0.9995  # no confidence counts as higher


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStudy:
    """What is seen of a study before anything is judged.

    Attributes:
        vertebrae: By level.
        confidences: Of the segmentation, 0..1, by level.
        shares: How much of each vertebra the scan shows, 0..1.
        spacing_zyx_mm: Of the scan; ``None``: not known.
        crop: How the vertebrae are cut.
    """

    vertebrae: Mapping[str, Vertebra]
    confidences: Mapping[str, float]
    shares: Mapping[str, float]
    spacing_zyx_mm: Triple | None
    crop: CropConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStudy:
    """Numbers of one study; NaN where there is nothing to measure.

    Attributes:
        levels: By name, one per level of ``LEVEL_NAMES``, (7,).
        pixel: Logarithm of the pixel size in mm; what is finer than the crops' pixels,
            which a crop does not show, counts as these.
        gap: Logarithm of the distance of slices in mm; of the crops' alike.
    """

    levels: Mapping[str, Floats]
    pixel: float
    gap: float


def measure_study(seen: SeenStudy) -> MeasuredStudy:
    """Measure a study."""
    table = np.full((len(LEVEL_FACTS), len(LEVEL_NAMES)), np.nan)
    by_fact = dict(zip(LEVEL_FACTS, table, strict=True))
    heights: Floats = np.full(len(LEVEL_NAMES), np.nan)
    for column, level in enumerate(LEVEL_NAMES):
        vertebra = seen.vertebrae.get(level)
        if vertebra is None or not vertebra.masks.any():
            continue
        is_whole = seen.shares.get(level, 1.0) >= _WHOLE
        if is_whole:
            by_fact[VOLUME][column] = math.log(_volume_ml(vertebra, seen.crop))
            heights[column] = float(vertebra.heights_mm.mean())
        sure = min(max(seen.confidences.get(level, math.nan), 1e-3), _SURE)
        by_fact[CONFIDENCE][column] = math.log(sure / (1 - sure))
        for name, value in _of_grey(vertebra).items():
            by_fact[name][column] = value
    # Vertebrae do not lie on top of each other; 1 mm stands for what cannot be.
    by_fact[SPACING][1:] = np.log(np.maximum(np.diff(heights), 1.0))
    if seen.spacing_zyx_mm is None:
        return MeasuredStudy(levels=by_fact, pixel=math.nan, gap=math.nan)
    gap, row, column_mm = seen.spacing_zyx_mm
    return MeasuredStudy(
        levels=by_fact,
        pixel=math.log(max(math.sqrt(row * column_mm), seen.crop.pixel_mm)),
        gap=math.log(max(gap, seen.crop.neighbour_mm * _FINE)),
    )


def logits_of_levels(levels: Sequence[str], logits: npt.ArrayLike) -> Floats:
    """Return logits in the order of C1 to C7, NaN where there is none, (7,)."""
    row = np.full(len(LEVEL_NAMES), np.nan)
    row[[LEVEL_NAMES.index(level) for level in levels]] = logits
    return row


def _volume_ml(vertebra: Vertebra, crop: CropConfig) -> float:
    heights = vertebra.heights_mm
    step = float(heights[1] - heights[0]) if len(heights) > 1 else 1.0
    voxels = int(np.count_nonzero(vertebra.masks))
    return max(voxels, 1) * step * crop.pixel_mm**2 / 1000


def _of_grey(vertebra: Vertebra) -> dict[str, float]:
    """Measure the grey levels of a vertebra and of what lies around it.

    ``edges`` and ``along`` are how far neighbours in a slice, and on either side of it,
    differ within the vertebra; ``grain`` is how far a pixel around it differs from the
    mean of its four neighbours. All of them as logarithms.
    """
    middle = vertebra.images.shape[1] // 2
    grey = vertebra.images[:, middle].astype(np.float32)
    inside = vertebra.masks > 0
    dark, bone, bright = np.percentile(grey[inside], (10, 50, 90))
    around = grey[~inside]
    inner = (slice(None), slice(1, -1), slice(1, -1))
    rows = np.abs(grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1])
    columns = np.abs(grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2])
    edges = (rows + columns)[inside[inner]]
    beside = grey[:, 2:, 1:-1] + grey[:, :-2, 1:-1] + grey[:, 1:-1, 2:]
    beside = (beside + grey[:, 1:-1, :-2]) / 4
    rough = np.abs(grey[inner] - beside)[~inside[inner]]
    ends = vertebra.images[:, [0, -1]].astype(np.float32)
    along = np.abs(ends[:, 1] - ends[:, 0])[inside]
    return {
        "bone_dark": float(dark),
        "bone_middle": float(bone),
        "bone_bright": float(bright),
        "around": float(np.median(around)) if around.size else math.nan,
        "edges": _log_mean(edges),
        "along": _log_mean(along),
        "grain": _log_mean(rough),
    }


def _log_mean(values: npt.NDArray[np.floating]) -> float:
    """Return the logarithm of the mean; 1 grey level is added, for even pictures."""
    return math.log(float(values.mean()) + 1) if values.size else math.nan
