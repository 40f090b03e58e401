"""The order in which studies are to be read, and how one is found.

Suspicious and unread first, by the ratio to the operating point; then what needs eyes;
then by age. Nobody waits longer than ``CSFD_MAX_WAIT``: who has waited so long joins
the first, or the fractures that the model misses would wait the longest (Baltruschat
2020). What is read blind, as every patient of the locked test set, stands by its age.
"""

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.classification.unlike import Verdict
from csfd_core.deid.identities import reference_digest
from csfd_core.ingest.patients import read_secret
from csfd_core.vocabulary import is_uid
from csfd_core.web.database import references, studies
from csfd_core.web.services import Services
from csfd_core.web.study_states import OPEN, StudyState

PAGE: Final = 50  # studies
SHOWN: Final = ("unread", "signed", "coming", "all")


class Band(IntEnum):
    """Where a study stands in the worklist."""

    FIRST = 1  # suspicious, or waited too long
    BLIND = 2  # its place must not tell what the model says
    NEEDS_EYES = 3
    OTHER = 4
    COMING = 5  # not predicted yet
    READ = 6


UNREAD: Final = (Band.FIRST, Band.BLIND, Band.NEEDS_EYES, Band.OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row of the worklist."""

    study_uid: str
    band: Band
    has_waited: bool
    row: Any  # of the table ``studies``

    @property
    def is_read(self) -> bool:
        """Whether this version of it was signed."""
        return bool(self.row.signed_version >= self.row.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worklist:
    """One page of the worklist.

    Attributes:
        studies: In the order in which they are to be read.
        total: How many there are of this kind.
        counts: By band, of all studies.
    """

    studies: tuple[Listed, ...]
    total: int
    counts: dict[Band, int]


def list_studies(
    services: Services, shown: str = "unread", query: str = "", page: int = 0
) -> Worklist:
    """Return one page of the worklist.

    Args:
        services: The database.
        shown: ``unread``, ``signed``, ``coming`` or ``all``.
        query: Part of a UID, or all of an original StudyInstanceUID, accession number
            or PatientID, which are compared by their keyed digests.
        page: From 0.
    """
    band = _band(services, time.time())
    wanted = _filter(services, band, shown, query)
    order = (
        band,
        sa.case(
            ((band == Band.FIRST) & ~studies.c.is_locked, -studies.c.ratio), else_=0.0
        ),
        -studies.c.priority,
        sa.case((band == Band.READ, -studies.c.accepted_at), else_=0.0),
        studies.c.accepted_at,
        studies.c.study_uid,
    )
    listed = sa.select(studies, band.label("band")).where(*wanted)
    with services.database.transaction() as connection:
        counts = connection.execute(
            sa.select(band.label("band"), sa.func.count().label("n")).group_by(band)
        ).all()
        total = connection.scalar(
            sa.select(sa.func.count()).select_from(studies).where(*wanted)
        )
        rows = connection.execute(
            listed.order_by(*order).limit(PAGE).offset(page * PAGE)
        ).all()
    oldest = time.time() - services.web.max_wait * 60
    entries = tuple(
        Listed(
            study_uid=row.study_uid,
            band=Band(row.band),
            has_waited=row.accepted_at < oldest and row.band == Band.FIRST,
            row=row,
        )
        for row in rows
    )
    return Worklist(
        studies=entries,
        total=total or 0,
        counts={Band(row.band): row.n for row in counts},
    )


def neighbours(services: Services, study_uid: str) -> tuple[str | None, str | None]:
    """Return the studies before and after one among the unread of the first page."""
    uids = [one.study_uid for one in list_studies(services).studies]
    if study_uid not in uids:
        return None, uids[0] if uids else None
    index = uids.index(study_uid)
    before = uids[index - 1] if index else None
    return before, uids[index + 1] if index + 1 < len(uids) else None


def _band(services: Services, now: float) -> sa.Case[int]:
    has_waited = studies.c.accepted_at < now - services.web.max_wait * 60
    is_blind = sa.true() if services.web.blind else studies.c.is_locked
    is_odd = studies.c.state.in_((StudyState.REFUSED, StudyState.FAILED))
    return sa.case(
        (studies.c.state.in_(OPEN), Band.COMING),
        (studies.c.signed_version >= studies.c.version, Band.READ),
        (has_waited & ~is_odd, Band.FIRST),
        (is_blind & ~is_odd, Band.BLIND),
        (studies.c.verdict == Verdict.SUSPICIOUS, Band.FIRST),
        (is_odd | studies.c.needs_eyes, Band.NEEDS_EYES),
        else_=Band.OTHER,
    )


def _filter(
    services: Services, band: sa.Case[int], shown: str, query: str
) -> list[sa.ColumnElement[bool]]:
    bands = {
        "unread": UNREAD,
        "signed": (Band.READ,),
        "coming": (Band.COMING,),
    }
    wanted: list[sa.ColumnElement[bool]] = []
    if shown in bands:
        wanted.append(band.in_(bands[shown]))
    if text := query.strip()[:100]:
        digest = reference_digest(text, read_secret(services.settings.key_file))
        uids = sa.select(references.c.study_uid).where(references.c.digest == digest)
        matching: sa.ColumnElement[bool] = studies.c.study_uid.in_(uids)
        if is_uid(text) or text.replace(".", "").isdigit():
            matching |= studies.c.study_uid.contains(text, autoescape=True)
        wanted.append(matching)
    return wanted
