"""One JSON file per study: what a radiologist says of it, who, and when.

``labels/<StudyInstanceUID>.json``::

    {"study_uid": "1.2.3", "labels": {"C1": 0, "C5": 1}, "reader": "AB",
     "date": "2026-11-25", "signed_at": "2026-11-25T14:03:09+00:00", "slices": 312,
     "boxes": [{"level": "C5", "slice_number": 140, "x": 201.5, "y": 260,
                "width": 40, "height": 33.25}]}

Levels that are not named are unlabelled; ``patient_overall`` follows from the levels
where it is not given. ``signed_at`` tells the order of several labels of one day, and
``date`` may be left out beside it. ``boxes`` show where the fractures are, in place of
those of ``train_bounding_boxes.csv``; []: the reader has found no place. ``slices``:
the study is complete with so many files.
``withdrawn``, a reason: the patient takes back consent. A file with ``slices`` or
``withdrawn`` needs no labels, and without labels no reader and no date. One that cannot
be used, as it is half written, is left alone and named in a message.
"""

import codecs
import datetime as dt
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final, Literal

import pydantic

from csfd_core.errors import SourceError
from csfd_core.store.layout import LABELS_FOLDER
from csfd_core.store.locations import FileEntry, Location
from csfd_core.vocabulary import (
    LABEL_COLUMNS,
    LEVEL_NAMES,
    OVERALL,
    is_uid,
    own_uid,
    require_uid,
)

MOST_BOXES: Final = 200  # of one study
LARGEST_PX: Final = 65535  # rows or columns, as DICOM counts them
_SUFFIX: Final = ".json"
_READERS: Final = 16  # reading small files waits for the disk or the network
_MOST_NAMED: Final = 5
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", re.ASCII)
_LIKE_A_LEVEL: Final = re.compile(r"[CTLS]\d{1,2}", re.IGNORECASE | re.ASCII)
_CLOCKS_DIFFER: Final = dt.timedelta(minutes=5)  # at most, from machine to machine
_LARGEST_NUMBER: Final = 1_000_000  # of a slice

# Boxes are rounded, and may reach beyond the outermost pixels by less than one.
_Edge = Annotated[float, pydantic.Field(gt=-1, le=LARGEST_PX, allow_inf_nan=False)]
_Side = Annotated[float, pydantic.Field(gt=0, le=LARGEST_PX + 1, allow_inf_nan=False)]
_Label = Annotated[int, pydantic.Field(strict=True, ge=0, le=1)] | None
_Text = Annotated[
    str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
]


