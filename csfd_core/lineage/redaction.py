"""Taking a withdrawn study out of what has to stay: records that name it.

A trained model says what it was trained from, MLflow and Dagster what was done with
which study. Those records stay; where they name a withdrawn study, its stand-in takes
its place. Pictures bear no names, so the copies of reports that MLflow has go as a
whole, and what a training has shown if it names the study.
"""

from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

import sqlalchemy as sa

from csfd_core.errors import SourceError
from csfd_core.registry.frozen import frozen_digests, rewrite
from csfd_core.runtime.tracking import artifacts_folder, database_file
from csfd_core.store import paths
from csfd_core.store.atomic import write_atomically
from csfd_core.store.redaction import Redaction
from csfd_core.store.stores import Stores
from csfd_core.text import safe_url

RECORDS: Final = "csfd.records"  # entry points: what else has recorded studies
_REPORTS: Final = (".html", ".mp4")  # pages and films: what shows studies without names
_SHOWN: Final = (*_REPORTS, ".png", ".jpg", ".gif", ".svg", ".webp", ".csv")
_BUSY_S: Final = 30


class Records(Protocol):
    """Something beside the store that has recorded what was done with studies."""

    def forget(self, redaction: Redaction) -> Sequence[str]:
        """Take a study out; return a sentence on each thing that could not be.

        Raises:
            SourceError: If it cannot be done now; doing it again goes on.
        """


class MlflowRecords:
    """The runs and artifacts of MLflow, where they are files of this machine."""

    def __init__(self, tracking_uri: str) -> None:
        """Take MLflow's backend."""
        self._uri = tracking_uri

    def forget(self, redaction: Redaction) -> Sequence[str]:
        """Take a study out of the database, and out of the artifacts of its runs."""
        database = database_file(self._uri)
        if database is None:
            return [
                f"MLflow at {safe_url(self._uri)} is another machine's: delete the "
                "runs that name the study there (mlflow runs delete), then mlflow gc."
            ]
        if not database.exists():
            return []
        for holder in artifacts_folder(database).glob("*/*"):
            _redact_artifacts(holder, redaction)
        redact_database(database, redaction)
        return []


def all_records(tracking_uri: str) -> list[Records]:
    """Return what has recorded studies beside the store: MLflow, and entry points."""
    others = [point.load()() for point in entry_points(group=RECORDS)]
    return [MlflowRecords(tracking_uri), *others]


def redact_models(stores: Stores, redaction: Redaction) -> None:
    """Let the stand-in take the place of a study in every trained model's card."""
    for digest in frozen_digests(stores):
        rewrite(stores, digest, redaction.of_file)
    for entry in stores.root.find(paths.MODELS)[0]:
        if redaction.can_change(entry.path):
            before = stores.root.read(entry.path)
            after = redaction.of_file(entry.path, before)
            if after != before:
                stores.root.write(entry.path, after)


def redact_files(folder: Path, redaction: Redaction) -> None:
    """Let the stand-in take the place of a study in the text files of a folder."""
    for path in _files(folder):
        if (after := _redacted(path, redaction)) is not None:
            write_atomically(path, after)


def redact_database(path: Path, redaction: Redaction) -> None:
    """Let the stand-in take the place of a study in all texts of an SQLite database.

    What was there before is overwritten in the file as well.

    Raises:
        SourceError: If others work with the database all the time.
    """
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=sa.pool.NullPool,
        connect_args={"timeout": _BUSY_S},
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
            changed = _redact_tables(connection, redaction)
            connection.commit()
            if changed:  # what was changed before stands in free pages
                autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
                autocommit.exec_driver_sql("VACUUM")
                autocommit.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except sa.exc.OperationalError as error:
        raise SourceError(
            f"The database {path.name} is in use. Stop what is running (csfd ui, csfd "
            "run), and repeat the command."
        ) from error


def _redact_tables(connection: sa.Connection, redaction: Redaction) -> int:
    tables = sa.MetaData()
    tables.reflect(connection)
    changed = 0
    for table in tables.tables.values():
        for column in table.columns:
            if not isinstance(column.type, sa.String):
                continue
            named = sa.select(column).where(column.contains(redaction.study_uid))
            for (before,) in connection.execute(named.distinct()).all():
                after = redaction.of_text(before.encode()).decode()
                if after != before:
                    change = table.update().where(column == before)
                    connection.execute(change.values({column.name: after}))
                    changed += 1
    return changed


def _redact_artifacts(holder: Path, redaction: Redaction) -> None:
    """Take a study out of the artifacts of one run or model."""
    files = _files(holder)
    is_report = any(path.suffix in _REPORTS for path in files)
    if is_report or any(_redacted(path, redaction) is not None for path in files):
        for path in files:
            if path.suffix in _SHOWN:
                path.unlink()
    redact_files(holder, redaction)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _redacted(path: Path, redaction: Redaction) -> bytes | None:
    """Return what a file becomes; ``None`` where it does not name the study."""
    if not redaction.can_change(path.name):
        return None  # weights and databases are large
    before = path.read_bytes()
    after = redaction.of_file(path.name, before)
    return after if after != before else None
