"""From a folder that is dropped on the page to a label that the training takes up."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from pydicom import dcmread
from support.browser import NEEDS_CHROMIUM, Watched, chromium, served
from support.web import WebUnderTest

from csfd_core.ingest.plan import survey
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_study
from csfd_core.store.labels import read_all_boxes, read_all_labels
from csfd_core.store.slices import ConversionSettings
from csfd_core.web.study_states import StudyState, open_studies, tell
from csfd_dagster.definitions import build_defs
from csfd_dagster.partitions import studies as partitions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), NEEDS_CHROMIUM]

SIZES = ((1920, 1080), (1280, 800), (820, 1180))


def predict_accepted(web: WebUnderTest) -> list[str]:
    """Do what the daemon does for accepted studies: run the job, tell the page."""
    with ThreadPoolExecutor(1) as pool:  # the browser's loop runs in this thread
        return pool.submit(_predict_accepted, web).result()


def _predict_accepted(web: WebUnderTest) -> list[str]:
    done = []
    job = build_defs().resolve_job_def("arrival")
    with dg.DagsterInstance.ephemeral() as instance:
        for one in open_studies(web.services.database):
            instance.add_dynamic_partitions(str(partitions.name), [one.study_uid])
            result = job.execute_in_process(
                partition_key=one.study_uid, instance=instance
            )
            assert result.success
            tell(web.services.database, one, StudyState.DONE)
            done.append(one.study_uid)
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A phantom's study, and a file beside it that is no slice."""
    config = PhantomConfig(studies=1, seed=7)
    write_study(tmp_path / "phantom", config, 0)
    (study,) = (tmp_path / "phantom" / "train_images").iterdir()
    (study / "notes.txt").write_text("no slice")
    add_coarse_volume(study)
    return study


def add_coarse_volume(study: Path) -> None:
    """Add every second slice once more, as a series of its own."""
    for path in study.glob("*.dcm"):
        dataset = dcmread(path)
        if dataset.InstanceNumber % 2:
            dataset.SeriesInstanceUID += ".9"
            dataset.SOPInstanceUID += ".9"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(path.with_name(f"coarse-{path.name}"))


@pytest.fixture
def watched(web: WebUnderTest) -> Iterator[Watched]:
    with served(web.app) as address, chromium() as browser:
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        yield Watched(context.new_page(), address)


def upload(page: Page, address: str, folder: Path) -> None:
    page.goto(f"{address}/upload")
    files = [str(path) for path in sorted(folder.iterdir())]
    page.set_input_files("input[type=file]:not([webkitdirectory])", files)
    expect(page.locator("main a[href^='/studies/']").first).to_be_visible(
        timeout=120_000
    )


def test_from_a_dropped_folder_to_a_label(
    web: WebUnderTest, watched: Watched, folder: Path
) -> None:
    page = watched.sign_in()
    upload(page, watched.address, folder)
    (uid,) = predict_accepted(web)
    before = survey(web.services.stores, web.services.sources, ConversionSettings())
    page.goto(f"{watched.address}/studies/{uid}")
    expect(page.locator("#review [data-place=standing]")).to_have_text(
        re.compile("signed by you"), timeout=60_000
    )
    page.locator("#review .level[data-level=C2] button", has_text="C2").click()
    page.keyboard.press("y")
    page.locator("#review .level[data-level=C5] button", has_text="C5").click()
    page.keyboard.press("n")
    page.keyboard.press("Control+Enter")
    page.locator("dialog[open] button.primary").click()
    expect(page.locator("#review [data-place=standing]")).to_have_text(
        re.compile("^signed by you"), timeout=30_000
    )
    labels = read_all_labels([web.services.inbox])
    row = labels.table.loc[uid]
    assert (row["C2"], row["C5"], row["patient_overall"]) == (1, 0, 1)
    assert row.isna()[["C1", "C3", "C4", "C6", "C7"]].all()
    assert labels.dated[uid].reader == "admin"
    assert read_all_boxes([web.services.inbox]).table.empty
    after = survey(web.services.stores, web.services.sources, ConversionSettings())
    # What the sensor goes by: other labels, and another version of this study.
    assert after.labels_version != before.labels_version
    assert after.studies[uid].version != before.studies[uid].version
    assert watched.complaints == []
    assert watched.elsewhere == []


def test_every_page_can_be_read_by_everybody(
    web: WebUnderTest, watched: Watched, folder: Path
) -> None:
    page = watched.sign_in()
    upload(page, watched.address, folder)
    (uid,) = predict_accepted(web)
    paths = ["/", "/upload", "/model", "/account", "/admin/users", "/admin/audit"]
    study = f"/studies/{uid}"
    found = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        for path in (*paths, study, f"{study}/withdraw"):
            page.goto(f"{watched.address}{path}")
            if path == study:
                expect(page.locator("#review .level").first).to_be_visible(
                    timeout=60_000
                )
                page.locator("#volumes summary").click()
                expect(page.get_by_role("button", name="instead")).to_be_visible()
            found += [(scheme, path, *one) for one in serious_violations(page)]
    assert found == []


def serious_violations(page: Page) -> list[tuple[str, list[str]]]:
    return [
        (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_no_page_is_wider_than_the_screen(web: WebUnderTest, watched: Watched) -> None:
    page = watched.sign_in()
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for path in ("/", "/upload", "/model", "/admin/users", "/admin/audit"):
            page.goto(f"{watched.address}{path}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (path, width)
