"""Zip files from outside: what is looked at before, and while, one is unpacked.

The directory of the file is checked before any entry is read: how many there are, what
they grow to, whether they can be read at all. Entries give no more than they declare.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from csfd_core.dicom.limits import MEGABYTE
from csfd_core.errors import SourceError
from csfd_core.settings import LimitSettings

DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    struct.error,
    ValueError,
)
_STEP: Final = MEGABYTE
_SLASHES: Final = ("/", "\\")  # Windows programs write backslashes, also at the end
_ENCRYPTED: Final = 0x1  # PKWARE's APPNOTE.TXT section 4.4.4, bit 0
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# APPNOTE.TXT sections 4.3.12 and 4.3.14 to 4.3.16.
_ENTRY: Final = b"PK\x01\x02"
_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_LOCATOR_64: Final = b"PK\x06\x07"
_LONGEST_TAIL: Final = 66_000  # bytes: the end of the directory and a comment
_ENTRY_BYTES: Final = 400  # of the directory for each entry, with a long name


@contextmanager
def opened_zip(file: IO[bytes], shown: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip file, once its directory was found to be modest.

    Args:
        file: Open for reading, and for seeking.
        shown: What it is called in messages.

    Raises:
        SourceError: If its directory is damaged or too large, or what is done with it
            fails because the file is damaged.
    """
    try:
        _require_few(file, shown)
        with zipfile.ZipFile(file) as archive:
            yield archive
    except DAMAGED as error:
        raise SourceError(
            f"{_capital(shown)} is damaged or cut off. Fetch it again, or unpack it "
            "with another program and give the folder."
        ) from error


def checked_entries(archive: zipfile.ZipFile, shown: str) -> list[zipfile.ZipInfo]:
    """Return the files of a zip file; folders and links are left out.

    Args:
        archive: Open.
        shown: What it is called in messages.

    Raises:
        SourceError: If it is protected by a password, or too much of anything.
    """
    limits = LimitSettings.read()
    entries = [
        entry
        for entry in archive.infolist()
        if entry.filename[-1:] not in _SLASHES and not is_link(entry)
    ]
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise SourceError(
            f"{_capital(shown)} is protected by a password. Unpack it first, and give "
            "the folder."
        )
    if any(entry.compress_type not in _METHODS for entry in entries):
        raise SourceError(
            f"{_capital(shown)} is packed by a method that csfd does not read. Unpack "
            "it with the program that packed it, and give the folder."
        )
    _require_number(len(entries), shown)
    size = sum(entry.file_size for entry in entries)
    if size > limits.max_zip_mb * MEGABYTE:
        raise SourceError(
            f"{_capital(shown)} unpacks to {size // MEGABYTE:,} MB, more than "
            f"{limits.max_zip_mb:,} (CSFD_MAX_ZIP_MB)."
        )
    most = limits.max_zip_ratio
    if any(e.file_size > max(MEGABYTE, e.compress_size * most) for e in entries):
        raise SourceError(
            f"{_capital(shown)} has a file that grows more than {most} times when it "
            "is unpacked (CSFD_MAX_ZIP_RATIO)."
        )
    return entries


def is_link(entry: zipfile.ZipInfo) -> bool:
    """Say whether an entry is a link, as Unix programs pack them."""
    return stat.S_ISLNK(entry.external_attr >> 16)


def read_pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of an entry; no more of it than it says, whatever it holds."""
    left = entry.file_size
    with archive.open(entry) as packed:
        while left and (content := packed.read(min(_STEP, left))):
            yield content
            left -= len(content)


def _require_few(file: IO[bytes], shown: str) -> None:
    """Count the entries before ``zipfile`` makes an object of each.

    Raises:
        SourceError: If there are too many.
        BadZipFile: If there is no directory.
    """
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _LONGEST_TAIL))
    tail = file.read()
    # Looked for exactly as ``zipfile`` does: another directory would be checked else.
    offset = len(tail) - _END_BYTES
    if tail[offset : offset + 4] != _END or tail[-2:] != bytes(2):
        offset = tail.rfind(_END)
    if offset < 0 or len(tail) < offset + _END_BYTES:
        raise zipfile.BadZipFile
    (length,) = struct.unpack_from("<I", tail, offset + 12)
    locator, offset_64 = offset - 20, offset - 76
    if offset_64 >= 0 and tail[locator : locator + 4] == _LOCATOR_64:
        (length,) = struct.unpack_from("<Q", tail, offset_64 + 40)
        offset = offset_64
    end = start + offset
    most = LimitSettings.read().max_zip_files
    if length > end:
        raise zipfile.BadZipFile
    if length > most * _ENTRY_BYTES:
        _require_number(length // _ENTRY_BYTES, shown)
    file.seek(end - length)
    _require_number(file.read(length).count(_ENTRY), shown)
    file.seek(0)


def _require_number(number: int, shown: str) -> None:
    most = LimitSettings.read().max_zip_files
    if number > most:
        raise SourceError(
            f"{_capital(shown)} holds {number:,} files, more than {most:,} "
            "(CSFD_MAX_ZIP_FILES)."
        )


def _capital(shown: str) -> str:
    return shown[:1].upper() + shown[1:]
