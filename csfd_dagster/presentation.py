"""Metadata values for Dagster's UI: pictures and small tables."""

import base64
from collections.abc import Mapping
from typing import Literal

import dagster as dg
import pandas as pd

from csfd_core.store.stamp import stamp

_PREVIEW_ROWS = 10
_PREVIEW_COLUMNS = [
    "study_uid",
    "status",
    "slice_count",
    "rows",
    "columns",
    "pixel_spacing_mm",
    "slice_spacing_mm",
    "patient_overall",
    "has_mask",
    "quarantine_code",
]


def picture(
    content: bytes, kind: Literal["jpeg", "png", "webp"] = "jpeg"
) -> dg.MetadataValue:
    """Show a picture in the UI."""
    text = base64.b64encode(content).decode("ascii")
    return dg.MetadataValue.md(f"![](data:image/{kind};base64,{text})")


def table_of_counts(name: str, counts: Mapping[str, int]) -> dg.MetadataValue:
    """Show counts as a table, the largest first."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"| {key} | {count} |" for key, count in rows]
    return dg.MetadataValue.md(
        "\n".join([f"| {name} | studies |", "|---|---|", *lines])
    )


def table_of(frame: pd.DataFrame) -> dg.MetadataValue:
    """Show a small table."""
    records = [
        dg.TableRecord({str(name): _plain(value) for name, value in row.items()})
        for row in frame.to_dict(orient="records")
    ]
    return dg.MetadataValue.table(records)


def table_preview(studies: pd.DataFrame) -> dg.MetadataValue:
    """Show the first rows of the table of studies."""
    return table_of(studies[_PREVIEW_COLUMNS].head(_PREVIEW_ROWS))


def version_of(facts: object) -> str:
    """Identify JSON values, short enough to be shown as a data version."""
    return stamp(facts)[:16]


def _plain(value: object) -> str | int | float | bool:
    """Return a value that Dagster's tables take; nothing for null."""
    if isinstance(value, bool | int | str):
        return value
    if pd.isna(value):  # type: ignore[call-overload]  # pandas types no plain object
        return ""
    return round(float(value), 4)  # type: ignore[arg-type]  # what is left is a number
