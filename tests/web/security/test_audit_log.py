"""The audit log shows every change that is made to it."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from support.web import WebUnderTest

from csfd_core.web.audit import Action, record, verify
from csfd_core.web.database import audit
from csfd_core.web.security.tokens import add_token

Forge = Callable[[sa.Connection], object]


def fill(web: WebUnderTest) -> int:
    with web.services.database.transaction() as connection:
        for number in range(5):
            record(connection, web.user_id, Action.STUDY_OPENED, f"1.2.{number}")
    entries, broken = verify(web.services.database)
    assert broken is None
    return entries


def test_an_untouched_chain_is_whole(web: WebUnderTest) -> None:
    assert fill(web) >= 5
    assert "is whole" in web.client.get("/admin/audit").text


@pytest.mark.parametrize(
    "forge",
    [
        lambda c: c.execute(
            audit.update().where(audit.c.number == 4).values(action=Action.SIGNED_OUT)
        ),
        lambda c: c.execute(
            audit.update().where(audit.c.number == 4).values(user_id=None)
        ),
        lambda c: c.execute(audit.delete().where(audit.c.number == 4)),
        lambda c: c.execute(audit.delete().where(audit.c.number == 1)),
        lambda c: c.execute(
            audit.update().where(audit.c.number == 4).values(digest="0" * 64)
        ),
    ],
    ids=["action", "user", "removed", "first removed", "digest"],
)
def test_a_change_is_found(web: WebUnderTest, forge: Forge) -> None:
    fill(web)
    with web.services.database.transaction() as connection:
        forge(connection)
    _, broken = verify(web.services.database)
    assert broken in (2, 4, 5)
    assert "The chain is broken" in web.client.get("/admin/audit").text


def test_who_lacks_the_secret_cannot_forge_an_entry(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(web)
    monkeypatch.setattr("csfd_core.web.audit.read_secret", lambda path: b"another" * 5)
    with web.services.database.transaction() as connection:
        record(connection, None, Action.REVIEW_SIGNED, "1.2.3")
    monkeypatch.undo()
    with web.services.database.transaction() as connection:
        last = connection.scalar(sa.select(sa.func.max(audit.c.number)))
    # The environment was undone as well: the secret of the page is named anew.
    monkeypatch.setenv("CSFD_KEY_FILE", str(web.services.settings.key_file))
    assert verify(web.services.database)[1] == last


def test_the_page_names_what_the_log_holds_as_numbers(web: WebUnderTest) -> None:
    web.sign_in_as("ann")
    with web.services.database.transaction() as connection:
        add_token(connection, web.user_id, "ct-1", may_send=False, may_read=True)
        record(connection, web.user_id, Action.USER_CHANGED, "77")
        record(connection, web.user_id, Action.STUDY_OPENED, "1.2.7")
    page = web.client.get("/admin/audit").text
    for told in ("user ann", "token ct-1", "user 77", "1.2.7"):
        assert f'<td class="uid">{told}</td>' in page
    assert verify(web.services.database)[1] is None


def test_it_names_no_user_and_no_address(web: WebUnderTest) -> None:
    with web.services.database.transaction() as connection:
        rows = connection.execute(sa.select(audit)).all()
    assert rows
    assert all("admin" not in str(tuple(row)) for row in rows)
