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
CropVoxel = tuple[int, int, int]

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
    """The strongest place of one vertebra, in voxels (slice, row, column) of its study.

    The middle of the first voxel is (0, 0, 0), its outer corner (-0.5, -0.5, -0.5).
    """

    peak_zyx: npt.NDArray[np.float64]  # (3,)
    lower: npt.NDArray[np.float64]  # (3,), corners of the box
    upper: npt.NDArray[np.float64]
    peak: float  # 0..1

    @property
    def slice_index(self) -> int:
        """The slice that the peak lies on; 0 is nearest the head."""
        return int(np.rint(self.peak_zyx[0]))

    def to_json(
        self, geometry: VolumeGeometry, sop_uids: Sequence[str | None]
    ) -> dict[str, Any]:
        """Return it as it stands in the JSON of a prediction.

        Args:
            geometry: Of the study.
            sop_uids: SOPInstanceUID of each of its slices, head to feet.
        """
        affine = geometry.affine()
        lps = corners_of(self.lower, self.upper) @ affine[:3, :3].T + affine[:3, 3]
        y, x = _rounded(self.lower[1:] + 0.5)
        height, width = _rounded(self.upper[1:] - self.lower[1:])
        return {
            "slice_index": self.slice_index,
            "sop_instance_uid": sop_uids[self.slice_index],
            "box_px": {"x": x, "y": y, "width": width, "height": height},
            "box_lps_mm": {
                "lower": _rounded(lps.min(axis=0)),
                "upper": _rounded(lps.max(axis=0)),
            },
            "peak": round(self.peak, 4),
        }


def evidence_of(level_heat: LevelHeat, geometry: VolumeGeometry) -> Evidence | None:
    """Return the strongest place of a vertebra; ``None`` where nothing speaks for one.

    Crops may reach beyond the scan; the box does not.
    """
    hottest = hottest_voxel(level_heat.heat, level_heat.masks)
    peak = float(level_heat.heat[hottest])
    if not (peak > 0 and level_heat.masks[hottest]):
        return None
    to_voxels = np.linalg.inv(geometry.affine()) @ level_heat.affine_lps
    corners = corners_of(*_around(level_heat, hottest)) @ to_voxels[:3, :3].T
    corners += to_voxels[:3, 3]
    last = np.array(geometry.shape_zyx) - 1
    return Evidence(
        peak_zyx=np.clip(to_voxels[:3, :3] @ hottest + to_voxels[:3, 3], 0, last),
        lower=np.clip(corners.min(axis=0), -0.5, last + 0.5),
        upper=np.clip(corners.max(axis=0), -0.5, last + 0.5),
        peak=peak,
    )


def evidence_to_json(
    heats: Sequence[LevelHeat],
    geometry: VolumeGeometry,
    sop_uids: Sequence[str | None],
) -> dict[str, Any]:
    """Return the evidence of each level as it stands in the JSON of a prediction."""
    evidence = {heat.level: evidence_of(heat, geometry) for heat in heats}
    return {
        level: None if one is None else one.to_json(geometry, sop_uids)
        for level, one in evidence.items()
    }


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


def hottest_voxel(heat: Heat, masks: Grey) -> CropVoxel:
    """Return the strongest place on a vertebra itself: crop, row and column."""
    on_it = np.where(masks > 0, heat, 0.0)
    crop, row, column = np.unravel_index(int(on_it.argmax()), heat.shape)
    return int(crop), int(row), int(column)


def _around(
    level_heat: LevelHeat, hottest: CropVoxel
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the corners of the box around a place, to the edges of crop pixels."""
    parts, _ = ndimage.label(
        level_heat.heat >= _SHARE * level_heat.heat[hottest],
        structure=np.ones((3, 3, 3)),
    )
    (span,) = ndimage.find_objects((parts == parts[hottest]).astype(np.uint8))
    low = np.array([part.start - 0.5 for part in span])
    high = np.array([part.stop - 0.5 for part in span])
    steps = np.linalg.norm(level_heat.affine_lps[:3, :3], axis=0)
    lacking = np.maximum(_SMALLEST_MM / steps - (high - low), 0) / 2
    lacking[0] = 0  # the height of a crop is what it is
    return low - lacking, high + lacking


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]
