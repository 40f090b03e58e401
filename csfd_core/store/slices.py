"""The slice store: one Parquet file per study, one JPEG per slice, head to feet.

Columns: ``slice_index`` (0 = nearest the head), ``instance_number``, ``z_mm``, ``jpeg``
(8-bit grey scale). The note in the footer tells the geometry, the window, the quality
and the content that the slices were made from.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg

from csfd_core.dicom.geometry import VolumeGeometry, positions_along_normal_mm
from csfd_core.dicom.headers import SliceHeader
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import StoreError
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.note_index import read_notes_of
from csfd_core.store.notes import ConversionNote, SliceNote
from csfd_core.store.parquet import (
    read_note,
    read_note_of,
    read_parquet,
    read_rows,
    write_parquet,
)
from csfd_core.vocabulary import BONE_WINDOW, JPEG_QUALITY, Window

_FORMAT: Final = 1  # raised when files of an older csfd must be written anew
_SCHEMA: Final = pa.schema(
    [
        pa.field("slice_index", pa.int32(), nullable=False),
        pa.field("instance_number", pa.int32()),
        pa.field("z_mm", pa.float64(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionSettings:
    """How slices become JPEGs. Slices made with other settings are made again."""

    window: Window = BONE_WINDOW
    jpeg_quality: int = JPEG_QUALITY

    def __post_init__(self) -> None:
        """Require a quality that the encoder knows."""
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(
                "`jpeg_quality` must be from 1 to 100. Received: "
                f"jpeg_quality={self.jpeg_quality}."
            )

    def to_note(self) -> ConversionNote:
        """Return the settings as they are recorded with the slices."""
        return ConversionNote(
            format=_FORMAT, jpeg_quality=self.jpeg_quality, window=self.window
        )


def encode_slice(decoded: DecodedSlice, settings: ConversionSettings) -> bytes:
    """Turn a slice into the JPEG of its window."""
    grey = decoded.grey_levels(settings.window)
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(grey)[:, :, None],
        quality=settings.jpeg_quality,
        colorspace="GRAY",
    )
    return jpeg


@dataclass(frozen=True, slots=True)
class SliceStore:
    """Slices of every study under one store location."""

    location: Location

    def path(self, study_uid: str) -> str:
        """Return the path of a study's file, relative to the store.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        return paths.of_study(paths.SLICES, study_uid)

    def write(
        self,
        study_uid: str,
        headers: Sequence[SliceHeader],
        jpegs: Sequence[bytes],
        note: SliceNote,
    ) -> int:
        """Write the slices of a study, head to feet, and return the size in bytes.

        Args:
            study_uid: Names the file.
            headers: Of the slices, head to feet.
            jpegs: Of the same slices.
            note: From ``build_note``.
        """
        table = pa.table(
            {
                "slice_index": np.arange(len(headers), dtype=np.int32),
                "instance_number": [header.instance_number for header in headers],
                "z_mm": positions_along_normal_mm(headers),
                "jpeg": jpegs,
            },
            schema=_SCHEMA,
        )
        # JPEGs do not compress further.
        path = self.path(study_uid)
        return write_parquet(
            self.location, path, table, note.to_json(), compression="none"
        )

    def read_note(self, study_uid: str) -> SliceNote | None:
        """Return the note of a study, ``None`` where it has no slices."""
        return read_note_of(self.location, self.path(study_uid), SliceNote)

    def read_notes(self) -> dict[str, SliceNote]:
        """Return the notes of all studies; only new and changed files are read."""
        return read_notes_of(self.location, paths.SLICES, SliceNote)

    def read_table(self, study_uid: str) -> pa.Table:
        """Return all columns of a study."""
        return read_parquet(self.location, self.path(study_uid))[0]

    def read_instance_numbers(self, study_uid: str) -> list[int | None]:
        """Return the instance number of each slice, head to feet, without the JPEGs."""
        path = self.path(study_uid)
        table, _ = read_parquet(self.location, path, ["instance_number"])
        return list(table.column("instance_number").to_pylist())

    def read_volume(
        self, study_uid: str, start: int = 0, stop: int | None = None
    ) -> npt.NDArray[np.uint8]:
        """Decode slices ``start`` to before ``stop``: grey levels, shape (Z, H, W).

        Raises:
            StoreError: If a slice does not decode to its recorded size.
        """
        path = self.path(study_uid)
        depth, height, width = read_note(self.location, path)["shape_zyx"]
        stop = depth if stop is None else min(stop, depth)
        table, _ = read_rows(self.location, path, start, stop)
        volume = np.empty((stop - start, height, width), dtype=np.uint8)
        for index, jpeg in enumerate(table.column("jpeg")):
            volume[index] = _decode(jpeg.as_py(), study_uid, (height, width))
        return volume

    def verify(self, study_uid: str) -> tuple[int, int, int]:
        """Decode every slice and return the shape (Z, H, W).

        Raises:
            StoreError: If a slice does not decode to its recorded size, or one is lost.
        """
        table, note = read_parquet(self.location, self.path(study_uid))
        depth, height, width = note["shape_zyx"]
        if table.num_rows != depth:
            raise StoreError(
                f"Study {study_uid} has {table.num_rows} slices in the store, recorded "
                f"are {depth}. Convert it again."
            )
        for jpeg in table.column("jpeg"):
            _decode(jpeg.as_py(), study_uid, (height, width))
        return depth, height, width


def build_note(
    study_uid: str,
    geometry: VolumeGeometry,
    settings: ConversionSettings,
    content_hash: str,
) -> SliceNote:
    """Return what is recorded in the footer of a study's slices."""
    return SliceNote(
        study_uid=study_uid,
        content_hash=content_hash,
        conversion=settings.to_note(),
        encoder=f"simplejpeg {simplejpeg.__version__}",
        **asdict(geometry),
    )


def _decode(
    jpeg: bytes, study_uid: str, expected: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    try:
        grey: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, colorspace="GRAY")
    except ValueError as error:
        raise StoreError(
            f"A slice of {study_uid} is no readable JPEG. Convert the study again."
        ) from error
    if grey.shape[:2] != expected:
        raise StoreError(
            f"A slice of {study_uid} decodes to {grey.shape[:2]}, recorded is "
            f"{expected}. Convert the study again."
        )
    return grey[:, :, 0]
