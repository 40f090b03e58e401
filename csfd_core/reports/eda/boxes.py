"""Fracture boxes: which vertebra they lie on, where in the stack, and how large.

A box names no vertebra. It gets one where that is certain: from the mask of its slice,
or else where the study has a single fractured level.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from csfd_core.reports.eda.statistics import label_matrix
from csfd_core.reports.palette import UNKNOWN
from csfd_core.store.box_slices import place_boxes
from csfd_core.store.parquet import read_parquet
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

_READERS: Final = 8
FROM_MASK: Final = "mask"
FROM_LABELS: Final = "only fractured level"


def describe_boxes(
    boxes: pd.DataFrame, studies: pd.DataFrame, stores: Stores | None = None
) -> pd.DataFrame:
    """Say of every box where it lies.

    Args:
        boxes: Of ``read_boxes``; those of other studies than ``studies`` are left out.
        studies: Studies that count.
        stores: Where slices and masks are; without, positions along z are null.

    Returns:
        The columns of ``boxes`` and ``slice_index`` (0 = nearest the head; null where
        the study has no such slice), ``depth`` (0 at the first slice, 1 at the last),
        ``level``, ``level_from``, ``width_mm``, ``height_mm``.
    """
    by_uid = studies.set_index("study_uid")
    described = boxes[boxes["study_uid"].isin(by_uid.index)].reset_index(drop=True)
    uids = described["study_uid"]
    spacing = pd.to_numeric(uids.map(by_uid["pixel_spacing_mm"]), errors="coerce")
    described["width_mm"] = described["width"] * spacing
    described["height_mm"] = described["height"] * spacing
    described["slice_index"] = np.nan
    described["depth"] = np.nan
    described["level"] = uids.map(_only_levels(studies)).astype("str")
    described["level_from"] = pd.Series(
        FROM_LABELS, described.index, dtype="str"
    ).where(described["level"].notna())
    if stores is not None and len(described):
        _place_all(described, by_uid, stores)
    described["level"] = described["level"].fillna(UNKNOWN)
    return described


def boxes_per_level(boxes: pd.DataFrame) -> pd.DataFrame:
    """Summarize described boxes by level: count, position and size.

    Returns:
        ``level, boxes, studies, from_mask, median_depth, median_width_mm,
        median_height_mm``; one row per level and one for those of unknown level.
    """
    rows = []
    for level in (*LEVEL_NAMES, UNKNOWN):
        part = boxes[boxes["level"] == level]
        rows.append(
            {
                "level": level,
                "boxes": len(part),
                "studies": part["study_uid"].nunique(),
                "from_mask": int((part["level_from"] == FROM_MASK).sum()),
                "median_depth": part["depth"].median(),
                "median_width_mm": part["width_mm"].median(),
                "median_height_mm": part["height_mm"].median(),
            }
        )
    return pd.DataFrame(rows)


def _only_levels(studies: pd.DataFrame) -> "pd.Series[str]":
    """Return the level of the studies that have exactly one fractured level."""
    levels = label_matrix(studies)[list(LEVEL_NAMES)]
    single = (levels.sum(axis=1) == 1) & levels.notna().all(axis=1)
    chosen = levels[single]
    names = np.array(LEVEL_NAMES)[chosen.to_numpy().argmax(axis=1)]
    uids = studies.loc[chosen.index, "study_uid"].to_numpy()
    return pd.Series(names, index=uids, dtype="str")


def _place_all(boxes: pd.DataFrame, studies: pd.DataFrame, stores: Stores) -> None:
    groups = list(boxes.groupby("study_uid", sort=True))

    def place(group: tuple[object, pd.DataFrame]) -> pd.DataFrame:
        study_uid, part = str(group[0]), group[1]
        return _place(stores, study_uid, part, bool(studies.loc[study_uid, "has_mask"]))

    with ThreadPoolExecutor(_READERS) as pool:
        for placed in pool.map(place, groups):
            boxes.loc[placed.index, "slice_index"] = placed["slice_index"]
            boxes.loc[placed.index, "depth"] = placed["depth"]
            seen = placed["level"].dropna()
            boxes.loc[seen.index, "level"] = seen
            boxes.loc[seen.index, "level_from"] = FROM_MASK


def _place(
    stores: Stores, study_uid: str, part: pd.DataFrame, has_mask: bool
) -> pd.DataFrame:
    path = stores.metadata.path(study_uid)
    columns = ["instance_number", "sop_uid"]  # in the order of the slices
    table, note = read_parquet(stores.root, path, columns)
    numbers, sop_uids = (table.column(name).to_pylist() for name in columns)
    index = place_boxes(
        part,
        numbers,
        sop_uids,
        volume=note.get("volume", 1),
        has_several=bool(note.get("volumes")),
    )
    last = max(table.num_rows - 1, 1)
    placed = part[["x", "y", "width", "height"]].copy()
    placed["slice_index"], placed["depth"] = index, index / last
    placed["level"] = pd.Series(index=part.index, dtype="str")
    if has_mask and stores.masks.read_note(study_uid) is not None:
        read = _mask_reader(stores, study_uid, index.dropna().astype(int).tolist())
        placed["level"] = [_level_in(read, *row) for row in _corners(placed)]
    return placed


def _corners(placed: pd.DataFrame) -> list[tuple[float, ...]]:
    columns = ["slice_index", "x", "y", "width", "height"]
    return list(placed[columns].itertuples(index=False, name=None))


def _mask_reader(
    stores: Stores, study_uid: str, indices: Sequence[int]
) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Decode the masks of some slices only: most slices have no box."""
    table, _ = read_parquet(stores.root, stores.masks.path(study_uid), ["mask"])
    pngs = table.column("mask")
    planes = {
        index: np.asarray(Image.open(io.BytesIO(pngs[index].as_py())), dtype=np.uint8)
        for index in set(indices)
    }
    return planes.__getitem__


def _level_in(
    read: Callable[[int], npt.NDArray[np.uint8]],
    index: float,
    x: float,
    y: float,
    width: float,
    height: float,
) -> str | None:
    """Return the level that fills most of a box, ``None`` where the mask shows none."""
    if np.isnan(index):
        return None
    rows = slice(max(int(y), 0), max(int(np.ceil(y + height)), 0))
    columns = slice(max(int(x), 0), max(int(np.ceil(x + width)), 0))
    inside = read(int(index))[rows, columns]
    counts = np.bincount(inside.ravel(), minlength=len(LEVEL_NAMES) + 1)
    levels = counts[1 : len(LEVEL_NAMES) + 1]
    return LEVEL_NAMES[int(levels.argmax())] if levels.any() else None
