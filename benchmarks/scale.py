"""What does the arrival of ten studies cost among 2,000 stored ones, and among 10,000?

Studies of headers and notes without pixels: the cost is that of looking at all of them.
A tick lists the sources; on an arrival it compares all studies with the store, and the
table is built anew. Beside it, the same without what was kept of the footers, so that
each is opened, as it was before they were kept.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

import psutil

from benchmarks.harness import Result, timed
from benchmarks.studies import tasks_of, tiny_volume, write_copy
from csfd_core.ingest.convert import convert_study
from csfd_core.ingest.plan import listing_digest, survey
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.phantom.study import derive_uid
from csfd_core.store import paths
from csfd_core.store.layout import IMAGES_FOLDER
from csfd_core.store.locations import Location
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source, Sources, StudyFolder
from csfd_core.store.stores import Stores

FEW: Final = 2_000
MANY: Final = 10_000
ARRIVING: Final = 10
FILES: Final = 4  # of a study; listing is measured by the file
STEEPEST: Final = 2.0  # times as long among many as among few: what is aimed at
_SETTLED_S: Final = 6.0  # files so young are read anew each time


def run() -> Result:
    """Measure both in processes of their own."""
    few, many = (_of_child(number) for number in (FEW, MANY))
    slopes = {
        step: round(many[step] / few[step], 1) for step in few if step.endswith("_s")
    }
    return Result(
        question=f"Arrival of {ARRIVING} studies among {FEW:,} and {MANY:,}",
        target=f"at most {STEEPEST:.0f} times as long for each step",
        met=max(slopes.values()) <= STEEPEST,
        data=f"headers and notes without pixels, {FILES} files a study",
        measured={
            str(FEW): few,
            str(MANY): many,
            "times_as_long": slopes,
            "alternative": "every footer opened, as before they were kept",
        },
    )


def _of_child(number: int) -> dict[str, float]:
    """Return what ``_measure`` has found among so many studies."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", str(number)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found


def _measure(number: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        stores, sources = Stores(Location(root / "store")), _sources(root)
        pattern = write_pattern(root, stores)
        _write_fakes(root, stores, pattern, range(number))
        time.sleep(_SETTLED_S)
        _look(stores, sources)  # what is known before the ten arrive
        _write_fakes(root, stores, pattern, range(number, number + ARRIVING))
        start_mb = _memory_mb()
        found = _look(stores, sources)
        found["memory_mb"] = _memory_mb() - start_mb
        shutil.rmtree(root / "store" / paths.NOTE_SEGMENTS)
        before = _look(stores, sources)
    return {
        **{step: round(value, 3) for step, value in found.items()},
        "survey_of_every_footer_s": round(before["survey_s"], 3),
    }


def _look(stores: Stores, sources: Sources) -> dict[str, float]:
    """Take the steps that follow from an arrival, in their order."""
    return {
        "tick_s": timed(lambda: listing_digest(stores, sources)),
        "survey_s": timed(lambda: survey(stores, sources, ConversionSettings())),
        "table_s": timed(lambda: write_studies_table(stores, sources)),
    }


def _sources(root: Path) -> Sources:
    return Sources([Source(root / "source")])


def write_pattern(root: Path, stores: Stores) -> str:
    """Convert one tiny study, of which the others are copies; return its UID."""
    uid = write_copy(root / "pattern", tiny_volume(), 0)
    (task,) = tasks_of(root / "pattern", Path(stores.root.url))
    assert convert_study(task).action == "written"
    return uid


def _write_fakes(root: Path, stores: Stores, pattern: str, numbers: range) -> None:
    with mock.patch("os.fsync"):  # nobody waits for the disk to hold them
        for number in numbers:
            write_fake_stored(stores, pattern, write_fake_source(root, number))


def write_fake_source(root: Path, index: int) -> StudyFolder:
    """Write a study's files, without pixels."""
    uid = derive_uid(f"csfd scale {index}")
    folder = root / "source" / IMAGES_FOLDER / uid
    folder.mkdir(parents=True)
    for number in range(FILES):
        (folder / f"{number}.dcm").write_bytes(b"no pixels")
    files, _ = Location(folder).find()
    return StudyFolder(
        source=Location(root / "source"), path="", files=tuple(files), study_uid=uid
    )


def write_fake_stored(stores: Stores, pattern: str, study: StudyFolder) -> None:
    """Write what the store would have made of a study: the pattern under its name."""
    uid = study.name
    record, headers = stores.metadata.read_headers(pattern)
    record = replace(record, study_uid=uid, fingerprint=study.fingerprint)
    stores.metadata.write_headers(record, headers[:1])
    note = stores.slices.read_note(pattern)
    assert note is not None
    note = note.model_copy(update={"study_uid": uid})
    stores.slices.write(uid, headers[:1], [b"jpeg"], note)


def _memory_mb() -> float:
    info: Any = psutil.Process().memory_info()
    return float(info.rss) / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
