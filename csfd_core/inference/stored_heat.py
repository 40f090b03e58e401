"""What a classifier looked at in a study of a store: one small file beside its JSON.

``heats/<study_uid>.npz`` holds of each level the heat and the mask on the
grid of its crops, in bytes, and where that grid lies. Nothing in it is code.
"""

import io
import zipfile
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.errors import StoreError
from csfd_core.inference.evidence import LevelHeat
from csfd_core.store import paths
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

_PARTS: Final = ("heat", "mask", "affine")


def heat_path(study_uid: str) -> str:
    """Return the path of a study's heats, relative to the store.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    return paths.of_study(paths.HEATS, study_uid, ".npz")


def write_heats(stores: Stores, study_uid: str, heats: Sequence[LevelHeat]) -> None:
    """Keep the heats of a study, in place of those that were there.

    Heat is kept in 256 steps: closer than what can be seen.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for one in heats:
        grey = np.rint(np.clip(one.heat, 0, 1) * 255).astype(np.uint8)
        arrays[f"{one.level}_heat"] = grey
        arrays[f"{one.level}_mask"] = np.asarray(one.masks, dtype=np.uint8)
        arrays[f"{one.level}_affine"] = np.asarray(one.affine_lps, dtype=np.float64)
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]  # no savez option
    stores.root.write(heat_path(study_uid), sink.getvalue())


def read_heats(stores: Stores, study_uid: str) -> list[LevelHeat]:
    """Return the heats of a study, C1 first; [] where none are kept.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        StoreError: If the file is damaged.
    """
    path = heat_path(study_uid)
    content = stores.root.read_if_there(path)
    if content is None:
        return []
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return [
            _heat_of(level, *(arrays[f"{level}_{part}"] for part in _PARTS))
            for level in LEVEL_NAMES
            if f"{level}_heat" in arrays
        ]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"The heats of study {study_uid} cannot be read. Materialize "
            "study_predictions of it again."
        ) from error


def _heat_of(
    level: str,
    heat: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
) -> LevelHeat:
    return LevelHeat(
        level=level,
        heat=np.asarray(heat, dtype=np.float32) / np.float32(255),
        masks=mask,
        affine_lps=affine,
    )
