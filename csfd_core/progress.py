"""Progress of work over many studies, on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _RateColumn(ProgressColumn):
    """Slices per second and bytes so far."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed or 0.0
        slices = task.fields["slices"]
        rate = slices / elapsed if elapsed else 0.0
        return Text(f"{rate:,.0f} slices/s, {decimal(task.fields['size_bytes'])}")


class StudyProgress:
    """A progress bar that counts studies, slices and bytes."""

    def __init__(self, progress: Progress, task: object) -> None:
        """Take the bar of ``study_progress``."""
        self._progress = progress
        self._task = task
        self.studies = 0
        self.slices = 0
        self.size_bytes = 0

    def advance(self, studies: int, slices: int, size_bytes: int) -> None:
        """Count studies that are done, with their slices and bytes."""
        self.studies += studies
        self.slices += slices
        self.size_bytes += size_bytes
        self._progress.update(
            self._task,  # type: ignore[arg-type]  # TaskID is a NewType of rich
            advance=studies,
            slices=self.slices,
            size_bytes=self.size_bytes,
        )


@contextmanager
def study_progress(what: str, total: int) -> Iterator[StudyProgress]:
    """Show a bar on standard error while studies are worked on; silent when piped."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("studies,"),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=False,
    )
    with progress:
        task = progress.add_task(what, total=total, slices=0, size_bytes=0)
        yield StudyProgress(progress, task)
