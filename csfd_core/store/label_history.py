"""Every label that a study has ever had: corrections are new versions.

``metadata/label_versions/`` has one file for all that was recorded at once, with one
row per study. Files are only added, when the table of studies is written and the labels
of a study are no longer those of its newest version; so two writers lose nothing.
Versions are counted when they are read: saying the same again, as two writers do who
see the same source, is none.
"""

import datetime as dt
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from csfd_core.store import paths
from csfd_core.store.labels import Labels, LabelTable, read_all_labels
from csfd_core.store.locations import Location
from csfd_core.store.parquet import read_parquet, write_parquet
from csfd_core.vocabulary import LABEL_COLUMNS

_READERS: Final = 16  # reading small files waits for the disk or the network
_SCHEMA: Final = pa.schema(
    [
        ("study_uid", pa.string()),
        ("version", pa.int64()),
        *((name, pa.int8()) for name in LABEL_COLUMNS),
        ("origin", pa.string()),
        ("reader", pa.string()),
        ("date", pa.string()),
        ("signed_at", pa.string()),
        ("recorded_at", pa.string()),
    ]
)

Origin = Literal["table", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVersion:
    """The labels of a study from one moment on.

    Attributes:
        version: 1 is the first.
        labels: ``patient_overall``, C1..C7; ``None``: unlabelled.
        origin: A row of ``train.csv``, or a label file.
        reader: Who has read the study; ``None``: not known.
        date: When, a day, ISO 8601; ``None``: not known.
        signed_at: When, with time and offset; ``None``: the day alone is known.
        recorded_at: When this became known here, ISO 8601.
    """

    version: int
    labels: dict[str, int | None]
    origin: Origin
    reader: str | None
    date: str | None
    recorded_at: str
    signed_at: str | None = None

    @property
    def as_labels(self) -> Labels:
        """As labels that a source could tell."""
        date, at = self.date, self.signed_at
        return Labels(
            self.labels,
            None if date is None else dt.date.fromisoformat(date),
            self.reader,
            None if at is None else dt.datetime.fromisoformat(at),
        )

    def changes_from(self, before: "LabelVersion | None") -> dict[str, str]:
        """Return what changed, such as ``{"C4": "0 to 1"}``; {} for the first."""
        if before is None:
            return {}
        return {
            name: f"{_told(before.labels[name])} to {_told(value)}"
            for name, value in self.labels.items()
            if value != before.labels[name]
        }


class LabelHistory:
    """The label versions of one store."""

    def __init__(self, location: Location) -> None:
        """Take the root of the store."""
        self._location = location

    def versions(self, study_uid: str) -> list[LabelVersion]:
        """Return the versions of a study, the oldest first."""
        return self._read().get(study_uid, [])

    def newest(self) -> dict[str, LabelVersion]:
        """Return the newest version of each study."""
        return {uid: versions[-1] for uid, versions in self._read().items()}

    def read_labels(
        self, locations: Sequence[Location], without: Collection[str] = ()
    ) -> LabelTable:
        """Read what sources say now; where a label file cannot be used, what they said.

        Args:
            locations: In order of precedence.
            without: Studies to leave out, such as those that were withdrawn.

        Raises:
            SourceError: If a ``train.csv`` is no table with the columns of the RSNA
                layout.
        """
        recorded = {uid: version.as_labels for uid, version in self.newest().items()}
        return read_all_labels(locations, without, recorded)

    def record(self, labels: LabelTable) -> dict[str, LabelVersion]:
        """Add versions where labels have changed; return the newest of each study.

        Args:
            labels: As ``read_labels`` returns.
        """
        known = self.newest()
        nothing: dict[str, int | None] = dict.fromkeys(LABEL_COLUMNS)
        changed = {
            study_uid: values
            for study_uid, values in sorted(_values_of(labels).items())
            if values != (known[study_uid].labels if study_uid in known else nothing)
        }
        if not changed:
            return known
        at = dt.datetime.now(dt.UTC).isoformat("T", "seconds")
        rows = [
            {
                "study_uid": study_uid,
                "version": known[study_uid].version + 1 if study_uid in known else 1,
                **values,
                **_origin_of(study_uid, labels),
                "recorded_at": at,
            }
            for study_uid, values in changed.items()
        ]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        path = paths.of_fact(paths.LABEL_VERSIONS, ".parquet")
        write_parquet(self._location, path, table, {})
        return known | {row["study_uid"]: _to_version(row) for row in rows}

    def drop_study(self, study_uid: str) -> None:
        """Remove all versions of a study, as when it is withdrawn."""
        for path in self._paths():
            table, _ = read_parquet(self._location, path)
            kept = table.filter(pc.not_equal(table["study_uid"], study_uid))
            if not kept.num_rows:
                self._location.remove(path)
            elif kept.num_rows < table.num_rows:
                write_parquet(self._location, path, kept, {})

    def _paths(self) -> list[str]:
        old = [paths.OLD_LABEL_VERSIONS]
        found = [entry.path for entry in self._location.entries(paths.LABEL_VERSIONS)]
        return [*filter(self._location.exists, old), *found]

    def _read(self) -> dict[str, list[LabelVersion]]:
        """Return the versions of every study, counted from 1."""
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(
                pool.map(lambda p: read_parquet(self._location, p)[0], self._paths())
            )
        found: dict[str, list[LabelVersion]] = {}
        for table in tables:
            for row in _upgraded(table).sort_by("version").to_pylist():
                versions = found.setdefault(row["study_uid"], [])
                labels = {name: row[name] for name in LABEL_COLUMNS}
                if not versions or labels != versions[-1].labels:
                    row["version"] = len(versions) + 1
                    versions.append(_to_version(row))
        return found


def _upgraded(table: pa.Table) -> pa.Table:
    """Return a table of versions as it is written now; older ones know days alone."""
    for field in _SCHEMA:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(_SCHEMA.names).cast(_SCHEMA)


def _values_of(labels: LabelTable) -> dict[str, dict[str, int | None]]:
    table = labels.table.astype(object).where(labels.table.notna(), None)
    rows = zip(table.index, table[list(LABEL_COLUMNS)].to_dict("records"), strict=True)
    return {
        str(uid): {
            str(name): None if value is None else int(value)
            for name, value in row.items()
        }
        for uid, row in rows
    }


def _origin_of(study_uid: str, labels: LabelTable) -> dict[str, Any]:
    own = labels.dated.get(study_uid)
    if own is None or own.date is None:
        return dict.fromkeys(("reader", "date", "signed_at")) | {"origin": "table"}
    return {
        "origin": "file",
        "reader": own.reader,
        "date": own.date.isoformat(),
        "signed_at": None if own.signed_at is None else own.signed_at.isoformat(),
    }


def _to_version(row: dict[str, Any]) -> LabelVersion:
    return LabelVersion(
        version=row["version"],
        labels={name: row[name] for name in LABEL_COLUMNS},
        origin=row["origin"],
        reader=row["reader"],
        date=row["date"],
        recorded_at=row["recorded_at"],
        signed_at=row["signed_at"],
    )


def _told(value: int | None) -> str:
    return "unlabelled" if value is None else str(value)
