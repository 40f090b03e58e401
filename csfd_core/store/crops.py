"""The crop store: one Parquet file per study, one row per crop of a vertebra.

Pixels are raw bytes without compression: on a local disk a reader gets them as views of
the page cache, row by row, without decoding and without holding more than it uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.notes import CropNote
from csfd_core.store.parquet import read_note_of, read_parquet, write_parquet
from csfd_core.store.withdrawn import WithdrawnStore

_SCHEMA: Final = pa.schema(
    [
        pa.field("level", pa.string(), nullable=False),
        pa.field("crop_index", pa.int32(), nullable=False),  # 0: nearest the head
        pa.field("z_mm", pa.float64(), nullable=False),  # below the first slice
        pa.field("label", pa.int8()),  # 1: the vertebra is fractured
        pa.field("slice_label", pa.int8()),  # 1: a fracture box lies on this slice
        pa.field("boxes", pa.list_(pa.float32())),  # row, column, row, column in pixels
        pa.field("visible_share", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),  # of the segmentation
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("is_test", pa.bool_(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # uint8 (channels, side, side)
        pa.field("mask", pa.binary(), nullable=False),  # uint8 (side, side), 0 or 255
    ]
)


@dataclass(frozen=True, slots=True)
class CropStore:
    """Crops of every study under one store location."""

    location: Location

    def path(self, study_uid: str) -> str:
        """Return the path of a study's file, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return paths.of_study(paths.CROPS, study_uid)

    def write(
        self, study_uid: str, rows: Sequence[dict[str, Any]], note: CropNote
    ) -> int:
        """Write the crops of a study and return the size in bytes.

        Args:
            study_uid: Names the file.
            rows: One per crop, with the columns of the store.
            note: Where they come from.
        """
        columns = {name: [row[name] for row in rows] for name in _SCHEMA.names}
        table = pa.table(columns, schema=_SCHEMA)
        path = self.path(study_uid)
        size = write_parquet(
            self.location, path, table, note.to_json(), compression="none"
        )
        WithdrawnStore(self.location).remove_if_withdrawn(study_uid, path)
        return size

    def remove(self, study_uid: str) -> None:
        """Remove the crops of a study if there are any."""
        self.location.remove(self.path(study_uid))

    def read_note(self, study_uid: str) -> CropNote | None:
        """Return the note of a study, ``None`` where it has no crops."""
        return read_note_of(self.location, self.path(study_uid), CropNote)

    def read_facts(self, study_uid: str) -> pa.Table:
        """Return all columns but the pixels."""
        names = [name for name in _SCHEMA.names if name not in ("image", "mask")]
        return read_parquet(self.location, self.path(study_uid), names)[0]

    def read_level(
        self, study_uid: str, level: str
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return the crops of one vertebra.

        Returns:
            Grey levels (K, channels, side, side) and masks (K, side, side); K is 0
            where the study does not show the level.
        """
        matching = [
            (images, masks)
            for name, images, masks in self.levels(study_uid)
            if name == level
        ]
        if matching:
            return matching[0]
        note = self.read_note(study_uid)
        assert note is not None  # as ``levels`` has read the file
        side, channels = note.crop["side_px"], 2 * note.crop["neighbours"] + 1
        return (
            np.empty((0, channels, side, side), dtype=np.uint8),
            np.empty((0, side, side), dtype=np.uint8),
        )

    def levels(
        self, study_uid: str
    ) -> Iterator[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        """Yield each level of a study with its grey levels and masks."""
        names = ["level", "image", "mask"]
        table, note = read_parquet(self.location, self.path(study_uid), names)
        side = note["crop"]["side_px"]
        levels = table.column("level").to_pylist()
        for name in dict.fromkeys(levels):
            at = [index for index, level in enumerate(levels) if level == name]
            part = table.slice(at[0], len(at))
            yield name, _pixels(part, "image", side), _pixels(part, "mask", side)[:, 0]


def _pixels(table: pa.Table, column: str, side: int) -> npt.NDArray[np.uint8]:
    """Return (rows, channels, side, side) without copying where rows lie together."""
    chunk = table.column(column).combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):
        chunk = chunk.chunk(0)
    offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)
    start = int(offsets[chunk.offset])
    stop = int(offsets[chunk.offset + len(chunk)])
    flat = np.frombuffer(chunk.buffers()[2], dtype=np.uint8)[start:stop]
    return flat.reshape(len(chunk), -1, side, side)
