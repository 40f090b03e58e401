"""Every label that a study has ever had: corrections are new versions.

``metadata/label_versions.parquet`` has one row per study and version. Rows are only
added, when the table of studies is written and the labels of a study are no longer
those of its newest version; saying the same again adds none. Whoever loses a race
against another writer adds what is missing the next time, as labels are compared with
what the sources say.
"""

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from csfd_core.store import paths
from csfd_core.store.labels import Labels, LabelTable, read_all_labels
from csfd_core.store.locations import Location
from csfd_core.store.parquet import read_parquet, write_parquet
from csfd_core.vocabulary import LABEL_COLUMNS

_SCHEMA: Final = pa.schema(
    [
        ("study_uid", pa.string()),
        ("version", pa.int64()),
        *((name, pa.int8()) for name in LABEL_COLUMNS),
        ("origin", pa.string()),
        ("reader", pa.string()),
        ("date", pa.string()),
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
        date: When, ISO 8601; ``None``: not known.
        recorded_at: When this became known here, ISO 8601.
    """

    version: int
    labels: dict[str, int | None]
    origin: Origin
    reader: str | None
    date: str | None
    recorded_at: str

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
        table = self._read()
        own = table.filter(pc.equal(table["study_uid"], study_uid))
        return [_to_version(row) for row in own.sort_by("version").to_pylist()]

    def newest(self) -> dict[str, LabelVersion]:
        """Return the newest version of each study."""
        found: dict[str, LabelVersion] = {}
        for row in self._read().sort_by("version").to_pylist():
            found[row["study_uid"]] = _to_version(row)
        return found

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
        recorded = {
            uid: Labels(
                version.labels,
                None if version.date is None else dt.date.fromisoformat(version.date),
                version.reader,
            )
            for uid, version in self.newest().items()
        }
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
        table = pa.concat_tables(
            [self._read(), pa.Table.from_pylist(rows, schema=_SCHEMA)]
        )
        write_parquet(self._location, paths.LABEL_VERSIONS, table, {})
        return known | {row["study_uid"]: _to_version(row) for row in rows}

    def drop_study(self, study_uid: str) -> None:
        """Remove all versions of a study, as when it is withdrawn."""
        table = self._read()
        kept = table.filter(pc.not_equal(table["study_uid"], study_uid))
        if kept.num_rows < table.num_rows:
            write_parquet(self._location, paths.LABEL_VERSIONS, kept, {})

    def _read(self) -> pa.Table:
        if not self._location.exists(paths.LABEL_VERSIONS):
            return _SCHEMA.empty_table()
        table, _ = read_parquet(self._location, paths.LABEL_VERSIONS)
        return table.cast(_SCHEMA)


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
        return {"origin": "table", "reader": None, "date": None}
    return {"origin": "file", "reader": own.reader, "date": own.date.isoformat()}


def _to_version(row: dict[str, Any]) -> LabelVersion:
    return LabelVersion(
        version=row["version"],
        labels={name: row[name] for name in LABEL_COLUMNS},
        origin=row["origin"],
        reader=row["reader"],
        date=row["date"],
        recorded_at=row["recorded_at"],
    )


def _told(value: int | None) -> str:
    return "unlabelled" if value is None else str(value)
