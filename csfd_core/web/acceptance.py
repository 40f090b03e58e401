"""How slices that were taken in become a study: the same for every way they come.

First the files go into the inbox, each whole and on the disk; then one transaction
accepts the study. A mark beside the waiting files says that the inbox is about to
change, and outlives who is killed in between: doing it again then still counts as a
change of the study, once.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from csfd_core.store.layout import IMAGES_FOLDER
from csfd_core.web.audit import Action, record
from csfd_core.web.database import studies
from csfd_core.web.services import Services
from csfd_core.web.study_states import Accepted, accept

_WRITERS: Final = 8  # each waits for the disk, or for S3


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Slices of a study that wait to be accepted.

    Attributes:
        study_uid: Keyed.
        files: De-identified; each is named by its keyed SOPInstanceUID.
        mark: Where to record that the inbox is about to change.
    """

    study_uid: str
    files: Sequence[Path]
    mark: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What lies in the inbox of a study now."""

    study_uid: str
    images: int
    added: tuple[str, ...]  # paths in the inbox
    replaced: int
    is_changed: bool


def put_all(services: Services, incoming: Sequence[Incoming]) -> list[Put]:
    """Write the slices of studies into the inbox, unless they are there.

    The caller holds the locks of the studies.

    Raises:
        SourceError: If the inbox cannot be written. What was added by this is removed.
    """
    done: list[Put] = []
    added: list[str] = []
    try:
        for one in incoming:
            done.append(_put(services, one, added))
    except Exception:
        for path in added:  # a study must not be there by halves
            services.inbox.remove(path)
        raise
    return done


def _put(services: Services, one: Incoming, added: list[str]) -> Put:
    """Write the slices of a study.

    Args:
        services: Where the inbox is.
        one: The study.
        added: Paths of new files are appended, before they are written.
    """
    folder = f"{IMAGES_FOLDER}/{one.study_uid}"
    there = {entry.name for entry in services.inbox.entries(folder)}

    def is_other(path: Path) -> bool:
        stored = services.inbox.read(f"{folder}/{path.name}")
        return stored != path.read_bytes()

    def write(path: Path) -> None:
        services.inbox.write(f"{folder}/{path.name}", path.read_bytes())

    new = [path for path in one.files if path.name not in there]
    with ThreadPoolExecutor(_WRITERS) as pool:
        present = [path for path in one.files if path.name in there]
        differs = pool.map(is_other, present)
        replaced = [p for p, other in zip(present, differs, strict=True) if other]
        version = _version_of(services, one.study_uid)
        was_changing = _marked(one.mark) == version
        if new or replaced:
            _write_mark(one.mark, version)
        new_paths = [f"{folder}/{path.name}" for path in new]
        added += new_paths
        for _ in pool.map(write, [*new, *replaced]):
            continue
    if (new or replaced) and services.inbox.is_local:
        root = Path(services.inbox.url)
        for path in (root / folder, root / IMAGES_FOLDER, root):
            sync_folder(path)
    return Put(
        study_uid=one.study_uid,
        images=len(there) + len(new),
        added=tuple(new_paths),
        replaced=len(replaced),
        is_changed=bool(new or replaced or was_changing),
    )


def accept_put(connection: sa.Connection, put: Put, one: Accepted) -> int | None:
    """Accept a study whose slices are in the inbox.

    Args:
        connection: Of the transaction.
        put: What was written there.
        one: The study.

    Returns:
        Its version; ``None`` where nothing is new.
    """
    row = connection.execute(
        sa.select(studies.c.slices).where(studies.c.study_uid == put.study_uid)
    ).first()
    if row is not None and row.slices == put.images and not put.is_changed:
        return None
    version = accept(connection, one)
    record(connection, one.user_id, Action.STUDY_ACCEPTED, put.study_uid)
    return version


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version_of(services: Services, study_uid: str) -> int:
    wanted = sa.select(studies.c.version).where(studies.c.study_uid == study_uid)
    with services.database.transaction() as connection:
        return connection.scalar(wanted) or 0


def _marked(mark: Path) -> int | None:
    """Return the version of the study that was about to change, if there is one."""
    text = mark.read_text() if mark.exists() else ""
    return int(text) if text.isdigit() else None


def _write_mark(mark: Path, version: int) -> None:
    with mark.open("w") as file:
        file.write(str(version))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(mark.parent)
