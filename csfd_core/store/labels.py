"""Labels and bounding boxes of a source, checked on the way in.

Labels stand in ``train.csv`` or in one file per study (``label_notes``). A row or file
that cannot be used is left out and named in a note; it never stops the others.

Of several labels of one study, from several sources, the newest count, by the time
where it is told and by the date else; a row of a table has no date and is the oldest.
Of equal ones the first source wins, and in it the file. Labels that have gone from all
sources are still those on record; a label file with nulls takes them back. Boxes of a
label file count in the same order, before those of any ``train_bounding_boxes.csv``.
"""

import codecs
import csv
import datetime as dt
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from csfd_core.errors import SourceError
from csfd_core.store.label_notes import (
    LabelNote,
    LabelNotes,
    moment_of,
    read_label_notes,
)
from csfd_core.store.layout import BOXES_FILE, LABELS_FILE
from csfd_core.store.locations import Location
from csfd_core.store.stamp import stamp
from csfd_core.text import count
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL, is_uid, own_uid

STUDY_COLUMN: Final = "StudyInstanceUID"
_DELIMITERS: Final = (",", ";", "\t", "|")
_NAMED: Final = 5  # studies, as examples
_LARGEST_BOX: Final = 1e6  # pixels, or the number of a slice
_BOX_NUMBERS: Final = ("x", "y", "width", "height", "slice_number")
BOX_COLUMNS: Final = ("study_uid", *_BOX_NUMBERS)
SLICE_COLUMN: Final = "sop_uid"


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of one study, and who has read it when.

    ``values`` are ``patient_overall`` and C1..C7; ``None``: unlabelled. A row of a
    table has no date.
    """

    values: Mapping[str, int | None]
    date: dt.date | None = None
    reader: str | None = None
    signed_at: dt.datetime | None = None

    @property
    def moment(self) -> dt.datetime:
        """What orders them; labels without a date are the oldest."""
        return moment_of(self.date, self.signed_at)


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Labels of studies.

    ``table`` has the index ``study_uid`` and the columns ``patient_overall``, ``C1`` to
    ``C7`` (Int8, 0, 1 or null). ``notes`` tell what was left out. ``dated`` has the
    labels that come from a label file, or that were recorded.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    dated: Mapping[str, Labels] = field(default_factory=dict)

    def contradictions(self) -> list[str]:
        """Return the studies whose overall label is not the highest of their levels."""
        complete = self.table.dropna()
        highest = complete[list(LEVEL_NAMES)].max(axis=1)
        return [str(uid) for uid in complete.index[complete[OVERALL] != highest]]


@dataclass(frozen=True, slots=True)
class BoxTable:
    """Fracture boxes: ``study_uid, x, y, width, height`` (pixels), ``slice_number``.

    ``sop_uid`` is that of the slice, where a label file says it.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


def read_labels(location: Location) -> LabelTable:
    """Read the labels of one source; without any, the table is empty.

    Raises:
        SourceError: If ``train.csv`` is no CSV table with the columns of the RSNA
            layout.
    """
    return read_all_labels([location])


