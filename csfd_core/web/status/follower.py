"""Follows what changes outside of the web process, and tells the pages that follow.

The graph writes predictions into the store and the states of studies into the database.
A thread looks at both; an open page waits for the number of the newest change.
"""

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import sqlalchemy as sa

from csfd_core.classification.ensemble import threshold_of
from csfd_core.classification.unlike import Verdict
from csfd_core.inference.predict import read_prediction
from csfd_core.store import paths
from csfd_core.store.locations import FileEntry
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL, is_uid
from csfd_core.web.database import studies
from csfd_core.web.repeating import Repeating
from csfd_core.web.review.blind import is_locked
from csfd_core.web.services import Services
from csfd_core.web.study_states import OPEN, StudyState, forget

_LOOK_EVERY_S: Final = 0.5
_LIST_EVERY_S: Final = 3.0  # a listing of thousands of predictions takes longer
_BATCH: Final = 100  # predictions in one transaction
_ENDING: Final = ".json"
_log = logging.getLogger(__name__)


class Follower(Repeating):
    """Looks for changes from ``start`` until ``stop``."""

    def __init__(self, services: Services) -> None:
        """Take what is followed."""
        super().__init__(self.look, _LOOK_EVERY_S, "cannot follow the store")
        self._services = services
        self._listed_at = 0.0
        self.newest = 0.0  # when a row of the studies changed last, POSIX seconds

    def look(self) -> None:
        """Take over new predictions, where it is time, and find the newest change."""
        now = time.monotonic()
        if now - self._listed_at > _LIST_EVERY_S:
            take_over(self._services)
            self._listed_at = now
        with self._services.database.transaction() as connection:
            newest = connection.scalar(sa.select(sa.func.max(studies.c.changed_at)))
        self.newest = newest or 0.0


def take_over(services: Services) -> int:
    """Bring what the store's predictions say into the worklist; return how many.

    A withdrawn study goes from the list once its prediction is gone, if it had one.
    """
    listed = _listed(services)
    with services.database.transaction() as connection:
        rows: dict[str, Any] = {
            row.study_uid: row
            for row in connection.execute(
                sa.select(studies.c.study_uid, studies.c.prediction, studies.c.state)
            )
        }
    changed = [
        uid
        for uid, entry in listed.items()
        if uid not in rows or rows[uid].prediction != _identity(entry)
    ]
    for start in range(0, len(changed), _BATCH):
        some = changed[start : start + _BATCH]
        read = {uid: _summary(services, uid, listed[uid]) for uid in some}
        _write(services, {uid: one for uid, one in read.items() if one}, rows)
    gone = [
        uid for uid, row in rows.items() if uid not in listed and row.state not in OPEN
    ]
    withdrawn = services.stores.withdrawn.study_uids() if gone else frozenset()
    if lost := [uid for uid in gone if uid in withdrawn]:
        with services.database.transaction() as connection:
            forget(connection, lost)
    return len(changed)


def _listed(services: Services) -> dict[str, FileEntry]:
    entries = services.stores.root.entries(paths.PREDICTIONS)
    return {
        entry.name.removesuffix(_ENDING): entry
        for entry in entries
        if entry.name.endswith(_ENDING) and is_uid(entry.name.removesuffix(_ENDING))
    }


def _identity(entry: FileEntry) -> str:
    return f"{entry.size_bytes}-{entry.token}"[:64]


def _summary(services: Services, uid: str, entry: FileEntry) -> dict[str, Any] | None:
    """Return the columns of a study; ``None`` where its prediction is not readable."""
    try:
        note = read_prediction(services.stores, uid)
        summary = None if note is None else summary_of(note)
    except (KeyError, TypeError, ValueError) as error:
        _log.warning("a prediction is not readable: %s", type(error).__name__)
        return None
    if summary is None:
        return None
    identity = {"prediction": _identity(entry)}
    return summary | identity | {"is_locked": is_locked(services.stores, uid)}


def summary_of(note: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the worklist shows of a prediction, as columns of ``studies``."""
    probabilities, thresholds = note["probabilities"], note["thresholds"]
    ratios = [
        value / threshold_of(thresholds, name)
        for name, value in probabilities.items()
        if value is not None and threshold_of(thresholds, name) > 0
    ]
    suspicious = [name for name in note["suspicious"] if name in LEVEL_NAMES]
    version = note.get("model_version")
    return {
        "verdict": note["verdict"],
        "ratio": round(max(ratios, default=0.0), 4),
        "overall": probabilities[OVERALL],
        "suspicious": " ".join(suspicious),
        "needs_eyes": bool(note["needs_eyes"])
        or note["verdict"] in (Verdict.NEEDS_EYES, Verdict.NOT_ASSESSED),
        "model": f"{note['model']}{f' v{version}' if version else ''}",
    }


def _write(
    services: Services,
    read: Mapping[str, Mapping[str, Any]],
    study_uids: Collection[str],
) -> None:
    now = time.time()
    with services.database.transaction() as connection:
        for uid, values in read.items():
            if uid in study_uids:
                same = studies.c.study_uid == uid
                connection.execute(studies.update().where(same).values(**values))
            else:  # of the source: nobody has uploaded it
                row = {"state": StudyState.DONE, "accepted_at": now, "done_at": now}
                connection.execute(
                    studies.insert().values(study_uid=uid, **row, **values)
                )
