"""A folder on a disk or under an ``s3://`` URL, through fsspec.

``Location`` is the only place that knows how files are listed, read and written.
Writing is atomic: a reader sees the whole file or none. On a disk the bytes go to a
temporary name beside the target and are renamed; on S3 one PUT (or one completed
multipart upload) makes an object visible at once. Passing faults of the network are
tried again by botocore and s3fs; what is still wrong after that becomes a
``SourceError``.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import fsspec
import xxhash
from fsspec.implementations.local import LocalFileSystem

from csfd_core.errors import SourceError
from csfd_core.store import layout, paths
from csfd_core.store.atomic import TEMPORARY, remove_abandoned, write_atomically
from csfd_core.text import safe_name, safe_url

_S3_OPTIONS: Final = {
    "config_kwargs": {
        # Waits of up to 1, 2, 4 and 8 s: a server that restarts is waited for, one that
        # is away is reported soon.
        "retries": {"total_max_attempts": 5, "mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
    },
    # Another process may have written since this one listed.
    "use_listings_cache": False,
}
# s3fs tries again around botocore, for answers that break off while they are read:
# enough for three breaks of one answer. Each more multiplies the waits of botocore.
_S3FS_ATTEMPTS: Final = 4
_BATCH_FILES: Final = 16
_ETAG: Final = "etag:"
# Names of our own, in a source or in a store, that may be shown.
_LAYOUT: Final = frozenset(
    part
    for module in (layout, paths)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
    for part in value.split("/")
)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing. ``token`` changes when the file does (not its meaning)."""

    path: str  # relative to the location, with "/" between parts
    size_bytes: int
    token: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


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
    def _fs(self) -> Any:  # noqa: ANN401 - fsspec has no types
        if self._filesystem is None:
            protocol = self.url.split("://", 1)[0] if "://" in self.url else "file"
            options = _S3_OPTIONS if protocol == "s3" else {}
            try:
                self._filesystem = fsspec.filesystem(protocol, **options)
                self._filesystem.retries = _S3FS_ATTEMPTS  # others do not read it
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
        """Return a place as it may be shown: a file's name can be that of a patient."""
        parts = [
            part if part in _LAYOUT else safe_name(part)
            for part in path.split("/")
            if part
        ]
        return "/".join([safe_url(self.url), *parts])

    def join(self, path: str) -> "Location":
        """Return the location of a folder below this one."""
        return Location(f"{self.url}/{path}") if path else self

    def exists(self, path: str = "") -> bool:
        """Say whether a file or folder is there."""
        with _as_source_error(self._shown()):
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
        """
        if self.is_local:
            return self._find_local(path)
        with _as_source_error(self._shown()):
            root = self._full("")
            try:
                found = self._fs.find(self._full(path), detail=True, withdirs=True)
            except FileNotFoundError:
                return [], []
        files, folders = [], []
        for full, info in found.items():
            relative = full[len(root) :].lstrip("/")
            if info["type"] == "directory":
                folders.append(relative)
            elif TEMPORARY not in relative and relative:
                files.append(_to_entry(relative, info))
        return sorted(files, key=lambda entry: entry.path), sorted(folders)

    def _find_local(self, path: str) -> tuple[list[FileEntry], list[str]]:
        root, files, folders = Path(self._full("")), [], []
        seen = set()  # a link to a folder above would be followed for ever
        with _as_source_error(self._shown()):
            for folder, below, names in os.walk(self._full(path), followlinks=True):
                place = os.path.realpath(folder)
                if place in seen:
                    below.clear()
                    continue
                seen.add(place)
                relative = Path(folder).relative_to(root)
                folders += [(relative / name).as_posix() for name in below]
                files += [
                    _local_entry((relative / name).as_posix(), Path(folder, name))
                    for name in names
                    if TEMPORARY not in name
                ]
        return sorted(files, key=lambda entry: entry.path), sorted(folders)

    def _children(self, path: str) -> list[Path]:
        """Return what lies directly in a folder on a disk, sorted."""
        with _as_source_error(self._shown()):
            try:
                return sorted(Path(self._full(path)).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def entries(self, path: str = "") -> list[FileEntry]:
        """Return the files directly in a folder, sorted by name; [] if it is absent."""
        if self.is_local:
            return [
                _local_entry(f"{path}/{child.name}".lstrip("/"), child)
                for child in self._children(path)
                if not child.is_dir() and TEMPORARY not in child.name
            ]
        with _as_source_error(self._shown()):
            root = self._full("")
            try:
                infos = self._fs.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        entries = [
            _to_entry(info["name"][len(root) :].lstrip("/"), info)
            for info in infos
            if info["type"] == "file" and TEMPORARY not in info["name"]
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders directly in a folder; [] if it is absent."""
        if self.is_local:
            return [child.name for child in self._children(path) if child.is_dir()]
        with _as_source_error(self._shown()):
            try:
                infos = self._fs.ls(self._full(path), detail=True)
            except FileNotFoundError:
                return []
        names = [
            info["name"].rstrip("/").rsplit("/", 1)[-1]
            for info in infos
            if info["type"] == "directory"
        ]
        return sorted(names)

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            SourceError: If it is absent or cannot be read.
        """
        with _as_source_error(self._shown(path)):
            if self.is_local:
                return Path(self._full(path)).read_bytes()
            return bytes(self._fs.cat_file(self._full(path)))

    def content_token(self, entry: FileEntry) -> str:
        """Return what changes with the content of a small file, and only with that.

        S3's ETag is such a token; a file on a disk is read.

        Raises:
            SourceError: If it cannot be read.
        """
        if entry.token.startswith(_ETAG):
            return entry.token
        return xxhash.xxh3_128_hexdigest(self.read(entry.path))

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading in places, as a Parquet reader does.

        Raises:
            SourceError: If it is absent or cannot be opened.
        """
        with _as_source_error(self._shown(path)):
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
            with _as_source_error(self._shown()):
                parts = self._fs.cat_ranges(
                    [self._full(path) for path in batch],
                    [0] * count,  # without a start, s3fs asks for the size first
                    [length] * count,
                    on_error="raise",
                )
            yield from zip(batch, (bytes(part) for part in parts), strict=True)

    def _read_local(self, path: str, length: int | None) -> bytes:
        with _as_source_error(self._shown()), open(self._full(path), "rb") as file:  # noqa: PTH123
            return file.read() if length is None else file.read(length)

    def write(self, path: str, content: bytes) -> None:
        """Write a file atomically, replacing what was there.

        Raises:
            SourceError: If it cannot be written; what was there before is untouched.
        """
        with _as_source_error(self._shown(path)):
            target = self._full(path)
            if not self.is_local:
                self._fs.pipe_file(target, content)
                return
            write_atomically(Path(target), content)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with _as_source_error(self._shown(path)):
            try:
                self._fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

    def remove_abandoned(self, path: str) -> None:
        """Remove temporary files in a folder that a killed writer has left."""
        if self.is_local:
            with _as_source_error(self._shown()):
                remove_abandoned(Path(self._full(path)))


