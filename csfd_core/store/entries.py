"""One file of a listing, and what it was known by before it was moved."""

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from csfd_core.store.moved import ETAG, Identities, Identity, is_hidden


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing. ``token`` changes when the file does (not its meaning).

    Of a file that was moved here and not touched since, it is the token that it had.
    """

    path: str  # relative to the location, with "/" between parts
    size_bytes: int
    token: str
    identity: Identity | None = None  # before a move; it may be another file by now

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def told_digest(self) -> str | None:
        """Identity of the content, where a listing tells it: on S3."""
        if self.identity is not None and self.identity.token == self.token:
            return self.identity.digest if self.identity.here.startswith(ETAG) else None
        return self.token if self.token.startswith(ETAG) else None

    def digest_of(self, content: bytes) -> str:
        """Return the identity of the content.

        Args:
            content: All of it; it is not looked at where the listing tells enough.
        """
        return self.told_digest or self.digest_by(xxhash.xxh3_128_hexdigest(content))

    def digest_by(self, xxh3: str) -> str:
        """Return the identity of content that was read: its digest, or what it had."""
        is_as_moved = self.identity is not None and self.identity.xxh3 == xxh3
        return self.identity.digest if self.identity and is_as_moved else xxh3


def with_identities(
    entries: list[FileEntry], identities: Identities | None
) -> list[FileEntry]:
    """Return entries as they were known before they were moved, without our own."""
    entries = [entry for entry in entries if not is_hidden(entry.path)]
    if identities is None:
        return entries
    paths, sizes = [e.path for e in entries], [e.size_bytes for e in entries]
    return [
        entry if identity is None else _as_before(entry, identity)
        for entry, identity in zip(entries, identities.of(paths, sizes), strict=True)
    ]


def _as_before(entry: FileEntry, identity: Identity) -> FileEntry:
    is_as_moved = entry.token == identity.here
    return replace(
        entry, token=identity.token if is_as_moved else entry.token, identity=identity
    )


def local_entry(relative: str, path: Path) -> FileEntry:
    """Make an entry of a file on a disk; the token is its modification time."""
    try:
        status = path.stat()
    except OSError:  # a link that leads nowhere
        return FileEntry(path=relative, size_bytes=0, token="mtime:0")
    is_file = stat.S_ISREG(status.st_mode)  # a pipe would be waited for
    size = status.st_size if is_file else 0
    return FileEntry(relative, size, f"mtime:{status.st_mtime!r}")


def remote_entry(path: str, info: dict[str, Any]) -> FileEntry:
    """Make an entry of what fsspec lists; the token is S3's ETag, where it has one."""
    etag = info.get("ETag")
    token = (
        f"{ETAG}{etag.strip(chr(34))}" if etag else f"mtime:{info.get('mtime', 0)!r}"
    )
    return FileEntry(path=path, size_bytes=int(info["size"] or 0), token=token)
