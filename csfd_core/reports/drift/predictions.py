"""What the serving model says of the studies that came since it was trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from csfd_core.classification.ensemble import Ensemble
from csfd_core.classification.manifest import read_manifest
from csfd_core.inference.predict import predict_stored, read_prediction
from csfd_core.reports.drift.reference import Serving
from csfd_core.store import paths
from csfd_core.store.stores import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPredictions:
    """Probabilities of new studies.

    Attributes:
        frame: One row per study (index ``study_uid``), a column per level and
            ``patient_overall``; NaN where the level was not assessed.
        made: How many were predicted now; the others were there.
        missing: Studies that cannot be predicted, and why, a sentence or nothing.
    """

    frame: pd.DataFrame
    made: int = 0
    missing: Sequence[str] = ()
    why_missing: str = field(default="")


def predict_new(
    stores: Stores, serving: Serving, study_uids: Sequence[str], tracking_uri: str
) -> NewPredictions:
    """Return what the model says of studies; predict those that it has not spoken of.

    A prediction that the store holds counts if the same model made it from the same
    content. The networks are opened only if one is missing.

    Raises:
        SettingsError: If MLflow cannot be used.
        StoreError: If the model's files are damaged.
    """
    if not study_uids:
        return NewPredictions(frame=pd.DataFrame())
    if not stores.root.exists(paths.MANIFEST):
        why = "there is no training manifest; csfd run makes one"
        return _none(study_uids, why)
    manifest = read_manifest(stores.root)
    if dict(manifest.crop) != dict(serving.crop):
        why = "the vertebrae are cut in another way than the model takes them"
        return _none(study_uids, why)
    with_crops = set(manifest.visible["study_uid"])
    ready = [uid for uid in study_uids if uid in with_crops]
    notes = {uid: _read_current(stores, serving, uid) for uid in ready}
    missing = [uid for uid, note in notes.items() if note is None]
    if missing:
        notes |= _predict(stores, missing, serving.open(stores, tracking_uri))
    frame = pd.DataFrame.from_dict(
        {uid: _seen(note) for uid, note in notes.items() if note is not None},
        orient="index",
    )
    left_out = [uid for uid in study_uids if uid not in with_crops]
    return NewPredictions(
        frame=frame,
        made=len(missing),
        missing=left_out,
        why_missing="no vertebra of them was cut yet, or none was found; csfd run cuts "
        "those of new studies"
        if left_out
        else "",
    )


def _none(study_uids: Sequence[str], why: str) -> NewPredictions:
    return NewPredictions(
        frame=pd.DataFrame(), missing=list(study_uids), why_missing=why
    )


def _predict(
    stores: Stores, study_uids: Sequence[str], ensemble: Ensemble
) -> dict[str, dict[str, Any] | None]:
    return {uid: predict_stored(stores, uid, ensemble) for uid in study_uids}


def _read_current(
    stores: Stores, serving: Serving, study_uid: str
) -> dict[str, Any] | None:
    """Return the prediction in the store if the model would say the same now."""
    note = read_prediction(stores, study_uid)
    if note is None:
        return None
    masks = stores.predicted_masks.read_note(study_uid)
    content, model = (None, None)
    if masks is not None:
        content, model = masks.content_hash, masks.model_id
    is_same = (
        note.get("model_ids") == serving.model_ids
        and note.get("content_hash") == content
        and (note.get("segmentation") or {}).get("model") == model
    )
    return note if is_same else None


def _seen(note: dict[str, Any]) -> dict[str, float]:
    """Return the probabilities of what was assessed."""
    return {n: float(p) for n, p in note["probabilities"].items() if p is not None}
