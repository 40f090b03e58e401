"""Pooled features of frozen backbones: computed once per study, kept in the store.

A file is named after all that its content follows from: the weights of the backbone and
the content of the crops. So folds, epochs and later trainings share it, and a change of
either gives a new file.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.errors import SettingsError
from csfd_core.runtime.cache import cached
from csfd_core.runtime.executors import completed
from csfd_core.runtime.study_map import StudyMap, Work
from csfd_core.store import paths
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location

_FORMAT: Final = 2
_MOST_LOST: Final = 1e-3  # of the largest feature

Features = npt.NDArray[np.floating]
Extract = Callable[[list[Vertebra]], npt.NDArray[np.floating]]


class Opener(Protocol):
    """Opens the same cache in another process. Equal ones open equal caches."""

    def __call__(self) -> "FeatureCache":
        """Build the backbone."""

    def __hash__(self) -> int:
        """Go by what it opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """Features of one backbone with certain weights.

    Attributes:
        root: The store.
        backbone: Name of the backbone.
        digest: Of its weights and of how it is fed.
        extract: Returns the features of vertebrae, shape (N, K, D).
        opener: Opens the same in another process; ``None``: it is used in this one.
    """

    root: Location
    backbone: str
    digest: str
    extract: Extract
    opener: "Opener | None" = None
    _asked: set[str] = field(default_factory=set, init=False)  # files of workers

    def read(
        self, crops: CropStore, rows: pd.DataFrame
    ) -> Iterator[tuple[pd.Index, Features]]:
        """Yield each study's rows and their features (n, K, D); compute what is new.

        Dask workers compute it, where there are.

        Raises:
            SettingsError: If a worker has other weights, or the scheduler is gone.
            WorkerDiedError: If workers die of a study.
        """
        self._let_workers_compute(crops, rows)
        for study_uid, of_study in rows.groupby("study_uid", sort=False):
            path = self._path(str(study_uid), of_study)
            if self.root.exists(path):
                with np.load(io.BytesIO(self.root.read(path))) as archive:
                    yield of_study.index, archive["features"]
                continue
            pairs = dict(read_vertebrae(crops, of_study))
            extracted = self.extract([pairs[index] for index in of_study.index])
            features = _small(extracted)
            sink = io.BytesIO()
            np.savez(sink, features=features)
            self.root.write(path, sink.getvalue())
            yield of_study.index, features

    def _let_workers_compute(self, crops: CropStore, rows: pd.DataFrame) -> None:
        study_map = StudyMap.read()
        if self.opener is None or not study_map.is_remote:
            return
        new = {}
        for study_uid, of_study in rows.groupby("study_uid", sort=False):
            path = self._path(str(study_uid), of_study)
            if path not in self._asked and not self.root.exists(path):
                new[path] = of_study
            self._asked.add(path)
        if not new:
            return
        folder = self.root.folder
        jobs = [_Job(self.opener, self.digest, crops, one) for one in new.values()]
        with study_map.open(Work.NETWORKS, len(jobs), store=folder) as executor:
            for _, future in completed(executor, _compute, jobs):
                future.result()

    def _path(self, study_uid: str, rows: pd.DataFrame) -> str:
        facts = [_FORMAT, sorted(set(rows["content_hash"])), rows["level"].tolist()]
        content = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        folder = f"{paths.FEATURES}/{self.backbone}-{self.digest[:16]}"
        return paths.of_study(folder, study_uid, f"-{content}.npz")


@dataclass(frozen=True, slots=True)
class _Job:
    """One study whose features a worker is to compute."""

    opener: Opener
    digest: str
    crops: CropStore
    rows: pd.DataFrame


def _compute(job: _Job) -> None:
    """Compute the features of a study, and keep them in the store."""
    cache = cached(("features", job.opener, job.digest), lambda: _open_same(job))
    for _ in cache.read(job.crops, job.rows):
        pass


def _open_same(job: _Job) -> FeatureCache:
    """Build the backbone of a job.

    Raises:
        SettingsError: If it has other weights in this process.
    """
    cache = job.opener()
    if cache.digest != job.digest:
        raise SettingsError(
            f"The weights of {cache.backbone} on a Dask worker are others than here. "
            "Give it the same file, and name it with CSFD_WEIGHTS."
        )
    return cache


def _small(features: npt.NDArray[np.floating]) -> Features:
    """Return features in half precision, unless that cannot hold them."""
    with np.errstate(over="ignore"):
        small = features.astype(np.float16)
    is_close = np.abs(small - features).max() <= _MOST_LOST * np.abs(features).max()
    return small if is_close else features.astype(np.float32)
