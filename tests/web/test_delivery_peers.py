"""Peers: named by a setting or on the page, never with a password in the database."""

import time
from typing import Any

import pytest
import sqlalchemy as sa
from support.web import WebUnderTest

from csfd_core.errors import SettingsError
from csfd_core.web.database import audit, peers
from csfd_core.web.delivery.peers import (
    Peer,
    PeerKind,
    all_peers,
    configured_endpoints,
    follow_setting,
    tell_echo,
)
from csfd_core.web.security.sessions import CSRF_HEADER

PAGE = "/admin/peers"
FORM = {
    "name": "archive",
    "kind": "c-store",
    "ae_title": "PACS 1",
    "host": "pacs.example",
    "port": "104",
}
SETTING = "north=PACS@10.0.0.5:104, tls=tls:PACS@[fd00::5]:2762, web=https://u:p@a.b/dw"


def post(web: WebUnderTest, path: str = PAGE, **values: str) -> Any:
    form = {"csrf": web.client.headers[CSRF_HEADER], **values}
    return web.client.post(path, data=form)


def known(web: WebUnderTest) -> dict[str, Peer]:
    with web.services.database.transaction() as connection:
        return {peer.name: peer for peer in all_peers(connection)}


def test_the_setting_names_peers_of_each_kind() -> None:
    north, tls, stow = configured_endpoints(SETTING)
    assert (north.ae_title, north.host, north.port, north.is_tls) == (
        "PACS",
        "10.0.0.5",
        104,
        False,
    )
    assert (tls.host, tls.port, tls.is_tls) == ("fd00::5", 2762, True)
    assert (stow.kind, stow.url) == (PeerKind.STOW, "https://u:p@a.b/dw")
    assert configured_endpoints(" ") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("north", "has an entry that is not name=AE@host:port"),
        ("north=PACS", "Peer 'north' of CSFD_DICOM_PEERS is not"),
        ("north=PACS@host:0", "a port from 1 to 65535"),
        ("north=PACS@host:70000", "a port from 1 to 65535"),
        ("north=ABCDEFGHIJKLMNOPQ@host:104", "is not name=AE@host:port"),
        ("a=PACS@h:1,a=PACS@h:2", "names two peers alike"),
        ("web=http://archive.example/dw", "needs https://"),
        ("web=https://", "needs the address of its DICOMweb service"),
        ("web=https://geheim@host/x?y", "needs the address"),
        ("=PACS@h:1", "A peer's name has"),
        ("a<b>=PACS@h:1", "A peer's name has"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as refusal:
        configured_endpoints(text)
    assert "geheim" not in str(refusal.value)


def test_plain_http_is_for_this_machine() -> None:
    places = configured_endpoints("a=http://localhost:8042/d,b=http://[::1]:8042/d")
    assert len(places) == 2


def test_the_page_adds_peers_and_shows_them(web: WebUnderTest) -> None:
    assert post(web, **FORM).status_code == 303
    stow = {"name": "cloud", "kind": "stow", "url": "https://archive.example/dicom-web"}
    assert post(web, **stow).status_code == 303
    page = web.client.get(PAGE).text
    assert "PACS 1@pacs.example:104" in page
    assert "https://archive.example/dicom-web" in page
    assert known(web)["archive"].is_active
    assert not known(web)["archive"].is_automatic
    with web.services.database.transaction() as connection:
        assert "peer added" in set(connection.scalars(sa.select(audit.c.action)))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"port": "x"}, "a port from 1 to 65535"),
        ({"ae_title": "  "}, "application entity title"),
        ({"host": "a b"}, "a host name or address"),
        (
            {"kind": "stow", "url": "https://u:pw1@a.b/x"},
            "belongs into CSFD_DICOM_PEERS",
        ),
        ({"kind": "stow", "url": "http://a.b/x"}, "needs https://"),
        ({"name": "<script>"}, "name has 1 to 60"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(
    web: WebUnderTest, values: dict[str, str], told: str
) -> None:
    answer = post(web, **(FORM | values))
    assert answer.status_code == 422
    assert told in answer.text
    assert "pw1" not in answer.text
    assert known(web) == {}


def test_two_peers_have_two_names(web: WebUnderTest) -> None:
    post(web, **FORM)
    assert "There is a peer of this name already." in post(web, **FORM).text


def test_only_administrators_see_and_change_peers(web: WebUnderTest) -> None:
    reader = web.sign_in_as("ann")
    csrf = {"csrf": reader.headers[CSRF_HEADER]}
    assert reader.get(PAGE).status_code == 403
    assert reader.post(PAGE, data=FORM | csrf).status_code == 403
    assert reader.post(f"{PAGE}/1", data=csrf).status_code == 403
    assert reader.post(f"{PAGE}/1/echo", data=csrf).status_code == 403
    assert web.client.post(PAGE, data=FORM).status_code == 403  # without the token


def test_what_may_go_is_changed_on_the_page(web: WebUnderTest) -> None:
    post(web, **FORM)
    (peer,) = known(web).values()
    path = f"{PAGE}/{peer.id}"
    before = time.time()
    assert post(web, path, is_active="true", is_automatic="true").status_code == 303
    changed = known(web)["archive"]
    assert changed.is_automatic
    assert changed.automatic_since >= before
    post(web, path, is_active="true", is_automatic="true")  # saving again changes none
    assert known(web)["archive"].automatic_since == changed.automatic_since
    post(web, path)
    assert not known(web)["archive"].is_active
    assert post(web, f"{PAGE}/99").status_code == 404


def test_the_node_is_asked_and_its_answer_is_shown(web: WebUnderTest) -> None:
    post(web, **FORM)
    (peer,) = known(web).values()
    assert post(web, f"{PAGE}/{peer.id}/echo").status_code == 303
    page = web.client.get(PAGE).text
    assert "Being asked…" in page
    assert 'http-equiv="refresh"' in page
    with web.services.database.transaction() as connection:
        tell_echo(connection, peer.id, "It answers.")
    page = web.client.get(PAGE).text
    assert "It answers. (just now)" in page
    assert 'http-equiv="refresh"' not in page


def test_where_no_node_looks_it_says_so(web: WebUnderTest) -> None:
    post(web, **FORM)
    with web.services.database.transaction() as connection:
        connection.execute(peers.update().values(echo_asked_at=time.time() - 100))
    page = web.client.get(PAGE).text
    assert "is csfd receive running?" in page
    assert 'http-equiv="refresh"' not in page


def test_peers_of_the_setting_follow_it_and_their_password_is_shown_to_nobody(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_DICOM_PEERS", SETTING)
    page = web.client.get(PAGE).text
    assert "tls:PACS@[fd00::5]:2762" in page
    assert "https://a.b/dw" in page
    assert "u:p@" not in page
    with web.services.database.transaction() as connection:
        assert "u:p@" not in repr(connection.execute(sa.select(peers)).all())
        follow_setting(connection, configured_endpoints("north=OTHER@10.0.0.5:104"))
    found = known(web)
    assert found["north"].endpoint.ae_title == "OTHER"
    assert found["north"].is_active
    assert not found["web"].is_active  # not named any more: nothing goes there
    assert not found["web"].is_configured


def test_a_setting_that_cannot_be_read_is_told_on_the_page(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSFD_DICOM_PEERS", "nonsense")
    answer = web.client.get(PAGE)
    assert "CSFD_DICOM_PEERS has an entry" in answer.text
