"""Labelled volumes, and the training samples that are drawn from them.

A ``GridVolume`` is a study on an isotropic grid whose axes run to the feet, the back
and the patient's left. It comes from the stores or from the phantom.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.segmentation.augment import (
    Float,
    Labels,
    Pose,
    cut_field_of_view,
    draw_pose,
    randomize_look,
)
from csfd_core.segmentation.config import ModelConfig, NetworkConfig
from csfd_core.vocabulary import LEVELS

_COARSE: Final = 4  # voxels of the volume in one of its coarse copy
_SPINE_SHARE: Final = 0.15  # of a coarse voxel that makes it spine
# A level and more along the column: what the grid sees must decide, not where it is.
_JITTER_MM: Final = np.array([22.0, 10.0, 8.0])
LAST: Final = int(LEVELS[-1])

Sample = tuple[dict[str, Float], dict[str, npt.NDArray[np.int32]]]


@dataclass(frozen=True, slots=True)
class GridVolume:
    """Grey levels of the bone window and labels on one isotropic grid."""

    study_uid: str
    grey: npt.NDArray[np.uint8]  # (Z, Y, X)
    labels: Labels  # 0 none, 1 C1 ... 7 C7, 8 T1 ...
    spacing_mm: float


def draw_sample(
    volume: GridVolume, config: ModelConfig, rng: np.random.Generator, strength: float
) -> Sample:
    """Draw one augmented sample for both networks, without the batch axis."""
    grey: Float = volume.grey.astype(np.float32) / np.float32(255)
    labels = volume.labels
    # From nearly as it is to as far as it goes: easy and hard samples in turn.
    strength *= float(rng.uniform(0.25, 1.0))
    if strength > 0:
        grey, labels = cut_field_of_view(grey, labels, rng, volume.spacing_mm)
    centre = spine_centre_mm(labels, volume.spacing_mm)
    pose = draw_pose(rng, centre, strength)
    near = pose.moved(_offset(rng, _JITTER_MM, strength))
    fine, fine_labels = _resample(grey, labels, near, config.segmenter, volume)
    wide = pose.rigid().moved(_offset(rng, _JITTER_MM * 3, min(strength, 1)))
    coarse, coarse_labels = _resample_coarse(grey, labels, wide, config.locator, volume)
    if strength > 0:
        fine = randomize_look(fine, fine_labels, rng, strength)
        coarse = randomize_look(coarse, coarse_labels, rng, strength * 0.7)
    inputs = {
        "locator": with_coordinates(coarse, config.locator),
        "segmenter": with_coordinates(fine, config.segmenter),
    }
    targets = {
        "locator": np.asarray(coarse_labels > 0, dtype=np.int32),
        "segmenter": np.where(fine_labels > LAST, 0, fine_labels).astype(np.int32),
    }
    return inputs, targets


def spine_centre_mm(labels: Labels, spacing_mm: float) -> Float:
    """Return the middle of the box around C1 to C7, mm from the first voxel."""
    cervical = (labels > 0) & (labels <= LAST)
    boxes = ndimage.find_objects(cervical.astype(np.uint8))
    box = boxes[0] if boxes else tuple(slice(0, n) for n in labels.shape)
    middle = [(part.start + part.stop - 1) / 2 for part in box]
    return np.asarray(np.array(middle) * spacing_mm, dtype=np.float32)


def with_coordinates(grey: Float, config: NetworkConfig) -> Float:
    """Return the input of a network: grey levels and, if it sees them, coordinates."""
    if not config.coordinates:
        return grey[..., None]
    return np.concatenate([grey[..., None], _coordinates(grey.shape)], axis=-1)


@lru_cache(maxsize=4)
def _coordinates(shape: tuple[int, ...]) -> Float:
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _offset(
    rng: np.random.Generator, spread_mm: npt.NDArray[np.float64], strength: float
) -> Float:
    return np.asarray(rng.uniform(-1, 1, 3) * spread_mm * strength, dtype=np.float32)


def _resample(
    grey: Float, labels: Labels, pose: Pose, config: NetworkConfig, volume: GridVolume
) -> tuple[Float, Labels]:
    at = pose.points_mm(config.shape_zyx, config.spacing_mm) / volume.spacing_mm
    at = at.reshape(3, -1)
    fine = ndimage.map_coordinates(grey, at, order=1, cval=0.0)
    sampled = ndimage.map_coordinates(labels, at, order=0, cval=0)
    shape = config.shape_zyx
    return fine.reshape(shape).astype(np.float32), sampled.reshape(shape)


def _resample_coarse(
    grey: Float, labels: Labels, pose: Pose, config: NetworkConfig, volume: GridVolume
) -> tuple[Float, Labels]:
    """Resample from a copy of the volume that is averaged over blocks first."""
    share = block_mean(((labels > 0) & (labels <= LAST)).astype(np.float32), _COARSE)
    spacing = volume.spacing_mm * _COARSE
    at = pose.points_mm(config.shape_zyx, config.spacing_mm)
    at = ((at - (_COARSE - 1) / 2 * volume.spacing_mm) / spacing).reshape(3, -1)
    shape = config.shape_zyx
    coarse = ndimage.map_coordinates(block_mean(grey, _COARSE), at, order=1, cval=0.0)
    spine = ndimage.map_coordinates(share, at, order=1, cval=0.0) > _SPINE_SHARE
    return (
        coarse.reshape(shape).astype(np.float32),
        spine.reshape(shape).astype(np.uint8),
    )


def block_mean(values: Float, step: int) -> Float:
    """Average over cubes of ``step`` voxels; a rest at the far ends is dropped."""
    z, y, x = (n // step for n in values.shape)
    cut = values[: z * step, : y * step, : x * step]
    return np.asarray(
        cut.reshape(z, step, y, step, x, step).mean(axis=(1, 3, 5)), dtype=np.float32
    )


def to_batch(samples: list[Sample]) -> Sample:
    """Stack samples along a first axis."""

    def stack(parts: list[Mapping[str, npt.NDArray[np.generic]]]) -> dict[str, Float]:
        return {key: np.stack([p[key] for p in parts]) for key in parts[0]}

    inputs = stack([sample[0] for sample in samples])
    targets = stack([sample[1] for sample in samples])
    return inputs, targets  # type: ignore[return-value]
