"""The page that every report is."""

import math

import pandas as pd
import pytest
from matplotlib.figure import Figure
from support.paths import ROOT

from csfd_core.reports.page import Film, Page, Section, Table, build_page, format_value
from csfd_core.reports.render import chart_svg, new_figure


def draw() -> Figure:
    figure = new_figure(2.0)
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def make_page(**options: object) -> Page:
    section = Section(key="one", title="One", sentence="50 % of it.", **options)
    return Page(title="T", facts=(("Data", "few"),), sections=(section,))


def test_text_is_escaped() -> None:
    page = make_page(
        tables=(Table(name="t", title="T", frame=pd.DataFrame({"a": ["<b>&"]})),)
    )
    html = build_page(page).html
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;" in html


def test_long_tables_are_cut_in_the_page_only() -> None:
    frame = pd.DataFrame({"a": range(1000, 1100)})
    written = build_page(make_page(tables=(Table(name="t", title="T", frame=frame),)))
    assert "first 40 of 100 rows" in written.html
    assert ">1039<" in written.html
    assert ">1040<" not in written.html
    assert written.tables["tables/t.csv"].decode().splitlines()[-1] == "1099"


def test_open_tables_are_shown_without_a_click() -> None:
    frame = pd.DataFrame({"a": [1]})
    tables = (
        Table(name="s", title="Shown", frame=frame, is_open=True),
        Table(name="h", title="Hidden", frame=frame),
    )
    html = build_page(make_page(tables=tables)).html
    assert "<details open>\n<summary>Shown" in html
    assert "<details>\n<summary>Hidden" in html


def test_figure_follows_the_colours_of_the_page() -> None:
    svg = chart_svg(draw())
    assert svg.startswith("<svg viewBox=")
    assert "xmlns" not in svg
    assert "metadata" not in svg
    assert build_page(make_page(figure=draw())).html.count("<svg") == 1


def test_large_films_stay_beside_the_page() -> None:
    small = Film(path="film/a.mp4", title="A", content=b"x")
    large = Film(path="film/b.mp4", title="B", content=b"x" * 7_000_000)
    html = build_page(make_page(films=(small, large))).html
    assert 'src="data:video/mp4;base64,eA=="' in html
    assert 'src="film/b.mp4"' in html


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (math.nan, ""),
        (pd.NA, ""),
        (3, "3"),
        (3.0, "3"),
        (True, "True"),
        (0.123456, "0.1235"),
        (352.4522, "352.5"),
        (711601.5, "711602"),
        ("C1", "C1"),
        (math.inf, "inf"),
    ],
)
def test_values_are_short(value: object, shown: str) -> None:
    assert format_value(value) == shown


def test_templates_are_installed_with_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '"csfd_core.reports" = ["templates/*"]' in text
