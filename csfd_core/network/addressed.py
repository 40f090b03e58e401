"""Result objects under the identity that their study has at its sender.

They are made in memory when they are sent, and never written.
"""

import logging
from dataclasses import replace
from typing import Final

from pydicom.dataset import Dataset

from csfd_core.dicom_objects.source import ResultSource
from csfd_core.errors import CsfdError
from csfd_core.web.delivery.deliveries import Delivery
from csfd_core.web.delivery.planning import NO_IDENTITY, NO_KEY
from csfd_core.web.delivery.signed import is_outdated, reviews_for_report
from csfd_core.web.services import Services
from csfd_core.web.vault import Vault, with_identity

_WITHDRAWN: Final = "The study was withdrawn."
_UNCERTAIN: Final = (
    "Its images name different patients: nothing is sent. Let the archive correct the "
    "study and send it again."
)
_REPLACED: Final = "A newer prediction has taken its place."
_OUTDATED: Final = "The study has had further images since it was signed."
_NO_REVIEW: Final = "The review is not there any more."


class HinderedError(CsfdError):
    """A delivery cannot be made, however often it is tried."""


class ReplacedError(HinderedError):
    """What was to be sent is not what the store holds now."""


def addressed_objects(
    services: Services, vault: Vault | None, delivery: Delivery
) -> list[Dataset]:
    """Return the objects of a delivery, named as their sender's archive names them.

    Raises:
        HinderedError: If they can never be made; it says why.
        CsfdError: If they cannot be made now.
    """
    from csfd_core.dicom_objects.results import make_results, make_signed
    from csfd_core.dicom_objects.stored import stored_results

    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)  # it names UIDs
    uid = delivery.study_uid
    if vault is None:
        raise HinderedError(NO_KEY)
    if services.stores.withdrawn.has(uid):
        raise HinderedError(_WITHDRAWN)
    # Made first as csfd keeps it: when it was made is told alike.
    stored_results(services.stores, services.sources, uid)
    source = _source(services, vault, uid)
    if delivery.review_id is None:
        if source.result_set != delivery.result_set:
            raise ReplacedError(_REPLACED)
        return [one.dataset for one in make_results(source)]
    with services.database.transaction() as connection:
        if is_outdated(connection, delivery.review_id):
            raise ReplacedError(_OUTDATED)
        reviews = reviews_for_report(
            connection, services.stores, uid, delivery.review_id
        )
    if reviews is None:
        raise HinderedError(_NO_REVIEW)
    return [make_signed(source, *reviews).dataset]


def _source(services: Services, vault: Vault, uid: str) -> ResultSource:
    from csfd_core.dicom_objects.stored import result_source

    with services.database.transaction() as connection:
        identity = vault.read(connection, uid)
    if identity is None:
        raise HinderedError(NO_IDENTITY)
    if not identity.is_certain:
        raise HinderedError(_UNCERTAIN)
    source = result_source(services.stores, services.sources, uid)
    return replace(source, headers=with_identity(source.headers, identity))
