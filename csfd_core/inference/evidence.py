"""Where in a study a classifier finds the strongest sign of a fracture, level by level.

A classifier says of each pixel of a vertebra's crops how much it speaks for a fracture.
The strongest place on the vertebra, with what hangs together with it, becomes a box:
in mm of the patient, and in pixels of the original slice that the place lies on. The
box is told as the edges of pixels, as fracture boxes are: (0, 0) is the outer corner of
the first pixel, whose middle is (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.vertebrae import Grey
from csfd_core.crops.boxes import Affine, boxes_of_levels, corners_of
from csfd_core.crops.cutting import CropConfig, TurnedScan, affine_of_crops
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.store.stores import Stores

Heat = npt.NDArray[np.float32]
Place = tuple[int, int, int]

_SHARE: Final = 0.5  # of the peak: what reaches it hangs together with the place
_SMALLEST_MM: Final = 8.0  # side of a box within the slice
_DIGITS: Final = 2  # of pixels and mm
_SAME_MM: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelHeat:
    """What speaks for a fracture of one vertebra, on the grid of its crops."""

    level: str
    heat: Heat  # (K, side, side), 0..1
    masks: Grey  # (K, side, side): 255 where the vertebra is
    affine_lps: Affine  # maps (crop, row, column, 1) to LPS mm, (4, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The strongest place of one vertebra."""

    slice_index: int  # 0 is nearest the head
    sop_uid: str | None
    x_px: float  # left edge in the slice, then the upper edge
    y_px: float
    width_px: float
    height_px: float
    lower_lps_mm: tuple[float, ...]  # x, y, z
    upper_lps_mm: tuple[float, ...]
    peak: float  # 0..1

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the JSON of a prediction."""
        return {
            "slice_index": self.slice_index,
            "sop_instance_uid": self.sop_uid,
            "box_px": {
                "x": self.x_px,
                "y": self.y_px,
                "width": self.width_px,
                "height": self.height_px,
            },
            "box_lps_mm": {
                "lower": list(self.lower_lps_mm),
                "upper": list(self.upper_lps_mm),
            },
            "peak": self.peak,
        }


def evidence_of(
    found: LevelHeat, geometry: VolumeGeometry, sop_uids: Sequence[str | None]
) -> Evidence | None:
    """Return the strongest place of a vertebra; ``None`` where nothing speaks for one.

    Args:
        found: The vertebra.
        geometry: Of the study.
        sop_uids: SOPInstanceUID of each of its slices, head to feet.
    """
    place = hottest_place(found.heat, found.masks)
    peak = float(found.heat[place])
    if peak <= 0:
        return None
    low, high = _around(found, place)
    to_voxels = np.linalg.inv(geometry.affine()) @ found.affine_lps
    corners = corners_of(low, high) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    # Crops may reach beyond the scan; the box does not.
    ends = np.array(geometry.shape_zyx) - 0.5
    low, high = (
        np.clip(edge, -0.5, ends) for edge in (corners.min(axis=0), corners.max(axis=0))
    )
    middle = to_voxels[0, :3] @ place + to_voxels[0, 3]
    index = int(np.clip(np.rint(middle), 0, geometry.shape_zyx[0] - 1))
    lps = corners_of(low, high) @ geometry.affine()[:3, :3].T + geometry.affine()[:3, 3]
    y, x = _rounded(low[1:] + 0.5)
    height, width = _rounded(high[1:] - low[1:])
    return Evidence(
        slice_index=index,
        sop_uid=sop_uids[index],
        x_px=x,
        y_px=y,
        width_px=width,
        height_px=height,
        lower_lps_mm=_rounded(lps.min(axis=0)),
        upper_lps_mm=_rounded(lps.max(axis=0)),
        peak=round(peak, 4),
    )


def evidence_to_json(
    heats: Sequence[LevelHeat],
    geometry: VolumeGeometry,
    sop_uids: Sequence[str | None],
) -> dict[str, Any]:
    """Return the evidence of each level as it stands in the JSON of a prediction."""
    found = {heat.level: evidence_of(heat, geometry, sop_uids) for heat in heats}
    return {level: e if e is None else e.to_json() for level, e in found.items()}


def stored_affines(
    stores: Stores, study_uid: str, config: CropConfig
) -> dict[str, Affine]:
    """Return where the stored crops of each level lie: (crop, row, column) to LPS mm.

    Nothing where the store has no mask of the study; without levels whose crops were
    cut by another mask than that which is there now.
    """
    note = stores.predicted_masks.read_note(study_uid)
    if note is None:
        return {}
    mask = stores.predicted_masks.read_volume(study_uid)
    scan = TurnedScan.of(mask, mask, note.geometry.affine())
    facts = stores.crops.read_facts(study_uid).to_pandas()
    tops_mm = facts[facts["crop_index"] == 0].set_index("level")["z_mm"]
    affines = {}
    for box in boxes_of_levels(mask, note.geometry.affine()):
        affine = affine_of_crops(scan, box, config)
        top_mm = float((scan.lps_to_mm @ affine)[0, 3])
        if abs(tops_mm.get(box.level, np.inf) - top_mm) < _SAME_MM:
            affines[box.level] = affine
    return affines


def hottest_place(heat: Heat, masks: Grey) -> Place:
    """Return the strongest place on a vertebra itself: crop, row and column."""
    on_it = np.where(masks > 0, heat, 0.0)
    crop, row, column = np.unravel_index(int(on_it.argmax()), heat.shape)
    return int(crop), int(row), int(column)


def _around(
    found: LevelHeat, place: Place
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the corners of the box around a place, to the edges of crop pixels."""
    parts, _ = ndimage.label(
        found.heat >= _SHARE * found.heat[place], structure=np.ones((3, 3, 3))
    )
    (span,) = ndimage.find_objects((parts == parts[place]).astype(np.uint8))
    low = np.array([part.start - 0.5 for part in span])
    high = np.array([part.stop - 0.5 for part in span])
    steps = np.linalg.norm(found.affine_lps[:3, :3], axis=0)
    lacking = np.maximum(_SMALLEST_MM / steps - (high - low), 0) / 2
    lacking[0] = 0  # the height of a crop is what it is
    return low - lacking, high + lacking


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), _DIGITS) for value in values)
