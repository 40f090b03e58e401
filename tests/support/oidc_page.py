"""A page whose readers sign in at an OpenID Connect provider, and what they do."""

import re

import sqlalchemy as sa
from httpx2 import Response
from starlette.testclient import TestClient

from csfd_core.web.audit import verify
from csfd_core.web.database import audit, users
from csfd_core.web.security.users import Role, change_user
from support.oidc import CLIENT, SECRET, Provider
from support.web import ADDRESS, WebUnderTest

OTHERS = "https://other.example"
UNPROVEN = "cannot be believed"
CLOCK = "clock"
NOT_BEGUN = "not begun in this browser"
REFUSED = "has refused"
UNREACHABLE = "cannot be reached"


def settings_of(served: Provider) -> dict[str, str]:
    return {
        "CSFD_OIDC_ISSUER": served.issuer,
        "CSFD_OIDC_CLIENT_ID": CLIENT,
        "CSFD_OIDC_CLIENT_SECRET": SECRET,
    }


def browser(page: WebUnderTest, address: str = ADDRESS) -> TestClient:
    return TestClient(page.app, base_url=address, follow_redirects=False)


def begin(client: TestClient, to: str = "/") -> str:
    answer = client.get("/sign-in/oidc", params={"to": to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def through(client: TestClient, provider: Provider, to: str = "/") -> Response:
    return client.get(provider.authorize(begin(client, to)))


def told(answer: Response) -> str:
    assert answer.status_code in (403, 503), answer.status_code
    assert "set-cookie" not in answer.headers or "-oidc" in answer.headers["set-cookie"]
    found = re.search(r'role="alert">([^<]+)<', answer.text)
    assert found is not None
    return found[1]


def who(client: TestClient) -> str | None:
    answer = client.get("/api/v1/me")
    return None if answer.status_code == 401 else answer.json()["name"]


def entries(page: WebUnderTest) -> list[tuple[str, int | None, str]]:
    """Return what was audited since ann was added."""
    with page.services.database.transaction() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.number)).all()
    assert verify(page.services.database)[1] is None
    return [(row.action, row.user_id, row.subject) for row in rows][3:]


def names(page: WebUnderTest) -> list[str]:
    with page.services.database.transaction() as connection:
        return list(connection.scalars(sa.select(users.c.name).order_by("id")))


def set_active(page: WebUnderTest, user_id: int, *, is_active: bool) -> None:
    with page.services.database.transaction() as connection:
        change_user(connection, 1, user_id, role=Role.READER, is_active=is_active)
