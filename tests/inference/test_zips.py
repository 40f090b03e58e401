"""Zip files are looked at before anything is made of them."""

import io
import stat
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csfd_core.errors import SourceError
from csfd_core.inference.zips import checked_entries, opened_zip, read_pieces

SHOWN = "the zip file x.zip"


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def unpacked(raw: bytes) -> list[bytes]:
    with opened_zip(io.BytesIO(raw), SHOWN) as archive:
        return [
            b"".join(read_pieces(archive, entry))
            for entry in checked_entries(archive, SHOWN)
        ]


def refusal(raw: bytes) -> str:
    with pytest.raises(SourceError) as refused:
        unpacked(raw)
    return str(refused.value)


@given(
    st.dictionaries(st.text("abc/.", min_size=1, max_size=9), st.binary(max_size=99)),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_what_was_packed_comes_out(files: dict[str, bytes], method: int) -> None:
    wanted = {name: c for name, c in files.items() if not name.endswith("/")}
    assert unpacked(packed(wanted, method)) == list(wanted.values())


BASE = packed({"a": b"x" * 300, "b/c": bytes(range(256)) * 3, "d": b""})


@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.binary(max_size=6))),
    st.integers(0, len(BASE)),
)
@settings(max_examples=400)
def test_damage_is_told_and_nothing_else(
    changes: list[tuple[int, bytes]], length: int
) -> None:
    raw = bytearray(BASE)
    for place, content in changes:
        raw[place : place + len(content)] = content
    for damaged in (bytes(raw), bytes(raw[:length])):
        try:
            unpacked(damaged)
        except SourceError as error:
            assert str(error).startswith("The zip file x.zip")  # noqa: PT017


def test_links_and_folders_are_left_out() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("folder/", b"")
        archive.writestr("1.dcm", b"slice")
    assert unpacked(sink.getvalue()) == [b"slice"]


def test_other_methods_are_told() -> None:
    assert "packed by a method" in refusal(packed({"a": b"x"}, zipfile.ZIP_LZMA))
    raw = bytearray(packed({"a": b"x" * 99}))
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", raw, raw.index(mark) + place, 9)  # Deflate64
    assert "packed by a method" in refusal(bytes(raw))


def many(number: int, *, is_64: bool = False) -> bytes:
    """A directory of many entries that all mean the same file."""
    base = packed({"a": b"x"})
    start = base.index(b"PK\x01\x02")
    end = base.index(b"PK\x05\x06")
    directory = base[start:end] * number
    place = start + len(directory)
    tail = bytearray(base[end:])
    if is_64:
        record = struct.pack(
            "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, number, number,
            len(directory), start,
        )  # fmt: skip
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, place, 1)
        # What stands in the old record is not what counts.
        return base[:start] + directory + record + locator + bytes(tail)
    struct.pack_into("<HHII", tail, 8, number % 65536, number % 65536,
                     len(directory), start)  # fmt: skip
    return base[:start] + directory + bytes(tail)


@pytest.mark.usefixtures("collected_as_usual")
@pytest.mark.parametrize("is_64", [False, True])
def test_two_hundred_thousand_entries_are_not_made(is_64: bool) -> None:
    raw = many(200_000, is_64=is_64)
    tracemalloc.start()
    try:
        assert "holds 200,000 files, more than 100,000" in refusal(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(raw)  # the bytes themselves; an object has 500 more


def test_the_directory_that_counts_is_the_one_that_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CSFD_MAX_ZIP_FILES", "5")
    for is_64 in (False, True):
        assert "holds 6 files" in refusal(many(6, is_64=is_64))
    with opened_zip(io.BytesIO(many(5, is_64=True)), SHOWN) as archive:
        assert len(archive.infolist()) == 5
