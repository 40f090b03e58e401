"""Letting another axial volume of a study be read, and predicted.

A choice is a file in the store first, then a new version of the study: the graph reads
it anew as after late slices, and what was signed stays with the version that it was
signed for. Who is killed in between leaves a choice for a version that there is not
yet; ``settle_choices`` makes it, when the page starts again.
"""

import logging
from typing import Any, Final

import sqlalchemy as sa
from fastapi import HTTPException

from csfd_core.errors import SourceError
from csfd_core.store.volume_choices import VolumeChoice
from csfd_core.vocabulary import require_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.database import studies, users
from csfd_core.web.review.label_files import is_withdrawn
from csfd_core.web.security.users import User
from csfd_core.web.services import Services
from csfd_core.web.study_locks import hold_studies
from csfd_core.web.study_states import OPEN, Accepted, StudyState, accept
from csfd_core.web.volume_choice.shown import ShownVolume, volumes_of

_LOG: Final = logging.getLogger(__name__)
_READ: Final = (StudyState.DONE, StudyState.REFUSED)  # states of what was read


def choose_volume(
    services: Services, user: User, study_uid: str, slice_uid: str, version: int
) -> None:
    """Let a volume of a study be read from now on.

    Choosing what is chosen already, as by a double click, changes nothing.

    Args:
        services: Stores and database.
        user: Who chooses.
        study_uid: The study.
        slice_uid: One of those that the volumes of the study are offered by.
        version: Of the study which the page has shown.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        HTTPException: 404 where there is no such study or volume, 409 where it cannot
            be read now, or not as the page has shown it.
        SourceError: If the store cannot be written.
    """
    uid = require_uid(study_uid)
    with hold_studies(services.settings, uid):  # nobody adds slices meanwhile
        if is_withdrawn(services, uid):  # its row goes when the follower sees it
            raise HTTPException(409, "This study was withdrawn: it is not read again.")
        row = _require_row(services, uid)
        volume = _require_volume(services, uid, slice_uid)
        if _is_chosen(services, row, volume):
            return
        _require_readable(services, row, version)
        choice = VolumeChoice(
            study_uid=uid,
            slice_uid=slice_uid,
            told=volume.told,
            by=user.name,
            version=row.version + 1,
        )
        if not services.stores.volume_choices.add(choice):
            raise HTTPException(409, "Somebody else has just chosen. Load the page.")
        with services.database.transaction() as connection:
            _accept(connection, row, user.id)


def settle_choices(services: Services) -> int:
    """Make the versions that were chosen and not made; return how many."""
    try:
        newest = services.stores.volume_choices.newest()
    except SourceError as error:
        _LOG.warning("Choices of volumes cannot be looked at. %s", error)
        return 0
    settled = 0
    for uid, choice in newest.items():
        with services.database.transaction() as connection:
            row = _row(connection, uid)
            if row is not None and row.version + 1 == choice.version:
                same = users.c.name == choice.by
                number = connection.scalar(sa.select(users.c.id).where(same))
                _accept(connection, row, number)
                settled += 1
    return settled


def _accept(connection: sa.Connection, row: Any, user_id: int | None) -> None:  # noqa: ANN401 - a row of SQL
    """Make a new version of a study, as urgent as it was."""
    one = Accepted(
        study_uid=row.study_uid,
        slices=row.slices,
        priority=row.priority,
        user_id=row.user_id,
    )
    accept(connection, one)
    record(connection, user_id, Action.VOLUME_CHOSEN, row.study_uid)


def _row(connection: sa.Connection, uid: str) -> Any:  # noqa: ANN401 - a row of SQL
    same = studies.c.study_uid == uid
    return connection.execute(sa.select(studies).where(same)).first()


def _require_row(services: Services, uid: str) -> Any:  # noqa: ANN401 - a row of SQL
    with services.database.transaction() as connection:
        row = _row(connection, uid)
    if row is None:
        raise HTTPException(404, "There is no such study.")
    return row


def _require_volume(services: Services, uid: str, slice_uid: str) -> ShownVolume:
    for volume in volumes_of(services, uid).volumes:
        if volume.slice_uid == slice_uid:
            if not volume.is_usable:
                raise HTTPException(409, "That volume has a defect: it is not read.")
            return volume
    raise HTTPException(404, "This study has no such volume.")


def _is_chosen(services: Services, row: Any, volume: ShownVolume) -> bool:  # noqa: ANN401 - a row of SQL
    if volume.is_read and row.state in _READ:
        return True
    choices = services.stores.volume_choices.of_study(row.study_uid)
    return bool(choices) and choices[-1].slice_uid == volume.slice_uid


def _require_readable(services: Services, row: Any, version: int) -> None:  # noqa: ANN401 - a row of SQL
    """Require that a study can be read anew, and is as the page has shown it."""
    if row.state in OPEN:
        raise HTTPException(409, "This study is on its way. Choose once it is there.")
    if row.version != version:
        raise HTTPException(
            409, "This study has a new version. Load the page and look again."
        )
    if services.sources.study(row.study_uid) is None:
        raise HTTPException(409, "The images of this study are not here any more.")
