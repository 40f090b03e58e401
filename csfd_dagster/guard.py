"""Ends what a supervisor has started once the supervisor is gone, however it went.

The guard is the first process that ``csfd_dagster.supervisor`` starts, and the leader
of a process group that all others are born into: the services, the processes of runs,
and what those start. Its standard input is a pipe whose other end the supervisor alone
holds. The pipe ends when the supervisor closes it or dies, even by SIGKILL; the guard
then ends the group, and itself last.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import Final

import psutil

GRACE_S: Final = 3.0  # for a run to note that it was interrupted; then SIGKILL
KILL_S: Final = 1.0  # for the kernel to do it
_POLL_S: Final = 0.1


def end_group(group: int, grace_s: float = GRACE_S) -> None:
    """End all processes of a group and their descendants, except this one.

    Each gets SIGTERM, and SIGKILL if it is still there after ``grace_s`` seconds.
    """
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + grace_s
    killed_at: float | None = None
    while family := _family(group) | {p for p in asked if _lives(p)}:
        if killed_at is not None and time.monotonic() > killed_at + KILL_S:
            return
        if time.monotonic() > deadline:  # however long a look at all processes took
            killed_at = killed_at or time.monotonic()
            _signal(family, signal.SIGKILL)
        else:
            _signal(family - asked, signal.SIGTERM)
        asked |= family
        time.sleep(_POLL_S)


def _signal(processes: set[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _family(group: int) -> set[psutil.Process]:
    """Return who lives of a group, and of descendants that have left it."""
    processes = {p.pid: p for p in psutil.process_iter(["ppid"])}  # read once: slow
    family = {pid for pid in processes if _group_of(pid) == group}
    size = 0
    while size < len(family):
        size = len(family)
        family |= {p.pid for p in processes.values() if p.info["ppid"] in family}
    family.discard(os.getpid())
    return {processes[pid] for pid in family if _lives(processes[pid])}


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def main(folder: str, grace_s: float = GRACE_S) -> None:
    """Wait for the supervisor's end; then end its group and remove its folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_group(os.getpgid(0), grace_s)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], *(float(given) for given in sys.argv[2:3]))
