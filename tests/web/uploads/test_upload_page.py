"""The page to upload, in a browser: files, zips, lost connections, cancelling."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect
from support.browser import NEEDS_CHROMIUM, Watched, chromium, served
from support.dicom_studies import neck_hounsfield
from support.reviews import PREDICTION
from support.uploading import UPLOADS, study_files, zipped
from support.web import WebUnderTest

from csfd_core.inference.predict import prediction_path
from csfd_core.web.study_states import StudyState, open_studies, tell
from csfd_core.web.uploads.spool import SPOOLS
from csfd_core.web.uploads.staging import uploads_folder

pytestmark = [
    pytest.mark.slow,
    NEEDS_CHROMIUM,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def page(web: WebUnderTest) -> Iterator[Page]:
    """The page, signed in, served by a server as ``csfd serve`` has it."""
    with served(web.app) as address, chromium() as browser:
        watched = Watched(browser.new_page(base_url=address), address)
        opened = watched.sign_in()
        opened.goto("/upload")
        yield opened
        assert watched.errors == []


def write_files(folder: Path, files: list[bytes]) -> list[str]:
    folder.mkdir()
    paths = [folder / f"{number}.dcm" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def inbox_names(web: WebUnderTest) -> int:
    return len(web.services.inbox.find("train_images")[0])


def test_studies_are_uploaded_and_listed(
    web: WebUnderTest, page: Page, tmp_path: Path
) -> None:
    first = study_files(tmp_path / "a")
    second = study_files(tmp_path / "b", "1.2.3.4")
    big = neck_hounsfield(40, 512)  # beyond one part: in pieces
    third = zipped(study_files(tmp_path / "c", "1.2.3.5", hounsfield=big), 0)
    assert len(third) > 16 * 2**20
    paths = write_files(tmp_path / "up", [*first, *second, third, b"<b>readme</b>"])
    page.get_by_label("STAT").check()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(paths)
    expect(page.locator(".state")).to_contain_text("Done", timeout=60_000)
    expect(page.locator(".studies li")).to_have_count(3)
    expect(page.locator(".told")).to_have_text("1 file is no DICOM file: passed over.")
    assert inbox_names(web) == 24 + 24 + 40
    link = page.locator(".studies a").first
    assert (link.get_attribute("href") or "").startswith("/studies/2.25.")
    for over in (page.locator("progress"), page.get_by_text("Cancel")):
        expect(over).to_be_hidden()
    found = Axe().run(page).response["violations"]
    assert [
        one["id"] for one in found if one["impact"] in ("serious", "critical")
    ] == []


def test_a_lost_connection_is_waited_for(
    web: WebUnderTest, page: Page, tmp_path: Path
) -> None:
    lost = [3]

    def lose(route: Route) -> None:
        lost[0] -= 1
        if lost[0] >= 0:
            route.abort("connectionfailed")
        else:
            route.fallback()

    page.route("**/parts/*", lose)
    paths = write_files(tmp_path / "up", study_files(tmp_path / "a"))
    page.set_input_files("#files", paths)
    expect(page.locator(".state")).to_contain_text("goes on by itself")
    expect(page.locator(".state")).to_contain_text("Done", timeout=30_000)
    assert lost[0] < 0
    assert inbox_names(web) == 24


def test_cancelling_removes_everything(
    web: WebUnderTest, page: Page, tmp_path: Path
) -> None:
    page.route("**/parts/*", lambda route: None)  # never answered
    paths = write_files(tmp_path / "up", study_files(tmp_path / "a"))
    page.set_input_files("#files", paths)
    with page.expect_response(lambda r: r.request.method == "DELETE") as gone:
        page.get_by_role("button", name="Cancel").click()
    assert gone.value.status == 204
    expect(page.locator(".state")).to_have_text("Cancelled: nothing of it was kept.")
    assert inbox_names(web) == 0


def test_a_refusal_is_told_in_the_servers_words(
    web: WebUnderTest, page: Page, tmp_path: Path
) -> None:
    page.set_input_files(
        "#files", write_files(tmp_path / "up", [b"7z\xbc\xaf\x27\x1c"])
    )
    expect(page.locator(".state")).to_have_text("Done. No study was accepted.")
    expect(page.locator(".told .bad")).to_contain_text("Unpack it, and upload")


def test_the_card_names_what_was_chosen_and_nothing_else_does(
    web: WebUnderTest, page: Page, tmp_path: Path
) -> None:
    sent: list[bytes] = []

    def keep(route: Route) -> None:
        request = route.request
        headers = "".join(f"{name}{told}" for name, told in request.headers.items())
        sent.append(
            (request.url + headers).encode() + (request.post_data_buffer or b"")
        )
        route.fallback()

    page.route("**/*", keep)
    folder = tmp_path / "MILLER & <b>Ann"
    write_files(folder, study_files(tmp_path / "a"))
    page.set_input_files("#folder", str(folder))
    title = page.locator(".upload h2")
    expect(title).to_contain_text("MILLER & <b>Ann: 24 files (")
    expect(page.locator(".state")).to_contain_text("Done", timeout=30_000)
    (only,) = write_files(tmp_path / "one", [b"no study"])
    page.set_input_files("#files", [only])
    expect(title.first).to_contain_text("0.dcm: 1 file (")
    expect(page.locator(".state").first).to_contain_text("Done", timeout=30_000)
    assert len(sent) > 4
    told = b"".join(sent)
    assert all(name not in told for name in (b"MILLER", b"%3Cb%3E", b"0.dcm"))


@pytest.mark.parametrize("is_locked", [False, True])
def test_the_card_follows_its_study_to_the_verdict(
    web: WebUnderTest,
    page: Page,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_locked: bool,
) -> None:
    """Who reads blind is told that it is ready, and no more."""
    monkeypatch.setattr("csfd_core.web.review.blind.is_locked", lambda *_: is_locked)
    page.set_input_files(
        "#files", write_files(tmp_path / "up", study_files(tmp_path / "a"))
    )
    now = page.locator(".studies li span")
    expect(now).to_have_text("Waits for its prediction.", timeout=30_000)
    (one,) = open_studies(web.services.database)
    for state, step, told in (
        (StudyState.RUNNING, "crops", "Is being predicted: crops."),
        (StudyState.FAILED, "", "failed: The disk was full."),
        (StudyState.DONE, "", "Ready to read." if is_locked else "suspicious C2, C5"),
    ):
        if state == StudyState.DONE:
            predict(web, one.study_uid)
        reason = "The disk was full." if state == StudyState.FAILED else ""
        tell(web.services.database, one, state, step=step, reason=reason)
        expect(now).to_have_text(told, timeout=10_000)
    link = page.locator(".studies a")
    assert link.get_attribute("href") == f"/studies/{one.study_uid}"


def predict(web: WebUnderTest, uid: str) -> None:
    """Write a prediction, of which the page's follower reads the verdict."""
    note = {**PREDICTION, "study_uid": uid, "suspicious": ["C2", "C5"]}
    web.services.stores.root.write(prediction_path(uid), json.dumps(note).encode())


