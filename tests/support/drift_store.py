"""Builder: a store whose classifier was trained before some of its studies came.

Geometry, grey levels and labels of the later studies can be shifted by known amounts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg

from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.ensemble import write_best
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.store.locations import Location
from csfd_core.store.parquet import write_parquet
from csfd_core.store.slices import ConversionSettings, build_note
from csfd_core.store.stores import Stores
from support.drawn_crops import (
    crop_rows,
    manifest_of,
    some_labels,
    uid_of,
    write_crops,
    write_studies,
)

NAME = "basic_cnn"  # tests put BrightClassifier in its place
OLD = 40  # studies that were there when it was trained
SIDE = 24
DEPTH = 12
Labels = Mapping[str, Sequence[int | None]]


def old_uids() -> list[str]:
    return [uid_of(index) for index in range(1, OLD + 1)]


def new_uids(count: int) -> list[str]:
    return [uid_of(index) for index in range(OLD + 1, OLD + count + 1)]


def write_trained_store(folder: Path, folds: Sequence[int] = (0,)) -> Stores:
    """Forty studies and a classifier that was trained on those that may train it."""
    stores = Stores(Location(folder))
    add_studies(stores, some_labels(OLD), old_uids())
    for fold in folds:
        config = ClassifierConfig(epochs=1, seed=fold)
        fit_classifier(stores, plan_classifier(NAME, fold, config, manifest_of(stores)))
    return stores


def write_best_store(folder: Path) -> Stores:
    stores = write_trained_store(folder)
    write_best(stores, NAME, beats_prevalences=True)
    return stores


def add_new(
    stores: Stores,
    count: int,
    *,
    grey: int = 0,
    spacing: float = 1.0,
    labels: Labels | None = None,
    crops: bool = True,
) -> list[str]:
    """Let studies come, brighter by ``grey``, with ``spacing`` times the spacing."""
    uids = new_uids(count)
    every = some_labels(OLD + count)
    every |= {uid: list((labels or every)[uid]) for uid in uids}
    add_studies(stores, every, uids, old=OLD, grey=grey, spacing=spacing, crops=crops)
    manifest_of(stores)
    return uids


def add_studies(
    stores: Stores,
    labels: Labels,
    uids: Sequence[str],
    *,
    old: int = 0,
    grey: int = 0,
    spacing: float = 1.0,
    crops: bool = True,
) -> None:
    """Write the table of all studies, and the images of those that are new."""
    write_studies(stores, labels)
    rng = np.random.default_rng(1 if old else 0)
    for uid in uids:
        write_slices(stores, uid, draw_volume(rng, grey))
        if crops:
            write_crops(stores, uid, crop_rows(labels[uid], rng))
    table = stores.metadata.read_studies()
    facts = geometry_of(len(table))
    facts["pixel_spacing_mm"][old:] *= spacing
    for name, values in facts.items():
        table[name] = values
    table["content_hash"] = "content"
    stores.metadata.write_studies(table, f"inputs of {len(table)}", "phantom")


def geometry_of(count: int) -> dict[str, npt.NDArray[Any]]:
    """The same for the first studies, however many there are."""
    rows = np.random.default_rng(5).normal(size=(count, 3))
    slices = (100 + 8 * rows[:, 0]).astype(int)
    step = np.round(1.0 + 0.1 * rows[:, 1], 3)
    return {
        "pixel_spacing_mm": np.round(0.4 + 0.03 * rows[:, 2], 3),
        "slice_spacing_mm": step,
        "slice_count": slices,
        "z_extent_mm": (slices - 1) * step,
    }


def draw_volume(rng: np.random.Generator, grey: int) -> npt.NDArray[np.uint8]:
    """A disc of tissue in air, a little brighter or darker in each study."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(rows - SIDE / 2, columns - SIDE / 2) < SIDE * rng.uniform(0.3, 0.4)
    tissue = 80 + rng.normal(0, 3) + rng.normal(0, 8, (DEPTH, SIDE, SIDE)) + grey
    return np.where(disc, np.clip(tissue, 1, 255), 0).astype(np.uint8)


def write_slices(stores: Stores, uid: str, volume: npt.NDArray[np.uint8]) -> None:
    jpegs = [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(plane)[:, :, None], quality=96, colorspace="GRAY"
        )
        for plane in volume
    ]
    table = pa.table(
        {
            "slice_index": np.arange(len(volume), dtype=np.int32),
            "z_mm": -np.arange(len(volume), dtype=np.float64),
            "jpeg": pa.array(jpegs, pa.binary()),
        }
    )
    depth, height, width = volume.shape
    geometry = VolumeGeometry(
        shape_zyx=(depth, height, width),
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        affine_lps=tuple(map(tuple, np.eye(4).tolist())),
        z_extent_mm=depth - 1.0,
        z_descending=True,
    )
    note = build_note(uid, geometry, ConversionSettings(), f"{volume.sum()}")
    path = stores.slices.path(uid)
    write_parquet(stores.root, path, table, note.to_json(), compression="none")
