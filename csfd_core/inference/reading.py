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
from csfd_core.dicom.pixels import DecodedSlice, give_back_memory
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
from csfd_core.runtime.shared import Part, SharedMemory
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
        contents: By the name of its results, content that need not be read again.
    """

    executor: Executor = field(default_factory=InlineExecutor)
    threads: int = 1
    every_volume: bool = False
    contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadScan:
    """A scan in memory; without grey levels it is refused, or known.

    ``grey`` is the bone window, shape (slice, row, column), head to feet. Until
    ``opened`` it lies in the memory of its task, at ``part``.
    """

    scan: StudyScan | None  # None where it could not be read
    name: str  # of its results; of the folder, where the files name no study
    read_s: float = 0.0
    error: str = ""  # why it could not be read
    grey: npt.NDArray[np.uint8] | None = None
    part: Part | None = None
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

    def opened(self, memory: SharedMemory) -> "ReadScan":
        """Return it with the grey levels that were read into a memory, if there are.

        Where there is no room for them, it could not be read.
        """
        if self.part is None:
            return self
        try:
            return replace(self, grey=memory.read(self.part), part=None)
        except OSError as error:
            return replace(self, scan=None, error=_told(error), part=None)


@dataclass(frozen=True, slots=True)
class ReadTask:
    """A folder to read, and where its grey levels go."""

    folder: StudyFolder
    memory: SharedMemory = field(default_factory=SharedMemory)


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
            contents=reading.contents,
        )
        done = in_order(reading.executor, read, map(ReadTask, folders))
        for number, (task, future) in enumerate(done, 1):
            error = future.exception()
            if error is None:
                scans = future.result()
            else:  # one study stops no other
                name = safe_name(task.folder.name)
                scans = [ReadScan(scan=None, name=name, error=_told(error))]
            for scan in scans:
                in_memory = scan.opened(task.memory)
                yield replace(in_memory, number=number, total=len(folders))


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
    for read_scan in scans:
        try:
            judged = judge(read_scan)
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - what a study does to us is its fault
            told = f"It cannot be judged: {tell_error(error)}"
            judged = judge(replace(read_scan, scan=None, error=told, grey=None))
        yield judged


def read_folder(
    task: ReadTask,
    *,
    every_volume: bool = False,
    threads: int = 1,
    contents: Mapping[str, str] | None = None,
) -> list[ReadScan]:
    """Read the studies of one folder.

    Args:
        task: The folder, and the memory that its grey levels are written to.
        every_volume: Read every axial volume of a study, not only the thinnest.
        threads: That decode.
        contents: As in ``Reading``; where all of a folder is known, nothing is
            decoded.
    """
    folder, memory = task.folder, task.memory
    if contents and (folder.study_uid or folder.name) in contents:
        scans = scan_study(folder, every_volume=every_volume)
        if all(contents.get(scan.name) == scan.content_hash for scan in scans):
            return [ReadScan(scan=s, name=s.name, is_known=True) for s in scans]
    grey: dict[str, npt.NDArray[np.uint8]] = {}

    def keep(decoded: DecodedSlice) -> None:
        grey[decoded.header.file_name] = decoded.grey_levels(BONE_WINDOW)

    started = time.perf_counter()
    scans = scan_study(
        folder, on_slice=keep, every_volume=every_volume, threads=threads
    )
    memory.clear()  # of a process that has died of this folder
    moved = [_to_memory(folder, scan, grey, memory) for scan in scans]
    grey.clear()  # of images that belong to no scan
    give_back_memory()
    read_s = time.perf_counter() - started
    return [replace(scan, read_s=read_s) for scan in moved]


def _to_memory(
    folder: StudyFolder,
    scan: StudyScan,
    grey: dict[str, npt.NDArray[np.uint8]],
    memory: SharedMemory,
) -> ReadScan:
    """Move the grey levels of a scan to the memory, plane by plane."""
    is_usable = scan.status is not Status.QUARANTINED and scan.geometry is not None
    planes = (grey.pop(header.file_name) for header in scan.headers)
    return ReadScan(
        scan=scan,
        name=scan.name or safe_name(folder.name),
        part=memory.append(planes) if is_usable else None,
    )


def _told(error: BaseException) -> str:
    return f"It cannot be read: {tell_error(error)}"


def _nothing() -> None:
    """Import this module."""
