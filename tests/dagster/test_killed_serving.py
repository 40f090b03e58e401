"""Uploads from a browser, while whatever ``csfd serve`` consists of is killed."""

import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pydicom
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page
from support.browser import NEEDS_CHROMIUM, Watched, chromium
from support.coarse import coarse_phantoms
from support.kills import MOMENTS
from support.supervised import Supervised, supervised, survivors
from support.web import PASSWORD

from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.settings import WebSettings
from csfd_core.web.database import Database, studies
from csfd_core.web.security.users import Role, add_user

ENDS_WITHIN_S = 20
SERVE = ["-m", "csfd_core.cli.main", "serve"]
KILLS = ("web", "predictor", "daemon", "code server", "all", "runs")
PARTS = {
    "web": "csfd_core.web.server",
    "predictor": "csfd_core.inference.warm",
    "daemon": "csfd_dagster.daemon",
    "code server": "csfd_dagster.code_server",
}
# A hundred moments over thirty uploads: CSFD_TEST_MOMENTS=100.
UPLOADS, MOST_KILLS = (30, MOMENTS) if MOMENTS >= 100 else (3, len(KILLS))
PATIENCE_S = 500 * UPLOADS // 3
ENDS = {"done", "refused"}
UPLOAD_BYTES_S = 300_000  # a study takes seconds

pytestmark = [
    pytest.mark.slow,
    NEEDS_CHROMIUM,
    pytest.mark.timeout(PATIENCE_S + 400),
]


@pytest.fixture
def waiting(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[list[str]]:
    """The files of coarse phantoms, each third of them without a slice."""
    coarse_phantoms(monkeypatch)
    few = PhantomConfig(studies=UPLOADS, seed=5, masked_share=0, compressed_share=0)
    made = write_phantom_source(tmp_path / "made", few, executor=InlineExecutor())
    files = []
    for number, study in enumerate(made, 1):
        folder = tmp_path / "made" / "train_images" / study.study_uid
        slices = sorted(map(str, folder.iterdir()))
        if number % 3 == 0:
            del slices[20]
        files.append(slices)
    return files


@pytest.fixture
def reader(home: Path) -> Iterator[Watched]:
    """Chromium at the address of the page, before anything answers there."""
    database = open_database()
    with database.transaction() as connection:
        add_user(connection, None, "reader", PASSWORD, Role.READER)
    address = f"http://127.0.0.1:{os.environ['CSFD_WEB_PORT']}"
    with chromium() as browser:
        watched = Watched(browser.new_page(base_url=address), address)
        yield watched
        assert watched.errors == []


def open_database() -> Database:
    return Database(WebSettings.read().database)


def go_slowly(page: Page) -> None:
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": UPLOAD_BYTES_S,
        },
    )


def kill(found: Supervised, name: str) -> bool:
    """Kill a service, every run, or the supervisor, as a power cut does.

    Returns:
        Whether there was any.
    """
    if name == "all":
        victims = [found.process]
    elif name == "runs":
        victims = [p for p in found.family() if "forkserver" in " ".join(p.cmdline())]
        victims = [child for p in victims for child in p.children()]
    else:
        victims = [p for p in found.process.children() if PARTS[name] in p.cmdline()]
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return bool(victims)


def states(database: Database) -> Counter[str]:
    with database.transaction() as connection:
        return Counter(connection.scalars(sa.select(studies.c.state)))


def pixels_of(paths: list[Path]) -> frozenset[bytes]:
    return frozenset(pydicom.dcmread(path).PixelData for path in paths)


def test_whoever_is_killed_every_upload_ends_predicted_or_refused_once(
    home: Path, waiting: list[list[str]], reader: Watched
) -> None:
    draw, database = random.Random(0), open_database()
    kills = list(itertools.islice(itertools.cycle(KILLS), MOST_KILLS))
    draw.shuffle(kills)
    to_send, number, begun = list(waiting), 0, time.monotonic()
    page, is_open = reader.page, False

    def go_on() -> bool:
        """Upload the next, once the last is done; say whether something is left."""
        if is_open and to_send and not page.locator("progress:visible").count():
            page.set_input_files("#files", to_send.pop())
        found = states(database)
        return bool(kills) or sum(found[end] for end in ENDS) < UPLOADS

    while go_on():
        number += 1
        with supervised(SERVE, home / f"log{number}") as found:
            found.wait_for("The daemon runs")
            found.wait_for("The reader's page is at")
            if not is_open:
                reader.sign_in("reader")
                page.goto("/upload")
                go_slowly(page)
                is_open = True
            family = found.family()
            while go_on() and found.process.poll() is None:
                assert time.monotonic() - begun < PATIENCE_S, found.said()[-3000:]
                page.wait_for_timeout(1000 * draw.uniform(0.5, 4))
                if kills:
                    family = found.family() or family
                    name = kills.pop()
                    if not kill(found, name) and name != "runs":
                        kills.insert(0, name)  # it is just being started
            if found.process.poll() is not None:
                assert not survivors(family, ENDS_WITHIN_S)
    refused = UPLOADS // 3
    assert states(database) == {"done": UPLOADS - refused, "refused": refused}
    require_whole(home, database, waiting)
    require_once(home, database)


def require_whole(home: Path, database: Database, sent: list[list[str]]) -> None:
    """Require that each study has the slices of one that was sent, and no other."""
    with database.transaction() as connection:
        uids = connection.scalars(sa.select(studies.c.study_uid)).all()
    images = home / "inbox" / "train_images"
    have = [pixels_of(sorted((images / uid).iterdir())) for uid in uids]
    assert Counter(have) == Counter(pixels_of([*map(Path, one)]) for one in sent)


def require_once(home: Path, database: Database) -> None:
    """Require that each study that is done was predicted once."""
    wanted = sa.select(studies.c.study_uid).where(studies.c.state == "done")
    with database.transaction() as connection:
        uids = connection.scalars(wanted).all()
    with dg.DagsterInstance.get() as instance:
        for uid in uids:
            of_study = dg.AssetRecordsFilter(
                dg.AssetKey("study_predictions"), asset_partitions=[uid]
            )
            records = instance.fetch_materializations(of_study, limit=50).records
            outcomes = [
                record.asset_materialization.metadata["outcome"].value
                for record in records
                if record.asset_materialization
                and "outcome" in record.asset_materialization.metadata
            ]
            assert outcomes.count("written") <= 1, outcomes
            note = json.loads((home / "store/predictions" / f"{uid}.json").read_text())
            assert note["study_uid"] == uid
            assert (home / "store/heats" / f"{uid}.npz").exists()
