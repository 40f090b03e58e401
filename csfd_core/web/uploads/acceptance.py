"""The end of an upload: its studies go into the inbox, and are accepted.

First the files, each whole and on the disk, then one transaction that accepts all
studies, then the answer. Who is killed in between has lost nothing: the files of the
upload stay until the transaction is through, and completing it again does the rest.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.text import agree, count
from csfd_core.web.acceptance import Put, accept_put, put_all
from csfd_core.web.review.label_files import is_withdrawn
from csfd_core.web.services import Services
from csfd_core.web.study_locks import hold_studies
from csfd_core.web.study_states import Accepted
from csfd_core.web.uploads import records
from csfd_core.web.uploads.records import Upload, UploadState
from csfd_core.web.uploads.staging import Staging
from csfd_core.web.uploads.tally import Tally

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
    with hold_studies(services.settings, *uids):
        withdrawn = {uid for uid in uids if is_withdrawn(services, uid)}
        refused += [_WITHDRAWN] * len(withdrawn)
        wanted = [uid for uid in uids if uid not in withdrawn]
        put = put_all(services, [staging.incoming(uid) for uid in wanted])
        with services.database.transaction() as connection:
            outcomes = [_accept(connection, upload, one, tally) for one in put]
            result = {
                "studies": [asdict(outcome) for outcome in outcomes],
                "passed_over": passed,
                "refused": refused,
            }
            retained = {k: upload.note[k] for k in ("priority", "bytes")}
            note = {**retained, "images": tally.images, "result": result}
            records.change(connection, upload.id, note, UploadState.COMPLETE)
    staging.remove()
    return result


def _accept(
    connection: sa.Connection, upload: Upload, put: Put, tally: Tally
) -> Outcome:
    one = Accepted(
        study_uid=put.study_uid,
        slices=put.images,
        priority=upload.note["priority"],
        user_id=upload.user_id,
        references=frozenset(tally.references.get(put.study_uid, ())),
    )
    version = accept_put(connection, put, one)
    return Outcome(
        study_uid=put.study_uid,
        images=put.images,
        added=len(put.added),
        version=version,
        told=_tell(put, version),
    )


def _tell(put: Put, version: int | None) -> str:
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
