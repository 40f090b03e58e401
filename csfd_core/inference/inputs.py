"""Inputs from anywhere: a folder, a source or a zip file, by one checked reader."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

from csfd_core.errors import SourceError
from csfd_core.inference.zips import checked_entries, opened_zip, read_pieces
from csfd_core.store.source import Source

_PREFIX: Final = "csfd-zip-"  # followed by the process that unpacks
_ZIP: Final = b"PK"
_ARCHIVES: Final = (".7z", ".bz2", ".rar", ".tar", ".tgz", ".gz", ".xz")


def require_there(location: str) -> None:
    """Require that a folder or file is there, before models are opened for it.

    Raises:
        SourceError: If there is nothing.
    """
    if "://" not in location and not Path(location).exists():
        raise SourceError(
            f"There is nothing at {location}. Give the folder of a study's DICOM "
            "files, a zip file of it, or a source."
        )


@contextmanager
def opened(location: str) -> Iterator[Source]:
    """Open a folder or source; unpack a zip file for as long as it is used.

    Raises:
        SourceError: If it cannot be read, or is neither.
    """
    if "://" not in location and Path(location).is_file():
        _require_zip(Path(location))
    elif not location.lower().endswith(".zip"):
        yield Source(location).require()
        return
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        _unpack(Path(location), folder)
        yield Source(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_zip(path: Path) -> None:
    """Say what a file is that is no zip file, and what to give instead.

    Raises:
        SourceError: If it is none.
    """
    if zipfile.is_zipfile(path):
        return
    name = path.name.lower()
    if name.endswith(".zip") and _begins(path) == _ZIP:
        return  # cut off, which unpacking tells
    if name.endswith(".zip"):
        told = "It is not written as a zip file. Give the folder of the study."
    elif name.endswith((".nii", ".nii.gz")):
        told = "It is a NIfTI file. Give the DICOM slices of the study."
    elif name.endswith(_ARCHIVES):
        told = "It is an archive, but no zip file. Unpack it, and give its folder."
    else:
        told = "It is a single file. Give the folder that holds all slices."
    raise SourceError(f"Cannot read {path} as an input: {told}")


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_ZIP))


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a zip file; no entry may leave the folder or fill the disk.

    Raises:
        SourceError: If one would, or the file cannot be read.
    """
    shown = f"the zip file {path}"
    try:
        with path.open("rb") as file, opened_zip(file, shown) as archive:
            for entry in checked_entries(archive, shown):
                _extract(path, archive, entry, folder)
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.") from error


def _extract(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path
) -> None:
    """Unpack one entry; no more of it than it says, whatever it holds."""
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    is_drive = bool(name.parts) and name.parts[0].endswith(":")
    if name.is_absolute() or is_drive or ".." in name.parts:
        raise SourceError(f"{path} has an entry that leaves its folder.")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for content in read_pieces(archive, entry):
            file.write(content)


def _sweep() -> None:
    """Remove what processes that were killed have unpacked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
