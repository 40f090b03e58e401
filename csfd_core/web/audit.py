"""The audit log: who did what to which study, in a chain that shows a change.

Each entry has the digest of itself and of the entry before, keyed with the secret of
this installation, so that who can write to the database alone cannot forge the rest of
the chain. It names users by number and studies by their keyed UID: no patient data.
"""

import hmac
import json
import time
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.ingest.patients import read_secret
from csfd_core.settings import Settings
from csfd_core.web.database import Database, audit

_FIRST: Final = "0" * 64


class Action(StrEnum):
    """What is audited."""

    SIGNED_IN = "signed in"
    SIGN_IN_FAILED = "sign-in failed"
    SIGNED_OUT = "signed out"
    SESSION_ENDED = "session ended"
    USER_ADDED = "user added"
    USER_CHANGED = "user changed"
    PASSWORD_CHANGED = "password changed"
    UPLOAD_BEGUN = "upload begun"
    UPLOAD_CANCELLED = "upload cancelled"
    STUDY_ACCEPTED = "study accepted"
    STUDY_OPENED = "study opened"
    STUDY_RETRIED = "study tried again"
    PRIORITY_CHANGED = "priority changed"
    VOLUME_CHOSEN = "volume chosen"
    DOWNLOADED = "downloaded"
    REVIEW_SIGNED = "review signed"
    STUDY_WITHDRAWN = "study withdrawn"
    PEER_ADDED = "peer added"
    PEER_CHANGED = "peer changed"
    RESULTS_ASKED = "sending asked for"
    RESULTS_SENT = "results sent"
    ACCOUNT_BOUND = "account bound"
    ACCOUNT_RELEASED = "account released"
    TOKEN_ADDED = "token added"
    TOKEN_REVOKED = "token revoked"
    TOKEN_REFUSED = "token refused"
    TOKEN_USED = "token used"


def record(
    connection: sa.Connection,
    user_id: int | None,
    action: Action,
    subject: str = "",
    what: str = "",
) -> None:
    """Append an entry, in the transaction of what it tells of.

    Args:
        connection: Of that transaction.
        user_id: Who; ``None``: nobody who is signed in.
        action: What was done.
        subject: UID of a study, number of a user or identity of an upload.
        what: Which of its files, where it has several.
    """
    last = connection.execute(
        sa.select(audit.c.number, audit.c.digest)
        .order_by(audit.c.number.desc())
        .limit(1)
    ).first()
    entry = {
        "number": 1 if last is None else last.number + 1,
        "at": round(time.time(), 3),
        "user_id": user_id,
        "action": f"{action}: {what}" if what else str(action),
        "subject": subject,
        "previous": _FIRST if last is None else last.digest,
    }
    connection.execute(audit.insert().values(**entry, digest=_digest(entry)))


def verify(database: Database) -> tuple[int, int | None]:
    """Follow the chain from its beginning.

    What was cut off at its end does not show: keep the last number and digest, which
    ``csfd audit`` prints, elsewhere.

    Returns:
        How many entries there are, and the number of the first that was changed or
        whose predecessor is gone; ``None`` where the chain is whole.
    """
    previous, expected = _FIRST, 1
    with database.transaction() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.number)).mappings()
        for row in rows:
            entry = {name: row[name] for name in row if name != "digest"}
            is_next = row["number"] == expected and row["previous"] == previous
            if not is_next or not hmac.compare_digest(_digest(entry), row["digest"]):
                return expected - 1, int(row["number"])
            previous, expected = row["digest"], expected + 1
    return expected - 1, None


def _digest(entry: dict[str, Any]) -> str:
    secret = read_secret(Settings.read().key_file)
    content = json.dumps(entry, sort_keys=True).encode()
    return hmac.digest(secret, b"audit\0" + content, "sha256").hex()
