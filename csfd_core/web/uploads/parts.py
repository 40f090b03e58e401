"""A part of an upload: pieces of files, one behind the other.

A piece is a header of 24 bytes, big-endian, and its bytes: number of the file in this
upload (uint32), where the piece lies in the file (uint64), size of the whole file
(uint64), length of the piece (uint32). Names of files are never sent.
"""

import struct
from dataclasses import dataclass
from typing import Final

from csfd_core.errors import CsfdError
from csfd_core.text import count

LARGEST_PART: Final = 16 * 2**20  # bytes, with the headers
PART_BYTES: Final = 8 * 2**20  # that a browser is asked to send at once
HEADER: Final = struct.Struct(">IQQI")


class PartError(CsfdError):
    """A part is not written as it should be."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file."""

    file: int
    offset: int
    size: int  # of the whole file
    content: bytes

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the file."""
        return len(self.content) == self.size


def read_pieces(part: bytes) -> list[Piece]:
    """Take a part to pieces.

    Raises:
        PartError: If it does not consist of pieces.
    """
    pieces: list[Piece] = []
    position = 0
    while position < len(part):
        if len(part) - position < HEADER.size:
            raise _broken(position)
        file, offset, size, length = HEADER.unpack_from(part, position)
        start, position = position + HEADER.size, position + HEADER.size + length
        is_empty = length == 0 and size > 0
        if position > len(part) or offset + length > size or is_empty:
            raise _broken(start)
        pieces.append(Piece(file, offset, size, part[start:position]))
    if not pieces:
        raise PartError("The part is empty. Send at least one piece of a file.")
    return pieces


def write_piece(piece: Piece) -> bytes:
    """Return a piece as it is sent."""
    head = HEADER.pack(piece.file, piece.offset, piece.size, len(piece.content))
    return head + piece.content


def _broken(position: int) -> PartError:
    return PartError(
        f"The part is broken at {count(position, 'byte')}: a piece must lie inside its "
        "file and inside the part. Send it again."
    )
