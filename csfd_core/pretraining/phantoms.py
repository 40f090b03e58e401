"""Crops of phantoms, as the general classifier learns from them.

Each neck of the training is broken twice, in several vertebrae each time, so that few
necks show many fractures; those that stop the training and calibrate it break once, as
often as real ones. The vertebrae are found by the general segmentation, as in use.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import pandas as pd

from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.crops.study import MaskedStudy, StudyFacts, cut_study
from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.study import derive_uid, study_uid_of
from csfd_core.phantom.volume import PhantomVolume, build_phantom_volume
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.model_store import UNSEEN
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.segmentation.reading import reduce_slices
from csfd_core.store.notes import CropNote
from csfd_core.store.stamp import stamp
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES

CROP: Final[CropConfig] = CROP_PROFILES["demo"]
_FORMAT: Final = 2  # raised when the same seed gives other crops
_BROKEN: Final = 0.4  # share of the vertebrae of training necks that are fractured
_OLDER: Final = 5  # one neck in so many is of version 1 of the phantom
_FINE: Final = 0.25  # share of the necks that are scanned finer than the demo's
_FINE_MM: Final = (0.5, 0.7)  # pixels
_FINE_GAP_MM: Final = (0.8, 1.25)
_FINE_EXTENT_MM: Final = (190.0, 145.0)  # along the neck, and across
_BOX_COLUMNS: Final = ["slice_index", "x", "y", "width", "height"]


def phantom_config(seed: int, neck: int) -> PhantomConfig:
    """Return what a neck is drawn from: as various as may be, some as of version 1."""
    version = 1 if neck % _OLDER == _OLDER - 1 else 2
    return PhantomConfig(studies=1, seed=seed, version=version)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSet:
    """Necks of one seed.

    Attributes:
        seed: Of the phantoms; no data set has it by default.
        necks: How many.
        is_training: Broken twice, often; else once, as often as real necks.
    """

    seed: int
    necks: int
    is_training: bool

    @property
    def variants(self) -> int:
        """How often each neck is broken."""
        return 2 if self.is_training else 1

    def study_uid(self, neck: int, variant: int) -> str:
        """Name a study; the first variant as ``csfd phantom`` names the neck."""
        if variant == 0:
            return study_uid_of(phantom_config(self.seed, neck), neck)
        return derive_uid(f"csfd general phantom 2 {self.seed} {neck} {variant}")

    @property
    def fold(self) -> int:
        """Fold of its studies: the one that is held out, or another."""
        return int(self.is_training)

    def study_uids(self) -> list[list[str]]:
        """Name the studies of each neck."""
        return [
            [self.study_uid(neck, variant) for variant in range(self.variants)]
            for neck in range(self.necks)
        ]

    def labels(self, neck: int, variant: int) -> dict[str, int] | None:
        """Return the labels of a study, ``None`` where the phantom draws them."""
        if not self.is_training:
            return None
        rng = np.random.default_rng([self.seed, neck, 1])
        is_broken = rng.random((self.variants, len(LEVEL_NAMES)))[variant] < _BROKEN
        return dict(zip(LEVEL_NAMES, is_broken.astype(int).tolist(), strict=True))

    def grid(self, neck: int) -> GridOverride | None:
        """Return the grid of a neck, ``None`` where the phantom draws it."""
        rng = np.random.default_rng([self.seed, neck, 2])
        if rng.random() >= _FINE:
            return None
        pixel, gap = float(rng.uniform(*_FINE_MM)), float(rng.uniform(*_FINE_GAP_MM))
        along, across = _FINE_EXTENT_MM
        side = round(across / pixel)
        return GridOverride(
            shape_zyx=(round(along / gap), side, side),
            spacing_zyx_mm=(gap, pixel, pixel),
            centre_lps_mm=(0.0, float(rng.uniform(-12, 12)), float(rng.uniform(-9, 9))),
        )

    def build(self, neck: int, variant: int) -> PhantomVolume:
        """Paint a study."""
        return build_phantom_volume(
            phantom_config(self.seed, neck),
            neck,
            labels=self.labels(neck, variant),
            grid=self.grid(neck),
        )


def cut_neck(stores: Stores, phantoms: PhantomSet, neck: int) -> list[str]:
    """Cut the vertebrae of a neck's studies, unless the store has them.

    Args:
        stores: Where crops go.
        phantoms: The neck's set.
        neck: Its index, from 0.

    Returns:
        The studies that were cut now.
    """
    inputs = stamp([_FORMAT, CROP.to_note(), phantoms.seed, neck, phantoms.is_training])
    uids = [phantoms.study_uid(neck, v) for v in range(phantoms.variants)]
    notes = [stores.crops.read_note(uid) for uid in uids]
    if all(note is not None and note.inputs == inputs for note in notes):
        return []
    prediction: Prediction | None = None
    for variant, uid in enumerate(uids):
        volume = phantoms.build(neck, variant)
        grey, boxes = head_to_feet(volume)
        geometry = geometry_of(volume)
        # A fracture hardly changes where the vertebrae are found.
        prediction = prediction or _segment(grey, geometry)
        facts = StudyFacts(
            labels={name: volume.labels[name] for name in LEVEL_NAMES},
            boxes=boxes,
            fold=phantoms.fold,
            is_test=False,
        )
        study = MaskedStudy(
            grey=grey,
            mask=prediction.mask,
            geometry=geometry,
            levels=prediction.review.notes(),
        )
        rows = cut_study(study, facts, CROP)
        note = CropNote(
            study_uid=uid,
            inputs=inputs,
            crop=CROP.to_note(),
            model_id=_predictor().bundle.name,
            standing=UNSEEN,
            levels=tuple(sorted({row["level"] for row in rows})),
            spacing_zyx_mm=volume.spacing_zyx_mm,
        )
        stores.crops.write(uid, rows, note)
    return uids


def head_to_feet(volume: PhantomVolume) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the bone window (slice, row, column), and fracture boxes on its slices."""
    boxes = pd.DataFrame(
        [[getattr(box, name) for name in _BOX_COLUMNS] for box in volume.boxes],
        columns=_BOX_COLUMNS,
        dtype=float,
    )
    hounsfield = volume.hounsfield
    if volume.z_step_mm > 0:
        hounsfield = hounsfield[::-1]
        boxes["slice_index"] = len(hounsfield) - 1 - boxes["slice_index"]
    return window_to_uint8(hounsfield.astype(np.float32), BONE_WINDOW), boxes


def geometry_of(volume: PhantomVolume) -> VolumeGeometry:
    """Return where the slices lie once they are ordered head to feet."""
    gap, row_mm, column_mm = volume.spacing_zyx_mm
    z, y, x = volume.hounsfield.shape
    left, front, first = volume.first_position_mm
    top = max(first, first + (z - 1) * volume.z_step_mm)
    return VolumeGeometry(
        shape_zyx=(z, y, x),
        spacing_zyx_mm=volume.spacing_zyx_mm,
        affine_lps=(
            (0.0, 0.0, column_mm, left),
            (0.0, row_mm, 0.0, front),
            (-gap, 0.0, 0.0, top),
            (0.0, 0.0, 0.0, 1.0),
        ),
        z_extent_mm=(z - 1) * gap,
        z_descending=volume.z_step_mm < 0,
    )


def _segment(grey: np.ndarray, geometry: VolumeGeometry) -> Prediction:
    predictor = _predictor()
    return predictor.predict(reduce_slices(list(grey), geometry, predictor.step_mm))


@cache
def _predictor() -> VertebraPredictor:
    predictor = VertebraPredictor(read_bundle(builtin_location()))
    predictor.load()
    return predictor
