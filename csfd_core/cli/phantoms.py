"""Which phantoms a command writes: so that enough of them are of the locked test set.

Who is in that set follows from a digest of the patient alone. To choose phantoms by it
says nothing of what is drawn in them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, groupby

from csfd_core.dicom.headers import PATIENT_KEY_LENGTH
from csfd_core.evaluation.folds import is_test
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.study import plan_study


def with_locked(config: PhantomConfig, locked: int) -> list[PhantomConfig]:
    """Return what to draw, so that some studies are of the locked test set.

    Where the first studies hold too few of them, later ones take the place of the last
    others.

    Args:
        config: How many studies, of which seed.
        locked: Of the studies, at least so many are of the locked test set.

    Returns:
        One for each run of studies that follow each other.
    """
    wanted = min(locked, config.studies)
    first = range(config.first, config.first + config.studies)
    if sum(_is_locked(config, index) for index in first) >= wanted:
        return [config]
    room = {True: wanted, False: config.studies - wanted}
    chosen = []
    for index in count(config.first):
        kind = _is_locked(config, index)
        if room[kind]:
            room[kind] -= 1
            chosen.append(index)
        if not any(room.values()):
            break
    return [replace(config, first=run[0], studies=len(run)) for run in _runs_of(chosen)]


def _is_locked(config: PhantomConfig, index: int) -> bool:
    # The PatientID of a phantom is the end of its study's UID, and headers tell the
    # patient by a digest of it.
    patient = plan_study(config, index).study_uid.rsplit(".", 1)[1]
    return is_test(hashlib.sha256(patient.encode()).hexdigest()[:PATIENT_KEY_LENGTH])


def _runs_of(indices: list[int]) -> Iterator[list[int]]:
    for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0]):
        yield [index for _, index in run]
