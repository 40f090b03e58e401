"""Metadata values for Dagster's UI: links, pictures and small tables.

Pictures and reports lie in the store; Dagster's history holds their addresses on the
server of files that runs beside its UI (``csfd_core.web.files``).
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

import dagster as dg
import pandas as pd

from csfd_core.reports.page import INDEX, Written
from csfd_core.settings import Settings
from csfd_core.store.locations import Location
from csfd_core.store.paths import REPORTS
from csfd_core.store.stamp import stamp
from csfd_core.web.addresses import file_url

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


def link(path: str) -> dg.MetadataValue:
    """Link to a file of the store."""
    return dg.MetadataValue.url(_url(path))


def picture(path: str) -> dg.MetadataValue:
    """Show a picture of the store in the UI."""
    return dg.MetadataValue.md(f"![{PurePosixPath(path).name}]({_url(path)})")


def report_link(report: Location) -> dg.MetadataValue:
    """Link to the page of a report."""
    return link(f"{_report_path(report)}/{INDEX}")


def figures_of(report: Location, written: Written) -> dict[str, dg.MetadataValue]:
    """Show the figures of a report, by the keys of its sections."""
    return {
        f"figure_{PurePosixPath(path).stem}": picture(f"{_report_path(report)}/{path}")
        for path in written.figures
    }


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
    columns = [dg.TableColumn(str(name)) for name in frame.columns]
    # Dagster takes the columns from the rows, where there are any.
    schema = None if records else dg.TableSchema(columns=columns)
    return dg.MetadataValue.table(records, schema=schema)


def table_preview(studies: pd.DataFrame) -> dg.MetadataValue:
    """Show the first rows of the table of studies."""
    return table_of(studies[_PREVIEW_COLUMNS].head(_PREVIEW_ROWS))


def version_of(facts: object) -> str:
    """Identify JSON values, short enough to be shown as a data version."""
    return stamp(facts)[:16]


def _report_path(report: Location) -> str:
    return f"{REPORTS}/{PurePosixPath(report.url).name}"


def _url(path: str) -> str:
    return file_url(Settings.read().files_port, path)


def _plain(value: object) -> str | int | float | bool:
    """Return a value that Dagster's tables take; nothing for null."""
    if isinstance(value, bool | int | str):
        return value
    if pd.isna(value):  # type: ignore[call-overload]  # pandas types no plain object
        return ""
    return round(float(value), 4)  # type: ignore[arg-type]  # what is left is a number
