"""Which fold a patient belongs to, and who is in the locked test set.

Both follow from a digest of the patient alone. They are the same on every machine and
never change when studies are added; nobody chooses them.
"""

import hashlib
from typing import Final

import pandas as pd

from csfd_core.vocabulary import FOLD_COUNT

TEST_PERCENT: Final = 15
_TEST_SALT: Final = "csfd locked test set:"  # apart from the folds


def fold_of(patient_key: str, fold_count: int = FOLD_COUNT) -> int:
    """Return the fold of a patient, 0 to before ``fold_count``."""
    return _number(patient_key) % fold_count


def is_test(patient_key: str) -> bool:
    """Say whether a patient is in the locked test set, which no model ever sees."""
    return _number(_TEST_SALT + patient_key) % 100 < TEST_PERCENT


def key_of(study_uid: str, patient_key: object) -> str:
    """Return what stands for the patient: the PatientID's digest, else the study."""
    is_known = isinstance(patient_key, str) and bool(patient_key)
    return str(patient_key) if is_known else study_uid


def assign_folds(studies: pd.DataFrame) -> pd.DataFrame:
    """Return the fold of each study.

    Args:
        studies: With the columns ``study_uid`` and ``patient_key``.

    Returns:
        Columns ``study_uid``, ``patient`` (what stands for the patient), ``fold`` and
        ``is_test``; a test study has a fold as well, which counts for nothing.
    """
    pairs = zip(studies["study_uid"], studies["patient_key"], strict=True)
    patients = [key_of(str(uid), key) for uid, key in pairs]
    return pd.DataFrame(
        {
            "study_uid": studies["study_uid"].to_numpy(),
            "patient": patients,
            "fold": [fold_of(patient) for patient in patients],
            "is_test": [is_test(patient) for patient in patients],
        }
    )


def _number(text: str) -> int:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big")
