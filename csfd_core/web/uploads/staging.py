"""Where the files of an upload wait until it is complete: de-identified ones alone.

``<CSFD_HOME>/data/uploads/<id>/<StudyInstanceUID>/<SOPInstanceUID>.dcm``, by keyed
UIDs, for this user alone. What is not yet whole lies beside it, encrypted (``spool``).
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from csfd_core.deid.deidentify import Deidentified
from csfd_core.settings import Settings
from csfd_core.vocabulary import is_uid, require_uid
from csfd_core.web.acceptance import Incoming
from csfd_core.web.uploads.spool import SPOOLS, Spool

SUFFIX: Final = ".dcm"
_SPOOL: Final = "spool-"
_CHANGING: Final = "changing-"
_PARTIAL: Final = ".partial"


def uploads_folder(settings: Settings) -> Path:
    """Return where all uploads wait."""
    return settings.home / "data" / "uploads"


class Staging:
    """The folder of one upload. It is there from the first file on."""

    def __init__(self, settings: Settings, upload_id: str) -> None:
        """Name it.

        Args:
            settings: Where ``CSFD_HOME`` is.
            upload_id: From the database, never from outside.
        """
        self.folder = uploads_folder(settings) / upload_id

    def make(self) -> None:
        """Make the folder, for this user alone."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def keep(self, slice_file: Deidentified) -> bool:
        """Keep a slice; return whether it is the only one of its identity.

        Raises:
            OSError: If it cannot be written, as when the disk is full.
        """
        folder = self.folder / require_uid(slice_file.study_uid)
        path = folder / f"{require_uid(slice_file.sop_uid)}{SUFFIX}"
        if path.exists():
            return path.read_bytes() == slice_file.content
        folder.mkdir(mode=0o700, exist_ok=True)
        partial = path.with_suffix(_PARTIAL)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(slice_file.content)
        partial.replace(path)
        return True

    def studies(self) -> list[str]:
        """Return the studies of which there are slices."""
        return [folder.name for folder in self._children() if is_uid(folder.name)]

    def slices(self, study_uid: str) -> list[Path]:
        """Return the files of a study."""
        return sorted((self.folder / study_uid).glob(f"*{SUFFIX}"))

    def spool(self, file: int, size: int) -> Spool:
        """Return the spool of a file, a new one where there is none with a key."""
        path = self.folder / f"{_SPOOL}{file}"
        spool = SPOOLS.find(path)
        if spool is None or spool.size != size:
            spool = SPOOLS.begin(path, size)
        return spool

    def spooled(self) -> list[int]:
        """Return the numbers of the files that have a spool."""
        names = (path.name for path in self._children())
        numbers = (n.removeprefix(_SPOOL) for n in names if n.startswith(_SPOOL))
        return sorted(int(number) for number in numbers)

    def is_lost(self, file: int) -> bool:
        """Say whether there is no key to the spool of a file."""
        return SPOOLS.find(self.folder / f"{_SPOOL}{file}") is None

    def incoming(self, study_uid: str) -> Incoming:
        """Return a study as it is accepted."""
        return Incoming(
            study_uid=study_uid,
            files=self.slices(study_uid),
            mark=self.folder / f"{_CHANGING}{study_uid}",
        )

    def remove(self) -> None:
        """Remove everything, and the keys to it."""
        SPOOLS.forget(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _children(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from sorted(self.folder.iterdir())
