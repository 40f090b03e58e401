"""What may be done with an upload, from its beginning to its end.

Of one upload, one thing is done at a time. Errors tell who asked what to do.
"""

import errno
import hashlib
import hmac
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.dicom.limits import MEGABYTE
from csfd_core.errors import CsfdError
from csfd_core.ingest.patients import read_secret
from csfd_core.text import agree, count
from csfd_core.web.audit import Action, record
from csfd_core.web.database import studies
from csfd_core.web.security.users import User
from csfd_core.web.services import Services
from csfd_core.web.study_states import OPEN
from csfd_core.web.uploads import records
from csfd_core.web.uploads.acceptance import finish
from csfd_core.web.uploads.intake import Intake
from csfd_core.web.uploads.locks import LOCKS
from csfd_core.web.uploads.parts import Piece, read_pieces
from csfd_core.web.uploads.records import (
    UnknownUploadError,
    Upload,
    UploadError,
    UploadState,
)
from csfd_core.web.uploads.spool import SPOOLS
from csfd_core.web.uploads.staging import Staging, uploads_folder
from csfd_core.web.uploads.tally import Tally

_DAY_S: Final = 86_400
_KEPT_S: Final = 30 * _DAY_S  # what became of an upload is told for so long
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class TooManyError(UploadError):
    """Too many studies wait."""


class TooLargeError(UploadError):
    """An upload is larger than it may be."""


class DigestError(UploadError):
    """A part did not arrive as it was sent."""


class DiskFullError(UploadError):
    """There is no room for an upload."""


class IncompleteError(UploadError):
    """Something of an upload is missing. ``files``: what must be sent again."""

    files: tuple[int, ...] = ()


def begin(services: Services, user: User, priority: int) -> str:
    """Begin an upload; return its identity.

    Raises:
        TooManyError: If too many studies wait for their prediction.
    """
    with services.database.transaction() as connection:
        waiting = connection.scalar(
            sa.select(sa.func.count())
            .select_from(studies)
            .where(studies.c.state.in_(OPEN))
        )
        if (waiting or 0) >= services.web.max_waiting:
            raise TooManyError(
                f"{count(waiting or 0, 'study')} wait for their prediction already. "
                "Upload again when some are done."
            )
        upload_id = records.begin(connection, user.id, priority)
        record(connection, user.id, Action.UPLOAD_BEGUN, upload_id)
    return upload_id


def find(services: Services, user: User, upload_id: str) -> Upload:
    """Return an upload of this user; an administrator sees all.

    Raises:
        UnknownUploadError: If there is none.
    """
    with services.database.transaction() as connection:
        upload = records.read(connection, upload_id)
    if upload is None or not (upload.user_id == user.id or user.is_administrator):
        raise UnknownUploadError("There is no such upload. It may have been cancelled.")
    return upload


def describe(services: Services, user: User, upload_id: str) -> dict[str, Any]:
    """Return what has arrived of an upload, and what became of it."""
    upload = find(services, user, upload_id)
    with services.database.transaction() as connection:
        received = records.parts_of(connection, upload_id)
    passed, refused = Tally.of(upload.note).sentences()
    staging = Staging(services.settings, upload_id)
    unfinished = _unfinished(services, upload)
    return {
        "id": upload_id,
        "state": upload.state,
        "priority": upload.note["priority"],
        "bytes": upload.note["bytes"],
        "parts": sorted(received),
        "images": upload.note.get("images", 0),
        "studies": len(staging.studies()),
        "unfinished": unfinished,
        "lost": [number for number in unfinished if staging.is_lost(number)],
        "passed_over": passed,
        "refused": refused,
        "result": upload.note.get("result"),
    }


def take_part(
    services: Services,
    user: User,
    upload_id: str,
    number: int,
    sha256: str,
    content: bytes,
) -> None:
    """Take one part; one that has come before is not taken twice.

    Args:
        services: Stores and database.
        user: Who sends it.
        upload_id: The upload.
        number: Of the part, from 0.
        sha256: Of ``content``, as the sender has computed it; hexadecimal.
        content: See ``parts``.

    Raises:
        UploadError: If it cannot be taken.
        PartError: If it is not written as it should be.
    """
    digest = hashlib.sha256(content).hexdigest()
    if not hmac.compare_digest(digest, sha256.lower()):
        raise DigestError("The part did not arrive as it was sent. Send it again.")
    find(services, user, upload_id)
    pieces = read_pieces(content)
    with LOCKS.hold(f"upload {upload_id}"):
        upload = find(services, user, upload_id)
        with services.database.transaction() as connection:
            stored_digest = records.parts_of(connection, upload_id).get(number)
        if stored_digest == digest:
            return
        if stored_digest is not None:
            raise UploadError(f"Part {number} has come before, and was another one.")
        if upload.state is not UploadState.OPEN:
            raise UploadError("This upload is complete. Begin another one.")
        _require_room(services, upload, pieces, len(content))
        with _room_on_disk(services, upload):
            _take(services, upload, number, digest, pieces, len(content))


def _take(
    services: Services,
    upload: Upload,
    number: int,
    sha256: str,
    pieces: list[Piece],
    size: int,
) -> None:
    secret = read_secret(services.settings.key_file)
    intake = Intake(Staging(services.settings, upload.id), secret)
    tally = Tally.of(upload.note)
    done = intake.take(pieces, tally.joined)
    tally.add(intake.tally)
    note = {
        "priority": upload.note["priority"],
        "bytes": upload.note["bytes"] + size,
        **tally.to_note(),
    }
    with services.database.transaction() as connection:
        records.add_part(connection, upload.id, number, sha256)
        records.change(connection, upload.id, note)
    for spool in done:
        SPOOLS.remove(spool.path)


