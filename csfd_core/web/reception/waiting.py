"""Where the slices of a study wait until its sender is done: de-identified ones alone.

``<CSFD_HOME>/data/received/<StudyInstanceUID>/<SOPInstanceUID>.dcm``, by keyed UIDs,
for this user alone. Beside a slice may lie how its sender calls it, sealed
(``.identity``); empty files say how urgent the study is and what it may be searched by.
Each file is whole and on the disk before it has its name.

Who writes into the folder holds it together with others (``flock``); who empties it
holds it alone. So a study is not taken away under the hands of its sender, by whatever
process, and a process that is killed holds nothing.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from csfd_core.settings import Settings
from csfd_core.vocabulary import is_uid, require_uid
from csfd_core.web.acceptance import Incoming, sync_folder

SUFFIX: Final = ".dcm"
_IDENTITY: Final = ".identity"
_PARTIAL: Final = ".partial-"
_CHANGING: Final = "changing"
_PRIORITY: Final = "priority-"
_REFERENCE: Final = "reference-"
_MOST_REFERENCES: Final = 20  # of one study


def received_folder(settings: Settings) -> Path:
    """Return where all studies wait."""
    return settings.home / "data" / "received"


def waiting_studies(settings: Settings) -> list[str]:
    """Return the studies of which slices wait."""
    folder = received_folder(settings)
    with suppress(FileNotFoundError):
        return sorted(p.name for p in folder.iterdir() if is_uid(p.name))
    return []


class Waiting:
    """The slices of one study that wait."""

    def __init__(self, settings: Settings, study_uid: str) -> None:
        """Name the study.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        self.study_uid = require_uid(study_uid)
        self.path = received_folder(settings) / study_uid

    def hold(self) -> int:
        """Make the folder and hold it together with others.

        Returns:
            A descriptor of it; closing it lets go.
        """
        while True:
            if not self.path.exists():
                self._make()
            descriptor = self._open()
            if descriptor is None:
                continue  # it was removed meanwhile
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if self._is(descriptor):
                return descriptor
            os.close(descriptor)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder together with others as long as the block runs."""
        descriptor = self.hold()
        try:
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the folder alone, if nobody else holds it; yield whether it is so."""
        descriptor = self._open()
        if descriptor is None:
            yield False
            return
        try:
            yield self._lock_alone(descriptor)
        finally:
            os.close(descriptor)

    def _lock_alone(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._is(descriptor)

    def state(self) -> tuple[int, int] | None:
        """Return what changes when a file comes in; ``None`` where nothing waits."""
        with suppress(FileNotFoundError):
            status = self.path.stat()
            return status.st_ino, status.st_mtime_ns
        return None

    def is_empty(self) -> bool:
        """Say whether nothing waits in the folder, which is there."""
        with os.scandir(self.path) as entries:
            return next(entries, None) is None

    def find(self, sop_uid: str) -> bytes | None:
        """Return a slice that waits."""
        with suppress(FileNotFoundError):
            return self._slice(sop_uid).read_bytes()
        return None

    def add(self, sop_uid: str, content: bytes) -> bool:
        """Keep a slice; return whether there was none of its name.

        Raises:
            OSError: If it cannot be written, as when the disk is full.
        """
        return self._write(self._slice(sop_uid), content, is_new=True)

    def add_identity(self, sop_uid: str, sealed: bytes) -> None:
        """Keep how the sender calls a slice; what was said last counts.

        Raises:
            OSError: If it cannot be written.
        """
        self._write(self.path / f"{require_uid(sop_uid)}{_IDENTITY}", sealed)

    def tell(self, priority: int, references: frozenset[str]) -> None:
        """Keep how urgent the study is, and what it may be searched by."""
        if priority:
            self._touch(f"{_PRIORITY}{priority}")
        for digest in sorted(references)[:_MOST_REFERENCES]:
            self._touch(f"{_REFERENCE}{digest}")

    def sync(self) -> None:
        """Let all names outlive a loss of power."""
        sync_folder(self.path)

    def incoming(self) -> Incoming:
        """Return the study as it is accepted."""
        return Incoming(
            study_uid=self.study_uid,
            files=sorted(self.path.glob(f"*{SUFFIX}")),
            mark=self.path / _CHANGING,
        )

    def identities(self) -> list[bytes]:
        """Return how the sender calls its slices, sealed; the newest last."""
        dated = [(path.stat().st_mtime_ns, path) for path in self._ending(_IDENTITY)]
        return [path.read_bytes() for _, path in sorted(dated)]

    def priority(self) -> int:
        """Return the highest that was told."""
        return max((int(told) for told in self._told(_PRIORITY)), default=0)

    def references(self) -> frozenset[str]:
        """Return what the study may be searched by: keyed digests."""
        return frozenset(self._told(_REFERENCE))

    def remove(self) -> None:
        """Remove everything of it. The caller holds it alone."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(FileNotFoundError):
            sync_folder(self.path.parent)

    def _slice(self, sop_uid: str) -> Path:
        return self.path / f"{require_uid(sop_uid)}{SUFFIX}"

    def _ending(self, suffix: str) -> list[Path]:
        return sorted(self.path.glob(f"*{suffix}"))

    def _told(self, prefix: str) -> list[str]:
        return [p.name.removeprefix(prefix) for p in self.path.glob(f"{prefix}*")]

    def _make(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            for folder in (self.path.parent, self.path.parent.parent):
                sync_folder(folder)

    def _open(self) -> int | None:
        with suppress(FileNotFoundError):
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return None

    def _is(self, descriptor: int) -> bool:
        """Say whether a descriptor is still that of the folder."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        return False

    def _touch(self, name: str) -> None:
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(os.open(self.path / name, flags, 0o600))

    def _write(self, path: Path, content: bytes, *, is_new: bool = False) -> bool:
        partial = self.path / f"{_PARTIAL}{uuid.uuid4().hex}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                os.link(partial, path)  # a rename would replace what is there
            else:
                partial.replace(path)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        return True
