"""Bodies of many parts are read as they were written, however they are cut up."""

import email.policy
import re
from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csfd_core.web.dicomweb.multipart import (
    BodyError,
    CutOffError,
    MediaType,
    Part,
    PartReader,
    PartWriter,
    boundary_of,
)

BOUNDARIES = st.text(st.sampled_from("ab-'()+_,./:=?"), min_size=1, max_size=6).map(
    str.encode
)
PIECES = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b"--", b"-", b"a", b"b", b" ", b"\r\n--a", b"\0", b"DICM"]
)
CONTENTS = st.lists(st.lists(PIECES, max_size=12).map(b"".join), min_size=1, max_size=4)


def read(
    body: bytes, boundary: bytes, cuts: list[int], most: int = 2**20
) -> list[Part]:
    reader, parts, start = PartReader(boundary, most), [], 0
    for end in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        parts += list(reader.feed(body[start:end]))
        start = end
    reader.finish()
    return parts


def has_delimiter(content: bytes, boundary: bytes) -> bool:
    line = rb"\r\n--" + re.escape(boundary) + rb"(--|[ \t]*\r\n)"
    return re.search(line, b"\r\n" + content + b"\r\n") is not None


@given(
    boundary=BOUNDARIES,
    contents=CONTENTS,
    cuts=st.lists(st.integers(0, 10**6), max_size=30),
    head=st.sampled_from([b"", b"Content-Type: application/dicom\r\n", b"X: y\r\n"]),
    preamble=st.sampled_from([b"", b"\r\n", b"for old readers\r\n"]),
    padding=st.sampled_from([b"", b" ", b"\t "]),
    epilogue=st.sampled_from([b"", b"\r\n", b"\r\n--a\r\nfurther"]),
)
def test_parts_are_what_was_written_wherever_the_body_is_cut(
    boundary: bytes,
    contents: list[bytes],
    cuts: list[int],
    head: bytes,
    preamble: bytes,
    padding: bytes,
    epilogue: bytes,
) -> None:
    contents = [c for c in contents if not has_delimiter(c, boundary)]
    lines = [
        b"--" + boundary + padding + b"\r\n" + head + b"\r\n" + content + b"\r\n"
        for content in contents
    ]
    end = b"--" + boundary + b"--" + epilogue
    body = preamble + b"".join(lines) + end
    assert [p.content for p in read(body, boundary, cuts)] == contents


@pytest.mark.parametrize("after", [b"a", b"-", b" x", b"-a", b"\r", b"\n", b"aa\r"])
@pytest.mark.parametrize("step", [1, 2, 5, 100])
def test_what_begins_like_a_delimiter_is_content(after: bytes, step: int) -> None:
    content = b"x\r\n--b" + after
    body = b"--b\r\n\r\n" + content + b"\r\n--b\r\n\r\nnext\r\n--b--"
    cuts = list(range(0, len(body), step))
    assert [p.content for p in read(body, b"b", cuts)] == [content, b"next"]


@given(
    body=st.binary(max_size=300) | st.lists(PIECES, max_size=40).map(b"".join),
    cuts=st.lists(st.integers(0, 300), max_size=5),
)
def test_any_bytes_are_read_or_refused(body: bytes, cuts: list[int]) -> None:
    try:
        parts = read(body, b"a", cuts)
    except BodyError:
        return
    assert sum(len(part.content or b"") for part in parts) <= len(body)


@given(contents=CONTENTS, cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_what_is_written_is_read_by_the_standard_library(
    contents: list[bytes], cuts: list[int]
) -> None:
    writer = PartWriter("application/dicom")
    parts = [("application/dicom", content) for content in contents]
    body = b"".join(writer.body(parts))
    media_type = MediaType.of(writer.content_type)
    assert (media_type.name, media_type.related) == (
        "multipart/related",
        "application/dicom",
    )
    own = read(body, boundary_of(media_type), cuts)
    assert [part.content for part in own] == contents
    assert {part.media_type.name for part in own} == {"application/dicom"}
    head = f"Content-Type: {writer.content_type}\r\n\r\n".encode()
    message = message_from_bytes(head + body, policy=email.policy.HTTP)
    assert len(list(message.iter_parts())) == len(contents)


@pytest.mark.parametrize("size", [999, 1000, 1001, 5000, 200_000])
@pytest.mark.parametrize("step", [7, 1024, 10**6])
def test_a_part_that_is_too_large_is_passed_over_and_never_kept_whole(
    size: int, step: int
) -> None:
    body = b"--b\r\n\r\n" + b"x" * size + b"\r\n--b\r\n\r\nnext\r\n--b--"
    reader, contents, most = PartReader(b"b", 1000), [], 0
    for start in range(0, len(body), step):
        contents += [part.content for part in reader.feed(body[start : start + step])]
        most = max(most, len(reader._rest))
    reader.finish()
    assert contents == [b"x" * size if size <= 1000 else None, b"next"]
    assert most < 20_000 + step


@pytest.mark.parametrize(
    "body",
    [b"", b"--b", b"--b\r\n\r\nx", b"--b\r\n\r\nx\r\n--b", b"--b\r\n\r\nx\r\n--b-"],
)
def test_a_body_without_its_end_is_cut_off(body: bytes) -> None:
    reader = PartReader(b"b", 1000)
    assert list(reader.feed(body)) == []
    with pytest.raises(CutOffError, match="ends before its last part does"):
        reader.finish()


def test_a_part_without_an_end_of_its_headers_is_refused() -> None:
    with pytest.raises(BodyError, match="no end of its headers"):
        list(PartReader(b"b", 1000).feed(b"--b\r\nA: b\r\nx\r\n--b--"))


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', b"a b"),
        ("Multipart/Related;TYPE=application/dicom;Boundary=abc", b"abc"),
        ("multipart/related; boundary=a=b", b"a=b"),
        ("multipart/related; boundary='x'", b"'x'"),
        ('multipart/related; boundary="a\\"b"', b'a"b'),
        ('multipart/related; boundary=""', None),
        ("multipart/related; boundary=", None),
        ("multipart/related", None),
        ('multipart/related; boundary="a "', None),
        (f"multipart/related; boundary={'a' * 201}", None),
        ("multipart/related; boundary=\N{LATIN SMALL LETTER E WITH ACUTE}", None),
    ],
)
def test_boundaries_are_read_in_every_form(text: str, boundary: bytes | None) -> None:
    media_type = MediaType.of(text)
    assert media_type.name == "multipart/related"
    if boundary is None:
        with pytest.raises(BodyError, match="no usable boundary"):
            boundary_of(media_type)
    else:
        assert boundary_of(media_type) == boundary
