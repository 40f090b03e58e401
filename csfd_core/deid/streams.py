"""Compressed pixel data: what is no pixel is blanked, and the pixels stay as they are.

Code streams have places for comments, and room behind their end. What lies there is
overwritten with zeros where it is, so that no position inside the stream changes.
"""

import re
import struct
from typing import Final

from csfd_core.deid.refusals import Reason, RefusedError

_ITEM: Final = b"\xfe\xff\x00\xe0"
_DELIMITER: Final = b"\xfe\xff\xdd\xe0"
# JPEG (ITU-T T.81, T.87): a marker that is neither stuffing nor a restart.
_MARKER: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APPLICATION: Final = range(0xE0, 0xF0)
_STANDALONE: Final = frozenset((0x01, _SOI, *range(0xD0, 0xD8)))
_NEEDED: Final = {  # what decoders look at, and how long it is then
    0xE0: (b"JFIF\0", 14),
    0xE8: (b"SPIFF\0", 30),
    0xEE: (b"Adobe", 12),
}
# JPEG 2000 (ITU-T T.800).
_SOC: Final = b"\xff\x4f\xff\x51"
_SOT, _SOD, _J2K_COM, _J2K_EOC = 0xFF90, 0xFF93, 0xFF64, 0xFFD9
_JP2: Final = b"\x00\x00\x00\x0cjP  "
_JP2_NEEDED: Final = frozenset((b"jP  ", b"ftyp", b"jp2h"))
_RLE_HEADER: Final = 64  # bytes: the number of segments, fifteen offsets (PS3.5 G.5)
_RLE_SEGMENTS: Final = 15
_NO_RUN: Final = b"\x80"  # decoders pass over it


