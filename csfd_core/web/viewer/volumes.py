"""Slices of a study as a browser takes them: JPEGs, Hounsfield units, NIfTI."""

import gzip
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from fastapi import HTTPException

from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import SourceError
from csfd_core.inference.segment import write_nifti
from csfd_core.store.parquet import read_rows
from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores

MOST_SLICES: Final = 16  # whose Hounsfield units one request may ask for
_AT_ONCE: Final = 32  # JPEGs in memory; as many as lie together in a file
_FAST: Final = 1  # level of gzip: 16 ms a slice, less than half of the bytes
_INT16: Final = np.iinfo(np.int16)
_GONE: Final = (
    "The DICOM images of this study are not here any more: only the bone window can be "
    "shown."
)


def framed_jpegs(
    stores: Stores, study_uid: str, start: int, stop: int
) -> Iterator[bytes]:
    """Yield the JPEGs of slices ``start`` to before ``stop``, a few in memory at once.

    Each is preceded by its slice and its length, as 32-bit numbers, big-endian.

    Raises:
        StoreError: If the study's file cannot be read.
    """
    path = stores.slices.path(study_uid)
    first = start
    while first < stop:
        last = min(stop, (first // _AT_ONCE + 1) * _AT_ONCE)
        table, _ = read_rows(stores.root, path, first, last)
        for index, jpeg in enumerate(table.column("jpeg"), first):
            content = jpeg.as_py()
            yield struct.pack(">II", index, len(content)) + content
        first = last


def has_hounsfield(stores: Stores, sources: Sources, study_uid: str) -> bool:
    """Say whether the DICOM images of a study are still there."""
    if stores.metadata.read_record(study_uid) is None:
        return False
    return sources.study(study_uid) is not None


def read_hounsfield(
    stores: Stores, sources: Sources, study_uid: str, start: int, stop: int
) -> npt.NDArray[np.int16]:
    """Decode slices ``start`` to before ``stop``, head to feet: HU, shape (Z, H, W).

    What does not fit into 16 bits becomes the nearest that does.

    Raises:
        HTTPException: 404 where the images are gone, 409 where they were replaced.
        PixelDataError: If one cannot be decoded.
    """
    folder = sources.study(study_uid)
    if folder is None or stores.metadata.read_record(study_uid) is None:
        raise HTTPException(404, _GONE)
    _, headers = stores.metadata.read_headers(study_uid)
    paths = folder.paths()
    planes = []
    for header in headers[start:stop]:
        path = paths.get(header.file_name)
        try:
            raw = None if path is None else folder.source.read(path)
        except SourceError:
            raw = None
        if raw is None:
            raise HTTPException(404, _GONE)
        if len(raw) != header.size_bytes:
            raise HTTPException(
                409, "The images of this study are being replaced. Load the page again."
            )
        hounsfield = np.rint(DecodedSlice(raw, header).hounsfield())
        planes.append(np.clip(hounsfield, _INT16.min, _INT16.max).astype("<i2"))
    return np.stack(planes)


def packed(volume: npt.NDArray[np.generic]) -> bytes:
    """Return a volume as gzip, slice by slice, row by row."""
    return gzip.compress(np.ascontiguousarray(volume).tobytes(), _FAST, mtime=0)


def mask_as_nifti(stores: Stores, study_uid: str) -> bytes:
    """Return the predicted mask of a study as a ``.nii.gz`` file.

    Raises:
        StoreError: If the mask cannot be read.
    """
    note = stores.predicted_masks.read_note(study_uid)
    assert note is not None  # whoever asks has looked
    mask = stores.predicted_masks.read_volume(study_uid)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.nii.gz"
        write_nifti(path, mask, note.geometry)
        return path.read_bytes()
