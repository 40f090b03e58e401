"""What a search asks for, and whether attributes match it (PS3.18 section 8.3.4)."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import HTTPException
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

USUAL: Final = 100  # matches of all studies, where nothing is said
MOST_ASKED: Final = 1000
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_MOMENTS: Final = ("DA", "TM", "DT")
_LONGEST: Final = 2000  # characters of a value
_MOST_KEYS: Final = 50
_MODALITIES_IN_STUDY: Final = "00080061"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is searched.

    Attributes:
        keys: What is to match, by tag.
        fields: Tags to tell besides the usual ones.
        tells_all: Everything that is known is told.
        limit: At most so many matches; ``None``: it does not say.
        offset: After the first so many.
        notes: What was not done as it was asked.
    """

    keys: Mapping[str, str]
    fields: frozenset[str]
    tells_all: bool
    limit: int | None
    offset: int
    notes: tuple[str, ...]

    def matches(self, attributes: Json) -> bool:
        """Say whether attributes match every key; what is absent is empty."""
        return all(
            _is_match(value, _values_of(attributes, tag), _vr_of(tag))
            for tag, value in self.keys.items()
        )

    def uids(self, tag: str) -> frozenset[str] | None:
        """Return the UIDs that a key asks for, ``None`` where all will do."""
        value = self.keys.get(tag, "")
        return None if value in ("", "*") else frozenset(_listed(value))


def query_of(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read the parameters of a search.

    Raises:
        HTTPException: 400 for a parameter that cannot be meant.
    """
    keys: dict[str, str] = {}
    fields: set[str] = set()
    notes: list[str] = []
    limit: int | None = None
    offset, tells_all = 0, False
    for count, (name, value) in enumerate(parameters, 1):
        if count > _MOST_KEYS or len(value) > _LONGEST:
            raise HTTPException(400, "The search asks for too much.")
        if name == "limit":
            limit = _number(name, value)
        elif name == "offset":
            offset = _number(name, value)
        elif name == "fuzzymatching":
            if value.lower() == "true":
                notes.append("Names are not matched fuzzily.")
        elif name == "includefield":
            tells_all |= value.lower() == "all"
            wanted = [part for part in value.split(",") if part.lower() != "all"]
            fields |= {tag for part in wanted if (tag := _tag_of(part))}
        elif tag := _tag_of(name):
            keys[tag] = value
        else:
            notes.append("A parameter that names no attribute was passed over.")
    if limit is not None and limit > MOST_ASKED:
        limit = MOST_ASKED
        notes.append(f"At most {MOST_ASKED} matches are sent at once.")
    return Query(
        keys=keys,
        fields=frozenset(fields),
        tells_all=tells_all,
        limit=limit,
        offset=offset,
        notes=tuple(dict.fromkeys(notes)),
    )


def _tag_of(name: str) -> str:
    """Return the tag of a keyword or number; empty where it names no attribute."""
    text = name.strip()
    if _TAG.fullmatch(text):
        return text.upper()
    tag = tag_for_keyword(text)
    return "" if tag is None else f"{tag:08X}"


def _vr_of(tag: str) -> str:
    number = int(tag, 16)
    return dictionary_VR(number) if keyword_for_tag(number) else ""


def _values_of(attributes: Json, tag: str) -> list[str]:
    values = attributes.get(tag, {}).get("Value", [])
    return [
        str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value)
        for value in values
    ]


def _is_match(wanted: str, values: list[str], vr: str) -> bool:
    if wanted in ("", "*"):
        return True
    if vr == "UI":
        return bool(set(_listed(wanted)) & set(values))
    if vr in _MOMENTS and "-" in wanted:
        first, _, last = wanted.partition("-")
        return any(first <= value and (not last or value <= last) for value in values)
    if vr == "PN":
        wanted, values = wanted.casefold(), [value.casefold() for value in values]
    if vr in _MOMENTS or not set("*?") & set(wanted):
        return wanted in values
    pattern = re.compile(fnmatch.translate(wanted.replace("[", "[[]")))
    return any(pattern.match(value) for value in values)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\\]", value) if part.strip()]


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise HTTPException(400, f"{name} must be a number from 0.")
    return int(value)
