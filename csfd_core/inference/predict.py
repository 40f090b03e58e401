"""Probabilities of fractures for studies: from DICOM, or from what a store holds.

Each study gives one JSON file, the same from either.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csfd_core.classification.ensemble import Ensemble, suspicion
from csfd_core.classification.manifest import LEAST_VISIBLE, Manifest
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.crops.study import MaskedStudy, cut_vertebrae, visible_shares
from csfd_core.inference.segment import (
    SegmentedScan,
    segment_scans,
    write_file,
)
from csfd_core.ingest.outcomes import Outcome
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.store import paths
from csfd_core.store.notes import LevelNote, PredictedMaskNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedStudy:
    """What became of one study."""

    study_uid: str
    action: Outcome  # REFUSED where there is nothing else
    message: str = ""  # why it was refused
    probabilities: Mapping[str, float] = field(default_factory=dict)
    suspicious: tuple[str, ...] = ()  # above the operating point
    not_seen: tuple[str, ...] = ()  # levels that stand on their prevalence alone
    flags: tuple[str, ...] = ()
    seconds: float = 0.0


def predict_input(
    place: str, out: Path, predictor: VertebraPredictor, ensemble: Ensemble
) -> Iterator[PredictedStudy]:
    """Predict every study of a DICOM folder, zip file or source.

    Raises:
        SourceError: If the input cannot be read, or holds no files.
        SettingsError: If the results cannot be written.
    """
    for found in segment_scans(place, predictor):
        yield _predict_scan(found, out, predictor, ensemble)


def predict_stored(
    stores: Stores, manifest: Manifest, study_uid: str, ensemble: Ensemble
) -> dict[str, Any]:
    """Predict a study from its crops, and keep the result in the store."""
    rows = manifest.visible
    own = rows[rows["study_uid"] == study_uid]
    started = time.perf_counter()
    found = dict(read_vertebrae(stores.crops, own))
    vertebrae = {str(own.at[place, "level"]): v for place, v in found.items()}
    probabilities = ensemble.predict(vertebrae)
    masks = stores.predicted_masks.read_note(study_uid)
    note = _note(
        study_uid,
        probabilities,
        ensemble,
        not_seen=[name for name in LEVEL_NAMES if name not in vertebrae],
        segmentation=_segmentation_of(masks),
        seconds={"classify": round(time.perf_counter() - started, 3)},
    )
    note["content_hash"] = None if masks is None else masks.content_hash
    path = paths.of_study(paths.PREDICTIONS, study_uid, ".json")
    stores.root.write(path, _to_bytes(note))
    return note


def _predict_scan(
    found: SegmentedScan, out: Path, predictor: VertebraPredictor, ensemble: Ensemble
) -> PredictedStudy:
    scan, prediction = found.scan, found.prediction
    if prediction is None or scan.geometry is None or found.grey is None:
        return PredictedStudy(
            study_uid=found.study_uid, action=Outcome.REFUSED, message=found.refusal
        )
    started = time.perf_counter()
    levels = prediction.review.notes()
    shares = visible_shares(levels)
    study = MaskedStudy(
        grey=found.grey, mask=prediction.mask, geometry=scan.geometry, levels=levels
    )
    vertebrae = {
        crop.level: Vertebra(images=crop.images, masks=crop.masks, boxes=None)
        for crop in cut_vertebrae(study, ensemble.crop)
        if shares.get(crop.level, 1.0) >= LEAST_VISIBLE
    }
    probabilities = ensemble.predict(vertebrae)
    not_seen = [name for name in LEVEL_NAMES if name not in vertebrae]
    seconds = {
        "read": round(found.read_s, 3),
        **prediction.seconds,
        "classify": round(time.perf_counter() - started, 3),
    }
    note = _note(
        scan.study_uid,
        probabilities,
        ensemble,
        not_seen=not_seen,
        segmentation={
            "model": predictor.bundle.name,
            "standing": None,
            "levels": _to_json(levels),
            "flags": list(prediction.review.flags),
        },
        seconds=seconds,
    )
    note["content_hash"] = scan.content_hash
    note["warnings"] = [finding.code for finding in scan.findings]
    write_file(out / f"{scan.study_uid}.json", _to_bytes(note))
    return PredictedStudy(
        study_uid=scan.study_uid,
        action=Outcome.PREDICTED,
        probabilities=probabilities,
        suspicious=tuple(note["suspicious"]),
        not_seen=tuple(not_seen),
        flags=prediction.review.flags,
        seconds=sum(seconds.values()),
    )


def _note(
    study_uid: str,
    probabilities: Mapping[str, float],
    ensemble: Ensemble,
    *,
    not_seen: list[str],
    segmentation: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    return {
        "study_uid": study_uid,
        "model": ensemble.name,
        "model_version": ensemble.version,
        "model_ids": ensemble.model_ids,
        "trained_on": ensemble.data_kind,
        "probabilities": {name: round(p, 6) for name, p in probabilities.items()},
        "thresholds": ensemble.thresholds,
        "suspicious": suspicion(probabilities, ensemble.thresholds),
        "not_seen": not_seen,
        "segmentation": segmentation,
        "seconds": seconds,
        "notice": ensemble.data_kind.notice,
    }


def _segmentation_of(masks: PredictedMaskNote | None) -> dict[str, Any]:
    if masks is None:
        return {"model": None, "standing": None, "levels": {}, "flags": []}
    return {
        "model": masks.model_id,
        "standing": masks.standing,
        "levels": _to_json(masks.levels),
        "flags": list(masks.flags),
    }


def _to_json(levels: Mapping[str, LevelNote]) -> dict[str, Any]:
    return {name: level.model_dump(mode="json") for name, level in levels.items()}


def _to_bytes(note: Mapping[str, Any]) -> bytes:
    return (json.dumps(note, indent=2) + "\n").encode()
