"""An upload as a program sends it, and studies to send."""

import hashlib
import io
import random
import zipfile
from collections.abc import Iterable
from pathlib import Path

from httpx2 import Response
from starlette.testclient import TestClient

from csfd_core.web.uploads.parts import Piece, write_piece
from support.dicom_studies import STUDY_UID, write_study

UPLOADS = "/api/v1/uploads"


def study_files(
    folder: Path, study_uid: str = STUDY_UID, **options: object
) -> list[bytes]:
    """Return the files of a small study."""
    written = write_study(folder, study_uid, **options)  # type: ignore[arg-type]
    return [path.read_bytes() for path in sorted(written.iterdir())]


def whole(files: Iterable[bytes], first: int = 0) -> bytes:
    """Return one part that holds whole files."""
    pieces = [Piece(first + n, 0, len(f), f) for n, f in enumerate(files)]
    return b"".join(write_piece(piece) for piece in pieces)


def split(files: list[bytes], seed: int, most: int) -> list[bytes]:
    """Return parts that hold the files in random pieces, in a random order."""
    rng = random.Random(seed)
    pieces = []
    for number, content in enumerate(files):
        place = 0
        while True:
            length = rng.randint(1, most)
            piece = content[place : place + length]
            pieces.append(write_piece(Piece(number, place, len(content), piece)))
            place += length
            if place >= len(content):
                break
    rng.shuffle(pieces)
    parts, size = [b""], 0
    for piece in pieces:
        if size and rng.random() < 0.3:
            parts.append(b"")
            size = 0
        parts[-1] += piece
        size += len(piece)
    return parts


def zipped(files: Iterable[bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for number, content in enumerate(files):
            archive.writestr(f"PLANTEDNAME^HANS/{number}.dcm", content)
    return sink.getvalue()


def begin(client: TestClient, priority: int = 0) -> str:
    answer = client.post(UPLOADS, json={"priority": priority})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def put(
    client: TestClient, upload: str, number: int, part: bytes, digest: str = ""
) -> Response:
    found = digest or hashlib.sha256(part).hexdigest()
    return client.put(
        f"{UPLOADS}/{upload}/parts/{number}", content=part, headers={"X-SHA256": found}
    )


def complete(client: TestClient, upload: str, parts: int) -> Response:
    return client.post(f"{UPLOADS}/{upload}/complete", json={"parts": parts})


def send(client: TestClient, parts: list[bytes], priority: int = 0) -> Response:
    """Send an upload from beginning to end."""
    upload = begin(client, priority)
    for number, part in enumerate(parts):
        answer = put(client, upload, number, part)
        assert answer.status_code == 200, answer.text
    return complete(client, upload, len(parts))
