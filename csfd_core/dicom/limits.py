"""What a file may ask for before it is decoded: pixels, bytes, inflated bytes.

A few kilobytes can claim gigabytes of pixels. Everything here is told from headers, or
stops while it counts.
"""

import functools
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from csfd_core.errors import DicomError, FileTooLargeError
from csfd_core.settings import LimitSettings

MEGABYTE: Final = 2**20
_STEP: Final = MEGABYTE
_LOOKED_AT: Final = 64 * 1024  # bytes of a code stream; its size stands at the start
_SOI: Final = b"\xff\xd8"
_SOC_SIZ: Final = b"\xff\x4f\xff\x51"
# Start of frame of every JPEG process and of JPEG-LS, without tables and arithmetic.
_FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings, in bytes and pixels."""

    pixels: int
    file_bytes: int


@functools.cache
def limits() -> Limits:
    """Return the limits of this process, read once.

    Raises:
        SettingsError: If one of the variables cannot be used.
    """
    settings = LimitSettings.read()
    return Limits(settings.max_pixels, settings.max_file_mb * MEGABYTE)


def require_inflatable(content: bytes) -> None:
    """Require that a deflated data set inflates to no more than a file may have.

    Raises:
        FileTooLargeError: If it does.
        DicomError: If it is damaged.
    """
    most = limits().file_bytes
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    total, rest = 0, content
    try:
        while rest and not inflater.eof:
            total += len(inflater.decompress(rest, _STEP))
            if total > most:
                raise FileTooLargeError(
                    f"The file inflates to more than {most // MEGABYTE} MB "
                    "(CSFD_MAX_FILE_MB)."
                )
            rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise DicomError("The deflated data set is damaged.") from error


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Return rows and columns that a JPEG or JPEG 2000 stream declares for itself.

    ``None`` where it is another kind of stream, or its size cannot be found.

    Source: ITU-T T.81 B.2.2 and T.87 C.2.2 (frame header), T.800 A.5.1 (SIZ).
    """
    start = frame[:_LOOKED_AT]
    offset = start.find(_SOC_SIZ)
    if offset >= 0 and len(start) >= offset + 24:
        right, bottom, left, top = struct.unpack_from(">IIII", start, offset + 8)
        return bottom - top, right - left
    if start[:2] != _SOI:
        return None
    offset = 2
    while offset + 9 <= len(start) and start[offset] == 0xFF:
        marker = start[offset + 1]
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", start, offset + 5)
            return rows, columns
        (length,) = struct.unpack_from(">H", start, offset + 2)
        offset += 2 + length
    return None
