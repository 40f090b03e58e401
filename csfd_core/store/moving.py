"""Moves a store or a source to another place, where it stays what it was.

First everything is copied, then both places are listed once more and compared, then
``csfd_core.store.moved`` keeps what the files were known by. Until that is done nobody
takes the target for what is moved to it. A move that was cut off goes on where it
stopped; the original is removed by another call, and only where all of it is there.
"""

import datetime as dt
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Semaphore
from typing import Final

from csfd_core.errors import SettingsError, SourceError
from csfd_core.runtime.executors import in_threads
from csfd_core.store import layout, paths
from csfd_core.store.entries import local_entry
from csfd_core.store.faults import as_source_error
from csfd_core.store.journal import Copied, Journal, clear_journal, read_journal
from csfd_core.store.locations import FileEntry, Location
from csfd_core.store.moved import (
    ETAG,
    HIDDEN,
    RECORD,
    Identity,
    Kind,
    MoveRecord,
    is_hidden,
    pack,
)
from csfd_core.store.streams import BLOCK_BYTES, Digests
from csfd_core.text import agree, count

_THREADS: Final = 16  # copying waits for disk and network; each holds few blocks
_LARGE_AT_ONCE: Final = 4  # files of several blocks; each takes up to 100 MB
_MD5_DIGITS: Final = 32  # of an ETag that is one
_SPARE_BYTES: Final = 64 * 2**20  # for what is kept of the move
_AGAIN: Final = "Run the same command again to go on."

OnBytes = Callable[[int], None]  # called by several threads


@dataclass(frozen=True, slots=True)
class Move:
    """A move that was planned.

    Attributes:
        origin: Where the files are.
        target: Where they are to be.
        record: What the target says of it.
        files: Of the origin; what makes a store of it is the last.
        copied: Those that were copied before, by path.
        there: What lies at the target already, by path.
    """

    origin: Location
    target: Location
    record: MoveRecord
    files: tuple[FileEntry, ...]
    copied: Mapping[str, Copied]
    there: Mapping[str, FileEntry]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.files)


def plan_move(origin: Location, target: Location) -> Move:
    """Say what is to be moved, and begin with it; nothing is copied yet.

    Raises:
        SettingsError: If the places cannot be those of a move.
        SourceError: If one of them cannot be read, or the target not be written.
    """
    _require_apart(origin, target)
    files = tuple(origin.find()[0])
    record = target.move_record()
    if record is not None and record.origin != str(origin):
        done = "has come" if record.is_finished else "is being moved"
        raise SettingsError(
            f"{target} {done} from {record.origin}, not from {origin}. Name another "
            "place."
        )
    if record is not None and record.is_finished:
        return Move(origin, target, record, files, {}, {})
    there = {e.path: e for e in target.find_here()[0] if not is_hidden(e.path)}
    if record is None:
        if there:
            raise SettingsError(
                f"{target} holds {count(len(there), 'file')} already. Move to a place "
                "that is new or empty."
            )
        record = MoveRecord(
            kind=_kind_of(origin, files), origin=str(origin), begun=_now()
        )
        _write_record(target, record)
    move = Move(origin, target, record, _in_order(files), read_journal(target), there)
    _require_room(move)
    return move


def copy_files(move: Move, on_bytes: OnBytes) -> None:
    """Copy what is not at the target yet.

    Args:
        move: As ``plan_move`` returns.
        on_bytes: Told of every byte that is there, from several threads.

    Raises:
        SourceError: If a file cannot be read or written.
    """
    large = Semaphore(_LARGE_AT_ONCE)
    with Journal(move.target) as journal:

        def copy(entry: FileEntry) -> None:
            if _is_there(move, entry):
                on_bytes(entry.size_bytes)
                return
            with large if entry.size_bytes > BLOCK_BYTES else nullcontext():
                journal.add(_copy(move, entry, on_bytes))

        wanted = [e for e in move.files if e.path != paths.STORE_RECORD]
        try:
            for _ in in_threads(copy, wanted, _THREADS):
                pass
        except SourceError as error:
            told = str(error).removesuffix(_AGAIN).rstrip()
            raise SourceError(f"{told} {_AGAIN}") from error