def moment_of(date: dt.date | None, signed_at: dt.datetime | None) -> dt.datetime:
    """Return what orders labels: the time, else the beginning of the day in UTC.

    What has neither is the oldest.
    """
    if signed_at is not None:
        return signed_at.astimezone(dt.UTC)
    return dt.datetime.combine(date or dt.date.min, dt.time.min, dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBox:
    """Where on one slice a reader sees a fracture.

    Attributes:
        level: The vertebra.
        slice_number: Instance number of the slice.
        x: Left edge in pixels of the original slice; 0 is the outer edge of the first.
        y: Upper edge, likewise.
        width: In pixels.
        height: In pixels.
        slice_index: 0 = nearest the head; ``None``: not said. It changes when slices
            are added.
        sop_instance_uid: Of the slice; ``None``: not said.
    """

    level: str
    slice_number: int
    x: float
    y: float
    width: float
    height: float
    slice_index: int | None = None
    sop_instance_uid: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in a file."""
        return {name: v for name, v in asdict(self).items() if v is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNote:
    """What one file says.

    Attributes:
        study_uid: Whose labels these are.
        labels: ``patient_overall``, C1..C7; ``None``: unlabelled. {}: it tells none.
        reader: Who has read the study; ``None``: not said, as there are no labels.
        date: When; likewise.
        slices: Files that the study has when it is complete; ``None``: not said.
        withdrawn: Why it must not be used any more; ``None``: it may be.
        signed_at: When, with an offset; ``None``: the day alone is known.
        boxes: Where the fractures are; ``None``: it tells nothing of them.
    """

    study_uid: str
    labels: Mapping[str, int | None]
    reader: str | None
    date: dt.date | None
    slices: int | None
    withdrawn: str | None
    signed_at: dt.datetime | None = None
    boxes: tuple[LabelBox, ...] | None = None

    @property
    def moment(self) -> dt.datetime:
        """What orders it among others; what has no date is the oldest."""
        return moment_of(self.date, self.signed_at)


@dataclass(frozen=True, slots=True)
class LabelNotes:
    """The files of one source, by study, and what cannot be used of them.

    ``unusable`` are the studies whose file cannot be used, as one that is half written.
    """

    notes: Mapping[str, LabelNote] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    unusable: frozenset[str] = frozenset()


class _Box(pydantic.BaseModel):
    """The form of a box."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    level: Literal[LEVEL_NAMES]  # type: ignore[valid-type]
    slice_number: Annotated[
        int, pydantic.Field(ge=-_LARGEST_NUMBER, le=_LARGEST_NUMBER)
    ]
    x: _Edge
    y: _Edge
    width: _Side
    height: _Side
    slice_index: Annotated[int, pydantic.Field(ge=0, le=_LARGEST_NUMBER)] | None = None
    sop_instance_uid: str | None = None

    @pydantic.field_validator("sop_instance_uid")
    @classmethod
    def _is_one(cls, value: str | None) -> str | None:
        if value is not None and not is_uid(value):
            raise ValueError("is no valid UID")
        return value

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "_Box":
        if max(self.x + self.width, self.y + self.height) > LARGEST_PX + 1:
            raise ValueError("reaches beyond any slice")
        return self


class _File(pydantic.BaseModel):
    """The form of a file; a name that is not here is a mistake, not a remark."""

    model_config = pydantic.ConfigDict(extra="forbid")

    study_uid: str
    labels: dict[Literal[LABEL_COLUMNS], _Label] = {}  # type: ignore[valid-type]
    reader: _Text | None = None
    date: dt.date | None = None
    slices: Annotated[int, pydantic.Field(ge=1)] | None = None
    withdrawn: _Text | None = None
    signed_at: pydantic.AwareDatetime | None = None
    boxes: Annotated[list[_Box], pydantic.Field(max_length=MOST_BOXES)] | None = None

    @pydantic.field_validator("signed_at", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        # Numbers would be taken for seconds since 1970.
        is_time = isinstance(value, str) and _TIME.match(value) is not None
        if value is not None and not is_time:
            raise ValueError("is no date with a time and an offset, as ISO 8601 has it")
        return value

    @pydantic.field_validator("signed_at")
    @classmethod
    def _was_signed(cls, value: dt.datetime | None) -> dt.datetime | None:
        if value is None:
            return None
        if value.year in (dt.MINYEAR, dt.MAXYEAR):  # has no time in UTC
            raise ValueError(f"is of the year {value.year}")
        if value > dt.datetime.now(dt.UTC) + _CLOCKS_DIFFER:
            raise ValueError(f"lies in the future: {value.isoformat()}")
        return value

    @pydantic.field_validator("date")
    @classmethod
    def _is_past(cls, value: dt.date | None) -> dt.date | None:
        # A mistyped year would outrank every correction that comes later.
        if value is not None and value > dt.datetime.now(dt.UTC).date() + dt.timedelta(
            days=1
        ):
            raise ValueError(f"lies in the future: {value}")
        return value

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> "_File":
        if not self.labels and self.withdrawn is None and self.slices is None:
            raise ValueError("has neither `labels` nor `slices` nor `withdrawn`")
        is_dated = self.date is not None or self.signed_at is not None
        if self.labels and (self.reader is None or not is_dated):
            raise ValueError("labels need a `reader` and a `date` or `signed_at`")
        return self

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> "_File":
        if self.date and self.signed_at and self.signed_at.date() != self.date:
            raise ValueError("`date` is not the day of `signed_at`")
        if self.boxes is not None and not self.labels:
            raise ValueError("`boxes` need `labels`")
        whole = {
            box.level for box in self.boxes or () if self.labels.get(box.level) == 0
        }
        if whole:
            raise ValueError(f"a box lies on {min(whole)}, which is labelled 0")
        return self


def read_label_notes(location: Location) -> LabelNotes:
    """Read the label files of a source; an absent folder gives none.

    Raises:
        SourceError: If the source cannot be read.
    """
    entries = label_entries(location)
    with ThreadPoolExecutor(_READERS) as pool:
        results = list(pool.map(lambda entry: _read(location, entry), entries))
    notes = {note.study_uid: note for note in results if isinstance(note, LabelNote)}
    wrong = [problem for problem in results if isinstance(problem, str)]
    messages = []
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMED} more" if wrong[_MOST_NAMED:] else ""
        messages.append(
            f"{len(wrong)} label files cannot be used: "
            f"{'; '.join(wrong[:_MOST_NAMED])}{more}."
        )
    names = {own_uid(entry.name.removesuffix(_SUFFIX)) for entry in entries}
    unusable = frozenset(filter(is_uid, names - set(notes)))
    return LabelNotes(notes, tuple(messages), unusable)


def label_path(study_uid: str) -> str:
    """Return the path of a study's label file, relative to a source.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    return f"{LABELS_FOLDER}/{require_uid(study_uid)}{_SUFFIX}"


def read_label_note(location: Location, study_uid: str) -> LabelNote | None:
    """Read the label file of one study; ``None`` where it has none.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        SourceError: If it cannot be read or used.
    """
    path = label_path(study_uid)
    if not location.exists(path):
        return None
    result = _read(location, FileEntry(path=path, size_bytes=0, token=""))
    if isinstance(result, str):
        raise SourceError(
            f"The label file {result} cannot be used. Repair it or remove it first."
        )
    return result


def label_entries(location: Location) -> list[FileEntry]:
    """List the label files of a source, sorted by name."""
    return [e for e in location.entries(LABELS_FOLDER) if e.name.endswith(_SUFFIX)]


def _read(location: Location, entry: FileEntry) -> LabelNote | str:
    """Return what a file says, or why it cannot be used."""
    uid = own_uid(entry.name.removesuffix(_SUFFIX))
    if not is_uid(uid):
        return "a file that is not named by a study"
    try:
        # Editors on Windows put a byte order mark before a text.
        content = location.read(entry.path).removeprefix(codecs.BOM_UTF8)
        file = _File.model_validate_json(content)
    except SourceError:
        return f"{uid}{_SUFFIX} (it cannot be read)"
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{uid}{_SUFFIX} ({_tell_field(first['loc'])}{first['msg']})"
    if own_uid(file.study_uid) != uid:
        return f"{uid}{_SUFFIX} (study_uid: of another study)"
    labels: dict[str, int | None] = {}
    if file.labels:
        labels = {name: file.labels.get(name) for name in LABEL_COLUMNS}
    if labels and OVERALL not in file.labels:
        labels[OVERALL] = _overall(labels)
    return LabelNote(
        study_uid=uid,
        labels=labels,
        reader=file.reader,
        date=file.signed_at.date() if file.signed_at else file.date,
        slices=file.slices,
        withdrawn=file.withdrawn,
        signed_at=file.signed_at,
        boxes=None
        if file.boxes is None
        else tuple(LabelBox(**box.model_dump()) for box in file.boxes),
    )


def _tell_field(parts: tuple[int | str, ...]) -> str:
    """Say where in a file something is wrong; a name of its own could be anything."""
    names = {*_File.model_fields, *_Box.model_fields, *LABEL_COLUMNS, "[key]"}
    named = [
        str(part)
        if isinstance(part, int)
        or str(part).lower() in names
        or _LIKE_A_LEVEL.fullmatch(str(part))
        else "an unknown key"
        for part in parts
    ]
    return f"{'.'.join(named)}: " if named else ""


def _overall(labels: Mapping[str, int | None]) -> int | None:
    """Return 1 where a level is fractured, 0 where all are known to be whole."""
    values = [labels[name] for name in LEVEL_NAMES]
    if 1 in values:
        return 1
    return None if None in values else 0
