"""Kinds of data, and what a reader is told of each: it decides what may be concluded.

What rests on several kinds is mixed: no phantom passes for real.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

NOT_CLINICAL: Final = "Research software; not for clinical use."


class DataKind(StrEnum):
    """Where studies come from."""

    PHANTOM = "phantom"  # computed, of no patient
    MIXED = "mixed"  # some are phantoms, some of patients
    REAL = "real"

    @classmethod
    def joined(cls, kinds: Iterable["DataKind | str"]) -> "DataKind":
        """Return the kind of everything together.

        Raises:
            ValueError: If there is none, or one is unknown.
        """
        distinct = {cls(kind) for kind in kinds}
        if not distinct:
            raise ValueError("`kinds` must hold at least one kind of data.")
        return distinct.pop() if len(distinct) == 1 else cls.MIXED

    @property
    def described(self) -> str:
        """What the data are, as a report's head says it."""
        return _TITLES[self]

    @property
    def subject(self) -> str:
        """What was scanned, in the singular."""
        return _SUBJECTS[self]

    @property
    def banner(self) -> str | None:
        """The warning above a report on such data; ``None``: none is needed."""
        return _BANNERS.get(self)

    @property
    def caution(self) -> str:
        """What heads a page with predictions by a model trained on such data."""
        return f"{NOT_CLINICAL} {_CAUTIONS[self]}"

    @property
    def notice(self) -> str:
        """What goes with a prediction by a model that was trained on such data."""
        return f"{NOT_CLINICAL}{_TRAINED_ON.get(self, '')}"


_TITLES: Final = {
    DataKind.PHANTOM: "synthetic phantom",
    DataKind.MIXED: "studies and a synthetic phantom together",
    DataKind.REAL: "real studies as found in the source",
}
_SUBJECTS: Final = {
    DataKind.PHANTOM: "phantom",
    DataKind.MIXED: "subject",
    DataKind.REAL: "patient",
}
_BANNERS: Final = {
    DataKind.PHANTOM: "Synthetic phantom: computed images and labels of no patient. "
    "Nothing here has a clinical meaning.",
    DataKind.MIXED: "Part of these data is a synthetic phantom of no patient. The "
    "numbers have no clinical meaning.",
}
_CAUTIONS: Final = {
    DataKind.PHANTOM: "The model has learnt from a synthetic phantom alone, computed "
    "images of no patient: what it says here means nothing clinically.",
    DataKind.MIXED: "The model has learnt partly from a synthetic phantom, computed "
    "images of no patient: what it says here means nothing clinically.",
    DataKind.REAL: "The model has learnt from real studies; a radiologist has to read "
    "the images all the same.",
}
_TRAINED_ON: Final = {
    DataKind.PHANTOM: " The model was trained on a synthetic phantom.",
    DataKind.MIXED: " The model was trained partly on a synthetic phantom.",
}
