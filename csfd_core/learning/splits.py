"""What a study is for when the model of a fold is trained, decided in one place.

The locked test set and the folds follow from the patient alone
(``csfd_core.evaluation.folds``). The rule that keeps every score honest is made of
them here: no study of the locked test set ever trains, stops or calibrates a model, and
no study of the held-out fold trains the model of that fold.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.evaluation.folds import assign_folds


class Split(StrEnum):
    """What a study is for. The values stand in tables and cards."""

    TRAINING = "training"  # its weights are learnt from it
    VALIDATION = "validation"  # of the held-out fold: stops, calibrates, thresholds
    TEST = "test"  # of the locked test set: is only ever scored


LEARNT_FROM: Final = (Split.TRAINING, Split.VALIDATION)


class LearntModel(Protocol):
    """A model that says what it has learnt from, as every card does."""

    @property
    def fold(self) -> int | None:
        """The fold that was held out."""

    def studies(self, split: Split) -> Set[str]:
        """Return the studies that were used so."""


def is_in_split(
    assigned: pd.DataFrame, split: Split, fold: int
) -> npt.NDArray[np.bool_]:
    """Say which rows are for training, validation or test of one fold's model.

    Args:
        assigned: With the columns ``fold`` and ``is_test``, as ``assign_folds`` gives.
        split: What they are asked for.
        fold: Held out.

    Returns:
        Shape (rows,). Every row is in exactly one split.
    """
    is_test = assigned["is_test"].to_numpy(dtype=np.bool_)
    if split is Split.TEST:
        return is_test
    is_held_out = assigned["fold"].to_numpy() == fold
    is_own = is_held_out if split is Split.VALIDATION else ~is_held_out
    return np.asarray(~is_test & is_own, dtype=np.bool_)


def locked_studies(studies: pd.DataFrame) -> frozenset[str]:
    """Return the studies of the locked test set, by today's hash of each patient.

    Args:
        studies: With the columns ``study_uid`` and ``patient_key``.
    """
    assigned = assign_folds(studies)
    return frozenset(str(uid) for uid in assigned["study_uid"][assigned["is_test"]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """Studies that models have learnt from against the rule; sorted, without repeats.

    Attributes:
        locked: Of the locked test set, and yet trained on or validated with.
        held_out: Of the fold that a model held out, and yet trained on.
        locked_count: How many studies the locked test set has.
    """

    locked: tuple[str, ...]
    held_out: tuple[str, ...]
    locked_count: int

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.locked or self.held_out)


def leaks_of(models: Iterable[LearntModel], studies: pd.DataFrame) -> Leaks:
    """Return the studies that models must not have learnt from, and have.

    Args:
        models: By their cards.
        studies: With the columns ``study_uid`` and ``patient_key``.
    """
    locked = locked_studies(studies)
    assigned = assign_folds(studies)
    fold_of = dict(
        zip(assigned["study_uid"].astype(str), assigned["fold"], strict=True)
    )
    seen, crossed = set[str](), set[str]()
    for model in models:
        seen |= learnt_among([model], locked)
        crossed |= {
            uid
            for uid in model.studies(Split.TRAINING) - locked
            if fold_of.get(uid) == model.fold
        }
    return Leaks(
        locked=tuple(sorted(seen)),
        held_out=tuple(sorted(crossed)),
        locked_count=len(locked),
    )


def learnt_from(models: Iterable[LearntModel]) -> set[str]:
    """Return the studies that some model was trained, stopped or calibrated on."""
    return {uid for m in models for split in LEARNT_FROM for uid in m.studies(split)}


def learnt_among(models: Iterable[LearntModel], locked: Set[str]) -> set[str]:
    """Return the studies of a locked set that some model has learnt from: none."""
    return learnt_from(models) & locked
