"""The end of an upload: its studies go into the inbox, and are accepted.

First the files, each whole and on the disk, then one transaction that accepts all
studies, then the answer. Who is killed in between has lost nothing: the files of the
upload stay until the transaction is through, and completing it again does the rest.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.store.layout import IMAGES_FOLDER
from csfd_core.text import agree, count
from csfd_core.web.audit import Action, record
from csfd_core.web.database import studies
from csfd_core.web.services import Services
from csfd_core.web.study_states import Accepted, accept
from csfd_core.web.uploads import records
from csfd_core.web.uploads.locks import LOCKS
from csfd_core.web.uploads.records import Upload, UploadState
from csfd_core.web.uploads.staging import Staging, sync_folder
from csfd_core.web.uploads.tally import Tally

_WRITERS: Final = 8  # each waits for the disk, or for S3
_WITHDRAWN: Final = (
    "One study was withdrawn and cannot be taken up again. Ask an administrator."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a study of an upload.

    Attributes:
        study_uid: Keyed.
        images: How many it has now.
        added: Of these, how many came with this upload.
        version: Of the study; ``None`` where nothing was new.
        told: A sentence.
    """

    study_uid: str
    images: int
    added: int
    version: int | None
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Put:
    """What lies in the inbox of a study now."""

    study_uid: str
    images: int
    added: tuple[str, ...]  # paths in the inbox
    replaced: int
    is_changed: bool


def finish(services: Services, upload: Upload) -> dict[str, Any]:
    """Accept the studies of an upload that is complete; return what became of them.

    The caller holds the lock of the upload.

    Raises:
        SourceError: If the inbox cannot be written. What was added by this is removed.
    """
    staging = Staging(services.settings, upload.id)
    tally = Tally.of(upload.note)
    passed, refused = tally.sentences()
    uids = staging.studies()
    withdrawn = {uid for uid in uids if services.stores.withdrawn.has(uid)}
    refused += [_WITHDRAWN] * len(withdrawn)
    wanted = [uid for uid in uids if uid not in withdrawn]
    with LOCKS.hold(*(f"study {uid}" for uid in wanted)):
        put = _put_all(services, staging, wanted)
        with services.database.transaction() as connection:
            outcomes = [_accept(connection, upload, one, tally) for one in put]
            result = {
                "studies": [asdict(outcome) for outcome in outcomes],
                "passed_over": passed,
                "refused": refused,
            }
            kept = {k: upload.note[k] for k in ("priority", "bytes")}
            note = {**kept, "images": tally.images, "result": result}
            records.change(connection, upload.id, note, UploadState.COMPLETE)
    staging.remove()
    return result


def _put_all(
    services: Services, staging: Staging, study_uids: Sequence[str]
) -> list[_Put]:
    done: list[_Put] = []
    added: list[str] = []
    try:
        for uid in study_uids:
            done.append(_put(services, staging, uid, added))
    except Exception:
        for path in added:  # a study must not be there by halves
            services.inbox.remove(path)
        raise
    return done


def _put(
    services: Services, staging: Staging, study_uid: str, added: list[str]
) -> _Put:
    """Write the slices of a study into the inbox, unless they are there.

    Args:
        services: Where the inbox is.
        staging: Where the slices are.
        study_uid: The study.
        added: Paths of new files are appended, before they are written.
    """
    folder = f"{IMAGES_FOLDER}/{study_uid}"
    there = {entry.name for entry in services.inbox.entries(folder)}
    slices = staging.slices(study_uid)

    def is_other(path: Path) -> bool:
        known = services.inbox.read(f"{folder}/{path.name}")
        return known != path.read_bytes()

    def write(path: Path) -> None:
        services.inbox.write(f"{folder}/{path.name}", path.read_bytes())

    new = [path for path in slices if path.name not in there]
    with ThreadPoolExecutor(_WRITERS) as pool:
        known = [path for path in slices if path.name in there]
        differs = pool.map(is_other, known)
        replaced = [p for p, other in zip(known, differs, strict=True) if other]
        was_changing = staging.is_changing(study_uid)
        if new or replaced:
            staging.mark_changing(study_uid)
        own = [f"{folder}/{path.name}" for path in new]
        added += own
        for _ in pool.map(write, [*new, *replaced]):
            continue
    if (new or replaced) and services.inbox.is_local:
        place = Path(services.inbox.url)
        for path in (place / folder, place / IMAGES_FOLDER, place):
            sync_folder(path)
    return _Put(
        study_uid=study_uid,
        images=len(there) + len(new),
        added=tuple(own),
        replaced=len(replaced),
        is_changed=bool(new or replaced or was_changing),
    )


def _accept(
    connection: sa.Connection, upload: Upload, put: _Put, tally: Tally
) -> Outcome:
    row = connection.execute(
        sa.select(studies.c.slices).where(studies.c.study_uid == put.study_uid)
    ).first()
    is_here = row is not None and row.slices == put.images and not put.is_changed
    version = None
    if not is_here:
        one = Accepted(
            study_uid=put.study_uid,
            slices=put.images,
            priority=upload.note["priority"],
            user_id=upload.user_id,
            references=frozenset(tally.references.get(put.study_uid, ())),
        )
        version = accept(connection, one)
        record(connection, upload.user_id, Action.STUDY_ACCEPTED, put.study_uid)
    return Outcome(
        study_uid=put.study_uid,
        images=put.images,
        added=len(put.added),
        version=version,
        told=_tell(put, version),
    )


def _tell(put: _Put, version: int | None) -> str:
    images = count(put.images, "image")
    if version is None:
        return f"Already here with all of its {images}: nothing was changed."
    if version == 1:
        return f"Accepted with {images}."
    new = len(put.added)
    told = [f"{count(new, 'image')} came in addition"] if new else []
    if put.replaced:
        was = agree(put.replaced, "was", "were")
        told.append(f"{count(put.replaced, 'image')} {was} replaced")
    changes = " and ".join(told) or "Images came in addition"
    return f"{changes}: the study is now version {version}, with {images}."
