"""Parts and spools: whatever way files are cut, the same files come out."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.uploading import split, whole

from csfd_core.web.uploads.parts import HEADER, PartError, Piece, read_pieces
from csfd_core.web.uploads.spool import SPOOLS, Spool

FILES = st.lists(st.binary(max_size=300), min_size=1, max_size=5)


@given(FILES, st.integers(0, 1000), st.integers(1, 120))
def test_any_split_gives_the_same_files(
    files: list[bytes], seed: int, most: int
) -> None:
    with TemporaryDirectory() as folder:
        spools: dict[int, Spool] = {}
        for part in split(files, seed, most):
            for piece in read_pieces(part):
                path = Path(folder) / str(piece.file)
                if piece.file not in spools:
                    spools[piece.file] = Spool(path, piece.size)
                if piece.content:
                    spools[piece.file].write(piece.offset, piece.content)
        for number, content in enumerate(files):
            with spools[number].open() as file:
                assert file.read() == content
            assert spools[number].is_whole == bool(content)


@given(st.binary(max_size=400))
def test_garbage_is_refused(part: bytes) -> None:
    try:
        pieces = read_pieces(part)
    except PartError:
        return
    assert sum(HEADER.size + len(piece.content) for piece in pieces) == len(part)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"x" * 23,
        HEADER.pack(0, 0, 10, 11) + bytes(11),
        HEADER.pack(0, 9, 10, 2) + bytes(2),
        HEADER.pack(0, 0, 10, 5) + bytes(4),
        HEADER.pack(0, 2**63, 10, 1) + bytes(1),
        HEADER.pack(0, 3, 10, 0),
    ],
)
def test_pieces_outside_of_their_file_are_refused(part: bytes) -> None:
    with pytest.raises(PartError):
        read_pieces(part)


@given(FILES)
def test_whole_files_are_seen_as_such(files: list[bytes]) -> None:
    pieces = read_pieces(whole(files))
    assert [piece.content for piece in pieces] == files
    assert all(piece.is_whole for piece in pieces)


@given(
    st.binary(min_size=1, max_size=500),
    st.lists(st.tuples(st.integers(0, 499), st.integers(0, 99)), max_size=8),
)
def test_a_spool_is_read_at_any_place(
    content: bytes, places: list[tuple[int, int]]
) -> None:
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "0", len(content))
        spool.write(0, content)
        for place, length in places:
            with spool.open() as file:
                file.seek(place)
                assert file.read(length) == content[place : place + length]
                assert file.seek(-1, 2) == len(content) - 1


def test_a_spool_hides_what_it_holds(tmp_path: Path) -> None:
    text = b"MEIER^HANS" * 1000
    spool = SPOOLS.begin(tmp_path / "spool-0", len(text))
    spool.write(0, text)
    hidden = spool.path.read_bytes()
    assert b"MEIER" not in hidden
    assert len(set(hidden)) == 256
    assert spool.path.stat().st_mode & 0o777 == 0o600
    other = Spool(tmp_path / "spool-1", len(text))
    other.write(0, text)
    assert other.path.read_bytes() != hidden
    SPOOLS.remove(spool.path)
    assert SPOOLS.find(spool.path) is None
    assert not spool.path.exists()


def test_a_piece_knows_whether_it_is_a_file() -> None:
    assert Piece(0, 0, 2, b"ab").is_whole
    assert not Piece(0, 0, 3, b"ab").is_whole
