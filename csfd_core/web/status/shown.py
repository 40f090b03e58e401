"""What of a prediction a reader may see in lists: nothing while they read blind."""

from typing import Any

from csfd_core.web.review.blind import is_blind
from csfd_core.web.security.sessions import Session
from csfd_core.web.services import Services


def is_hidden(services: Services, session: Session, row: Any) -> bool:  # noqa: ANN401
    """Say whether the prediction in a row of ``studies`` is withheld from a reader."""
    return bool(row.verdict) and is_blind(services, session, row.study_uid)