def finish_move(move: Move) -> MoveRecord:
    """Compare both places, keep what the files were known by, and say so.

    Raises:
        SourceError: If the origin has changed, or a file is not at the target as it
            was; the same move can be gone on with.
    """
    _require_unchanged(move)
    copied = read_journal(move.target)
    at_target = {e.path: e for e in move.target.find_here()[0] if not is_hidden(e.path)}
    wanted = [e for e in move.files if e.path != paths.STORE_RECORD]
    extra = set(at_target) - {entry.path for entry in move.files}
    if foreign := extra - set(copied):
        raise SourceError(
            f"{count(len(foreign), 'file')} in {move.target} came from elsewhere "
            "while it was moved. Remove what is not yours, or move to another place."
        )
    for path in sorted(extra):  # gone from the origin since it was copied
        move.target.remove(path)
    rows = _identities(move, wanted, copied, at_target)
    for entry in move.files[len(wanted) :]:  # all that it speaks of is there by now
        last = {entry.path: _copy(move, entry, lambda _: None)}
        there = {e.path: e for e in move.target.entries_here("")}
        rows += _identities(move, [entry], last, there)
    name = None
    if rows:
        name, content = pack(rows)
        move.target.write(f"{HIDDEN}/{name}", content)
    record = move.record.model_copy(
        update={
            "is_finished": True,
            "finished": _now(),
            "files": len(move.files),
            "size_bytes": move.size_bytes,
            "identities": name,
        }
    )
    _write_record(move.target, record)
    clear_journal(move.target)
    return record


def remove_original(move: Move, on_bytes: OnBytes) -> int:
    """Remove what was moved, once all of it is at the target as it was.

    Returns:
        How many files were left, as links lead to them from elsewhere.

    Raises:
        SourceError: If a file is not at the target as it is at the origin.
    """
    if other := tell_others(move):
        raise SourceError(f"{other} Nothing was removed.")
    files = _in_order(move.files)
    hidden = [e for e in move.origin.find_here()[0] if is_hidden(e.path)]
    left = 0
    # What makes a store of it goes first, so that nobody takes what is left for one;
    # what tells which files these are is the last.
    for part in (files[-1:], files[:-1], hidden):
        for size in in_threads(lambda e: _remove(move.origin, e), part, _THREADS):
            left += size is None
            on_bytes(size or 0)
    if move.origin.folder is not None:
        with as_source_error(str(move.origin)):
            _remove_empty(move.origin.folder)
    return left


def tell_others(move: Move) -> str:
    """Say how many files of the origin are not at the target as they are; else "".

    Raises:
        SourceError: If the target cannot be read, or is not complete.
    """
    at_target = {(e.path, e.size_bytes, e.token) for e in move.target.find()[0]}
    files = ((e.path, e.size_bytes, e.token) for e in move.files)
    others = sum(file not in at_target for file in files)
    told = count(others, "file")
    verb = agree(others, "is", "are")
    named = f"{told} of {move.origin} {verb} not in {move.target}, or not the same."
    return named if others else ""


def _require_apart(origin: Location, target: Location) -> None:
    ends = [_plain(location) for location in (origin, target)]
    if ends[0] == ends[1]:
        raise SettingsError(f"{origin} and {target} are the same place.")
    for inner, outer in (ends, reversed(ends)):
        if inner.startswith(f"{outer.rstrip('/')}/"):
            raise SettingsError(
                f"Of {origin} and {target} one lies in the other. Move to a place "
                "beside it."
            )


def _plain(location: Location) -> str:
    return (
        location.url if location.folder is None else os.path.realpath(location.folder)
    )


def _kind_of(origin: Location, files: tuple[FileEntry, ...]) -> Kind:
    names = {entry.path for entry in files} | {e.path.split("/")[0] for e in files}
    is_converted = any(e.path.startswith(f"{paths.HEADERS}/") for e in files)
    if is_converted or names & {paths.STORE_RECORD, paths.STUDIES}:
        return "store"
    layout_names = {
        v for n, v in vars(layout).items() if n.isupper() and isinstance(v, str)
    }
    if names & layout_names:
        return "source"
    if not files:
        raise SettingsError(f"There is nothing in {origin} that could be moved.")
    raise SettingsError(
        f"{origin} is neither a store ({paths.STORE_RECORD}) nor a source or an inbox "
        f"({layout.IMAGES_FOLDER}/, {layout.LABELS_FOLDER}/ or {layout.LABELS_FILE}). "
        "Name the folder that holds them."
    )


