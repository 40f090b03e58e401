"""What is done with the files of a part: de-identified in memory, then written.

Nothing else is ever written but the encrypted pieces of large files.
"""

import io
import zipfile
from collections.abc import Set
from typing import IO, Final

from csfd_core.deid.deidentify import deidentify
from csfd_core.deid.refusals import Reason, RefusedError
from csfd_core.dicom.limits import limits
from csfd_core.errors import SourceError
from csfd_core.inference.zips import (
    DAMAGED,
    checked_entries,
    opened_zip,
)
from csfd_core.inference.zips import read_pieces as read_entry
from csfd_core.web.uploads.parts import PartError, Piece
from csfd_core.web.uploads.spool import Spool
from csfd_core.web.uploads.staging import Staging
from csfd_core.web.uploads.tally import Tally, Trouble

_A_ZIP: Final = "a zip file"
_ZIPS: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_ARCHIVES: Final = (
    b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
)  # fmt: skip
_TAR: Final = (257, b"ustar")
_DICOM: Final = (128, b"DICM")
_MOST_FILES: Final = 100  # in pieces, in one part
_BEGINNING: Final = 512  # bytes that tell what a file is


class Intake:
    """Takes the files of one upload."""

    def __init__(self, staging: Staging, secret: bytes) -> None:
        """Take where to keep slices, and what their identities are keyed with."""
        self._staging = staging
        self._secret = secret
        self.tally = Tally()

    def take(self, pieces: list[Piece], joined: Set[int]) -> list[Spool]:
        """Take the pieces of a part; return the spools that are not needed any more.

        Args:
            pieces: Of any files.
            joined: Numbers of the files that came in pieces and were taken before.

        Raises:
            OSError: If something cannot be written.
            PartError: If it holds parts of very many files.
        """
        self._staging.make()
        spools: dict[int, Spool] = {}
        pieces = [p for p in pieces if p.is_whole or p.file not in joined]
        if len({p.file for p in pieces if not p.is_whole}) > _MOST_FILES:
            raise PartError(
                f"A part may hold pieces of {_MOST_FILES} files at most. Send small "
                "files whole."
            )
        for piece in pieces:
            if piece.is_whole:
                self._take_file(piece.content)
                continue
            spools[piece.file] = self._staging.spool(piece.file, piece.size)
            spools[piece.file].write(piece.offset, piece.content)
        done = [spool for spool in spools.values() if spool.is_whole]
        for spool in done:
            self._take_large(spool)
        self.tally.joined = {n for n, spool in spools.items() if spool.is_whole}
        return done

    def _take_large(self, spool: Spool) -> None:
        beginning = spool.read(0, _BEGINNING)
        if _is_zip(beginning):
            with spool.open() as file:
                self._take_zip(file)
        elif spool.size > limits().file_bytes and not _is_archive(beginning):
            self.tally.not_taken[Reason.TOO_LARGE] += 1
        elif _is_archive(beginning):
            self.tally.not_taken[Trouble.ARCHIVE] += 1
        else:
            self._take_slice(spool.read(0, spool.size))

    def _take_file(self, content: bytes) -> None:
        if _is_zip(content):
            self._take_zip(io.BytesIO(content))
        elif _is_archive(content):
            self.tally.not_taken[Trouble.ARCHIVE] += 1
        else:
            self._take_slice(content)

    def _take_zip(self, file: IO[bytes]) -> None:
        """Take the entries of a zip file, one at a time; their names are not used."""
        try:
            with opened_zip(file, _A_ZIP) as archive:
                for entry in checked_entries(archive, _A_ZIP):
                    self._take_entry(archive, entry)
        except SourceError as error:
            self.tally.archives.append(str(error))

    def _take_entry(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        if entry.file_size > limits().file_bytes:
            self.tally.not_taken[Reason.TOO_LARGE] += 1
            return
        try:
            content = b"".join(read_entry(archive, entry))
        except DAMAGED:
            self.tally.not_taken[Reason.DAMAGED] += 1
            return
        if _is_zip(content):
            self.tally.not_taken[Trouble.NESTED_ZIP] += 1
        elif _is_archive(content):
            self.tally.not_taken[Trouble.ARCHIVE] += 1
        else:
            self._take_slice(content)

    def _take_slice(self, content: bytes) -> None:
        try:
            keyed = deidentify(content, self._secret)
        except RefusedError as error:
            self.tally.not_taken[error.reason] += 1
            return
        if not self._staging.keep(keyed):
            self.tally.not_taken[Trouble.TWICE] += 1
            return
        self.tally.images += 1
        self.tally.references.setdefault(keyed.study_uid, set()).update(
            keyed.references
        )


def _is_zip(beginning: bytes) -> bool:
    return beginning.startswith(_ZIPS) and not _holds(beginning, _DICOM)


def _is_archive(beginning: bytes) -> bool:
    is_other = beginning.startswith(_ARCHIVES) or _holds(beginning, _TAR)
    return is_other and not _holds(beginning, _DICOM)


def _holds(beginning: bytes, mark: tuple[int, bytes]) -> bool:
    offset, text = mark
    return beginning[offset : offset + len(text)] == text
