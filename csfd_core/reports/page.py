"""A report: one HTML file that needs nothing else, with figures and tables beside it.

Every report of the project is such a page: sections of a title, one sentence computed
from the data, a figure, and the tables behind it as CSV. ``write_page`` puts
``index.html``, ``figures/``, ``tables/`` and films under one location, a folder or an
``s3://`` prefix, and removes what an earlier run left there.
"""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pandas as pd

from csfd_core.reports.html import render_html
from csfd_core.reports.render import (
    chart_png,
    chart_svg,
    data_uri,
    picture_png,
    to_jpeg,
)
from csfd_core.store.locations import Location

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDEX: Final = "index.html"
FIGURES: Final = "figures"
TABLES: Final = "tables"
_MOST_ROWS: Final = 40  # of a table in the page; its CSV has all
_LARGEST_FILM: Final = 6_000_000  # bytes carried inside the page
_DIGITS: Final = 4  # significant digits of numbers in the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numbers behind a figure; written to ``tables/<name>.csv``."""

    name: str
    title: str
    frame: pd.DataFrame
    is_open: bool = False  # shown, and printed, without a click


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A film that was written to ``path``, relative to the page."""

    path: str
    title: str
    content: bytes  # MP4


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One thing that a report shows.

    ``sentence`` says what the figure shows, computed from the data; where the data that
    a figure needs are absent, it says so and there is no figure. ``is_picture`` tells
    CT slices from charts.
    """

    key: str
    title: str
    sentence: str
    figure: "Figure | None" = None
    is_picture: bool = False
    tables: tuple[Table, ...] = ()
    films: tuple[Film, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report. ``facts`` say which data it rests on; ``banner`` warns the reader."""

    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    banner: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written, by path relative to the page."""

    html: str
    figures: Mapping[str, bytes] = field(default_factory=dict)
    tables: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A figure in its forms."""

    png: bytes
    markup: str  # trusted HTML


def write_page(location: Location, page: Page) -> Written:
    """Write a report under ``location``, its page last.

    Raises:
        SourceError: If it cannot be written.
    """
    written = build_page(page)
    for path, content in {**written.figures, **written.tables}.items():
        location.write(path, content)
    location.write(INDEX, written.html.encode())
    current = {*written.figures, *written.tables}
    for folder in (FIGURES, TABLES):
        for entry in location.entries(folder):
            if entry.path not in current:
                location.remove(entry.path)
    return written


def build_page(page: Page) -> Written:
    """Render a report without writing it. The same page gives the same bytes."""
    drawn = {
        section.key: _draw(section)
        for section in page.sections
        if section.figure is not None
    }
    tables = {
        _csv_path(table): to_csv(table.frame)
        for section in page.sections
        for table in section.tables
    }
    return Written(
        html=_to_html(page, drawn),
        figures={f"{FIGURES}/{key}.png": figure.png for key, figure in drawn.items()},
        tables=tables,
    )


def to_csv(frame: pd.DataFrame) -> bytes:
    """Return a table as CSV with six significant digits."""
    text: str = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text.encode()


def format_value(value: object) -> str:
    """Return a value as it stands in a table of a page; nothing for null."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return "" if value is None or value is pd.NA else str(value)
    number = float(value)
    if math.isnan(number):
        return ""
    if number.is_integer():
        return f"{int(number)}"
    return f"{number:.{_DIGITS}g}" if abs(number) < 10**_DIGITS else f"{number:.0f}"


def _draw(section: Section) -> _Drawn:
    assert section.figure is not None
    if section.is_picture:
        png = picture_png(section.figure)
        source = data_uri(to_jpeg(png), "image/jpeg")
        return _Drawn(png=png, markup=f'<img src="{source}" alt="">')
    return _Drawn(png=chart_png(section.figure), markup=chart_svg(section.figure))


def _to_html(page: Page, drawn: Mapping[str, _Drawn]) -> str:
    return render_html(
        "page",
        page=page,
        markup={key: figure.markup for key, figure in drawn.items()},
        figures=FIGURES,
        csv_path=_csv_path,
        rows=_rows,
        classes=_classes,
        film_source=_film_source,
        value=format_value,
    )


def _csv_path(table: Table) -> str:
    return f"{TABLES}/{table.name}.csv"


def _classes(frame: pd.DataFrame) -> list[str]:
    """Return the class of each column: numbers are aligned to the right."""
    kinds = (frame.iloc[:, column].dtype for column in range(frame.shape[1]))
    return ["number" if pd.api.types.is_numeric_dtype(k) else "text" for k in kinds]


def _rows(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(frame.head(_MOST_ROWS).itertuples(index=False, name=None))


def _film_source(film: Film) -> str:
    """Return the film itself, or its path where it is too large for the page."""
    if len(film.content) > _LARGEST_FILM:
        return film.path
    return data_uri(film.content, "video/mp4")
