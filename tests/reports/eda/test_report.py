"""The report as a whole: a page that needs nothing else, and moves with the data."""

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.dicom_studies import LABEL_HEADER
from support.eda_source import (
    BOXES,
    BROKEN,
    MASKED,
    PLAIN,
    UNLABELLED,
    add_images,
    fill,
)
from support.material import require_material

from csfd_core.reports.eda.report import (
    EdaReport,
    is_current,
    report_location,
    write_eda_report,
)
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TUESDAY = datetime(2026, 3, 3, 8, 0, tzinfo=UTC)
PICTURES = {"slices", "side_view", "overlay", "film", "box_examples"}
CHARTS = {
    "fracture_share",
    "fractures_per_level",
    "levels_per_study",
    "label_correlation",
    "geometry",
    "boxes",
    "quality",
}


@pytest.fixture
def filmed_stores(stores: Stores, filmed: Path) -> Stores:
    """A store whose films are made already, for tests that look at none of them."""
    shutil.copytree(filmed, report_location(stores).url)
    return stores


@pytest.fixture
def report(sources: Sources, filmed_stores: Stores) -> EdaReport:
    return write_eda_report(sources, filmed_stores, now=MONDAY)


def folder_of(report: EdaReport) -> Path:
    return Path(report.location.url)


def sentences_of(report: EdaReport) -> dict[str, str]:
    return {section.key: section.sentence for section in report.sections}


