"""Three ways to split the same slices, and how far each test set was seen in training.

A table of slices is the stream: one row per slice, study after study, head to feet. It
has the columns ``study_uid``, ``patient``, ``slice_index``, ``label``, ``fold`` and
``is_test``; a split holds row numbers of it. No images here.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.learning.splits import Split, is_in_split

Rows = npt.NDArray[np.intp]

FIRST_ATTEMPT: Final = "first_attempt"
RANDOM_SLICES: Final = "random_slices"
BY_PATIENT: Final = "by_patient"
VALIDATION_FOLD: Final = 0
_HELD_OUT: Final = 0.15  # for validation and for test, where patients cannot be split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProtocolSplit:
    """Which slices a protocol trains on, tunes on and reports on."""

    name: str
    title: str
    description: str
    training: Rows
    validation: Rows
    test: Rows

    def parts(self) -> dict[str, Rows]:
        """Return the row numbers by what they are for."""
        return {
            "training": self.training,
            "validation": self.validation,
            "test": self.test,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many slices a protocol takes; the same for all, where that is possible."""

    training: int
    validation: int
    test: int

    @classmethod
    def of(cls, honest: ProtocolSplit) -> "Sizes":
        """Return the sizes of the split by patient.

        Where that has no training or no test slices (a store of a few studies), 70, 15
        and 15 % of the slices.
        """
        counts = {name: rows.size for name, rows in honest.parts().items()}
        if counts["training"] and counts["test"]:
            return cls(**counts)
        total = sum(counts.values())
        held_out = max(1, round(_HELD_OUT * total)) if total else 0
        training = max(0, total - 2 * held_out)
        return cls(training=training, validation=held_out, test=held_out)


def first_attempt_split(slices: pd.DataFrame, sizes: Sizes) -> ProtocolSplit:
    """Take training, validation and test set each from the start of the stream.

    ``stream.take(n)`` does not use up what it takes, so that the second and the third
    call get slices of the first one again. No more are taken for test than for
    training, as in the first attempt.
    """
    stream = np.arange(len(slices))
    return ProtocolSplit(
        name=FIRST_ATTEMPT,
        title="First attempt",
        description=(
            "One unshuffled stream of slices; training, validation and test set are "
            "each taken from its start."
        ),
        training=stream[: sizes.training],
        validation=stream[: min(sizes.validation, sizes.training)],
        test=stream[: min(sizes.test, sizes.training)],
    )


def random_slice_split(slices: pd.DataFrame, sizes: Sizes, seed: int) -> ProtocolSplit:
    """Deal the slices out at random, each to one set, whosever they are."""
    order = np.random.default_rng(seed).permutation(len(slices))
    ends = np.cumsum([sizes.training, sizes.validation, sizes.test])
    training, validation, test = np.split(order[: ends[-1]], ends[:-1])
    return ProtocolSplit(
        name=RANDOM_SLICES,
        title="Slices at random",
        description=(
            "Each slice goes to one set by lot; slices of one patient go to several."
        ),
        training=np.sort(training),
        validation=np.sort(validation),
        test=np.sort(test),
    )


def patient_split(slices: pd.DataFrame) -> ProtocolSplit:
    """Test on the locked patients, validate on one fold, train on the others."""
    rows = {
        split: np.flatnonzero(is_in_split(slices, split, VALIDATION_FOLD))
        for split in Split
    }
    return ProtocolSplit(
        name=BY_PATIENT,
        title="By patient",
        description=(
            "A digest of the patient decides: the locked patients are for the test, "
            f"fold {VALIDATION_FOLD} of the others for validation, the rest trains."
        ),
        training=rows[Split.TRAINING],
        validation=rows[Split.VALIDATION],
        test=rows[Split.TEST],
    )


def build_splits(slices: pd.DataFrame, seed: int) -> tuple[ProtocolSplit, ...]:
    """Split a table of slices by all protocols, the honest one last."""
    honest = patient_split(slices)
    sizes = Sizes.of(honest)
    return (
        first_attempt_split(slices, sizes),
        random_slice_split(slices, sizes, seed),
        honest,
    )


def slices_seen_in_training(split: ProtocolSplit) -> float:
    """Return the share of the test slices that are training slices, NaN without any."""
    return _share(np.isin(split.test, split.training))


def patients_seen_in_training(split: ProtocolSplit, slices: pd.DataFrame) -> float:
    """Return the share of the test patients with a training slice, NaN without any."""
    patients = slices["patient"].to_numpy()
    tested = np.unique(patients[split.test])
    return _share(np.isin(tested, patients[split.training]))


def _share(flags: npt.NDArray[np.bool_]) -> float:
    return float(flags.mean()) if flags.size else math.nan
