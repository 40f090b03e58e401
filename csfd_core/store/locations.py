"""A folder on a disk or under an ``s3://`` URL, through fsspec.

``Location`` is the only place that knows how files are listed, read and written.
Writing is atomic: a reader sees the whole file or none. On a disk the bytes go to a
temporary name beside the target and are renamed; on S3 one PUT (or one completed
multipart upload) makes an object visible at once. Passing faults of the network are
tried again by botocore and s3fs; what is still wrong after that becomes a
``SourceError``.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from fsspec.implementations.local import LocalFileSystem

from csfd_core.errors import SourceError
from csfd_core.store import streams
from csfd_core.store.atomic import TEMPORARY, remove_abandoned, write_atomically
from csfd_core.store.entries import FileEntry as FileEntry
from csfd_core.store.entries import local_entry, remote_entry, with_identities
from csfd_core.store.exclusive import create_local, create_remote
from csfd_core.store.faults import as_source_error
from csfd_core.store.filesystems import open_filesystem
from csfd_core.store.moved import HIDDEN, RECORD, Identities, MoveRecord, is_hidden
from csfd_core.store.shown_places import shown_place
from csfd_core.text import safe_url

_BATCH_FILES: Final = 16
_RECORD_BYTES: Final = 64 * 1024  # of a move; it has a few hundred
_LOCATIONS: Final = 8  # whose identities are kept in memory


class Location:
    """A folder or an ``s3://`` prefix. Pickles as its URL; opens nothing until used."""

    def __init__(self, url: str | Path) -> None:
        """Take a path or URL; a path is made absolute."""
        text = str(url)
        is_url = "://" in text
        self.url = (
            text.rstrip("/") if is_url else str(Path(text).expanduser().absolute())
        )
        self._filesystem: Any = None

    def __reduce__(self) -> tuple[type["Location"], tuple[str]]:
        """Pickle by URL: connections do not travel between processes."""
        return Location, (self.url,)

    def __str__(self) -> str:
        """Return the URL, without a password."""
        return safe_url(self.url)

    @property
    def is_local(self) -> bool:
        """Whether this is a folder on a disk."""
        return isinstance(self._fs, LocalFileSystem)

    @property
    def folder(self) -> Path | None:
        """The folder on a disk, ``None`` where it is on none."""
        return Path(self._full("")) if self.is_local else None

    @property
    def _fs(self) -> Any:  # noqa: ANN401 - fsspec has no types
        if self._filesystem is None:
            try:
                self._filesystem = open_filesystem(self.url)
            except (ValueError, ImportError) as error:
                raise SourceError(
                    f"Cannot open {self._shown()}: {error}. Use a folder or an s3:// "
                    "URL."
                ) from error
        return self._filesystem

    def _full(self, path: str) -> str:
        if ".." in path.split("/"):
            raise SourceError(f"A path must not leave its location: {path!r}.")
        root = str(self._fs._strip_protocol(self.url))
        return f"{root}/{path}" if path else root

    def _shown(self, path: str = "") -> str:
        return shown_place(self.url, path)

    def join(self, path: str) -> "Location":
        """Return the location of a folder below this one."""
        return Location(f"{self.url}/{path}") if path else self

    def exists(self, path: str = "") -> bool:
        """Say whether a file or folder is there."""
        with as_source_error(self._shown()):
            try:
                # Not ``exists``: for a bucket, s3fs takes every error as absence.
                self._fs.info(self._full(path))
            except FileNotFoundError:
                return False
            return True

    def find(self, path: str = "") -> tuple[list[FileEntry], list[str]]:
        """List everything below a folder.

        Returns:
            Files and folders, each sorted by path. Both are empty where the folder is
            absent. Temporary files of an unfinished write are left out. On a disk,
            links are followed; one that leads nowhere is a file without content.

        Raises:
            SourceError: If it cannot be read, or was not moved here completely.
        """
        identities = self._identities()
        files, folders = self.find_here(path)
        return with_identities(files, identities), [
            one for one in folders if not is_hidden(one)
        ]

    def find_here(self, path: str = "") -> tuple[list[FileEntry], list[str]]:
        """List as ``find`` does, with the tokens of this place and what is hidden."""
        if self.is_local:
            return self._find_local(path)
        with as_source_error(self._shown()):
            root = self._full("")
            try:
                listed = self._fs.find(self._full(path), detail=True, withdirs=True)
            except FileNotFoundError:
                return [], []
        files, folders = [], []
        for full, info in listed.items():
            relative = full[len(root) :].lstrip("/")
            if info["type"] == "directory":
                folders.append(relative)
            elif TEMPORARY not in relative and relative:
                files.append(remote_entry(relative, info))
        return sorted(files, key=lambda entry: entry.path), sorted(folders)

    def _find_local(self, path: str) -> tuple[list[FileEntry], list[str]]:
        root, files, folders = Path(self._full("")), [], []
        seen = set()  # a link to a folder above would be followed for ever
        with as_source_error(self._shown()):
            for folder, below, names in os.walk(self._full(path), followlinks=True):
                real_path = os.path.realpath(folder)
                if real_path in seen:
                    below.clear()
                    continue
                seen.add(real_path)
                relative = Path(folder).relative_to(root)
                folders += [(relative / name).as_posix() for name in below]
                files += [
                    local_entry((relative / name).as_posix(), Path(folder, name))
                    for name in names
                    if TEMPORARY not in name
                ]
        return sorted(files, key=lambda entry: entry.path), sorted(folders)

    def _children(self, path: str) -> list[Path]:
        """Return what lies directly in a folder on a disk, sorted."""
        with as_source_error(self._shown()):
            try:
                return sorted(Path(self._full(path)).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def entries(self, path: str = "") -> list[FileEntry]:
        """Return the files directly in a folder, sorted by name; [] if it is absent.

        Raises:
            SourceError: If it cannot be read, or was not moved here completely.
        """
        identities = self._identities()
        return with_identities(self.entries_here(path), identities)

    def entries_here(self, path: str) -> list[FileEntry]:
        """List as ``entries`` does, with the tokens of this place."""
        if self.is_local:
            return [
                local_entry(f"{path}/{child.name}".lstrip("/"), child)
                for child in self._children(path)
                if not child.is_dir() and TEMPORARY not in child.name
            ]
        with as_source_error(self._shown()):
            root = self._full("")
            try:
                infos = self._fs.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        entries = [
            remote_entry(info["name"][len(root) :].lstrip("/"), info)
            for info in infos
            if info["type"] == "file" and TEMPORARY not in info["name"]
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders directly in a folder; [] if it is absent."""
        if self.is_local:
            names = [child.name for child in self._children(path) if child.is_dir()]
            return [name for name in names if path or not is_hidden(name)]
        with as_source_error(self._shown()):
            try:
                infos = self._fs.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        names = [
            info["name"].rstrip("/").rsplit("/", 1)[-1]
            for info in infos
            if info["type"] == "directory"
        ]
        return sorted(name for name in names if path or not is_hidden(name))

    def move_record(self) -> MoveRecord | None:
        """Return what is noted of a move to this place; ``None``: it was never moved.

        Raises:
            SourceError: If it cannot be read.
        """
        with as_source_error(self._shown(RECORD)):
            try:
                if self.is_local:
                    content = Path(self._full(RECORD)).read_bytes()
                else:  # with an end, s3fs does not ask for the size first
                    content = self._fs.cat_file(
                        self._full(RECORD), 0, end=_RECORD_BYTES
                    )
            except (FileNotFoundError, NotADirectoryError):
                return None
        return MoveRecord.read(content, str(self))

    def require_complete(self) -> None:
        """Require that this is no place to which something is still being moved.

        Raises:
            SourceError: If it is.
        """
        if (record := self.move_record()) is not None:
            record.require_finished(str(self))

    def _identities(self) -> Identities | None:
        record = self.move_record()
        if record is None:
            return None
        record.require_finished(str(self))
        return _read_identities(self.url, record.identities or "")

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            SourceError: If it is absent or cannot be read.
        """
        with as_source_error(self._shown(path)):
            if self.is_local:
                return Path(self._full(path)).read_bytes()
            return bytes(self._fs.cat_file(self._full(path)))

    def read_if_there(self, path: str) -> bytes | None:
        """Return the content of a file, ``None`` where it is absent.

        One request, and no moment between a look and the reading in which another
        removes the file.

        Raises:
            SourceError: If it cannot be read.
        """
        try:
            return self.read(path)
        except SourceError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return None
            raise

    def content_token(self, entry: FileEntry) -> str:
        """Return what changes with the content of a small file, and only with that.

        S3's ETag is such a token; a file on a disk is read.

        Raises:
            SourceError: If it cannot be read.
        """
        return entry.told_digest or entry.digest_of(self.read(entry.path))

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading in places, as a Parquet reader does.

        Raises:
            SourceError: If it is absent or cannot be opened.
        """
        with as_source_error(self._shown(path)):
            opened: IO[bytes] = self._fs.open(self._full(path), "rb")
            return opened

    def read_beginnings(
        self, paths: Sequence[str], length: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield (path, first ``length`` bytes, or all) of many files, in order.

        Remote files are fetched concurrently, a few at a time, so that memory does not
        grow with the number of files.
        """
        for start in range(0, len(paths), _BATCH_FILES):
            batch = paths[start : start + _BATCH_FILES]
            if self.is_local:
                for path in batch:
                    yield path, self._read_local(path, length)
                continue
            count = len(batch)
            with as_source_error(self._shown()):
                parts = self._fs.cat_ranges(
                    [self._full(path) for path in batch],
                    [0] * count,  # without a start, s3fs asks for the size first
                    [length] * count,
                    on_error="raise",
                )
            yield from zip(batch, (bytes(part) for part in parts), strict=True)

    def _read_local(self, path: str, length: int | None) -> bytes:
        with as_source_error(self._shown()), open(self._full(path), "rb") as file:  # noqa: PTH123
            return file.read() if length is None else file.read(length)

    def read_blocks(self, entry: FileEntry) -> Iterator[bytes]:
        """Yield a file in blocks, so that memory does not grow with its size.

        Raises:
            SourceError: If it cannot be read.
        """
        with as_source_error(self._shown(entry.path)):
            full = self._full(entry.path)
            if self.is_local:
                yield from streams.read_local(Path(full))
            else:
                yield from streams.read_remote(self._fs, full, entry.size_bytes)

    def write_blocks(self, path: str, blocks: Iterator[bytes], token: str = "") -> None:
        """Write a file atomically from blocks, replacing what was there.

        Args:
            path: Relative to this location.
            blocks: As ``read_blocks`` yields.
            token: That the file is to have, as far as this place lets one choose.

        Raises:
            SourceError: If it cannot be written; what was there before is untouched.
        """
        with as_source_error(self._shown(path)):
            target = self._full(path)
            if self.is_local:
                streams.write_local(Path(target), blocks, token)
            else:
                streams.write_remote(self._fs, target, blocks)

    def write(self, path: str, content: bytes) -> None:
        """Write a file atomically, replacing what was there.

        Raises:
            SourceError: If it cannot be written; what was there before is untouched.
        """
        with as_source_error(self._shown(path)):
            target = self._full(path)
            if self.is_local:
                write_atomically(Path(target), content)
            else:
                self._fs.pipe_file(target, content)

    def write_new(self, path: str, content: bytes) -> bool:
        """Write a file unless it is there; say whether it is this writer's.

        Args:
            path: Relative to this location.
            content: That no other writer has.

        Raises:
            SourceError: If it cannot be written.
        """
        with as_source_error(self._shown(path)):
            target = self._full(path)
            if self.is_local:
                return create_local(Path(target), content)
            return create_remote(self._fs, target, content)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with as_source_error(self._shown(path)):
            try:
                self._fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

    def remove_abandoned(self, path: str) -> None:
        """Remove temporary files in a folder that a killed writer has left."""
        if self.is_local:
            with as_source_error(self._shown()):
                remove_abandoned(Path(self._full(path)))


@functools.lru_cache(maxsize=_LOCATIONS)
def _read_identities(url: str, name: str) -> Identities | None:
    """Read a table of identities; its name tells its content."""
    return Identities.read(Location(url).read(f"{HIDDEN}/{name}")) if name else None