def every_file(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_page_shows_every_figure_and_needs_no_other_file(
    whole_report: EdaReport,
) -> None:
    html = (folder_of(whole_report) / "index.html").read_text()
    assert not re.search(r"https?:|//[a-z]", html.split("data:")[0])
    assert "http://" not in html
    assert "https://" not in html
    assert not re.search(r"<(link|script|iframe)\b", html)
    for source in re.findall(r'\bsrc="([^"]{0,30})', html):
        assert source.startswith("data:")
    for key in PICTURES | CHARTS:
        assert f'<section id="{key}">' in html
    assert html.count("<svg") == len(CHARTS)
    assert html.count("<img") == len(PICTURES)
    assert html.count("<video") == 2
    assert 'content="width=device-width' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_every_link_leads_to_a_file(whole_report: EdaReport) -> None:
    html = (folder_of(whole_report) / "index.html").read_text()
    links = re.findall(r'<a href="([^#"][^"]*)"', html)
    assert len(links) > 15
    for link in links:
        assert (folder_of(whole_report) / link).is_file(), link
    for anchor in re.findall(r'<a href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_figures_are_pictures_of_their_own(whole_report: EdaReport) -> None:
    figures = {path.stem for path in (folder_of(whole_report) / "figures").iterdir()}
    assert figures == PICTURES | CHARTS
    for key in figures:
        png = Image.open(folder_of(whole_report) / "figures" / f"{key}.png")
        assert png.width > 700
        assert (np.asarray(png.convert("L")).mean() < 128) == (key in PICTURES)


def test_tables_hold_the_numbers_of_the_sentences(whole_report: EdaReport) -> None:
    said = sentences_of(whole_report)
    tables = folder_of(whole_report) / "tables"
    share = pd.read_csv(tables / "fracture_share.csv", index_col="level")
    assert share.loc["patient_overall", ["studies", "fractured"]].tolist() == [2, 2]
    assert "2 of 2 studies (100.0 %" in said["fracture_share"]
    geometry = pd.read_csv(tables / "geometry.csv", index_col="measure")
    assert geometry.loc["Slices per study", "median"] == 24
    assert "24 slices in the median and 24.00 in the mean" in said["geometry"]
    correlation = pd.read_csv(tables / "label_correlation.csv", index_col="label")
    assert correlation.loc["C2", "C7"] == -1
    assert "C2 with C7" in said["label_correlation"]
    boxes = pd.read_csv(tables / "boxes.csv")
    assert len(boxes) == 3
    assert "3 boxes in 2 studies" in said["boxes"]
    quarantined = pd.read_csv(tables / "quarantined.csv")
    assert quarantined["study_uid"].tolist() == [BROKEN]


def test_numbers_in_the_page_are_those_of_the_tables(whole_report: EdaReport) -> None:
    html = (folder_of(whole_report) / "index.html").read_text()
    section = html[html.index('<section id="fracture_share">') :]
    rows = re.findall(r"<tr>(<td.*)</tr>", section[: section.index("</section>")])
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in rows]
    written = pd.read_csv(folder_of(whole_report) / "tables" / "fracture_share.csv")
    assert [cell[0] for cell in cells] == written["level"].tolist()
    assert [int(cell[2]) for cell in cells] == written["fractured"].tolist()
    low = [float(cell[4]) for cell in cells]
    assert low == pytest.approx(written["ci_low"].tolist(), rel=1e-3)


def test_page_says_what_it_rests_on(whole_report: EdaReport) -> None:
    html = (folder_of(whole_report) / "index.html").read_text()
    assert "Synthetic phantom: computed images and labels of no patient" in html
    assert "4; 1 are quarantined" in html
    assert "2026-03-02 08:00 UTC" in html
    assert "Before that" not in html
    assert whole_report.numbers.with_mask == 1


@pytest.mark.usefixtures("plain")
def test_real_source_bears_no_banner(
    source: Path, sources: Sources, filmed_stores: Stores
) -> None:
    (source / "phantom.json").unlink()
    html = write_eda_report(sources, filmed_stores).written.html
    assert "banner" not in html[html.index("<body") :]
    assert "studies as found in the source" in html


@pytest.mark.slow
def test_same_data_give_the_same_bytes(
    whole_report: EdaReport, sources: Sources, stores: Stores, tmp_path: Path
) -> None:
    first = every_file(folder_of(whole_report))
    place = shutil.copytree(folder_of(whole_report), report_location(stores).url)
    write_eda_report(sources, stores, now=TUESDAY)
    assert every_file(Path(place)) == first
    other = Location(tmp_path / "other")
    write_eda_report(sources, stores, other, now=MONDAY)
    assert every_file(tmp_path / "other") == first


@pytest.mark.usefixtures("plain")
def test_numbers_move_when_a_study_is_added(
    report: EdaReport, source: Path, sources: Sources, stores: Stores
) -> None:
    assert is_current(sources, stores)
    add_images(source, "1.2.826.0.1.3680043.29", 9)
    with (source / "train.csv").open("a") as labels:
        labels.write("1.2.826.0.1.3680043.29,0,0,0,0,0,0,0,0\n")
    fill(stores, sources)
    assert not is_current(sources, stores)
    later = write_eda_report(sources, stores, now=TUESDAY)
    assert is_current(sources, stores)
    assert later.numbers.labelled == report.numbers.labelled + 1
    assert "2 of 3 studies (66.7 %" in sentences_of(later)["fracture_share"]
    assert "2026-03-03 08:00 UTC" in later.written.html
    assert f"Before that</dt><dd>{report.numbers}" in later.written.html


@pytest.mark.usefixtures("plain")
def test_changed_labels_make_the_report_outdated(
    report: EdaReport, source: Path, sources: Sources, stores: Stores
) -> None:
    with (source / "train.csv").open("a") as labels:
        labels.write(f"{UNLABELLED},0,0,0,0,0,0,0,0\n")
    fill(stores, sources)
    assert not is_current(sources, stores)


def test_report_that_was_never_written_is_not_current(
    sources: Sources, stores: Stores
) -> None:
    assert not is_current(sources, stores)
    out = Path(report_location(stores).url)
    out.mkdir(parents=True)
    (out / "state.json").write_text('{"digest": 1}')
    assert not is_current(sources, stores)


@pytest.mark.usefixtures("plain")
def test_what_is_no_longer_shown_is_removed(
    report: EdaReport, source: Path, sources: Sources, stores: Stores
) -> None:
    (source / "train_bounding_boxes.csv").write_text(BOXES)
    fill(stores, sources)
    write_eda_report(sources, stores)
    folder = folder_of(report)
    assert not (folder / "figures" / "boxes.png").exists()
    assert not (folder / "tables" / "boxes.csv").exists()
    assert (folder / "figures" / "quality.png").exists()


@pytest.mark.usefixtures("plain")
def test_label_table_alone_gives_a_report(tmp_path: Path) -> None:
    folder = require_material("rsna2022")
    out = Location(tmp_path / "out")
    report = write_eda_report(Sources([Source(folder)]), None, out)
    said = sentences_of(report)
    assert "961 of 2019 studies (47.6 %" in said["fracture_share"]
    for key in PICTURES:
        assert said[key] == "This needs images, and there are none in the store."
    assert "label table alone" in report.written.html
    assert report.films is None
    counts = pd.read_csv(tmp_path / "out" / "tables" / "levels_per_study.csv")
    assert counts["studies"].tolist() == [1058, 623, 239, 64, 26, 7, 2, 0]


def test_report_without_store_needs_a_place(sources: Sources) -> None:
    with pytest.raises(ValueError, match="`stores` or `out`"):
        write_eda_report(sources)


@pytest.mark.usefixtures("plain")
def test_no_studies_at_all_give_a_page(tmp_path: Path) -> None:
    out = Location(tmp_path / "out")
    report = write_eda_report(Sources([Source(tmp_path / "empty")]), None, out)
    assert report.numbers.studies == 0
    assert "nothing to count" in sentences_of(report)["fracture_share"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("kept", [MASKED, PLAIN, BROKEN, UNLABELLED])
def test_one_study_of_any_kind_gives_a_page(
    tmp_path: Path, source: Path, kept: str
) -> None:
    for folder in (source / "train_images").iterdir():
        if folder.name != kept:
            shutil.rmtree(folder)
    sources = Sources([Source(source)])
    stores = Stores(Location(tmp_path / "store"))
    fill(stores, sources)
    report = write_eda_report(sources, stores)
    said = sentences_of(report)
    assert report.numbers.studies == 1
    assert report.numbers.quarantined == (kept == BROKEN)
    assert ("needs" in said["slices"]) == (kept == BROKEN)
    assert ("needs a vertebra mask" in said["overlay"]) == (kept != MASKED)


@pytest.mark.usefixtures("plain")
def test_studies_without_fractures_give_a_page(
    source: Path, sources: Sources, filmed_stores: Stores
) -> None:
    rows = "".join(f"{uid},0,0,0,0,0,0,0,0\n" for uid in (MASKED, PLAIN, UNLABELLED))
    (source / "train.csv").write_text(LABEL_HEADER + rows)
    fill(filmed_stores, sources)
    report = write_eda_report(sources, filmed_stores)
    assert "0 of 3 studies (0.0 %" in sentences_of(report)["fracture_share"]
    assert "No level is fractured" in sentences_of(report)["fractures_per_level"]


def test_report_holds_no_name_of_a_patient(whole_report: EdaReport) -> None:
    for name, content in every_file(folder_of(whole_report)).items():
        assert b"Sensitive" not in content, name
        assert b"patient-of" not in content, name
    state = json.loads((folder_of(whole_report) / "state.json").read_text())
    assert state["before"] is None
