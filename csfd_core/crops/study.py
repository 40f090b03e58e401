"""The crops of one study: pixels, labels, and which slices a fracture box marks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.crops.boxes import LevelBox, boxes_of_levels
from csfd_core.crops.cutting import CropConfig, LevelCrop, TurnedScan, cut_level
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.runtime.compute import one_blas_thread
from csfd_core.store.notes import LevelNote
from csfd_core.vocabulary import RELATIVE_VOLUMES

_Affine = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the tables know of a study."""

    labels: Mapping[str, int | None]  # by level
    boxes: pd.DataFrame | None  # x, y, width, height, slice_index; None: not drawn
    fold: int
    is_test: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedStudy:
    """A study with its mask, head to feet."""

    grey: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    geometry: VolumeGeometry
    levels: Mapping[str, LevelNote]  # findings of the segmentation, by level


def cut_study(
    study: MaskedStudy, facts: StudyFacts, config: CropConfig
) -> list[dict[str, Any]]:
    """Return the rows of the crop store for one study."""
    affine = study.geometry.affine()
    scan = TurnedScan.of(study.grey, study.mask, affine)
    shares = visible_shares(study.levels)
    rows: list[dict[str, Any]] = []
    for box in boxes_of_levels(study.mask, affine):
        crop = cut_level(scan, box, config)
        label = facts.labels.get(box.level)
        boxes = _boxes_on_slices(crop, label, facts, affine, scan, config)
        finding = study.levels.get(box.level)
        rows += [
            {
                "level": box.level,
                "crop_index": index,
                "z_mm": float(crop.middles_mm[index]),
                "label": label,
                "slice_label": None
                if boxes[index] is None
                else int(bool(boxes[index])),
                "boxes": boxes[index],
                "visible_share": shares.get(box.level, 1.0),
                "confidence": 1.0 if finding is None else finding.confidence,
                "fold": facts.fold,
                "is_test": facts.is_test,
                "image": crop.images[index].tobytes(),
                "mask": crop.masks[index].tobytes(),
            }
            for index in range(config.slices)
        ]
    return rows


def cut_vertebrae(study: MaskedStudy, config: CropConfig) -> list[LevelCrop]:
    """Return the crops of each vertebra of a study of which nothing else is known."""
    affine = study.geometry.affine()
    scan = TurnedScan.of(study.grey, study.mask, affine)
    boxes = boxes_of_levels(study.mask, affine)
    with one_blas_thread():
        return [cut_level(scan, box, config) for box in boxes]


def visible_shares(levels: Mapping[str, LevelNote]) -> dict[str, float]:
    """Estimate how much of each vertebra the scan shows.

    1 for whole vertebrae; for one that the scan cuts, its volume against what the whole
    ones of the same neck let expect.
    """
    whole = [
        level.volume_ml / RELATIVE_VOLUMES[name]
        for name, level in levels.items()
        if not level.is_cut
    ]
    shares = {}
    for name, level in levels.items():
        expected = float(np.median(whole)) * RELATIVE_VOLUMES[name] if whole else 0.0
        share = level.volume_ml / expected if expected else 1.0
        shares[name] = 1.0 if not level.is_cut else round(min(share, 1.0), 3)
    return shares


def _boxes_on_slices(
    crop: LevelCrop,
    label: int | None,
    facts: StudyFacts,
    affine: _Affine,
    scan: TurnedScan,
    config: CropConfig,
) -> list[list[float] | None]:
    """Return the fracture boxes of each slice of a crop, four numbers a box.

    A box is (row, column, row, column) of its outer edges in pixels of the crop; None
    where nobody knows.
    """
    count = len(crop.middles_mm)
    if label == 0:
        return [[] for _ in range(count)]
    if label is None or facts.boxes is None:
        return [None] * count
    level_boxes = facts.boxes[_within(crop.box, facts.boxes, affine)]
    if level_boxes.empty:  # boxes of other levels do not say that this one has no place
        return [None] * count
    low, high = _extents_mm(level_boxes, affine, scan)
    reach = max(
        float(crop.middles_mm[1] - crop.middles_mm[0]) / 2 if count > 1 else 0.0,
        scan.spacing_mm[0] / 2,
    )
    middle = (config.side_px - 1) / 2
    edges = [
        (side[:, 1:] - crop.centre_yx_mm) / config.pixel_mm + middle
        for side in (low, high)
    ]
    pixels = np.round(np.concatenate(edges, axis=1), 2)
    heights = (low[:, 0] + high[:, 0]) / 2
    return [
        pixels[np.abs(heights - z) <= reach].ravel().tolist() for z in crop.middles_mm
    ]


def _extents_mm(
    boxes: pd.DataFrame, affine: _Affine, scan: TurnedScan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the lower and upper corners of fracture boxes along the turned axes."""
    corners = []
    for right in (0, 1):
        for lower in (0, 1):
            at = _to_lps(
                boxes["slice_index"],
                boxes["y"] + boxes["height"] * lower - 0.5,
                boxes["x"] + boxes["width"] * right - 0.5,
                affine,
            )
            corners.append(at @ scan.lps_to_mm[:3, :3].T + scan.lps_to_mm[:3, 3])
    stacked = np.stack(corners)
    return stacked.min(axis=0), stacked.max(axis=0)


def _within(
    box: LevelBox, boxes: pd.DataFrame, affine: _Affine
) -> npt.NDArray[np.bool_]:
    """Say which fracture boxes have their middle within a vertebra's box."""
    near = box.grown(3.0)
    lps = _centres_lps(boxes, affine)
    inside = (lps >= np.array(near.lower_lps_mm)) & (lps <= np.array(near.upper_lps_mm))
    return np.asarray(inside.all(axis=1))


def _centres_lps(boxes: pd.DataFrame, affine: _Affine) -> npt.NDArray[np.float64]:
    return _to_lps(
        boxes["slice_index"],
        boxes["y"] + boxes["height"] / 2 - 0.5,
        boxes["x"] + boxes["width"] / 2 - 0.5,
        affine,
    )


def _to_lps(
    index: pd.Series, row: pd.Series, column: pd.Series, affine: _Affine
) -> npt.NDArray[np.float64]:
    """Return the LPS mm of places given as slice index, row and column."""
    at = np.stack([np.asarray(part, dtype=float) for part in (index, row, column)], 1)
    return np.asarray(at @ affine[:3, :3].T + affine[:3, 3])
