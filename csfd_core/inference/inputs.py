"""Inputs from anywhere: a folder, a source or a zip file, by one checked reader."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from csfd_core.errors import SourceError
from csfd_core.store.source import Source

_LARGEST_ZIP: Final = 20 * 2**30  # bytes when unpacked


_MOST_FILES: Final = 100_000


@contextmanager
def opened(location: str) -> Iterator[Source]:
    """Open a folder or source; unpack a zip file for as long as it is used."""
    if not location.lower().endswith(".zip"):
        yield Source(location).require()
        return
    folder = Path(tempfile.mkdtemp(prefix="csfd-zip-"))
    try:
        _unpack(Path(location), folder)
        yield Source(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a zip file; no entry may leave the folder or fill the disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            size = sum(entry.file_size for entry in entries)
            if size > _LARGEST_ZIP or len(entries) > _MOST_FILES:
                raise SourceError(f"{path} unpacks to more than csfd accepts.")
            for entry in entries:
                parts = PurePosixPath(entry.filename).parts
                if ".." in parts or entry.filename.startswith("/"):
                    raise SourceError(f"{path} has an entry that leaves its folder.")
                archive.extract(entry, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"Cannot read {path} as a zip file.") from error