def join_fragments(value: bytes) -> bytes:
    """Return the one frame of encapsulated pixel data (PS3.5 section A.4).

    Args:
        value: Of the element: an offset table, then fragments.

    Raises:
        RefusedError: If its items do not fill it.
    """
    fragments: list[bytes] = []
    offset = 0
    while offset + 8 <= len(value) and value[offset : offset + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", value, offset + 4)
        start, offset = offset + 8, offset + 8 + length
        fragments.append(value[start:offset])
    rest = value[offset : offset + 4]
    if offset > len(value) or (rest and rest != _DELIMITER) or not fragments[1:]:
        raise RefusedError(Reason.DAMAGED)
    return b"".join(fragments[1:])


def encapsulate(frame: bytes) -> bytes:
    """Return a frame as items, up to the delimiter; the offset table stays empty."""
    even = frame + b"\0" * (len(frame) % 2)
    items = _ITEM + bytes(4) + _ITEM + struct.pack("<I", len(even)) + even
    return items + _DELIMITER + bytes(4)


def blank_comments(frame: bytes, *, is_rle: bool, segment_bytes: int) -> bytes:
    """Return a frame without comments and without what follows its end.

    Args:
        frame: A code stream as ``join_fragments`` returns it.
        is_rle: Whether it is of run lengths.
        segment_bytes: Of one segment of run lengths, decoded.

    Raises:
        RefusedError: If it is no such code stream, or ends early.
    """
    blank = bytearray(frame)
    try:
        if is_rle:
            _blank_rle(blank, segment_bytes)
        elif frame[:2] == b"\xff\xd8":
            _blank_jpeg(blank)
        elif frame[:4] == _SOC:
            _blank_jpeg2000(blank, 0, len(blank))
        elif frame[:8] == _JP2:
            _blank_boxes(blank)
        else:
            raise RefusedError(Reason.DAMAGED)
    except (struct.error, IndexError):
        raise RefusedError(Reason.DAMAGED) from None
    return bytes(blank)


def _clear(blank: bytearray, start: int, end: int) -> None:
    if not start <= end <= len(blank):
        raise RefusedError(Reason.DAMAGED)
    blank[start:end] = bytes(end - start)


def _blank_jpeg(blank: bytearray) -> None:
    offset = 2
    while True:
        while blank[offset] == 0xFF and blank[offset + 1] == 0xFF:  # fill bytes
            offset += 1
        if blank[offset] != 0xFF:
            raise RefusedError(Reason.DAMAGED)
        marker = blank[offset + 1]
        if marker == _EOI:
            _clear(blank, offset + 2, len(blank))
            return
        if marker in _STANDALONE:
            offset += 2
            continue
        (length,) = struct.unpack_from(">H", blank, offset + 2)
        start, offset = offset + 4, offset + 2 + max(length, 2)
        if marker == _COM or (
            marker in _APPLICATION and not _is_needed(blank, marker, start, offset)
        ):
            _clear(blank, start, offset)
        if marker == _SOS:
            match = _MARKER.search(blank, offset)
            if match is None:  # some encoders leave the end marker out
                return
            offset = match.start()


def _is_needed(blank: bytearray, marker: int, start: int, end: int) -> bool:
    begin, length = _NEEDED.get(marker, (b"", -1))
    is_short = end - start == length
    return is_short and blank[start : start + len(begin)] == begin


def _blank_jpeg2000(blank: bytearray, start: int, end: int) -> None:
    """Blank the comments of the main header and of each tile-part's header."""
    offset = start + 2
    tile_end = 0
    while offset < end:
        (marker,) = struct.unpack_from(">H", blank, offset)
        if marker == _J2K_EOC:
            _clear(blank, offset + 2, end)
            return
        if marker == _SOD:
            if tile_end <= offset:  # the last one may not say its length
                return
            offset = tile_end
            continue
        (length,) = struct.unpack_from(">H", blank, offset + 2)
        if marker == _SOT:
            (tile_length,) = struct.unpack_from(">I", blank, offset + 6)
            tile_end = offset + tile_length if tile_length else 0
        if marker == _J2K_COM:  # its registration stays
            _clear(blank, offset + 6, offset + 2 + length)
        offset += 2 + max(length, 2)


def _blank_boxes(blank: bytearray) -> None:
    """Blank every box of a JP2 file that decoders do not need."""
    offset = 0
    while offset < len(blank):
        length, kind = struct.unpack_from(">I4s", blank, offset)
        end = offset + length if length else len(blank)
        if length == 1 or (length and length < 8) or end > len(blank):
            raise RefusedError(Reason.DAMAGED)
        if kind == b"jp2c":
            _blank_jpeg2000(blank, offset + 8, end)
        elif kind not in _JP2_NEEDED:
            blank[offset + 4 : offset + 8] = b"free"
            _clear(blank, offset + 8, end)
        offset = end
        if len(blank) - offset < 8:
            _clear(blank, offset, len(blank))
            return


def _blank_rle(blank: bytearray, segment_bytes: int) -> None:
    """Blank what no segment reaches (PS3.5 section G.3, PackBits)."""
    count, *offsets = struct.unpack_from("<16I", blank, 0)
    used = offsets[:count]
    is_ordered = used == sorted(used) and used[:1] == [_RLE_HEADER]
    if not 1 <= count <= _RLE_SEGMENTS or not is_ordered:
        raise RefusedError(Reason.DAMAGED)
    _clear(blank, 4 + 4 * count, _RLE_HEADER)
    for start, limit in zip(used, [*used[1:], len(blank)], strict=True):
        end = _end_of_segment(blank, start, segment_bytes)
        if blank[end:limit] != b"\0":  # which makes its length even
            _clear(blank, end, limit)
            blank[end:limit] = _NO_RUN * (limit - end)


def _end_of_segment(blank: bytearray, start: int, segment_bytes: int) -> int:
    offset, decoded = start, 0
    while decoded < segment_bytes:
        control = blank[offset]
        if control < 128:
            offset += 2 + control
            decoded += 1 + control
        elif control > 128:
            offset += 2
            decoded += 257 - control
        else:
            offset += 1
    return offset
