"""One JSON file per study: what a radiologist says of it, who, and when.

``labels/<StudyInstanceUID>.json``::

    {"study_uid": "1.2.3", "labels": {"C1": 0, "C5": 1}, "reader": "AB",
     "date": "2026-11-25", "slices": 312}

Levels that are not named are unlabelled; ``patient_overall`` follows from the levels
where it is not given. ``slices``: the study is complete with so many files.
``withdrawn``, a reason: the patient takes back consent. A file with ``slices`` or
``withdrawn`` needs no labels, and without labels no reader and no date. One that cannot
be used, as it is half written, is left alone and named in a message.
"""

import codecs
import datetime as dt
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import pydantic

from csfd_core.errors import SourceError
from csfd_core.store.layout import LABELS_FOLDER
from csfd_core.store.locations import FileEntry, Location
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES, OVERALL, is_uid, own_uid

_SUFFIX: Final = ".json"
_READERS: Final = 16  # reading small files waits for the disk or the network
_MOST_NAMED: Final = 5
_LIKE_A_LEVEL: Final = re.compile(r"[CTLS]\d{1,2}", re.IGNORECASE | re.ASCII)

_Label = Annotated[int, pydantic.Field(strict=True, ge=0, le=1)] | None
_Text = Annotated[
    str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
]


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
    """

    study_uid: str
    labels: Mapping[str, int | None]
    reader: str | None
    date: dt.date | None
    slices: int | None
    withdrawn: str | None

    @property
    def moment(self) -> dt.date:
        """The date; what has none is the oldest."""
        return self.date or dt.date.min


@dataclass(frozen=True, slots=True)
class LabelNotes:
    """The files of one source, by study, and what cannot be used of them.

    ``unusable`` are the studies whose file cannot be used, as one that is half written.
    """

    notes: Mapping[str, LabelNote] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    unusable: frozenset[str] = frozenset()


class _File(pydantic.BaseModel):
    """The form of a file; a name that is not here is a mistake, not a remark."""

    model_config = pydantic.ConfigDict(extra="forbid")

    study_uid: str
    labels: dict[Literal[LABEL_COLUMNS], _Label] = {}  # type: ignore[valid-type]
    reader: _Text | None = None
    date: dt.date | None = None
    slices: Annotated[int, pydantic.Field(ge=1)] | None = None
    withdrawn: _Text | None = None

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
        if self.labels and (self.reader is None or self.date is None):
            raise ValueError("labels need a `reader` and a `date`")
        return self


def read_label_notes(location: Location) -> LabelNotes:
    """Read the label files of a source; an absent folder gives none.

    Raises:
        SourceError: If the source cannot be read.
    """
    entries = label_entries(location)
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda entry: _read(location, entry), entries))
    notes = {note.study_uid: note for note in found if isinstance(note, LabelNote)}
    wrong = [problem for problem in found if isinstance(problem, str)]
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
        return f"{uid}{_SUFFIX} ({_tell_place(first['loc'])}{first['msg']})"
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
        date=file.date,
        slices=file.slices,
        withdrawn=file.withdrawn,
    )


def _tell_place(parts: tuple[int | str, ...]) -> str:
    """Say where in a file something is wrong; a name of its own could be anything."""
    names = {*_File.model_fields, *LABEL_COLUMNS, "[key]"}
    named = [
        str(part)
        if str(part).lower() in names or _LIKE_A_LEVEL.fullmatch(str(part))
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
