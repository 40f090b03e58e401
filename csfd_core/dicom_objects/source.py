"""What result objects are made from: headers of the slices, a mask and a prediction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.dicom_objects.kinds import result_set
from csfd_core.vocabulary import BONE_WINDOW, LEVELS

Plane: TypeAlias = npt.NDArray[np.generic]
Grey: TypeAlias = npt.NDArray[np.generic] | Callable[[int], Plane]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSource:
    """One study and what a model says of it.

    Attributes:
        headers: Of the slices without their pixels, the one nearest the head first.
        mask: Labels 1 to 7 (C1 to C7) in the grid of the slices, (slice, row, column).
        prediction: The JSON of the prediction.
        grey: Bone window in 8 bits, or else Hounsfield units, (slice, row, column); or
            what returns that of one slice; ``None``: there are no pictures.
        made_at: When the objects are made, UTC.
        previous: The set of objects that these take the place of.
        levels: Whose vertebrae are in the mask.
    """

    headers: Sequence[Dataset]
    mask: npt.NDArray[np.uint8]
    prediction: Mapping[str, Any]
    grey: Grey | None
    made_at: datetime
    previous: str | None = None
    levels: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Require one header for each slice of the mask, of its size.

        Raises:
            ValueError: If they do not fit.
        """
        slices, rows, columns = self.mask.shape
        first = self.headers[0] if self.headers else None
        if first is None or len(self.headers) != slices:
            raise ValueError(
                "`headers` and `mask` must have as many slices. Received: "
                f"{len(self.headers)} headers, {slices} slices of the mask."
            )
        if (first.Rows, first.Columns) != (rows, columns):
            raise ValueError(
                f"`mask` must have the size of the slices. Received: {rows} x "
                f"{columns}, slices of {first.Rows} x {first.Columns}."
            )
        labels = set(np.unique(self.mask[self.mask > 0]).tolist())
        levels = frozenset(level.name for level in LEVELS if level in labels)
        object.__setattr__(self, "levels", levels)

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID that the objects belong to."""
        return str(self.headers[0].StudyInstanceUID)

    @property
    def result_set(self) -> str:
        """What identifies the objects together."""
        return result_set(self.prediction)

    def plane(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Return the bone window of a slice, (row, column); ``None``: no picture."""
        if self.grey is None:
            return None
        plane = self.grey(index) if callable(self.grey) else self.grey[index]
        if plane.dtype == np.uint8:
            return np.asarray(plane, dtype=np.uint8)
        return window_to_uint8(np.asarray(plane, dtype=np.float32), BONE_WINDOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewBox:
    """A box that a reader has drawn, in pixels; (0, 0) is the first one's corner."""

    level: str
    slice_index: int  # 0 is nearest the head
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReview:
    """What a reader has signed.

    Attributes:
        reader: Their name.
        signed_at: UTC.
        saw_ai: They had seen what the model says.
        levels: By level, ``fractured``, ``whole``, ``not_assessable`` or ``None``.
        boxes: That they have drawn.
        comment: In their words; may be empty.
        organization: That answers for them. Only with it the report is VERIFIED: the
            standard wants the organization named.
        reference: Identifies the review where the same reader signs twice.
    """

    reader: str
    signed_at: datetime
    saw_ai: bool
    levels: Mapping[str, str | None]
    boxes: Sequence[ReviewBox] = field(default_factory=tuple)
    comment: str = ""
    organization: str = ""
    reference: str = ""

    @property
    def identity(self) -> str:
        """What tells this review from all others of its study."""
        parts = (self.reference or self.signed_at.isoformat(), self.reader)
        return "\0".join(parts)
