"""Pooled features of frozen backbones: computed once per study, kept in the store.

A file is named after all that its content follows from: the weights of the backbone and
the content of the crops. So folds, epochs and later trainings share it, and a change of
either gives a new file.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.store import paths
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location

_FORMAT: Final = 2
_MOST_LOST: Final = 1e-3  # of the largest feature

Features = npt.NDArray[np.floating]
Extract = Callable[[list[Vertebra]], npt.NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCache:
    """Features of one backbone with certain weights.

    Attributes:
        root: The store.
        backbone: Name of the backbone.
        digest: Of its weights and of how it is fed.
        extract: Returns the features of vertebrae, shape (N, K, D).
    """

    root: Location
    backbone: str
    digest: str
    extract: Extract

    def read(
        self, crops: CropStore, rows: pd.DataFrame
    ) -> Iterator[tuple[pd.Index, Features]]:
        """Yield each study's rows and their features (n, K, D); compute what is new."""
        for study_uid, of_study in rows.groupby("study_uid", sort=False):
            path = self._path(str(study_uid), of_study)
            if self.root.exists(path):
                with np.load(io.BytesIO(self.root.read(path))) as kept:
                    yield of_study.index, kept["features"]
                continue
            pairs = dict(read_vertebrae(crops, of_study))
            extracted = self.extract([pairs[index] for index in of_study.index])
            features = _small(extracted)
            sink = io.BytesIO()
            np.savez(sink, features=features)
            self.root.write(path, sink.getvalue())
            yield of_study.index, features

    def _path(self, study_uid: str, rows: pd.DataFrame) -> str:
        facts = [_FORMAT, sorted(set(rows["content_hash"])), rows["level"].tolist()]
        content = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        folder = f"{paths.FEATURES}/{self.backbone}-{self.digest[:16]}"
        return paths.of_study(folder, study_uid, f"-{content}.npz")


def _small(features: npt.NDArray[np.floating]) -> Features:
    """Return features in half precision, unless that cannot hold them."""
    with np.errstate(over="ignore"):
        small = features.astype(np.float16)
    is_close = np.abs(small - features).max() <= _MOST_LOST * np.abs(features).max()
    return small if is_close else features.astype(np.float32)