def _read_table(location: Location) -> LabelTable:
    """Read ``train.csv``; an absent file gives an empty table.

    Raises:
        SourceError: If the file is no CSV table with the columns of the RSNA layout.
    """
    table, notes = _read_csv(location, LABELS_FILE, LABEL_COLUMNS)
    values = table[list(LABEL_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    unusable = (values.isna() & _is_filled(table[list(LABEL_COLUMNS)])) | ~(
        values.isna() | values.isin([0, 1])
    )
    if unusable.any(axis=None):
        rows = count(int(unusable.any(axis=1).sum()), "row", "has", "have")
        notes.append(f"{LABELS_FILE}: {rows} labels other than 0 and 1.")
    values = values.mask(unusable).astype("Int8")
    values.index = pd.Index(table[STUDY_COLUMN], name="study_uid")
    repeated = values.index.duplicated(keep="first")
    if not repeated.any():
        return LabelTable(values, tuple(notes))
    rows = count(int(repeated.sum()), "row", "repeats", "repeat")
    notes.append(f"{LABELS_FILE}: {rows} a study; the first counts.")
    copies = values.reset_index().duplicated(keep="first").to_numpy()
    if disputed := sorted({str(uid) for uid in values.index[repeated & ~copies]}):
        named = ", ".join(disputed[:_NAMED]) + (", ..." if disputed[_NAMED:] else "")
        studies = count(len(disputed), "study", "is", "are")
        notes.append(
            f"{LABELS_FILE}: rows contradict each other; {studies} unlabelled: {named}."
        )
    is_kept = ~repeated & ~values.index.isin(disputed)
    return LabelTable(values[is_kept], tuple(notes))


def read_boxes(location: Location) -> BoxTable:
    """Read the boxes of one source; without any, the table is empty.

    Raises:
        SourceError: If ``train_bounding_boxes.csv`` is no CSV table with the columns of
            the RSNA layout.
    """
    return read_all_boxes([location])


def _read_box_table(location: Location) -> BoxTable:
    """Read ``train_bounding_boxes.csv``; an absent file gives an empty table.

    Raises:
        SourceError: If the file is no CSV table with the columns of the RSNA layout.
    """
    table, notes = _read_csv(location, BOXES_FILE, _BOX_NUMBERS)
    numbers = table[list(_BOX_NUMBERS)].apply(pd.to_numeric, errors="coerce")
    numbers = numbers.astype("float64")
    # Beyond is no pixel and no slice; NaN compares false.
    usable = (numbers.abs() < _LARGEST_BOX).all(axis=1)
    usable &= (numbers[["width", "height"]] > 0).all(axis=1)
    if not usable.all():
        notes.append(
            f"{BOXES_FILE}: {count(int((~usable).sum()), 'row')} without a box."
        )
    boxes = numbers[usable].astype({"slice_number": "int64"})
    boxes.insert(0, "study_uid", table.loc[usable, STUDY_COLUMN])
    boxes[SLICE_COLUMN] = pd.Series(index=boxes.index, dtype="str")
    return BoxTable(boxes.reset_index(drop=True), tuple(notes))


def read_all_labels(
    locations: Sequence[Location],
    without: Collection[str] = (),
    recorded: Mapping[str, Labels] | None = None,
) -> LabelTable:
    """Read and join the labels of several sources, as the module says.

    Args:
        locations: In order of precedence.
        without: Studies to leave out, such as those that were withdrawn; those that a
            label file withdraws are left out in any case.
        recorded: What counted before. It still does where its date is newer than that
            of every source, no source tells labels, or a label file cannot be used.

    Raises:
        SourceError: If a ``train.csv`` is no CSV table with the columns of the RSNA
            layout.
    """
    parts = [_read_table(location) for location in locations]
    note_sets = [read_label_notes(location) for location in locations]
    files, gone = _of_all(note_sets)
    left_out = {*without, *gone}
    said: dict[str, Labels] = {}
    for note in files:
        if note.labels and note.study_uid not in left_out:
            labels = Labels(note.labels, note.date, note.reader, note.signed_at)
            earlier = said.setdefault(note.study_uid, labels)
            if labels.moment > earlier.moment:
                said[note.study_uid] = labels
    rows = pd.concat([part.table for part in parts])
    rows = rows[~rows.index.duplicated(keep="first") & ~rows.index.isin([*left_out])]
    unusable = {uid for one in note_sets for uid in one.unusable}
    retained = _retained(
        recorded or {}, said, {str(uid) for uid in rows.index}, unusable
    )
    said |= {uid: labels for uid, labels in retained.items() if uid not in left_out}
    notes = [note for part in parts for note in part.notes]
    notes += [message for one in note_sets for message in one.messages]
    table = pd.concat([_table_of(said), rows[~rows.index.isin(list(said))]])
    return LabelTable(table, tuple(notes), said)


def _retained(
    recorded: Mapping[str, Labels],
    said: Mapping[str, Labels],
    rows: Collection[str],
    unusable: Collection[str],
) -> dict[str, Labels]:
    """Return the recorded labels that count more than what the sources say."""
    retained = {}
    for uid, labels in recorded.items():
        if uid in said:
            counts = labels.moment > said[uid].moment
        else:
            counts = labels.date is not None or uid in unusable or uid not in rows
        if counts:
            retained[uid] = labels
    return retained


def _table_of(said: Mapping[str, Labels]) -> pd.DataFrame:
    index = pd.Index(list(said), name="study_uid", dtype="str")
    values = [dict(labels.values) for labels in said.values()]
    return pd.DataFrame(values, index, list(LABEL_COLUMNS)).astype("Int8")


def read_all_boxes(
    locations: Sequence[Location], without: Collection[str] = ()
) -> BoxTable:
    """Read and join the boxes of several sources, as the module says.

    Of the tables, the first that has a study wins.

    Args:
        locations: In order of precedence.
        without: Studies to leave out, such as those that were withdrawn; those that a
            label file withdraws are left out in any case.

    Raises:
        SourceError: If a ``train_bounding_boxes.csv`` is no CSV table with the columns
            of the RSNA layout.
    """
    files, gone = _of_all([read_label_notes(location) for location in locations])
    settled = {*without, *gone}
    drawn: dict[str, LabelNote] = {}
    for note in files:
        if note.boxes is not None and note.study_uid not in settled:
            other = drawn.setdefault(note.study_uid, note)
            if note.moment > other.moment:
                drawn[note.study_uid] = note
    tables = [_drawn_table(drawn)]
    notes: list[str] = []
    settled |= set(drawn)
    for location in locations:
        part = _read_box_table(location)
        tables.append(part.table[~part.table["study_uid"].isin(settled)])
        settled |= set(part.table["study_uid"])
        notes += part.notes
    return BoxTable(pd.concat(tables, ignore_index=True), tuple(notes))


def _of_all(note_sets: Sequence[LabelNotes]) -> tuple[list[LabelNote], set[str]]:
    """Return the label files of all sources, and which studies they withdraw."""
    files = [note for one in note_sets for note in one.notes.values()]
    return files, {note.study_uid for note in files if note.withdrawn}


def _drawn_table(drawn: Mapping[str, LabelNote]) -> pd.DataFrame:
    """Return the boxes of label files as a table of boxes."""
    rows = [
        [
            note.study_uid,
            *(getattr(box, name) for name in _BOX_NUMBERS),
            box.sop_instance_uid,
        ]
        for note in drawn.values()
        for box in note.boxes or ()
    ]
    table = pd.DataFrame(rows, columns=[*BOX_COLUMNS, SLICE_COLUMN])
    kinds = dict.fromkeys(_BOX_NUMBERS, "float64")
    texts = dict.fromkeys(("study_uid", SLICE_COLUMN), "str")
    return table.astype(kinds | texts | {"slice_number": "int64"})


def digest_labels(labels: pd.DataFrame, boxes: pd.DataFrame) -> dict[str, str]:
    """Identify the labels and boxes of each study that has any.

    Args:
        labels: As in ``LabelTable``.
        boxes: As in ``BoxTable``.
    """
    rows: dict[str, list[object]] = {}
    levels = labels[list(LEVEL_NAMES)].astype("Float64")
    for uid, values in zip(levels.index, levels.to_numpy(na_value=-1), strict=True):
        rows[str(uid)] = [int(value) for value in values]
    for uid, of_study in boxes.groupby("study_uid"):
        values = of_study[list(_BOX_NUMBERS)].to_numpy(dtype=float)
        rows.setdefault(str(uid), []).append(sorted(values.tolist()))
    return {uid: stamp(values)[:16] for uid, values in rows.items()}


def _read_csv(
    location: Location, name: str, columns: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with a valid UID, as text, and notes on the others."""
    expected = [STUDY_COLUMN, *columns]
    content = location.read_if_there(name)
    if content is None:
        return pd.DataFrame(columns=expected, dtype="str"), []
    told = f"Its columns must be {', '.join(expected)}."
    try:
        text = _decode(content)
        rows = list(csv.reader(io.StringIO(text), delimiter=_delimiter(text)))
    except (ValueError, csv.Error) as error:
        raise SourceError(f"{location}/{name} is no CSV table. {told}") from error
    header = [title.strip() for title in rows[0]] if rows else []
    if not all(title.isascii() for title in header) and not {*expected} & {*header}:
        raise SourceError(f"{location}/{name} is no CSV table. {told}")
    if missing := [column for column in expected if column not in header]:
        raise SourceError(
            f"{location}/{name} lacks the columns {', '.join(missing)}. {told}"
        )
    rows = [_fitted(row, len(header)) for row in rows[1:] if any(row)]
    fitting = [row for row in rows if len(row) == len(header)]
    notes = []
    if len(fitting) < len(rows):
        lost = count(len(rows) - len(fitting), "row", "has", "have")
        notes.append(f"{name}: {lost} more columns than the header, and left out.")
    table = pd.DataFrame(fitting, columns=header, dtype="str")
    table = table.loc[:, ~table.columns.duplicated()]
    table[STUDY_COLUMN] = table[STUDY_COLUMN].str.strip().map(own_uid)
    valid = table[STUDY_COLUMN].map(is_uid).astype(bool)
    if not valid.all():
        without = count(int((~valid).sum()), "row", "has", "have")
        notes.append(f"{name}: {without} no valid StudyInstanceUID.")
    return table[valid].reset_index(drop=True), notes


def _decode(content: bytes) -> str:
    """Decode a table as spreadsheets write it, without a row that is cut off."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _without_cut_row(content.decode("utf-16"))
    try:
        return _without_cut_row(content.decode("utf-8-sig"))
    except UnicodeDecodeError:  # names of columns and UIDs are ASCII in any case
        return _without_cut_row(content.decode("latin-1"))


def _delimiter(text: str) -> str:
    """Return what separates the columns of the first line."""
    first = text.partition("\n")[0]
    return max(_DELIMITERS, key=first.count)


def _fitted(row: list[str], width: int) -> list[str]:
    """Drop empty columns behind the last one, and add those that are lacking."""
    while len(row) > width and not row[-1].strip():
        row = row[:-1]
    return row + [""] * (width - len(row))


def _without_cut_row(text: str) -> str:
    """Return a table without a last row that is still being written."""
    delimiter = _delimiter(text)
    before, end, last = text.rpartition("\n")
    expected = before.partition("\n")[0].count(delimiter)
    is_cut = last.count(delimiter) < expected or last.endswith(delimiter)
    return before + end if end and last and is_cut else text


def _is_filled(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {name: table[name].fillna("").str.strip() != "" for name in table.columns}
    )
