"""How long does the worklist take with 5,000 studies: first page, search, last page?"""

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Final

from starlette.testclient import TestClient

from benchmarks.harness import Result, spread, timed
from csfd_core.classification.unlike import Verdict
from csfd_core.web.app import build_app
from csfd_core.web.database import studies
from csfd_core.web.security.users import Role, add_user
from csfd_core.web.services import Services
from csfd_core.web.study_states import StudyState

STUDIES: Final = 5000
ROUNDS: Final = 15
MOST_S: Final = 0.5
_PASSWORD: Final = "twelve or more characters"
_PAGES: Final = {
    "first_page": "/",
    "search": "/?state=all&q=2.25.4321",
    "last_page": f"/?state=all&page={STUDIES // 50 - 1}",
    "of_the_api": "/api/v1/studies",
}


def run() -> Result:
    """Ask the application for pages, in its own process, as often as ``ROUNDS``."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"CSFD_HOME": name, "CSFD_KEY_FILE": f"{name}/patients.key"}
        try:
            measured = _measure(Path(name))
        finally:
            os.environ.clear()
            os.environ.update(before)
    highest = max(one["highest"] for one in measured.values())
    return Result(
        question="Seconds of a page of the worklist",
        target=f"below {MOST_S} s",
        met=highest < MOST_S,
        data=f"{STUDIES} studies, one in ten of the locked test set",
        measured=dict(measured),
    )


def _measure(home: Path) -> dict[str, dict[str, float]]:
    services = Services.open()
    _fill(services)
    with TestClient(build_app(services)) as client:
        form = {"name": "reader", "password": _PASSWORD}
        client.post("/sign-in", data=form)
        return {
            name: spread([_ask(client, page) for _ in range(ROUNDS)])
            for name, page in _PAGES.items()
        }


def _ask(client: TestClient, page: str) -> float:
    def ask() -> None:
        answer = client.get(page)
        assert answer.status_code == 200, answer.status_code

    return timed(ask)


def _fill(services: Services) -> None:
    rng = random.Random(0)
    now = time.time()
    rows = [
        {
            "study_uid": f"2.25.{100_000 + number}",
            "state": StudyState.DONE,
            "accepted_at": now - rng.uniform(0, 3e6),
            "verdict": rng.choice(list(Verdict)),
            "ratio": rng.uniform(0, 3),
            "overall": rng.random(),
            "suspicious": "C5",
            "needs_eyes": rng.random() < 0.1,
            "is_locked": number % 10 == 0,
            "signed_version": int(rng.random() < 0.8),
        }
        for number in range(STUDIES)
    ]
    with services.database.transaction() as connection:
        connection.execute(studies.insert(), rows)
        add_user(connection, None, "reader", _PASSWORD, Role.READER)