def _local_entry(relative: str, path: Path) -> FileEntry:
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere
        return FileEntry(path=relative, size_bytes=0, token="mtime:0")
    is_file = stat.S_ISREG(status.st_mode)  # a pipe would be waited for
    size = status.st_size if is_file else 0
    return FileEntry(relative, size, f"mtime:{status.st_mtime!r}")


def _to_entry(path: str, info: dict[str, Any]) -> FileEntry:
    """Make an entry; the token is S3's ETag, or the modification time on a disk."""
    etag = info.get("ETag")
    token = (
        f"{_ETAG}{etag.strip(chr(34))}" if etag else f"mtime:{info.get('mtime', 0)!r}"
    )
    return FileEntry(path=path, size_bytes=int(info["size"] or 0), token=token)


class _as_source_error:  # noqa: N801 - used like a function
    """Turn operating-system and network errors into ``SourceError``."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, OSError) or _is_botocore(error):
            raise SourceError(
                f"Cannot access {self._where}: {_reason(error)}. Check that it exists, "
                "that you may access it and, for s3://, the AWS_* variables."
            ) from error


def _reason(error: BaseException | None) -> str:
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)  # s3fs says a path only
    text = getattr(error, "strerror", None) or str(error).rstrip(".")
    return text or type(error).__name__


def _is_botocore(error: BaseException | None) -> bool:
    return error is not None and type(error).__module__.startswith(
        ("botocore", "aiobotocore", "aiohttp")
    )
