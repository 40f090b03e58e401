"""The reader's page in a folder of its own, with somebody signed in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.testclient import TestClient

from csfd_core.ingest.patients import read_secret
from csfd_core.web.app import build_app
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.security.users import Role, add_user
from csfd_core.web.services import Services

PASSWORD = "twelve or more characters"
ADDRESS = "http://127.0.0.1:8080"


@dataclass
class WebUnderTest:
    """The application, and a client that has signed in as an administrator."""

    app: FastAPI
    services: Services
    client: TestClient
    user_id: int

    def sign_in_as(self, name: str, role: Role = Role.READER) -> TestClient:
        """Add a user, and return a client that has signed in as that one."""
        with self.services.database.transaction() as connection:
            add_user(connection, None, name, PASSWORD, role)
        return signed_in(self.app, name)


def signed_in(app: FastAPI, name: str, password: str = PASSWORD) -> TestClient:
    """Return a client with a session, whose requests carry its token."""
    client = TestClient(app, base_url=ADDRESS, follow_redirects=False)
    answer = client.post("/sign-in", data={"name": name, "password": password})
    assert answer.status_code == 303, answer.text
    page = client.get("/account").text
    client.headers[CSRF_HEADER] = page.split('name="csrf" content="')[1].split('"')[0]
    return client


def set_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything lie below a folder."""
    for name, value in {
        "CSFD_HOME": home,
        "CSFD_SOURCE": home / "source",
        "CSFD_STORE": home / "store",
        "CSFD_INBOX": home / "inbox",
        "CSFD_KEY_FILE": home / "secret" / "patients.key",
        "CSFD_WEB_DATABASE": f"sqlite:///{home}/web.db",
    }.items():
        monkeypatch.setenv(name, str(value))
    read_secret.cache_clear()
    # As strong as ever, but for what takes time on purpose.
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("csfd_core.web.security.users._hasher", lambda: quick)


@contextmanager
def web_app(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebUnderTest]:
    """Open the application below a folder; its follower runs as long as the block."""
    set_environment(home, monkeypatch)
    services = Services.open()
    with services.database.transaction() as connection:
        user_id = add_user(connection, None, "admin", PASSWORD, Role.ADMINISTRATOR)
    app = build_app(services)
    with TestClient(app, base_url=ADDRESS):
        client = signed_in(app, "admin")
        yield WebUnderTest(app, services, client, user_id)
    services.database.close()
