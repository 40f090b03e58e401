"""The end of a transfer: a study that has come in is accepted.

Doing it twice does no harm, whenever it was cut off: what waits is removed last.
"""

import sqlalchemy as sa

from csfd_core.web.acceptance import accept_put, put_all
from csfd_core.web.database import studies
from csfd_core.web.reception.waiting import Waiting
from csfd_core.web.review.label_files import is_withdrawn
from csfd_core.web.services import Services
from csfd_core.web.study_locks import hold_studies
from csfd_core.web.study_states import Accepted
from csfd_core.web.vault import Vault


def settle_study(services: Services, waiting: Waiting, vault: Vault | None) -> bool:
    """Put the slices of a study into the inbox and accept it; return whether it was so.

    The caller holds the waiting slices alone. A withdrawn study is removed instead.

    Args:
        services: Where the inbox and the database are.
        waiting: Its slices.
        vault: Keeps how the sender calls it.

    Raises:
        SourceError: If the inbox cannot be written. The slices still wait then.
    """
    uid = waiting.study_uid
    incoming, identities = waiting.incoming(), waiting.identities()
    with hold_studies(services.settings, uid):
        if is_withdrawn(services, uid):
            waiting.remove()
            return False
        put = put_all(services, [incoming] if incoming.files else [])
        with services.database.transaction() as connection:
            row = connection.execute(
                sa.select(studies.c.priority, studies.c.user_id).where(
                    studies.c.study_uid == uid
                )
            ).first()
            for one in put:
                accepted = Accepted(
                    study_uid=uid,
                    slices=one.images,
                    priority=max(
                        waiting.priority(), 0 if row is None else row.priority
                    ),
                    user_id=None if row is None else row.user_id,
                    references=waiting.references(),
                )
                accept_put(connection, one, accepted)
            if vault is not None and (put or row is not None):
                vault.keep(connection, uid, identities)
    waiting.remove()
    return bool(put)
