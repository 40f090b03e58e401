"""csfd predict --report: one page that says what is suspected, where and how surely."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID, add_series, neck_mask
from support.spots import LEVEL, known_mask, spot_ensemble, write_spot_study
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.inference.predict import predict_input
from csfd_core.inference.reading import Reading
from csfd_core.reports.prediction.page import write_prediction_page
from csfd_core.segmentation.predict import VertebraPredictor


class Page(HTMLParser):
    """What a browser would load, and what a reader would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            v or "" for name, v in attrs if name in ("src", "href", "srcset")
        ]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def report(
    source: Path,
    out: Path,
    *shifts: float,
    predictor: VertebraPredictor | None = None,
    reading: Reading | None = None,
) -> dict[str, Page]:
    list(
        predict_input(
            str(source),
            out,
            predictor or known_mask(),
            spot_ensemble(*shifts),
            print,
            reading or Reading(),
            beside=[write_prediction_page],
        )
    )
    return {path.stem: Page(path.read_text()) for path in out.glob("*.html")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_spot_study(tmp_path / "source")
    return tmp_path / "source"


def row_of(page: Page, level: str) -> str:
    """The row of a level in the table."""
    table = page.text.partition("All numbers")[2].partition("How it was made")[0]
    return table.partition(f" {level} ")[2].partition(" C" + str(int(level[1]) + 1))[0]


def test_the_page_says_what_is_suspected_and_where(
    source: Path, tmp_path: Path
) -> None:
    (page,) = report(source, tmp_path / "out", -1.0, -0.5).values()
    note = json.loads((tmp_path / "out" / f"{STUDY_UID}.json").read_text())
    assert note["suspicious"] == ["patient_overall", LEVEL]
    assert f"Suspected fracture: {LEVEL}" in page.text
    assert STUDY_UID in page.text
    shown = round(100 * note["probabilities"][LEVEL])
    assert f"{shown} %" in row_of(page, LEVEL)
    index = note["evidence"][LEVEL]["slice_index"]
    assert f"slice {index + 1} of 24, image {index + 1}" in row_of(page, LEVEL)
    assert "W 1800 L 400" in page.text
    assert "synthetic phantom" in page.text
    assert "means nothing clinically" in page.text


def test_the_page_needs_nothing_but_itself(source: Path, tmp_path: Path) -> None:
    (page,) = report(source, tmp_path / "out").values()
    assert page.loads
    assert all(load.startswith("data:image/") for load in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    html = (tmp_path / "out" / f"{STUDY_UID}.html").read_text()
    assert not re.search(r"https?:|url\(|@import", html)


def test_the_page_names_no_patient(source: Path, tmp_path: Path) -> None:
    report(source, tmp_path / "out")
    html = (tmp_path / "out" / f"{STUDY_UID}.html").read_text()
    for secret in ("Sensitive", "patient-of", "19700101", str(tmp_path)):
        assert secret not in html


def test_what_the_segmentation_doubts_is_told_as_text(
    source: Path, tmp_path: Path
) -> None:
    (page,) = report(source, tmp_path / "out").values()
    assert "C5 is <squeezed>." in page.text
    assert "squeezed" not in page.tags


def test_without_suspicion_the_two_most_suspicious_levels_are_shown(
    source: Path, tmp_path: Path
) -> None:
    (page,) = report(source, tmp_path / "out", -6.0).values()
    assert "No vertebra is suspected to be fractured" in page.text
    places = page.text.partition("Where to look")[2].partition("Flags and notes")[0]
    assert "these are the most suspicious ones all the same" in places
    assert page.tags.count("article") == 2
    assert re.findall(r"(C\d) axial", places)[0] == LEVEL


def test_levels_that_were_not_found_are_not_assessed(
    source: Path, tmp_path: Path
) -> None:
    mask = neck_mask()
    mask[mask == 1] = 0
    found = report(source, tmp_path / "out", predictor=known_mask(mask))
    (page,) = found.values()
    assert (
        "Not assessed: C1, which was not found or is hardly in the scan." in page.text
    )
    assert "not assessed" in row_of(page, "C1")
    assert "%" not in row_of(page, "C1").partition("not assessed")[0].replace(
        "20 %", ""
    )


def test_without_any_vertebra_the_page_still_stands(
    source: Path, tmp_path: Path
) -> None:
    (page,) = report(
        source, tmp_path / "out", predictor=known_mask(0 * neck_mask())
    ).values()
    assert "No vertebra could be assessed" in page.text
    assert page.tags.count("article") == 0
    assert page.tags.count("img") == 1


def test_members_that_disagree_are_told(source: Path, tmp_path: Path) -> None:
    (page,) = report(source, tmp_path / "out", -4.0, 0.0).values()
    assert f"The members of the ensemble disagree on {LEVEL}" in page.text
    assert "members disagree" in row_of(page, LEVEL)
    assert "judged by the 2 folds of one classifier; their mean" in page.text
    (alone,) = report(source, tmp_path / "alone", 1.0).values()
    assert "judged by a classifier; what it says" in alone.text
    for word in ("disagree", "Members", "folds"):
        assert word in page.text
        assert word not in alone.text


def test_the_same_study_gives_the_same_page(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report(source, tmp_path / name)
    one, other = ((tmp_path / n / f"{STUDY_UID}.html").read_bytes() for n in "ab")
    assert one == other


def test_each_volume_has_a_page_of_its_own(source: Path, tmp_path: Path) -> None:
    def to_bone_kernel(dataset: Dataset) -> None:
        dataset.ConvolutionKernel = "B70s"

    folder = source / "train_images" / STUDY_UID
    add_series(folder, "9", edit=to_bone_kernel)
    pages = report(source, tmp_path / "out", reading=Reading(every_volume=True))
    assert set(pages) == {STUDY_UID, f"{STUDY_UID}-2"}


@pytest.mark.parametrize("wanted", [[], ["--report"], ["--heatmaps"]])
def test_csfd_predict_writes_beside_the_json_what_is_asked_for(
    wanted: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Any = {
        "csfd_core.registry.serving.open_ensemble": lambda *_: spot_ensemble(),
        "csfd_core.segmentation.model_store.open_model": lambda *_: None,
        "csfd_core.segmentation.predict.VertebraPredictor": lambda _: known_mask(),
    }
    for place, replacement in opened.items():
        monkeypatch.setattr(place, replacement)
    monkeypatch.setenv("CSFD_STORE", str(tmp_path / "store"))
    out = tmp_path / "out"
    call = ["predict", str(source), "--out", str(out), *wanted]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    files = {
        "": {f"{STUDY_UID}.json"},
        "--report": {f"{STUDY_UID}.json", f"{STUDY_UID}.html"},
        "--heatmaps": {f"{STUDY_UID}.json", f"{STUDY_UID}_heatmap.nii.gz"},
    }
    assert {path.name for path in out.iterdir()} == files["".join(wanted)]
    page = out / f"{STUDY_UID}.html"
    assert (f"Pages to look at: {page}\n" in result.output) == page.exists()


@pytest.mark.parametrize("command", ["predict", "segment"])
def test_where_nothing_is_no_model_is_opened(command: str, tmp_path: Path) -> None:
    """Before the models are opened, which takes seconds."""
    absent, out = tmp_path / "absent", tmp_path / "out"
    result = CliRunner().invoke(app, [command, str(absent), "--out", str(out)])
    assert result.exit_code == 1
    assert f"There is nothing at {absent}." in str(result.exception or result.output)
    assert not out.exists()
