"""A DICOM file from raw values: nothing is in it that was not given.

The values are written as they were read, byte for byte, in the byte order of the
transfer syntax; pydicom would decode and encode each of them.
"""

import struct
from collections.abc import Mapping
from typing import Final

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

_PREAMBLE: Final = bytes(128) + b"DICM"
_LONG_VRS: Final = frozenset((b"OB", b"OW", b"SQ"))
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFE_E000
_IMPLEMENTATION: Final = "2.25.184270637018273418823549915217416934178"
_NAME: Final = b"CSFD"

Elements = Mapping[int, tuple[bytes, bytes]]  # VR and value by tag


class Encoder:
    """Elements in the encoding of a transfer syntax (PS3.5 section 7.1)."""

    def __init__(self, transfer_syntax_uid: str) -> None:
        """Take the transfer syntax."""
        self._is_implicit = transfer_syntax_uid == ImplicitVRLittleEndian
        self._order = ">" if transfer_syntax_uid == ExplicitVRBigEndian else "<"

    def element(self, tag: int, vr: bytes, value: bytes) -> bytes:
        """Return one element, padded to an even length."""
        if len(value) % 2:
            value += b"\0" if vr in (b"UI", b"OB") else b" "
        return self.head(tag, vr, len(value)) + value

    def head(self, tag: int, vr: bytes, length: int) -> bytes:
        """Return what stands before a value."""
        begin = struct.pack(f"{self._order}HH", tag >> 16, tag & 0xFFFF)
        if self._is_implicit:
            return begin + struct.pack(f"{self._order}I", length)
        if vr in _LONG_VRS:
            return begin + vr + bytes(2) + struct.pack(f"{self._order}I", length)
        return begin + vr + struct.pack(f"{self._order}H", length)

    def elements(self, elements: Elements) -> bytes:
        """Return elements in the order of their tags."""
        return b"".join(
            self.element(tag, vr, value)
            for tag, (vr, value) in sorted(elements.items())
        )

    def item(self, elements: Elements) -> bytes:
        """Return one item of a sequence."""
        content = self.elements(elements)
        begin = struct.pack(f"{self._order}HHI", _ITEM >> 16, _ITEM & 0xFFFF, 0)
        return begin[:4] + struct.pack(f"{self._order}I", len(content)) + content

    def encapsulated(self, tag: int, items: bytes) -> bytes:
        """Return pixel data of undefined length.

        Args:
            tag: Of the pixel data.
            items: With the delimiter.
        """
        return self.head(tag, b"OB", _UNDEFINED) + items


def file_meta(sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return all that stands before the data set (PS3.10 section 7.1)."""
    encoder = Encoder("")
    content = encoder.elements(
        {
            0x0002_0001: (b"OB", b"\0\1"),
            0x0002_0002: (b"UI", sop_class_uid.encode()),
            0x0002_0003: (b"UI", sop_uid.encode()),
            0x0002_0010: (b"UI", transfer_syntax_uid.encode()),
            0x0002_0012: (b"UI", _IMPLEMENTATION.encode()),
            0x0002_0013: (b"SH", _NAME),
        }
    )
    length = struct.pack("<I", len(content))
    return _PREAMBLE + encoder.element(0x0002_0000, b"UL", length) + content
