"""Studies to measure on: slices of the full-profile phantom, with its noise.

The grid is fixed, so that every run works on the same number of pixels.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from csfd_core.crops.cutting import CropConfig
from csfd_core.ingest.convert import StudyTask
from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.dicom_writer import PixelStyle, write_dicom_series
from csfd_core.phantom.imaging import Scanner, draw_scanner
from csfd_core.phantom.streams import open_stream
from csfd_core.phantom.study import derive_uid, plan_study
from csfd_core.phantom.volume import PhantomVolume, build_phantom_volume
from csfd_core.store.layout import IMAGES_FOLDER
from csfd_core.store.locations import Location
from csfd_core.store.notes import CropNote
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

PIXEL_MM = 0.35
UNCOMPRESSED = PixelStyle(ExplicitVRLittleEndian, True, 16, -1024, padded=False)
LOSSLESS = PixelStyle(JPEG2000Lossless, True, 16, -1024, padded=False)
_NECK_MM = 190.0  # from the skull base to the shoulders
_CONFIG = PhantomConfig(studies=1, profile="full")


def large_volume(slices: int, index: int = 0) -> PhantomVolume:
    """Paint 512x512 slices of one phantom, spread over the whole neck."""
    grid = GridOverride(
        shape_zyx=(slices, 512, 512),
        spacing_zyx_mm=(_NECK_MM / slices, PIXEL_MM, PIXEL_MM),
    )
    return build_phantom_volume(_CONFIG, index, grid=grid)


def tiny_volume(slices: int = 16, size: int = 32) -> PhantomVolume:
    """Paint a phantom of which hardly anything is left: for counting studies."""
    grid = GridOverride(
        shape_zyx=(slices, size, size),
        spacing_zyx_mm=(_NECK_MM / slices, 180 / size, 180 / size),
    )
    return build_phantom_volume(_CONFIG, 0, grid=grid)


def longer(volume: PhantomVolume, slices: int) -> PhantomVolume:
    """Repeat the slices of a volume until it has so many."""
    planes = np.resize(volume.hounsfield, (slices, *volume.hounsfield.shape[1:]))
    return replace(volume, hounsfield=planes)


def scanned_on(volume: PhantomVolume, slices: int, step_mm: float) -> PhantomVolume:
    """Sample a volume at another step, and go on with its last slice."""
    place = np.rint(np.arange(slices) * step_mm / abs(volume.z_step_mm)).astype(int)
    planes = np.minimum(place, len(volume.hounsfield) - 1)
    return replace(
        volume,
        hounsfield=volume.hounsfield[planes],
        mask=volume.mask[planes],
        spacing_zyx_mm=(step_mm, *volume.spacing_zyx_mm[1:]),
        z_step_mm=math.copysign(step_mm, volume.z_step_mm),
    )


def scanner_of(index: int) -> Scanner:
    """Return the kernel and noise that ``large_volume`` draws for this index."""
    stream = open_stream(_CONFIG.seed, index, "scanner")
    plan = plan_study(_CONFIG, index)
    return draw_scanner(stream, PIXEL_MM, plan.ranges)


def write_copy(
    source: Path,
    volume: PhantomVolume,
    number: int,
    style: PixelStyle = UNCOMPRESSED,
) -> str:
    """Write a volume as a study of its own; return its UID."""
    study_uid = derive_uid(f"csfd benchmark {number}")
    plan = replace(volume.plan, study_uid=study_uid)
    folder = source / IMAGES_FOLDER / study_uid
    folder.mkdir(parents=True)
    write_dicom_series(replace(volume, plan=plan), style, folder)
    return study_uid


def tasks_of(source: Path, store: Path) -> list[StudyTask]:
    """Return the work that ``csfd convert`` would do."""
    stores = Stores(Location(store))
    return [StudyTask(folder, stores) for folder in Source(source).studies()]


def crop_note(study_uid: str, crop: CropConfig) -> CropNote:
    """Return the note of crops that no segmentation has found."""
    return CropNote(
        study_uid=study_uid,
        inputs="benchmark",
        crop=crop.to_note(),
        model_id="none",
        standing="unseen",
        levels=LEVEL_NAMES,
    )
