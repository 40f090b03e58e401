"""What a program with a token may try at ``/dicom-web``, and how little it takes."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support.dicom_studies import STUDY_UID
from support.dicomweb import ROUTE, Archive, bearer, make_token, value
from support.uploading import study_files
from support.web import ADDRESS, WebUnderTest

from csfd_core.web.audit import Action
from csfd_core.web.database import audit
from csfd_core.web.dicomweb import access, holdings, multipart, search, stow
from csfd_core.web.dicomweb.multipart import BodyError, MediaType, PartReader
from csfd_core.web.reception import reception
from csfd_core.web.security.tokens import all_tokens, revoke_token

BOUNDARY = "snip"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def body_of(files: list[bytes]) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = b"".join(head + content + b"\r\n" for content in files)
    return parts + f"--{BOUNDARY}--\r\n".encode()


def send(web: WebUnderTest, token: str, body: object) -> object:
    client = TestClient(web.app, base_url=ADDRESS, raise_server_exceptions=False)
    headers = {"Content-Type": TYPE, **bearer(token)}
    return client.post(f"{ROUTE}/studies", content=body, headers=headers)  # type: ignore[arg-type]


def test_a_media_type_of_nothing_but_semicolons_takes_no_time() -> None:
    begun = time.process_time()
    for _ in range(20):
        MediaType.of('multipart/related; x="' + ";" * 64_000)
    assert time.process_time() - begun < 1


def test_a_body_of_countless_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "_MOST_PARTS", 100)
    reader = PartReader(b"b", 1000)
    with pytest.raises(BodyError, match="more than 100 parts"):
        list(reader.feed(b"--b\r\n\r\nX\r\n" * 200))


def test_an_error_of_another_kind_spoils_one_image_and_tells_nothing(
    web: WebUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = study_files(tmp_path / "sent")[:3]
    keep = reception.Reception.keep

    def fails(self: object, raw: bytes, *given: object) -> object:
        if raw == files[1]:
            raise ValueError("invalid literal: 'DOE^JOHN'")
        return keep(self, raw, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(reception.Reception, "keep", fails)
    answer = send(web, make_token(web), body_of(files))
    assert answer.status_code == 202
    assert b"DOE" not in answer.content
    found = answer.json()
    assert len(found["00081199"]["Value"]) == 2
    (failed,) = found["00081198"]["Value"]
    assert value(failed, "00081197") == 0x0110


def test_a_token_that_is_revoked_meanwhile_sends_nothing_more(
    web: WebUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "_ASKED_AGAIN_S", 0.0)
    files = study_files(tmp_path / "sent")[:4]
    token, kept = make_token(web), []
    keep = reception.Reception.keep

    def revokes(self: object, *given: object) -> object:
        if len(kept) == 1:
            with web.services.database.transaction() as connection:
                (one,) = all_tokens(connection)
                revoke_token(connection, web.user_id, one.id)
        kept.append(keep(self, *given))  # type: ignore[arg-type]
        return kept[-1]

    monkeypatch.setattr(reception.Reception, "keep", revokes)
    answer = send(web, token, body_of(files))
    assert len(kept) == 2
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 2


def test_what_could_not_be_audited_is_audited_the_next_time(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = make_token(web)
    caller = access.Caller(token=access.check_token(web.services.database, "", token))  # type: ignore[arg-type]
    written = access.record

    def fails(*_given: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("database is locked"))

    monkeypatch.setattr(access, "record", fails)
    with pytest.raises(sa.exc.OperationalError):
        access.note_retrieval(web.services, caller, STUDY_UID, has_results=True)
    monkeypatch.setattr(access, "record", written)
    access.note_retrieval(web.services, caller, STUDY_UID, has_results=True)
    with web.services.database.transaction() as connection:
        actions = list(connection.scalars(sa.select(audit.c.action)))
    assert actions.count(Action.DOWNLOADED) == 1


def test_a_frame_is_sent_once_however_often_it_is_named(archive: Archive) -> None:
    sop, content = next(iter(archive.files.items()))
    series = pydicom.dcmread(io.BytesIO(content)).SeriesInstanceUID
    path = f"studies/{STUDY_UID}/series/{series}/instances/{sop}/frames/1,1,1"
    answer = archive.get(path)
    assert answer.status_code == 400


def test_matches_that_are_passed_over_are_not_read(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    known = search.metadata_of

    def counted(holdings: object, one: object) -> bytes:
        read.append(one.sop_uid)  # type: ignore[attr-defined]
        return known(holdings, one)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "metadata_of", counted)
    answer = archive.get("instances", includefield="all", offset="5", limit="2")
    assert len(answer.json()) == 2
    assert len(read) == 2


def test_results_that_are_made_keep_nobody_waiting_who_has_theirs(
    archive: Archive,
) -> None:
    assert archive.get(f"studies/{STUDY_UID}/series").status_code == 200  # now made
    with ThreadPoolExecutor(1) as pool, holdings._MAKING:
        asked = pool.submit(archive.get, f"studies/{STUDY_UID}/series")
        found, _ = wait([asked], timeout=5)
        if not found:
            holdings._MAKING.release()  # or it would wait for ever
            pytest.fail("It waits for the results of another study.")
        assert asked.result().status_code == 200


def test_a_body_of_many_studies_holds_few_of_them(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "_MOST_HELD", 2)
    node = reception.Reception(web.services)
    with stow._Holding(node) as holding:
        for number in range(4):
            holding.hold(f"1.2.{number}")
        assert len(node.settle(quiet_s=0)) == 0  # they are empty
        left = sorted(
            p.name for p in (web.services.settings.home / "data" / "received").iterdir()
        )
    assert left == ["1.2.2", "1.2.3"]


def test_a_body_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow, "_LONGEST_S", 0.2)

    class Trickle:
        async def stream(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.02)
                yield b"x"

    async def read() -> bytes:
        return b"".join([piece async for piece in stow._pieces(Trickle())])  # type: ignore[arg-type]

    async def within_reason() -> bytes:
        return await asyncio.wait_for(read(), 5)

    assert asyncio.run(within_reason())
