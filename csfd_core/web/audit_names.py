"""Names for the numbers that the audit log holds, which itself names nobody."""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.web.audit import Action
from csfd_core.web.database import peers, tokens, users

# What the subject of an action is the number of, and how that is called.
_TABLES: Final = {"user": users, "peer": peers, "token": tokens}
_KIND_OF: Final = {
    Action.SIGN_IN_FAILED: "user",
    Action.SESSION_ENDED: "user",
    Action.USER_ADDED: "user",
    Action.USER_CHANGED: "user",
    Action.PASSWORD_CHANGED: "user",
    Action.ACCOUNT_BOUND: "user",
    Action.ACCOUNT_RELEASED: "user",
    Action.PEER_ADDED: "peer",
    Action.PEER_CHANGED: "peer",
    Action.TOKEN_ADDED: "token",
    Action.TOKEN_REVOKED: "token",
    Action.TOKEN_USED: "token",
}


def audit_names(connection: sa.Connection) -> Callable[[Any], str]:
    """Return what says of a row of ``audit`` what was done to whom or what.

    Studies and uploads stand there as they are kept.
    """
    names: dict[tuple[str, str], str] = {}
    for kind, table in _TABLES.items():
        for row in connection.execute(sa.select(table.c.id, table.c.name)):
            names[kind, str(row.id)] = row.name

    def told(row: Any) -> str:  # noqa: ANN401 - a row of SQL
        kind = _KIND_OF.get(row.action)
        if kind is None or not row.subject:
            return str(row.subject)
        return f"{kind} {names.get((kind, row.subject), row.subject)}"

    return told
