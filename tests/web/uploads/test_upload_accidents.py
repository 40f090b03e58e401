"""Kills, full disks and two at once: what was accepted is never lost."""

import errno
import threading
import time
from pathlib import Path

import pytest
from support.accepted_uploads import (
    accepted_events,
    admin_of,
    expected,
    inbox_files,
    rows,
    staged,
)
from support.uploading import UPLOADS, begin, complete, put, send, split, whole
from support.web import WebUnderTest

from csfd_core.store import atomic, locations
from csfd_core.web.database import uploads
from csfd_core.web.uploads import handling
from csfd_core.web.uploads.staging import uploads_folder


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing that cleans up runs after it."""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("by", ["complete", "sweep"])
def test_who_is_killed_before_the_transaction_loses_nothing(
    web: WebUnderTest,
    files: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    late: bool,
) -> None:
    if late:
        send(web.client, [whole(files[:5])])
    upload = begin(web.client)
    put(web.client, upload, 0, whole(files))

    def die(*_: object) -> None:
        raise KilledError

    admin = admin_of(web)
    with monkeypatch.context() as patch:
        patch.setattr("csfd_core.web.uploads.acceptance._accept", die)
        with pytest.raises(KilledError):
            handling.complete(web.services, admin, upload, 1)
    assert len(inbox_files(web)) == 24
    assert len(rows(web)) == late
    if by == "sweep":
        handling.sweep(web.services)
    answer = complete(web.client, upload, 1)
    assert answer.status_code == 201
    (row,) = rows(web)
    assert (row.slices, row.version) == (24, 1 + late)
    assert accepted_events(web) == 1 + late
    assert staged(web) == []


def test_a_full_disk_keeps_what_was_accepted_and_nothing_else(
    web: WebUnderTest, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(web.client, [whole(files[:8])])
    before = inbox_files(web)
    upload = begin(web.client)
    put(web.client, upload, 0, whole(files))
    left = [10]
    write = atomic.write_atomically

    def full(target: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(target, content)

    with monkeypatch.context() as patch:
        patch.setattr(locations, "write_atomically", full)
        answer = complete(web.client, upload, 1)
    assert answer.status_code == 507
    assert "disk of the server is full" in answer.json()["detail"]
    assert inbox_files(web) == before
    assert staged(web) == []
    assert web.client.get(f"{UPLOADS}/{upload}").status_code == 404
    (row,) = rows(web)
    assert (row.version, row.slices) == (1, 8)
    assert send(web.client, [whole(files)]).json()["studies"][0]["version"] == 2


def test_a_disk_that_is_full_while_parts_come(
    web: WebUnderTest, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("csfd_core.web.uploads.spool.os.pwrite", full)
    upload = begin(web.client)
    assert put(web.client, upload, 0, split(files, 0, 900)[0]).status_code == 507
    assert staged(web) == []


def test_two_uploads_of_one_study_at_once(
    web: WebUnderTest, files: list[bytes]
) -> None:
    ids = [begin(web.client) for _ in range(4)]
    for index, upload in enumerate(ids):
        put(web.client, upload, 0, whole(files[index * 4 : index * 4 + 12]))
    answers = []
    user = admin_of(web)

    def finish(upload: str) -> None:
        answers.append(handling.complete(web.services, user, upload, 1))

    threads = [threading.Thread(target=finish, args=(one,)) for one in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inbox_files(web) == expected(files, web)
    (row,) = rows(web)
    assert row.slices == 24
    versions = sorted(a["studies"][0]["version"] or 0 for a in answers)
    assert versions[-1] == row.version
    assert accepted_events(web) == row.version == len({v for v in versions if v})


def test_what_nobody_touched_for_a_day_is_swept(
    web: WebUnderTest, files: list[bytes]
) -> None:
    old, new = begin(web.client), begin(web.client)
    for upload in (old, new):
        put(web.client, upload, 0, whole(files))
    (uploads_folder(web.services.settings) / ("f" * 32) / "1.2").mkdir(parents=True)
    with web.services.database.transaction() as connection:
        same = uploads.c.id == old
        long_ago = time.time() - 90_000
        connection.execute(uploads.update().where(same).values(touched_at=long_ago))
    handling.sweep(web.services)
    left = {path.name for path in uploads_folder(web.services.settings).iterdir()}
    assert left == {new}
    assert web.client.get(f"{UPLOADS}/{old}").status_code == 404
    assert complete(web.client, new, 1).status_code == 201
