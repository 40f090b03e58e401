"""Resources: the settings of one deployment, and the core objects built from them.

An empty setting stands for the environment variable (CSFD_SOURCE and so on), which is
read when a run starts, never when the definitions load.
"""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from csfd_core.ingest.convert import Step, StudyTask, run_studies
from csfd_core.ingest.outcomes import StudyOutcome
from csfd_core.runtime.executors import default_workers, open_executor
from csfd_core.settings import Settings
from csfd_core.store.locations import Location
from csfd_core.store.slices import JPEG_QUALITY, ConversionSettings
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores


class SourceResource(dg.ConfigurableResource):
    """Where studies come from: the source, then the inbox."""

    source_url: str = Field(default="", description="Folder or s3:// URL; CSFD_SOURCE.")
    inbox_url: str = Field(default="", description="Folder or s3:// URL; CSFD_INBOX.")

    def open(self) -> Sources:
        """Return both as one. Opens nothing until it is used."""
        settings = Settings.from_environment()
        source = self.source_url or settings.source
        inbox = self.inbox_url or settings.inbox
        return Sources([Source(source), Source(inbox)])


class StoreResource(dg.ConfigurableResource):
    """Where everything goes, and how slices are converted."""

    store_url: str = Field(default="", description="Folder or s3:// URL; CSFD_STORE.")
    jpeg_quality: int = Field(
        default=JPEG_QUALITY, ge=1, le=100, description="1 to 100."
    )

    def open(self) -> Stores:
        """Return the stores. Opens nothing until it is used."""
        return Stores(Location(self.store_url or Settings.from_environment().store))

    def conversion(self) -> ConversionSettings:
        """Return the conversion settings."""
        return ConversionSettings(jpeg_quality=self.jpeg_quality)


class ExecutorResource(dg.ConfigurableResource):
    """Where the work of many studies is done."""

    workers: int = Field(
        default=0, ge=0, description="Processes; 0: one per processor."
    )
    dask_address: str = Field(default="", description="tcp://host:port; used instead.")

    def run(self, step: Step, tasks: Sequence[StudyTask]) -> list[StudyOutcome]:
        """Do one step to every study; outcomes in the order of the tasks."""
        # A pool of processes takes a second to start: too long for a few studies.
        workers = self.workers or default_workers(len(tasks) // 4)
        with open_executor(workers, self.dask_address or None) as executor:
            outcomes = list(run_studies(step, tasks, executor))
        order = {task.folder.name: rank for rank, task in enumerate(tasks)}
        return sorted(outcomes, key=lambda outcome: order[outcome.study_uid])
