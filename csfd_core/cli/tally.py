"""What a command tells of each study of an input while it works, and at its end."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from csfd_core.errors import CsfdError, SourceError
from csfd_core.ingest.outcomes import Outcome
from csfd_core.text import count

if TYPE_CHECKING:
    from csfd_core.inference.predict import PredictedStudy
    from csfd_core.inference.segment import SegmentedStudy


@dataclass
class Tally:
    """Tells what became of each study, how many are left, and counts them."""

    done_by: Outcome
    done: int = 0
    empty: int = 0  # results without a number
    unchanged: int = 0  # results of an earlier call
    refused: int = 0
    failed: int = 0
    number: int = 0  # of the last study, among so many:
    total: int = 0
    begun: float = field(default_factory=time.monotonic)

    def add(self, study: "SegmentedStudy | PredictedStudy", told: str) -> None:
        """Tell of a study; ``told`` is what to say where it was done."""
        self.number, self.total = study.number, study.total
        if study.action in (self.done_by, Outcome.NOT_ASSESSED):
            self.done += study.action == self.done_by
            self.empty += study.action == Outcome.NOT_ASSESSED
            self._say(study.name, told)
            for flag in study.flags:
                typer.echo(f"  look at it: {flag}")
        elif study.action == Outcome.UNCHANGED:
            self.unchanged += 1
            self._say(study.name, "there already, by the same model")
        else:
            self.refused += 1
            self.failed += study.action == Outcome.FAILED
            self._say(study.name, f"left out. {study.message}")
        for note in study.notes:
            typer.echo(f"  note: {note}")

    def counted(self, every_volume: bool) -> str:
        """Return how many were done, as what they are."""
        return count(self.done, "volume" if every_volume else "study")

    def there_already(self) -> str:
        """Return how many were kept of an earlier call, nothing where none was."""
        if not self.unchanged:
            return ""
        return f"{self.unchanged} there already (--again makes them anew), "

    def stopped(self, out: Path) -> CsfdError:
        """Return what is said where a person has stopped the command."""
        if not self.number:
            return CsfdError("Stopped before the first study was done.")
        return CsfdError(
            f"Stopped after {self.number} of {count(self.total, 'study')}. What is "
            f"done is kept in {out}. The same command goes on from there."
        )

    def require_done(self, nothing: str) -> None:
        """End with status 1 where nothing was done, or a study could not be read.

        Raises:
            SourceError: With what to say.
        """
        if self.refused and not self.done + self.empty + self.unchanged:
            raise SourceError(nothing)
        if self.failed:
            studies = count(self.failed, "study")
            raise SourceError(f"{studies} could not be read; the others are done.")

    def _say(self, name: str, told: str) -> None:
        typer.echo(f"{self._progress()}{name}: {told}")

    def _progress(self) -> str:
        """Return which study of how many it is, and what is left; one says nothing."""
        if self.total < 2:
            return ""
        made = self.number - self.unchanged
        left = self.total - self.number
        seconds = (time.monotonic() - self.begun) / max(made, 1) * left
        told = f", {duration(seconds)} left" if left and made else ""
        return f"[{self.number} of {self.total}{told}] "


def duration(seconds: float) -> str:
    """Return a time as one reads it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
