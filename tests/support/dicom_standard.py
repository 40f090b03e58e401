"""dicom-validator's opinion of a file, by the tables of PS3.3 that highdicom brings.

dicom-validator would read the standard from the network. highdicom's tables have the
modules of each IOD and the type of each attribute, but no conditions: what is required
only under one is held to be optional.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dicom_validator.validator.dicom_file_validator import DicomFileValidator
from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.error_handler import NullValidationResultHandler
from dicom_validator.validator.validation_result import Status
from highdicom import _standard_utils as standard
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag

Attributes = dict[str, Any]  # by tag: name, type and, of a sequence, items

_CONTENT = "sr-document-content"
# Of a content item: the other attributes depend on its type of value.
_OF_EACH_ITEM = {"RelationshipType", "ValueType"}
# A macro of theirs is in one of the two, whichever that is.
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def second_opinion(path: Path) -> list[str]:
    """Return what is missing, empty, unexpected or no value of its type in a file."""
    validator = DicomFileValidator(
        _information(), error_handler=NullValidationResultHandler()
    )
    mode = config.settings.reading_validation_mode  # which dicom-validator changes
    try:
        (result,) = validator.validate(path).values()
    finally:
        config.settings.reading_validation_mode = mode
    errors = [
        f"{module}: {tag} {error.code.name}"
        for module, found in result.module_errors.items()
        for tag, error in found.items()
    ]
    is_judged = result.status in (Status.Passed, Status.Failed)
    return errors if is_judged else [result.status.name]


@functools.cache
def _information() -> DicomInfo:
    modules = {
        name: _tree(rows) for name, rows in standard.get_module_attribute_map().items()
    }
    for attributes in modules.values():
        for group in _GROUPS:
            _let_be_optional(attributes.get(_tag(group), {}).get("items", {}))
    content = modules[_CONTENT]
    inner = content[_tag("ContentSequence")]
    inner["items"] = {**content, **inner["items"], _tag("ContentSequence"): inner}
    for items in (content, inner["items"]):
        _let_be_optional(items, _OF_EACH_ITEM)
    by_iod = standard.get_iod_module_map()
    iods = {
        sop_class: {
            "title": iod,
            "modules": {
                module["key"]: {"ref": module["key"], "use": module["usage"]}
                for module in by_iod[iod]
            },
            "group_macros": {},
        }
        for sop_class, iod in standard.get_sop_class_iod_map().items()
        if iod in by_iod
    }
    return DicomInfo(dictionary={}, iods=iods, modules=modules)


def _tree(rows: Iterable[Mapping[str, Any]]) -> Attributes:
    """Return the attributes of a module, those of items below their sequences."""
    root: Attributes = {}
    for row in sorted(rows, key=lambda row: len(row["path"])):
        items = root
        for keyword in row["path"]:
            sequence = items.setdefault(_tag(keyword), {"name": keyword, "type": "3"})
            items = sequence.setdefault("items", {})
        keyword = row["keyword"]
        items.setdefault(_tag(keyword), {"name": keyword, "type": row["type"]})
    return root


def _tag(keyword: str) -> str:
    number = tag_for_keyword(keyword)
    tag = Tag(0 if number is None else number)  # newer than pydicom's dictionary
    return f"({tag.group:04X},{tag.element:04X})"


def _let_be_optional(items: Attributes, but: Iterable[str] = ()) -> None:
    for attribute in items.values():
        if attribute["name"] not in but:
            attribute["type"] = "3"
