"""Studies of an input, read into memory: in another process, ahead of the networks.

A decoder may die of a damaged image, and reading waits for the disk while the networks
wait for nothing. So a process of its own reads the next study while one is judged.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from csfd_core.dicom.findings import Status
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import CsfdError, SettingsError, tell_error
from csfd_core.inference.inputs import opened
from csfd_core.ingest.gather import gather_studies, require_some
from csfd_core.ingest.scan import StudyScan, scan_study
from csfd_core.runtime.executors import (
    InlineExecutor,
    default_workers,
    in_order,
    open_pool,
)
from csfd_core.store.source import StudyFolder
from csfd_core.text import safe_name
from csfd_core.vocabulary import BONE_WINDOW

Say = Callable[[str], None]
T = TypeVar("T")
_STARTS_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How an input is read.

    Attributes:
        executor: What reads its studies.
        threads: That decode a study's slices.
        every_volume: Read every axial volume of a study, not only the thinnest.
        known: By the name of its results, the content of what need not be read again.
    """

    executor: Executor = field(default_factory=InlineExecutor)
    threads: int = 1
    every_volume: bool = False
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadScan:
    """A scan in memory; without grey levels it is refused, or known.

    ``grey`` is the bone window, shape (slice, row, column), head to feet.
    """

    scan: StudyScan | None  # None where it could not be read
    name: str  # of its results; of the folder, where the files name no study
    read_s: float = 0.0
    error: str = ""  # why it could not be read
    grey: npt.NDArray[np.uint8] | None = None
    is_known: bool = False  # its content is that of an earlier result
    number: int = 1  # of its folder, among so many:
    total: int = 1

    @property
    def refusal(self) -> str:
        """Say why the study was refused."""
        if self.scan is None:
            return self.error
        findings = self.scan.findings
        return findings[0].reason if findings else "No geometry."

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said of its files: what is read of them, and what is not."""
        return () if self.scan is None else self.scan.notes


@contextmanager
def reading_ahead(*, every_volume: bool = False) -> Iterator[Reading]:
    """Open a process that reads, with a thread for each processor."""
    with open_pool(1) as pool:
        ready = pool.submit(_nothing)  # it starts while the networks are opened
        try:
            yield Reading(
                executor=pool,
                threads=default_workers(task_count=16),
                every_volume=every_volume,
            )
        except CsfdError:
            # One that is ended while it starts complains with a traceback.
            with suppress(Exception):
                ready.exception(_STARTS_WITHIN_S)
            raise


def read_scans(location: str, say: Say, reading: Reading) -> Iterator[ReadScan]:
    """Read every study of a folder, zip file or source, one after the other.

    Args:
        location: The input.
        say: Told what of the input belongs to no study.
        reading: How.

    Raises:
        SourceError: If the input cannot be read, or holds no files.
    """
    with opened(location) as source:
        folders, notes = gather_studies(source)
        for note in notes:
            say(note)
        require_some(folders, source)
        read = partial(
            read_folder,
            every_volume=reading.every_volume,
            threads=reading.threads,
            known=reading.known,
        )
        done = in_order(reading.executor, read, folders)
        for number, (folder, future) in enumerate(done, 1):
            error = future.exception()
            if error is None:
                scans = future.result()
            else:  # one study stops no other
                told = f"It cannot be read: {tell_error(error)}"
                scans = [ReadScan(scan=None, name=safe_name(folder.name), error=told)]
            for scan in scans:
                yield replace(scan, number=number, total=len(folders))


def each_judged(
    scans: Iterable[ReadScan], judge: Callable[[ReadScan], T]
) -> Iterator[T]:
    """Judge scans one after the other; one that cannot be judged stops no other.

    Args:
        scans: As ``read_scans`` yields them.
        judge: Called with each scan, and again without its grey levels, and with what
            went wrong, where it raises.

    Raises:
        SettingsError: If a result cannot be written.
    """
    for found in scans:
        try:
            judged = judge(found)
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - what a study does to us is its fault
            told = f"It cannot be judged: {tell_error(error)}"
            judged = judge(replace(found, scan=None, error=told, grey=None))
        yield judged


def read_folder(
    folder: StudyFolder,
    *,
    every_volume: bool = False,
    threads: int = 1,
    known: Mapping[str, str] | None = None,
) -> list[ReadScan]:
    """Read the studies of one folder.

    Args:
        folder: With the files.
        every_volume: Read every axial volume of a study, not only the thinnest.
        threads: That decode.
        known: As in ``Reading``; where all of the folder is known, nothing is decoded.
    """
    if known and (folder.study_uid or folder.name) in known:
        scans = scan_study(folder, every_volume=every_volume)
        if all(known.get(scan.name) == scan.content_hash for scan in scans):
            return [ReadScan(scan=s, name=s.name, is_known=True) for s in scans]
    grey: dict[str, npt.NDArray[np.uint8]] = {}

    def keep(decoded: DecodedSlice) -> None:
        grey[decoded.header.file_name] = decoded.grey_levels(BONE_WINDOW)

    started = time.perf_counter()
    scans = scan_study(
        folder, on_slice=keep, every_volume=every_volume, threads=threads
    )
    read_s = time.perf_counter() - started
    return [_with_grey(folder, scan, grey, read_s) for scan in scans]


def _with_grey(
    folder: StudyFolder,
    scan: StudyScan,
    grey: dict[str, npt.NDArray[np.uint8]],
    read_s: float,
) -> ReadScan:
    is_usable = scan.status is not Status.QUARANTINED and scan.geometry is not None
    planes = [grey[header.file_name] for header in scan.headers] if is_usable else []
    return ReadScan(
        scan=scan,
        name=scan.name or safe_name(folder.name),
        read_s=read_s,
        grey=np.stack(planes) if planes else None,
    )


def _nothing() -> None:
    """Import this module."""
