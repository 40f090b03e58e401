"""Reading of a source's one study, as the tests of its checks do."""

from collections.abc import Callable
from pathlib import Path

from csfd_core.ingest.scan import StudyScan, scan_study
from csfd_core.store.source import Source

Damage = Callable[[Path], object]


def scan(source: Path) -> StudyScan:
    (folder,) = Source(source).studies()
    (found,) = scan_study(folder)
    return found


def codes(found: StudyScan) -> list[str]:
    return [finding.code for finding in found.findings]
