"""Of several who write one file at once, one alone succeeds."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from csfd_core.store.exclusive import create_remote
from csfd_core.store.locations import Location


@pytest.fixture(params=["links", "no links"])
def disk(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Location:
    """A disk, and one that has no links, as some shares have none."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)
    return Location(tmp_path)


def test_of_several_who_write_a_new_file_one_succeeds(disk: Location) -> None:
    def write(turn: int) -> list[int]:
        own = f"writer {turn}".encode()
        return [key for key in range(40) if disk.write_new(f"claims/{key}", own)]

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(write, range(6)))
    assert sorted(key for keys in won for key in keys) == list(range(40))
    for writer, keys in enumerate(won):
        for key in keys:
            assert disk.read(f"claims/{key}") == f"writer {writer}".encode()
    assert len(disk.entries("claims")) == 40


class Answers:
    """S3 as it answers conditional writes: with an error code, or by doing them."""

    def __init__(self, *codes: str, content: bytes = b"") -> None:
        self.codes, self.content = list(codes), content

    def pipe_file(self, target: str, content: bytes, mode: str) -> None:
        assert mode == "create"
        code = self.codes.pop(0)
        if code:
            error = OSError(errno.EINVAL, code)
            error.__cause__ = ClientError({"Error": {"Code": code}}, "PutObject")
            raise error
        self.content = content

    def cat_file(self, target: str) -> bytes:
        if not self.content:
            raise FileNotFoundError(target)
        return self.content


@pytest.mark.parametrize(
    ("answers", "is_mine"),
    [
        (Answers(""), True),
        (Answers("PreconditionFailed", content=b"another's"), False),
        # The answer to the first attempt was lost on its way.
        (Answers("PreconditionFailed", content=b"mine"), True),
        (Answers("ConditionalRequestConflict", ""), True),
        (Answers("PreconditionFailed", ""), True),  # gone before it was read
    ],
)
def test_answers_to_a_conditional_write_are_understood(
    answers: Answers, is_mine: bool
) -> None:
    assert create_remote(answers, "bucket/key", b"mine") is is_mine


def test_a_conditional_write_that_fails_otherwise_is_told() -> None:
    with pytest.raises(OSError, match="AccessDenied"):
        create_remote(Answers("AccessDenied"), "bucket/key", b"mine")
