"""The mask store: one Parquet file per study with a mask, one PNG per slice.

Columns: ``slice_index`` (0 = nearest the head) and ``mask``, an 8-bit PNG of the labels
in the grid of the slices; lossless. Labels 1 to 7 are C1 to C7; higher ones are kept.
"""

import io
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.errors import StoreError
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.note_index import read_notes_of
from csfd_core.store.notes import GivenMaskNote, PredictedMaskNote, StudyNote
from csfd_core.store.parquet import read_note_of, read_parquet, write_parquet
from csfd_core.store.withdrawn import WithdrawnStore

FORMAT: Final = 1
_SCHEMA: Final = pa.schema(
    [
        pa.field("slice_index", pa.int32(), nullable=False),
        pa.field("mask", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class MaskStore:
    """Masks of every study that has one, in one folder of a store."""

    location: Location
    folder: str

    def path(self, study_uid: str) -> str:
        """Return the path of a study's file, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return paths.of_study(self.folder, study_uid)

    def write(
        self, study_uid: str, mask: npt.NDArray[np.uint8], note: StudyNote
    ) -> int:
        """Write a mask, shape (Z, H, W), head to feet; return the size in bytes."""
        table = pa.table(
            {
                "slice_index": np.arange(len(mask), dtype=np.int32),
                "mask": [_encode_png(plane) for plane in mask],
            },
            schema=_SCHEMA,
        )
        path = self.path(study_uid)
        size = write_parquet(
            self.location, path, table, note.to_json(), compression="none"
        )
        WithdrawnStore(self.location).remove_if_withdrawn(study_uid, path)
        return size

    def read_volume(self, study_uid: str) -> npt.NDArray[np.uint8]:
        """Return the labels, shape (Z, H, W), head to feet.

        Raises:
            StoreError: If a slice does not have the recorded size.
        """
        table, note = read_parquet(self.location, self.path(study_uid))
        volume = np.stack([_decode_png(png.as_py()) for png in table.column("mask")])
        if volume.shape != tuple(note["shape_zyx"]):
            raise StoreError(
                f"The mask of {study_uid} has the shape {volume.shape}, recorded is "
                f"{tuple(note['shape_zyx'])}. Convert the study again."
            )
        return volume


class GivenMaskStore(MaskStore):
    """Masks that came with the studies."""

    def read_note(self, study_uid: str) -> GivenMaskNote | None:
        """Return the note of a study, ``None`` where it has no mask."""
        return read_note_of(self.location, self.path(study_uid), GivenMaskNote)

    def read_notes(self) -> dict[str, GivenMaskNote]:
        """Return the notes of all studies; only new and changed files are read."""
        return read_notes_of(self.location, self.folder, GivenMaskNote)


class PredictedMaskStore(MaskStore):
    """Masks that the segmentation has predicted."""

    def read_note(self, study_uid: str) -> PredictedMaskNote | None:
        """Return the note of a study, ``None`` where it was not segmented."""
        return read_note_of(self.location, self.path(study_uid), PredictedMaskNote)


def build_note(
    study_uid: str, geometry: VolumeGeometry, content_hash: str, mask_hash: str
) -> GivenMaskNote:
    """Return what is recorded in the footer of a study's given mask.

    Args:
        study_uid: The study.
        geometry: Grid of the slices, which the mask shares.
        content_hash: Of the slices.
        mask_hash: Of the mask's own file.
    """
    return GivenMaskNote(
        study_uid=study_uid,
        format=FORMAT,
        content_hash=content_hash,
        mask_hash=mask_hash,
        **asdict(geometry),
    )


def _encode_png(plane: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(plane).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _decode_png(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)), dtype=np.uint8)
