"""Where the fracture boxes of a study lie: on which slices, or on none."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from csfd_core.store.labels import SLICE_COLUMN
from csfd_core.text import count

_NAMED: Final = 5  # studies, as examples


def place_boxes(
    boxes: pd.DataFrame,
    numbers: Sequence[int | None],
    sop_uids: Sequence[str | None],
    *,
    volume: int = 1,
    has_several: bool = False,
) -> pd.Series:
    """Return the index of the slice of each box, NaN where it lies on none.

    Slices are known by their instance numbers. Several volumes of a study have the same
    numbers: there a box lies on the slice whose UID it tells, and one that tells none
    on the volume that is read unless another is chosen.

    Args:
        boxes: Of one study, as in ``BoxTable``.
        numbers: Instance number of each slice, head to feet.
        sop_uids: SOPInstanceUID of each slice.
        volume: Number of the volume that was read.
        has_several: The study has others.
    """
    index_of = {number: index for index, number in enumerate(numbers)}
    by_number = boxes["slice_number"].map(index_of if volume == 1 else {})
    if not has_several:
        return by_number.astype("float64")
    index_of_uid = {uid: index for index, uid in enumerate(sop_uids)}
    told = boxes[SLICE_COLUMN]
    by_uid = told.map(index_of_uid)
    return by_number.where(told.isna(), by_uid).astype("float64")


@dataclass(frozen=True, slots=True)
class BoxRoom:
    """Where boxes of a study can lie: in its pixels, on its slices."""

    rows: int
    columns: int
    slice_numbers: Collection[int | None]


def tell_boxes_outside(boxes: pd.DataFrame, rooms: Mapping[str, BoxRoom]) -> list[str]:
    """Name studies with boxes outside the image or on slices that do not exist.

    Args:
        boxes: As in ``BoxTable``.
        rooms: By study; boxes of others are not looked at.
    """
    odd = sorted(
        {
            str(uid)
            for uid, of_study in boxes.groupby("study_uid")
            if (room := rooms.get(str(uid))) is not None and _is_outside(of_study, room)
        }
    )
    if not odd:
        return []
    named = ", ".join(odd[:_NAMED]) + (", ..." if odd[_NAMED:] else "")
    studies = count(len(odd), "study")
    return [
        f"Fracture boxes of {studies} lie outside the image or on slices that do not "
        f"exist: {named}."
    ]


def _is_outside(boxes: pd.DataFrame, room: BoxRoom) -> bool:
    right, bottom = boxes["x"] + boxes["width"], boxes["y"] + boxes["height"]
    inside = (boxes[["x", "y"]].min(axis=1) > -1) & (right < room.columns + 1)
    inside &= bottom < room.rows + 1  # boxes are rounded
    return not bool((inside & boxes["slice_number"].isin(room.slice_numbers)).all())
