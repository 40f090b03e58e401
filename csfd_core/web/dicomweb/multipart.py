"""Bodies of type ``multipart/related`` (RFC 2046 section 5.1, RFC 2387).

What comes in is read piece by piece and given out part by part, so that no more than
one part is in memory. What goes out is written the same way.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Final

from csfd_core.errors import CsfdError

_LONGEST_HEAD: Final = 16 * 1024  # bytes of the headers of a part
_LONGEST_TYPE: Final = 1000  # characters of a media type with its parameters
_MOST_PARTS: Final = 20_000  # of one body; what became of each is told
_LONGEST_BOUNDARY: Final = 200  # characters; 70 by the standard
_BOUNDARY: Final = re.compile(r"[ -~]{1,200}")
_END_OF_HEAD: Final = b"\r\n\r\n"
_BLANKS: Final = b" \t"


class BodyError(CsfdError):
    """A body is not of the form that its type promises."""


class CutOffError(BodyError):
    """A body ends before its last part does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaType:
    """A media type with its parameters; names are in small letters."""

    name: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> "MediaType":
        """Read the value of a header such as Content-Type."""
        message = Message()
        text = text[:_LONGEST_TYPE]  # to read it takes the square of its length
        message["Content-Type"] = text.replace("\r", " ").replace("\n", " ")
        params = message.get_params(failobj=[("", "")])
        name, *others = [(str(key), str(value)) for key, value in params]
        parameters = {key.lower(): value for key, value in others}
        return cls(name=name[0].strip().lower(), parameters=parameters)

    @property
    def related(self) -> str:
        """The type of the parts of ``multipart/related``; empty: it is not said."""
        return self.parameters.get("type", "").strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its media type, and its content; ``None``: larger than it may be."""

    media_type: MediaType
    content: bytes | None


def boundary_of(media_type: MediaType) -> bytes:
    """Return what separates the parts.

    Raises:
        BodyError: If the type does not say so.
    """
    text = media_type.parameters.get("boundary", "")
    if _BOUNDARY.fullmatch(text) is None or text.endswith(" "):
        raise BodyError(
            "The Content-Type has no usable boundary. Send multipart/related; "
            'type="application/dicom"; boundary=…'
        )
    return text.encode("ascii")


class PartReader:
    """Takes a body in pieces of any size, and gives out its parts as they are whole."""

    def __init__(self, boundary: bytes, most_bytes: int) -> None:
        """Begin a body.

        Args:
            boundary: Without the two hyphens before it.
            most_bytes: Of the content of one part; a larger one is passed over.
        """
        self._delimiter = b"\r\n--" + boundary
        self._most = most_bytes
        # As if a line had ended before: the first delimiter may begin the body.
        self._rest = bytearray(b"\r\n")
        self._searched = 0
        self._number = 0
        self._is_preamble = True
        self._is_too_large = False
        self._is_done = False

    @property
    def is_done(self) -> bool:
        """Whether the last delimiter has come; what follows it does not count."""
        return self._is_done

    def feed(self, piece: bytes) -> Iterator[Part]:
        """Take a piece; yield the parts that end in it.

        Raises:
            BodyError: If the body is not of its form.
        """
        if self._is_done:
            return
        self._rest += piece
        while (delimiter := self._find_delimiter()) is not None:
            if not self._is_preamble:
                self._count()
                yield self._part(delimiter.start)
            del self._rest[: delimiter.end]
            self._searched = 0
            self._is_preamble = self._is_too_large = False
            if delimiter.is_last:
                self._is_done = True
                self._rest.clear()
                return
        self._drop_what_is_too_large()

    def finish(self) -> None:
        """Say that nothing more comes.

        Raises:
            CutOffError: If the last delimiter has not come.
        """
        if not self._is_done:
            raise CutOffError("The body ends before its last part does. Send it again.")

    def _find_delimiter(self) -> "_Delimiter | None":
        """Return the next delimiter; ``None``: more of the body has to come first.

        What only begins like one, as a longer boundary does, is content.
        """
        while (start := self._rest.find(self._delimiter, self._searched)) >= 0:
            self._searched = start
            end = start + len(self._delimiter)
            tail = bytes(self._rest[end : end + _LONGEST_BOUNDARY])
            if tail.startswith(b"--"):
                return _Delimiter(start=start, end=end + 2, is_last=True)
            padding = len(tail) - len(tail.lstrip(_BLANKS))
            line_end = tail[padding : padding + 2]
            if line_end == b"\r\n":
                # The line's end stays: it may be that before the next delimiter.
                return _Delimiter(start=start, end=end + padding, is_last=False)
            if len(tail) < _LONGEST_BOUNDARY and _may_go_on(tail[padding:]):
                return None
            self._searched = end
        beginning = len(self._rest) - len(self._delimiter) + 1
        self._searched = max(self._searched, beginning, 0)
        return None

    def _count(self) -> None:
        self._number += 1
        if self._number > _MOST_PARTS:
            raise BodyError(
                f"The body has more than {_MOST_PARTS} parts. Send it in several."
            )

    def _part(self, end: int) -> Part:
        if self._is_too_large:
            return Part(media_type=MediaType.of(""), content=None)
        # Of a part without headers, the line's end before them is half of this.
        head_end = self._rest.find(_END_OF_HEAD, 0, end)
        if head_end < 0 or head_end > _LONGEST_HEAD:
            raise BodyError("A part of the body has no end of its headers.")
        content = bytes(self._rest[head_end + len(_END_OF_HEAD) : end])
        head = bytes(self._rest[:head_end])
        is_too_large = len(content) > self._most
        return Part(
            media_type=_media_type_in(head), content=None if is_too_large else content
        )

    def _drop_what_is_too_large(self) -> None:
        """Keep no more of a part than it may have, nor of a preamble."""
        retained = len(self._delimiter) + _LONGEST_BOUNDARY
        is_over = len(self._rest) > self._most + _LONGEST_HEAD + retained
        if is_over:
            self._is_too_large = True
        if is_over or self._is_preamble or self._is_too_large:
            surplus = min(self._searched, max(0, len(self._rest) - retained))
            del self._rest[:surplus]
            self._searched -= surplus


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delimiter:
    """Where a delimiter lies in what is read, and whether it is the last one."""

    start: int
    end: int
    is_last: bool


def _may_go_on(tail: bytes) -> bool:
    """Say whether what follows a boundary may still become the end of a delimiter."""
    return tail in (b"", b"-", b"\r")


def _media_type_in(head: bytes) -> MediaType:
    for line in head.decode("latin-1").replace("\r\n ", " ").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            return MediaType.of(value.strip())
    return MediaType.of("")


class PartWriter:
    """Writes a body of parts that are not known before they are sent."""

    def __init__(self, related: str) -> None:
        """Name the type of the parts, such as ``application/dicom``."""
        self._boundary = f"csfd-{secrets.token_hex(16)}"
        self.content_type = (
            f'multipart/related; type="{related}"; boundary="{self._boundary}"'
        )

    def body(self, parts: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
        """Yield a body.

        Args:
            parts: Content type and content of each.
        """
        for content_type, content in parts:
            head = f"--{self._boundary}\r\nContent-Type: {content_type}\r\n"
            yield f"{head}Content-Length: {len(content)}\r\n\r\n".encode()
            yield content
            yield b"\r\n"
        yield f"--{self._boundary}--\r\n".encode()