def _in_order(files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
    """Return files with what makes a store of them as the last one."""
    return tuple(sorted(files, key=lambda e: (e.path == paths.STORE_RECORD, e.path)))


def _require_room(move: Move) -> None:
    if move.target.folder is None:
        return
    wanted = sum(e.size_bytes for e in move.files if e.path not in move.there)
    free = shutil.disk_usage(move.target.folder).free
    if wanted + _SPARE_BYTES > free:
        raise SourceError(
            f"{move.target} has room for {free / 1e9:,.1f} GB, and {wanted / 1e9:,.1f} "
            f"GB are to be copied. Make room first. {_AGAIN}"
        )


def _copy(move: Move, entry: FileEntry, on_bytes: OnBytes) -> Copied:
    """Copy one file, and read it back from a disk."""
    passed = Digests(move.origin.read_blocks(entry))

    def blocks() -> Iterator[bytes]:
        for block in passed:
            on_bytes(len(block))
            yield block

    try:
        move.target.write_blocks(entry.path, blocks(), entry.token)
    except UnicodeError as error:
        raise SourceError(
            f"A file of {move.origin} has a name that {move.target} cannot have."
        ) from error
    if passed.size_bytes != entry.size_bytes or not _is_as_told(move, entry, passed):
        raise SourceError(
            f"A file of {move.origin} has changed while it was copied. {_AGAIN}"
        )
    here = passed.etag
    if move.target.folder is not None:
        here = local_entry(entry.path, move.target.folder / entry.path).token
        if _xxh3_of(move.target, entry) != passed.xxh3:
            raise SourceError(
                f"{move.target} does not give back what was written to it. Is its disk "
                f"in order? {_AGAIN}"
            )
    return Copied(
        path=entry.path,
        size_bytes=entry.size_bytes,
        token=entry.token,
        digest=entry.told_digest or entry.digest_by(passed.xxh3),
        xxh3=passed.xxh3,
        here=here,
    )


def _is_as_told(move: Move, entry: FileEntry, passed: Digests) -> bool:
    """Say whether what came from S3 is what its ETag tells, where that is an MD5."""
    identity = entry.identity
    is_as_moved = identity is not None and identity.token == entry.token
    token = identity.here if identity is not None and is_as_moved else entry.token
    md5 = token.removeprefix(ETAG)
    if not token.startswith(ETAG) or len(md5) != _MD5_DIGITS or md5 == passed.md5:
        return True
    return _xxh3_of(move.origin, entry) == passed.xxh3  # as with encryption by key


def _xxh3_of(location: Location, entry: FileEntry) -> str:
    passed = Digests(location.read_blocks(entry))
    for _ in passed:
        pass
    return passed.xxh3


def _is_there(move: Move, entry: FileEntry) -> bool:
    """Say whether a file was copied before, and is there as it was."""
    copied, here = move.copied.get(entry.path), move.there.get(entry.path)
    is_same = copied is not None and copied.token == entry.token
    return copied is not None and is_same and _is_whole(move.target, copied, here)


def _is_whole(target: Location, copied: Copied, here: FileEntry | None) -> bool:
    if here is None or here.size_bytes != copied.size_bytes:
        return False
    return here.token == copied.here or _xxh3_of(target, here) == copied.xxh3


def _require_unchanged(move: Move) -> None:
    before = {(e.path, e.size_bytes, e.token) for e in move.files}
    now = {(e.path, e.size_bytes, e.token) for e in move.origin.find()[0]}
    if changed := {path for path, *_ in before ^ now}:
        raise SourceError(
            f"{count(len(changed), 'file', 'has', 'have')} changed in {move.origin} "
            f"while it was moved. End csfd serve and what else writes there. {_AGAIN}"
        )


def _identities(
    move: Move,
    wanted: list[FileEntry],
    copied: Mapping[str, Copied],
    at_target: Mapping[str, FileEntry],
) -> list[tuple[str, int, Identity]]:
    """Return what the target would not tell of its files.

    Raises:
        SourceError: If one is not there as it was.
    """

    def look(entry: FileEntry) -> tuple[str, int, Identity] | None:
        one, here = copied.get(entry.path), at_target.get(entry.path)
        if one is None or here is None or not _is_whole(move.target, one, here):
            return None
        identity = Identity(here.token, entry.token, one.digest, one.xxh3)
        return entry.path, entry.size_bytes, identity

    rows = list(in_threads(look, wanted, _THREADS))
    if lost := sum(row is None for row in rows):
        raise SourceError(
            f"{count(lost, 'file', 'is', 'are')} not whole in {move.target}. {_AGAIN}"
        )
    return [row for row in rows if row is not None and not row[2].is_told]


def _remove(origin: Location, entry: FileEntry) -> int | None:
    """Remove a file; return its size, ``None`` where it lies outside of its place."""
    if origin.folder is not None:
        above = (origin.folder / entry.path).parent
        if not above.resolve().is_relative_to(origin.folder.resolve()):
            return None
    origin.remove(entry.path)
    return entry.size_bytes


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        if not any(Path(path).iterdir()):
            Path(path).rmdir()


def _write_record(target: Location, record: MoveRecord) -> None:
    target.write(RECORD, f"{record.model_dump_json(indent=2)}\n".encode())


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat("T", "seconds")
