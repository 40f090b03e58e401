"""Dagster's history as a record of studies, from which a withdrawn one is taken out.

Found through the entry point ``csfd.records``, as the core never imports Dagster.
"""

from collections.abc import Sequence
from typing import Final

import dagster as dg

from csfd_core.lineage.redaction import redact_database, redact_files
from csfd_core.settings import Settings
from csfd_core.store.redaction import Redaction
from csfd_dagster.instance.files import INSTANCE
from csfd_dagster.partitions import studies

_FOLDERS: Final = ("history", "schedules", "storage")  # below Dagster's home
_ELSEWHERE: Final = (
    "Dagster's history lies in another database, and names the study: delete the runs "
    "that do, in csfd ui or with dagster run delete."
)


class DagsterHistory:
    """Runs, events, ticks, partitions and logs, where they are files on this disk."""

    def forget(self, redaction: Redaction) -> Sequence[str]:
        """Delete the partition of a study, and name it nowhere else."""
        home = Settings.read().dagster_home
        folders = [home / name for name in _FOLDERS if (home / name).is_dir()]
        if not folders or not (home / INSTANCE).is_file():
            return []
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.delete_dynamic_partition(str(studies.name), redaction.study_uid)
        databases = [file for folder in folders for file in folder.rglob("*.db")]
        for database in databases:
            redact_database(database, redaction)
        for folder in folders:
            redact_files(folder, redaction)
        return [] if databases else [_ELSEWHERE]
