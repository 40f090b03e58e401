"""What workers do in tests; they import it by its name."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from csfd_core.classification.transfer.features import FeatureCache
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.outcomes import StudyOutcome
from csfd_core.runtime.cache import cached_keys
from csfd_core.settings import LimitSettings
from csfd_core.store.locations import Location


def who(_: int) -> str:
    """Return the name of the worker."""
    from distributed import get_worker

    return str(get_worker().name)


def largest_file_mb(_: int) -> int:
    return LimitSettings.read().max_file_mb


def kept_by(_: int) -> list[str]:
    return [str(key[0]) for key in cached_keys() if isinstance(key, tuple)]


def die_of(mark: Path) -> str:
    """Kill the worker: always for ``poison``, once for other names."""
    if mark.name == "poison" or not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def convert_or_die(task: StudyTask) -> StudyOutcome:
    """Convert a study; the first that is asked for it dies in the middle."""
    mark = Path(task.stores.root.url) / f"{task.folder.name}.tmp-died"
    if task.folder.name.endswith(".12") and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return convert_study(task)


@dataclass(frozen=True)
class MeansOpener:
    """Opens a backbone whose features are the mean grey levels of a slice."""

    root: str
    digest: str = "means"

    def __call__(self) -> FeatureCache:
        return FeatureCache(
            root=Location(self.root),
            backbone="means",
            digest=self.digest,
            extract=self._extract,
        )

    def _extract(self, vertebrae: list[Vertebra]) -> npt.NDArray[np.floating]:
        Path(self.root, f"computed.tmp-{os.getpid()}").touch()
        return np.stack([one.images.mean(axis=(2, 3)) for one in vertebrae])
