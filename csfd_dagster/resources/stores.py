"""Resources: the settings of one deployment, and the core objects built from them.

What is not set here is the setting of the environment (CSFD_SOURCE and so on), which is
read when a run starts, never when the definitions load.
"""

from collections.abc import Sequence
from typing import Final

import dagster as dg
from pydantic import Field

from csfd_core.ingest.convert import Step, StudyTask, run_studies
from csfd_core.ingest.outcomes import Maker, StudyOutcome, make_many
from csfd_core.ingest.patients import own_secret
from csfd_core.registry.profile import require_profile
from csfd_core.runtime.compute import one_blas_thread
from csfd_core.runtime.study_map import StudyMap, Work
from csfd_core.settings import Settings
from csfd_core.store.locations import Location
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_dagster.resources.overrides import given, override_of
from csfd_dagster.runs import give_way

_STUDIES_PER_PROCESS: Final = 4


class SourceResource(dg.ConfigurableResource):
    """Where studies come from: the source, then the inbox."""

    source_url: str = Field(default="", description="Folder or s3:// URL; CSFD_SOURCE.")
    inbox_url: str = Field(default="", description="Folder or s3:// URL; CSFD_INBOX.")

    def open(self) -> Sources:
        """Return both as one. Opens nothing until it is used."""
        settings = Settings.read()
        source = self.source_url or settings.source
        inbox = self.inbox_url or settings.inbox
        return Sources([Source(source), Source(inbox)])


class StoreResource(dg.ConfigurableResource):
    """Where everything goes, and how slices are converted."""

    store_url: str = Field(default="", description="Folder or s3:// URL; CSFD_STORE.")
    jpeg_quality: int | None = override_of(Settings, "jpeg_quality")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Before a run writes anything: refuse it if it is of another profile.

        One that nobody waits for gives way to the others. Sensors and schedules, which
        look only, record nothing.

        Raises:
            SettingsError: If the store has another profile than ``CSFD_PROFILE``.
        """
        if context.run is not None:
            give_way(context.run)
            require_profile(self.open(), Settings.read().profile)

    def open(self) -> Stores:
        """Return the stores. Opens nothing until it is used."""
        return Stores(Location(self.store_url or Settings.read().store))

    def conversion(self) -> ConversionSettings:
        """Return the conversion settings."""
        quality = Settings.read(**given(self, "jpeg_quality")).jpeg_quality
        return ConversionSettings(jpeg_quality=quality)


class ExecutorResource(dg.ConfigurableResource):
    """Where the work of many studies is done."""

    workers: int | None = override_of(Settings, "workers")
    dask_address: str | None = override_of(Settings, "dask")

    def map(self) -> StudyMap:
        """Return the map over studies. Opens nothing until it is used."""
        return StudyMap.read(workers=self.workers, dask=self.dask_address)

    def run(self, step: Step, tasks: Sequence[StudyTask]) -> list[StudyOutcome]:
        """Do one step to every study; outcomes in the order of the tasks."""
        if not tasks:
            return []
        opened = self.map().open(
            Work.FILES,
            # A pool of processes takes a second to start: too long for a few studies.
            len(tasks) // _STUDIES_PER_PROCESS,
            store=tasks[0].stores.root.folder,
            secret=own_secret,
        )
        with opened as executor:
            outcomes = list(run_studies(step, tasks, executor))
        order = {task.folder.name: rank for rank, task in enumerate(tasks)}
        return sorted(outcomes, key=lambda outcome: order[outcome.study_uid])

    def make(
        self, maker: Maker, study_uids: Sequence[str], work: Work, stores: Stores
    ) -> list[StudyOutcome]:
        """Make something of every study; outcomes in the order of the studies."""
        opened = self.map().open(work, len(study_uids), store=stores.root.folder)
        # Set once for all threads: it holds for the process.
        with opened as executor, one_blas_thread():
            return make_many(maker, study_uids, executor)
