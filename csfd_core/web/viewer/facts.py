"""What a viewer must know of a study before it shows a slice."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import HTTPException

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.inference.predict import read_prediction
from csfd_core.store.masks import PredictedMaskStore
from csfd_core.store.notes import PredictedMaskNote, SliceNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES, LEVELS, VertebraLevel

Mask = npt.NDArray[np.uint8]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

_AXES: Final = "zyx"
_LETTERS: Final = (("R", "L"), ("A", "P"), ("F", "H"))  # against and along LPS
_OBLIQUE: Final = 0.3  # share of a further direction that is told; 17 degrees
_KEPT: Final = 64  # masks whose facts are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlace:
    """Where a mask shows one vertebra, in voxels (slice, row, column).

    Attributes:
        level: Its name.
        centroid_zyx: The middle of its voxels.
        first_slice: The one nearest the head that shows it.
        last_slice: The one nearest the feet.
    """

    level: str
    centroid_zyx: tuple[float, float, float]
    first_slice: int
    last_slice: int


def level_places(mask: Mask) -> tuple[LevelPlace, ...]:
    """Return where C1 to C7 lie in a mask (slice, row, column), head to feet."""
    depth, _, width = mask.shape
    kinds = len(LEVELS) + 1
    counts, rows, columns = (np.zeros((depth, kinds)) for _ in range(3))
    for index, plane in enumerate(mask):
        pixels = np.flatnonzero(plane)
        labels = plane.ravel()[pixels]
        is_level = labels < kinds
        pixels, labels = pixels[is_level], labels[is_level]
        counts[index] = np.bincount(labels, minlength=kinds)
        rows[index] = np.bincount(labels, pixels // width, minlength=kinds)
        columns[index] = np.bincount(labels, pixels % width, minlength=kinds)
    levels = []
    for level in LEVELS:
        per_slice = counts[:, level]
        total = per_slice.sum()
        if not total:
            continue
        shown = np.flatnonzero(per_slice)
        z = float(per_slice @ np.arange(depth) / total)
        y, x = (float(sums[:, level].sum() / total) for sums in (rows, columns))
        levels.append(
            LevelPlace(
                level=level.name,
                centroid_zyx=(z, y, x),
                first_slice=int(shown[0]),
                last_slice=int(shown[-1]),
            )
        )
    return tuple(levels)


def box_of(volume: npt.NDArray[np.uint8]) -> Box:
    """Return the smallest box that holds all of a volume that is not 0.

    As (start, stop) of slices, rows and columns; of an empty volume, nothing of each.
    """
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        (filled,) = np.nonzero(volume.any(axis=others))
        spans.append((int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0))
    return spans[0], spans[1], spans[2]


def orientation_letters(geometry: VolumeGeometry) -> dict[str, dict[str, str]]:
    """Return which side of the patient each end of each axis is.

    R, L, A, P, H and F; of an oblique axis the nearest direction first: ``"AL"``.
    """
    affine = geometry.affine()
    letters = {}
    for axis, name in enumerate(_AXES):
        direction = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
        letters[name] = {"low": _letters(-direction), "high": _letters(direction)}
    return letters


def geometry_facts(stores: Stores, study_uid: str, *, is_blind: bool) -> dict[str, Any]:
    """Return the grid, the window, the levels and the evidence of a study as JSON.

    Args:
        stores: What the graph has made.
        study_uid: Of a study that has slices.
        is_blind: Leave out what a prediction says of fractures.

    Raises:
        StoreError: If the study's files are not what they should be.
    """
    note = require_slices(stores, study_uid)
    mask_note = matching_mask(stores, note)
    prediction = {} if is_blind else matching_prediction(stores, note) or {}
    window = note.conversion.window
    return {
        "study_uid": study_uid,
        "content_hash": note.content_hash,
        "shape_zyx": list(note.shape_zyx),
        "spacing_zyx_mm": list(note.spacing_zyx_mm),
        "affine_lps": [list(row) for row in note.affine_lps],
        "window": {"center_hu": window.center_hu, "width_hu": window.width_hu},
        "orientation": orientation_letters(note.geometry),
        "has_mask": mask_note is not None,
        "is_blind": is_blind,
        "levels": [] if mask_note is None else _levels(stores, mask_note),
        "evidence": _evidence(prediction),
        "findings": _findings(prediction),
    }


def require_slices(stores: Stores, study_uid: str) -> SliceNote:
    """Return the note of a study's slices.

    Raises:
        HTTPException: 404 where it has none.
    """
    note = stores.slices.read_note(study_uid)
    if note is None:
        raise HTTPException(
            404, "This study has no slices yet. They come once it has been converted."
        )
    return note


def matching_mask(stores: Stores, slices: SliceNote) -> PredictedMaskNote | None:
    """Return the note of a study's mask, unless it was made from other slices."""
    note = stores.predicted_masks.read_note(slices.study_uid)
    if note is None or note.content_hash != slices.content_hash:
        return None
    return note


def matching_prediction(stores: Stores, slices: SliceNote) -> dict[str, Any] | None:
    """Return the prediction of a study, unless it was made from other slices."""
    prediction = read_prediction(stores, slices.study_uid)
    if prediction is None:
        return None
    made_from = prediction.get("content_hash")
    return prediction if made_from in (None, slices.content_hash) else None


def _levels(stores: Stores, note: PredictedMaskNote) -> list[dict[str, Any]]:
    identity = (note.content_hash, note.model_id, note.fold)
    return [
        {
            "level": vertebra.level,
            "label": VertebraLevel[vertebra.level].value,
            "colour": LEVEL_COLOURS[vertebra.level],
            "centroid_zyx": list(vertebra.centroid_zyx),
            "first_slice": vertebra.first_slice,
            "last_slice": vertebra.last_slice,
        }
        for vertebra in _places(stores.predicted_masks, note.study_uid, identity)
    ]


@lru_cache(maxsize=_KEPT)
def _places(
    masks: PredictedMaskStore, study_uid: str, _identity: tuple[object, ...]
) -> tuple[LevelPlace, ...]:
    return level_places(masks.read_volume(study_uid))


def _evidence(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evidence of each level that has some."""
    evidence = prediction.get("evidence") or {}
    return {level: one for level, one in evidence.items() if one is not None}


def _findings(prediction: Mapping[str, Any]) -> list[str]:
    """Return the levels above the operating point, the most probable first."""
    probabilities = prediction.get("probabilities") or {}
    suspicious = prediction.get("suspicious") or []
    levels = [level for level in suspicious if level in LEVEL_NAMES]
    return sorted(levels, key=lambda level: -probabilities[level])


def _letters(direction: npt.NDArray[np.float64]) -> str:
    order = np.argsort(-np.abs(direction), kind="stable")
    return "".join(
        _LETTERS[axis][int(direction[axis] > 0)]
        for rank, axis in enumerate(order)
        if rank == 0 or abs(direction[axis]) > _OBLIQUE
    )
