"""Every label that a study has ever had: corrections are new versions.

Versions are added when the table of studies is written and the labels of a study are no
longer those of its newest version; ``label_parts`` keeps them, one file for what was
recorded at once. They are counted when they are read: saying the same again, as two
writers do who see the same source, is none. Of two that follow upon the same version,
as of writers that did not see each other, the one that was signed earlier is the older,
else the one whose source was read earlier.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from csfd_core.store.label_notes import moment_of
from csfd_core.store.label_parts import RECORDED_AT, LabelParts, Row
from csfd_core.store.labels import Labels, LabelTable, read_all_labels
from csfd_core.store.locations import Location
from csfd_core.vocabulary import LABEL_COLUMNS

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What is on record of a study.

    Attributes:
        versions: The oldest first; at least one.
        last: What the next version comes after. Its number, or more: of two writers
            that did not see each other, each has added a version after the same one.
    """

    versions: tuple[LabelVersion, ...]
    last: int

    @property
    def newest(self) -> LabelVersion:
        """The version that counts."""
        return self.versions[-1]


@dataclass(frozen=True, slots=True)
class LabelsRead(LabelTable):
    """What sources say, and what was on record before they were read.

    Attributes:
        recorded: By study.
        read_at: When, ISO 8601.
    """

    recorded: Mapping[str, Recorded] = field(default_factory=dict)
    read_at: str = ""


class LabelHistory:
    """The label versions of one store."""

    def __init__(self, location: Location) -> None:
        """Take the root of the store."""
        self._parts = LabelParts(location)

    def versions(self, study_uid: str) -> list[LabelVersion]:
        """Return the versions of a study, the oldest first."""
        recorded = self._read().get(study_uid)
        return [] if recorded is None else list(recorded.versions)

    def newest(self) -> dict[str, LabelVersion]:
        """Return the newest version of each study."""
        return {uid: recorded.newest for uid, recorded in self._read().items()}

    def read_labels(
        self, locations: Sequence[Location], without: Collection[str] = ()
    ) -> LabelsRead:
        """Read what sources say now; where a label file cannot be used, what they said.

        Args:
            locations: In order of precedence.
            without: Studies to leave out, such as those that were withdrawn.

        Raises:
            SourceError: If a ``train.csv`` is no table with the columns of the RSNA
                layout.
        """
        history = self._read()  # first: what is recorded meanwhile is newer
        at = _now()
        labels = {uid: recorded.newest.as_labels for uid, recorded in history.items()}
        read = read_all_labels(locations, without, labels)
        return LabelsRead(read.table, read.notes, read.dated, history, at)

    def record(self, labels: LabelTable) -> dict[str, LabelVersion]:
        """Add versions where labels have changed; return the newest of each study.

        What another writer has recorded since the sources were read stays the newest,
        unless the labels are those of a later reader.

        Args:
            labels: As ``read_labels`` returns.
        """
        facts = self._facts()
        now = {uid: _counted(rows) for uid, rows in facts.items()}
        before: Mapping[str, Recorded] = now
        at = _now()
        if isinstance(labels, LabelsRead):
            before, at = labels.recorded, labels.read_at
        rows = []
        for uid, values in sorted(_values_of(labels).items()):
            if _are_new(values, before.get(uid)) and _are_new(values, now.get(uid)):
                last = before[uid].last if uid in before else 0
                told = {**values, **_origin_of(uid, labels), RECORDED_AT: at}
                row = {"study_uid": uid, "version": last + 1, **told}
                facts.setdefault(uid, []).append(row)
                now[uid] = _counted(facts[uid])
                rows.append(row)
        self._parts.add(rows)
        return {uid: recorded.newest for uid, recorded in now.items()}

    def drop_study(self, study_uid: str) -> None:
        """Remove all versions of a study, as when it is withdrawn."""
        self._parts.take_out(study_uid)

    def _read(self) -> dict[str, Recorded]:
        return {uid: _counted(rows) for uid, rows in self._facts().items()}

    def _facts(self) -> dict[str, list[Row]]:
        by_study: dict[str, list[Row]] = {}
        for row in self._parts.rows():
            by_study.setdefault(row["study_uid"], []).append(row)
        return by_study


def _are_new(values: Mapping[str, int | None], recorded: Recorded | None) -> bool:
    """Say whether labels differ from those that count; none at all do not."""
    if recorded is None:
        return any(value is not None for value in values.values())
    return values != recorded.newest.labels


def _counted(rows: Iterable[Row]) -> Recorded:
    """Return the facts of one study as versions, counted from 1."""
    versions: list[LabelVersion] = []
    for row in sorted(rows, key=_order):
        labels = {name: row[name] for name in LABEL_COLUMNS}
        if not versions or labels != versions[-1].labels:
            versions.append(_to_version(row, len(versions) + 1))
        last = row["version"]
    return Recorded(versions=tuple(versions), last=max(last, len(versions)))


def _order(row: Row) -> tuple[Any, ...]:
    date, at = row["date"], row["signed_at"]
    moment = moment_of(
        None if date is None else dt.date.fromisoformat(date),
        None if at is None else dt.datetime.fromisoformat(at),
    )
    labels = [str(row[name]) for name in LABEL_COLUMNS]
    return row["version"], moment, row[RECORDED_AT], labels, str(row["reader"])


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat("T", "milliseconds")


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
    dated = labels.dated.get(study_uid)
    if dated is None or dated.date is None:
        return dict.fromkeys(("reader", "date", "signed_at")) | {"origin": "table"}
    return {
        "origin": "file",
        "reader": dated.reader,
        "date": dated.date.isoformat(),
        "signed_at": None if dated.signed_at is None else dated.signed_at.isoformat(),
    }


def _to_version(row: Row, number: int) -> LabelVersion:
    at = dt.datetime.fromisoformat(row[RECORDED_AT])
    return LabelVersion(
        version=number,
        labels={name: row[name] for name in LABEL_COLUMNS},
        origin=row["origin"],
        reader=row["reader"],
        date=row["date"],
        recorded_at=at.isoformat("T", "seconds"),
        signed_at=row["signed_at"],
    )


def _told(value: int | None) -> str:
    return "unlabelled" if value is None else str(value)