def complete(
    services: Services, user: User, upload_id: str, part_count: int
) -> dict[str, Any]:
    """Accept the studies of an upload; return what became of them.

    Completing it twice tells the same twice.

    Args:
        services: Stores and database.
        user: Who sends it.
        upload_id: The upload.
        part_count: How many parts were sent.

    Raises:
        IncompleteError: If something is missing.
        DiskFullError: If there is no room; nothing of the upload is kept then.
    """
    find(services, user, upload_id)
    with LOCKS.hold(f"upload {upload_id}"):
        upload = find(services, user, upload_id)
        if upload.state is UploadState.COMPLETE:
            result: dict[str, Any] = upload.note["result"]
            return result
        with services.database.transaction() as connection:
            received = records.parts_of(connection, upload_id)
            if upload.state is UploadState.OPEN:
                _require_all(services, upload, set(received), part_count)
            records.change(connection, upload_id, upload.note, UploadState.COMPLETING)
        with _room_on_disk(services, upload):
            return finish(services, upload)


def cancel(services: Services, user: User, upload_id: str) -> None:
    """Remove an upload, and everything of it.

    Raises:
        UploadError: If its studies are accepted already.
    """
    find(services, user, upload_id)
    with LOCKS.hold(f"upload {upload_id}"):
        upload = find(services, user, upload_id)
        if upload.state is not UploadState.OPEN:
            raise UploadError(
                "This upload is complete: its studies are accepted. An administrator "
                "can withdraw a study."
            )
        _discard(services, upload, user.id)


def sweep(services: Services) -> None:
    """Put in order what was left: called when the page starts.

    Uploads that were being accepted are accepted; those that nobody has touched for a
    day are removed, and so is what belongs to none.
    """
    with services.database.transaction() as connection:
        uploads = {upload.id: upload for upload in records.read_all(connection)}
    for upload in uploads.values():
        with LOCKS.hold(f"upload {upload.id}"):
            _settle(services, upload)
    folder = uploads_folder(services.settings)
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.name not in uploads:
            shutil.rmtree(left, ignore_errors=True)


def _settle(services: Services, upload: Upload) -> None:
    idle_s = time.time() - upload.touched_at
    if upload.state is UploadState.COMPLETING:
        try:
            finish(services, upload)
        except (CsfdError, OSError):
            return  # its files stay, for the next start or who completes it again
    elif upload.state is UploadState.COMPLETE:
        Staging(services.settings, upload.id).remove()
        if idle_s > _KEPT_S:
            with services.database.transaction() as connection:
                records.remove(connection, upload.id)
    elif idle_s > _DAY_S:
        _discard(services, upload, None)


def _discard(services: Services, upload: Upload, by: int | None) -> None:
    with services.database.transaction() as connection:
        records.remove(connection, upload.id)
        record(connection, by, Action.UPLOAD_CANCELLED, upload.id)
    Staging(services.settings, upload.id).remove()


def _require_room(
    services: Services, upload: Upload, pieces: list[Piece], size: int
) -> None:
    most = services.web.max_upload_mb * MEGABYTE
    largest = max(piece.size for piece in pieces)
    if upload.note["bytes"] + size > most or largest > most:
        raise TooLargeError(
            f"An upload may have {services.web.max_upload_mb:,} MB "
            "(CSFD_WEB_MAX_UPLOAD_MB). Upload fewer studies at once."
        )


def _require_all(
    services: Services, upload: Upload, received: set[int], part_count: int
) -> None:
    missing = part_count - len(received & set(range(part_count)))
    if missing:
        raise IncompleteError(
            f"{count(missing, 'part', 'is', 'are')} missing. Send "
            f"{agree(missing, 'it', 'them')}, and complete the upload again."
        )
    if not received:
        raise IncompleteError("Nothing was uploaded. Choose the files of a study.")
    unfinished = _unfinished(services, upload)
    if unfinished:
        error = IncompleteError(
            f"{count(len(unfinished), 'large file')} did not arrive whole, or "
            f"{agree(len(unfinished), 'was', 'were')} lost when the server was "
            f"started again. Send {agree(len(unfinished), 'it', 'them')} again in "
            "further parts, and complete the upload again."
        )
        error.files = tuple(unfinished)
        raise error


def _unfinished(services: Services, upload: Upload) -> list[int]:
    """Return the numbers of the files that are not whole, or cannot be read."""
    spooled = Staging(services.settings, upload.id).spooled()
    return sorted(set(spooled) - Tally.of(upload.note).joined)


@contextmanager
def _room_on_disk(services: Services, upload: Upload) -> Iterator[None]:
    """Remove an upload for which there is no room; nothing accepted is touched.

    Raises:
        DiskFullError: If it was so.
    """
    try:
        yield
    except (OSError, CsfdError, sa.exc.OperationalError) as error:
        if not _is_full(error):
            raise
        Staging(services.settings, upload.id).remove()
        with services.database.transaction() as connection:
            records.remove(connection, upload.id)
        raise DiskFullError(
            "The disk of the server is full: nothing of this upload was kept. Ask for "
            "room to be made, and upload again."
        ) from None


def _is_full(error: BaseException) -> bool:
    causes = (error, error.__cause__)
    if any(isinstance(e, OSError) and e.errno in _NO_SPACE for e in causes):
        return True
    return isinstance(error, sa.exc.OperationalError) and "full" in str(error.orig)
