"""Inputs from anywhere: a folder, a source or a zip file, by one checked reader."""

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

from csfd_core.dicom.limits import MEGABYTE
from csfd_core.errors import SourceError
from csfd_core.settings import LimitSettings
from csfd_core.store.source import Source

_PREFIX: Final = "csfd-zip-"  # followed by the process that unpacks
_STEP: Final = MEGABYTE
_ZIP: Final = b"PK"
_SLASHES: Final = ("/", "\\")  # Windows programs write backslashes, also at the end
_ENCRYPTED: Final = 0x1  # PKWARE's APPNOTE.TXT section 4.4.4, bit 0
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_ARCHIVES: Final = (".7z", ".bz2", ".rar", ".tar", ".tgz", ".gz", ".xz")


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
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if e.filename[-1:] not in _SLASHES]
            _require_modest(path, entries)
            for entry in entries:
                _extract(path, archive, entry, folder)
    except _DAMAGED as error:
        raise SourceError(
            f"The zip file {path} is damaged. Fetch it again, or unpack it with "
            "another program and give the folder."
        ) from error
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.") from error


def _require_modest(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    limits = LimitSettings.read()
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise SourceError(
            f"The zip file {path} is protected by a password. Unpack it first, and "
            "give the folder."
        )
    size = sum(entry.file_size for entry in entries)
    if len(entries) > limits.max_zip_files:
        raise SourceError(
            f"{path} holds {len(entries):,} files, more than {limits.max_zip_files:,} "
            "(CSFD_MAX_ZIP_FILES)."
        )
    if size > limits.max_zip_mb * MEGABYTE:
        raise SourceError(
            f"{path} unpacks to {size // MEGABYTE:,} MB, more than "
            f"{limits.max_zip_mb:,} (CSFD_MAX_ZIP_MB)."
        )
    most = limits.max_zip_ratio
    if any(e.file_size > max(MEGABYTE, e.compress_size * most) for e in entries):
        raise SourceError(
            f"{path} has a file that grows more than {most} times when it is unpacked "
            "(CSFD_MAX_ZIP_RATIO)."
        )


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
    left = entry.file_size
    with archive.open(entry) as packed, target.open("wb") as file:
        while left and (content := packed.read(min(_STEP, left))):
            file.write(content)
            left -= len(content)


def _sweep() -> None:
    """Remove what processes that were killed have unpacked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
