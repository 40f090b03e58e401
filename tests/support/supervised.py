"""Starting a supervisor in a process of its own, and looking for who survives it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PATIENCE_S = 240  # a machine that does much else at once starts slowly


class Supervised:
    """A running supervisor and what it has said."""

    def __init__(self, process: psutil.Popen, log: Path) -> None:
        self.process = process
        self.log = log

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process.poll() is None, self.said()[-3000:]
            assert time.monotonic() < end, self.said()[-3000:]
            time.sleep(0.1)

    def wait_for(self, text: str, times: int = 1) -> None:
        self.wait_until(lambda: self.said().count(text) >= times)

    def family(self) -> list[psutil.Process]:
        """Return all descendants by now."""
        if not lives(self.process):
            return []
        return [p for p in self.process.children(recursive=True) if lives(p)]

    def child(self, part: str) -> psutil.Process:
        """Return the child whose command has a part."""
        (found,) = (p for p in self.process.children() if part in command_of(p))
        return found


def command_of(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):  # a zombie is none, too
        return list(process.cmdline())
    return []


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def survivors(family: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    end = time.monotonic() + within_s
    while (left := [p for p in family if lives(p)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


@contextmanager
def supervised(command: list[str], log: Path) -> Iterator[Supervised]:
    """Start a supervisor; kill whatever is left of it at the end."""
    with log.open("wb") as sink:
        process = psutil.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        found = Supervised(process, log)
        try:
            yield found
        finally:
            for member in [*found.family(), process]:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()
