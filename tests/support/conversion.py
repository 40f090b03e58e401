"""The studies that the tests of the conversion work on, and what it has left."""

import hashlib
from pathlib import Path

from csfd_core.ingest.convert import StudyTask
from csfd_core.store.locations import Location
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores

OTHER_UID = "1.2.826.0.1.3680043.12"


def tasks(source: Path, store: Path, quality: int = 96) -> list[StudyTask]:
    stores, settings = Stores(Location(store)), ConversionSettings(jpeg_quality=quality)
    return [StudyTask(folder, stores, settings) for folder in Source(source).studies()]


def digests(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
