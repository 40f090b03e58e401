"""Storage commitment: a peer reports whether it keeps what it was sent (PS3.4 J).

Some report on the association on which they were asked, most on one of their own to
this node's port, when they have looked.
"""

from typing import Final

from pydicom.dataset import Dataset

from csfd_core.text import count
from csfd_core.web.delivery.deliveries import commit, lose, of_transaction
from csfd_core.web.services import Services

SUCCESS: Final = 0x0000
NO_SUCH_ARGUMENT: Final = 0x0114
INVALID_ARGUMENT: Final = 0x0115
_ALL_COMMITTED: Final = 1  # event type; 2: some are not


def take_report(services: Services, told: Dataset, event_type: int) -> int:
    """Take over what a peer reports.

    Args:
        services: Where the outbox is.
        told: The event information.
        event_type: 1: all objects are kept; 2: some are not.

    Returns:
        The status to answer with.
    """
    transaction_uid = str(told.get("TransactionUID") or "")
    failed = len(told.get("FailedSOPSequence") or [])
    with services.database.transaction() as connection:
        one = of_transaction(connection, transaction_uid)
        if one is None:
            return NO_SUCH_ARGUMENT
        number = len(told.get("ReferencedSOPSequence") or [])
        if event_type == _ALL_COMMITTED and not failed:
            if not number:
                return INVALID_ARGUMENT
            commit(connection, one, f"{count(number, 'object')} kept for good.")
        else:
            lost = count(max(failed, 1), "object")
            lose(connection, one, f"It has not kept {lost} that it had stored.")
    return SUCCESS