def test_digests_without_the_browsers_help_are_right(page: Page) -> None:
    for length in (0, 1, 55, 56, 63, 64, 65, 1000):
        content = bytes(index * 7 % 256 for index in range(length))
        found = page.evaluate(
            """async (bytes) => {
              const { plainSha256, sha256 } = await import("/static/sha256.js");
              const content = new Uint8Array(bytes);
              return [plainSha256(content), await sha256(content)];
            }""",
            list(content),
        )
        assert found == [hashlib.sha256(content).hexdigest()] * 2


def test_a_folder_is_dropped(web: WebUnderTest, page: Page, tmp_path: Path) -> None:
    """A folder in a folder, as the browser hands it over."""
    paths = write_files(tmp_path / "up", study_files(tmp_path / "a"))
    page.evaluate(
        """() => {
          const input = document.createElement("input");
          input.type = "file"; input.multiple = true; input.id = "source";
          document.body.append(input);
        }"""
    )
    page.set_input_files("#source", paths)
    page.evaluate(
        """() => {
          const files = [...document.getElementById("source").files];
          const leaf = (file) => ({ isFile: true, file: (yes) => yes(file) });
          const folder = (entries) => ({
            isFile: false,
            createReader: () => ({
              readEntries: (yes) => yes(entries.splice(0, 10)),
            }),
          });
          const root = folder([folder(files.map(leaf))]);
          root.name = "neck-7";
          const item = { kind: "file", webkitGetAsEntry: () => root };
          const event = new Event("drop", { bubbles: true, cancelable: true });
          Object.defineProperty(event, "dataTransfer", { value: { items: [item] } });
          document.getElementById("drop").dispatchEvent(event);
        }"""
    )
    expect(page.locator(".state")).to_contain_text("Done", timeout=30_000)
    expect(page.locator(".upload h2")).to_contain_text("neck-7: 24 files (")
    assert inbox_names(web) == 24


def test_what_a_restart_has_lost_is_sent_again(
    web: WebUnderTest, page: Page, tmp_path: Path
) -> None:
    big = neck_hounsfield(40, 512)
    packed = zipped(study_files(tmp_path / "a", hounsfield=big), 0)
    calls = []

    def restart(route: Route) -> None:
        """Forget the keys once two of three parts are there."""
        calls.append(route.request.url)
        if len(calls) == 3:
            upload = route.request.url.split("/")[-3]
            while len(web.client.get(f"{UPLOADS}/{upload}").json()["parts"]) < 2:
                time.sleep(0.05)
            SPOOLS.forget(uploads_folder(web.services.settings) / upload)
        route.fallback()

    page.route("**/parts/*", restart)
    page.set_input_files("#files", write_files(tmp_path / "up", [packed]))
    expect(page.locator(".state")).to_contain_text("Done", timeout=60_000)
    assert len(calls) == 6
    assert inbox_names(web) == 40
