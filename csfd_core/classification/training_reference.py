"""The reference of a classifier, from the crops that its training has used."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from csfd_core.classification.manifest import LEAST_VISIBLE
from csfd_core.classification.reference import (
    MOST_STUDIES,
    Reference,
    learn_reference,
)
from csfd_core.classification.study_facts import (
    MeasuredStudy,
    SeenStudy,
    measure_study,
)
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.crops.cutting import CropConfig
from csfd_core.dicom.grids import Triple
from csfd_core.errors import StoreError
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL


def build_reference(
    stores: Stores,
    training: Iterable[str],
    held_out: Iterable[str],
    predictions: pd.DataFrame,
) -> Reference | None:
    """Measure studies of a training; ``None`` where there are too few.

    Args:
        stores: Where their crops are.
        training: Studies that the classifier has learnt from.
        held_out: Studies that have stopped and calibrated it.
        predictions: What it says of the held-out: ``study_uid``, ``level``, ``logit``.
    """
    chosen = _some(sorted(set(held_out)))
    logits = (
        predictions[predictions["level"] != OVERALL]
        .pivot_table(index="study_uid", columns="level", values="logit", dropna=False)
        .reindex(index=chosen, columns=list(LEVEL_NAMES))
    )
    return learn_reference(
        [measure_stored(stores, uid) for uid in _some(sorted(set(training)))],
        [measure_stored(stores, uid) for uid in chosen],
        logits.to_numpy(dtype=float),
    )


def measure_stored(stores: Stores, study_uid: str) -> MeasuredStudy:
    """Measure a study from its crops.

    Raises:
        StoreError: If there are none.
    """
    return measure_study(read_seen(stores, study_uid))


def read_seen(stores: Stores, study_uid: str) -> SeenStudy:
    """Read what a study shows: its vertebrae of which enough is visible.

    Raises:
        StoreError: If its vertebrae were not cut.
    """
    note = stores.crops.read_note(study_uid)
    if note is None:
        raise StoreError(
            f"The store has no crops of study {study_uid}. Materialize vertebra_crops."
        )
    facts = stores.crops.read_facts(study_uid).to_pandas().drop_duplicates("level")
    rows = facts[facts["visible_share"] >= LEAST_VISIBLE].assign(study_uid=study_uid)
    read: dict[Any, Vertebra] = dict(read_vertebrae(stores.crops, rows))
    levels = {index: str(level) for index, level in rows["level"].items()}
    return SeenStudy(
        vertebrae={levels[index]: vertebra for index, vertebra in read.items()},
        confidences=_by_level(rows, "confidence"),
        shares=_by_level(rows, "visible_share"),
        spacing_zyx_mm=note.spacing_zyx_mm or _spacing_of_mask(stores, study_uid),
        crop=CropConfig.from_note(note.crop),
    )


def _by_level(rows: pd.DataFrame, column: str) -> dict[str, float]:
    return dict(zip(rows["level"], rows[column].astype(float), strict=True))


def _spacing_of_mask(stores: Stores, study_uid: str) -> Triple | None:
    """Return the spacing of a study whose crops are older than their note of it."""
    mask = stores.predicted_masks.read_note(study_uid)
    return None if mask is None else mask.spacing_zyx_mm


def _some(study_uids: Sequence[str]) -> list[str]:
    """Return at most so many studies, evenly chosen."""
    if len(study_uids) <= MOST_STUDIES:
        return list(study_uids)
    at = np.linspace(0, len(study_uids) - 1, MOST_STUDIES).round().astype(int)
    return [study_uids[index] for index in at]
