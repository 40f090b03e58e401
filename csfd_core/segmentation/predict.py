"""From a study's slices to its vertebra mask.

The locator looks at the whole scan on a coarse grid and finds C1 to C7; the segmenter
labels a fine grid around them. Its probabilities are brought to the grid of the slices
inside the box of what was found only, one slice at a time.
"""

import functools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from csfd_core.dicom.grids import (
    Float,
    Reduced,
    Triple,
    grid_points_mm,
    resample,
    resampling_weights,
)
from csfd_core.runtime.compute import computing, one_blas_thread
from csfd_core.segmentation.bundle import ModelBundle
from csfd_core.segmentation.columns import TWO_NECKS, shows_two_necks
from csfd_core.segmentation.config import CLASSES, NetworkConfig
from csfd_core.segmentation.data import with_coordinates
from csfd_core.segmentation.metal import metal_flags
from csfd_core.segmentation.networks import build_model
from csfd_core.segmentation.postprocess import (
    Labels,
    Review,
    ScanGrid,
    clean_levels,
    review,
)

if TYPE_CHECKING:
    import keras

_LIKELY_SPINE: Final = 0.5  # probability of spine in the locator's grid
_MARGIN_MM: Final = 10.0  # around the located box
_WIDEST: Final = (
    1.35  # the segmenter's grid may be stretched so far to hold a long neck
)
_PRESENT: Final = 0.15  # a class that is nowhere likelier on a slice is not computed
# The segmenter looks several times, its grid moved by so many voxels; as its votes are
# averaged, edges become smoother and levels surer.
_LOOKS: Final = ((0, 0, 0), (6, 2, -2), (-6, -2, 2))
_AVERAGE_CELLS: Final = 8  # shapes of the locator's grid are multiples of this


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A study's mask in the grid of its slices, and how sure it is."""

    mask: Labels  # (slice, row, column)
    review: Review
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crop:
    """Probabilities on the segmenter's grid, and where that lies."""

    probability: Float  # (Z, Y, X, C)
    grey: Float  # (Z, Y, X), of the bone window, 0..1
    centre_mm: Triple
    step_mm: float


class VertebraPredictor:
    """Labels C1 to C7 in studies. Builds its networks when first used."""

    def __init__(self, bundle: ModelBundle) -> None:
        """Take a trained model."""
        self.bundle = bundle

    @property
    def step_mm(self) -> float:
        """Voxels of the studies to predict need not be smaller than this."""
        return self.bundle.config.segmenter.spacing_mm

    def load(self) -> None:
        """Build the networks and run them once, so that the first study is fast."""
        config = self.bundle.config
        for name, network in (
            ("locator", config.locator),
            ("segmenter", config.segmenter),
        ):
            shape = (1, *network.shape_zyx, network.channels)
            self._run(name, np.zeros(shape, dtype=np.float32))

    def predict(self, volume: Reduced) -> Prediction:
        """Find and label the vertebrae of one study."""
        with one_blas_thread():
            return self._predict(volume)

    def _predict(self, volume: Reduced) -> Prediction:
        started = time.perf_counter()
        spine = self._find_spine(volume)
        if shows_two_necks(spine, self.bundle.config.locator.spacing_mm):
            empty = np.zeros(volume.full_shape, dtype=np.uint8)
            return Prediction(
                mask=np.ascontiguousarray(volume.axes.turn_back(empty)),
                review=Review(levels=(), flags=(TWO_NECKS,)),
                seconds={"locate": round(time.perf_counter() - started, 3)},
            )
        centre, stretch = self._locate(volume, spine)
        located = time.perf_counter()
        crop = self._segment(volume, centre, stretch)
        labels = clean_levels(crop.probability, crop.step_mm)
        segmented = time.perf_counter()
        mask = volume.axes.turn_back(_to_slices(volume, crop, labels))
        network = self.bundle.config.segmenter
        first = [
            middle - (count - 1) / 2 * crop.step_mm
            for middle, count in zip(crop.centre_mm, network.shape_zyx, strict=True)
        ]
        grid = ScanGrid(
            first_mm=(first[0], first[1], first[2]),
            step_mm=crop.step_mm,
            depth_mm=volume.extent_mm[0],
        )
        reviewed = review(labels, crop.probability, grid)
        metal = metal_flags(labels, crop.grey, crop.step_mm)
        reviewed = replace(reviewed, flags=(*reviewed.flags, *metal))
        done = time.perf_counter()
        return Prediction(
            mask=np.ascontiguousarray(mask, dtype=np.uint8),
            review=reviewed,
            seconds={
                "locate": round(located - started, 3),
                "segment": round(segmented - located, 3),
                "to_slices": round(done - segmented, 3),
            },
        )

    @functools.cached_property
    def _networks(self) -> dict[str, Any]:
        with computing():
            import tensorflow as tf

            model: keras.Model = build_model(self.bundle.config)
            model.set_weights(self.bundle.weights)
            return {
                name: tf.function(
                    functools.partial(model.get_layer(f"{name}_unet"), training=False),
                    reduce_retracing=True,
                )
                for name in ("locator", "segmenter")
            }

    def _run(self, name: str, inputs: Float) -> Float:
        """Return the probabilities of one grid, shape (Z, Y, X, C)."""
        logits = np.array(self._networks[name](inputs)[0], dtype=np.float32)
        logits -= logits.max(axis=-1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=-1, keepdims=True)
        return logits

    def _find_spine(self, volume: Reduced) -> Float:
        """Return how likely each voxel of the whole scan is spine, on a coarse grid."""
        network = self.bundle.config.locator
        step = network.spacing_mm
        shape = [
            max(small, -(-int(mm / step + 1) // _AVERAGE_CELLS) * _AVERAGE_CELLS)
            for mm, small in zip(volume.extent_mm, network.shape_zyx, strict=True)
        ]
        middle = _middle_of(volume)
        grey = resample(volume, middle, (shape[0], shape[1], shape[2]), step)
        return self._run("locator", with_coordinates(grey, network)[None])[..., 1]

    def _locate(self, volume: Reduced, spine: Float) -> tuple[Triple, float]:
        """Return the middle of C1 to C7, and how far the grid must be stretched."""
        step = self.bundle.config.locator.spacing_mm
        middle = _middle_of(volume)
        box = _box_of_spine(spine)
        if box is None:
            return middle, 1.0
        points = [
            grid_points_mm(m, n, step) for m, n in zip(middle, spine.shape, strict=True)
        ]
        low = [at[part.start] - step / 2 for at, part in zip(points, box, strict=True)]
        high = [
            at[part.stop - 1] + step / 2 for at, part in zip(points, box, strict=True)
        ]
        centre = tuple((a + b) / 2 for a, b in zip(low, high, strict=True))
        room = self.bundle.config.segmenter.extent_zyx_mm
        stretch = max(
            (b - a + 2 * _MARGIN_MM) / mm
            for a, b, mm in zip(low, high, room, strict=True)
        )
        z, y, x = (float(value) for value in centre)
        return (z, y, x), float(min(max(stretch, 1.0), _WIDEST))

    def _segment(self, volume: Reduced, centre: Triple, stretch: float) -> _Crop:
        """Average the probabilities of several looks at the same place."""
        network: NetworkConfig = self.bundle.config.segmenter
        step = network.spacing_mm * stretch
        total = np.zeros((*network.shape_zyx, network.classes), dtype=np.float32)
        straight = np.zeros(network.shape_zyx, dtype=np.float32)
        for look in _LOOKS:
            z, y, x = (c + n * step for c, n in zip(centre, look, strict=True))
            grey = resample(volume, (z, y, x), network.shape_zyx, step)
            straight = straight if any(look) else grey
            seen = self._run("segmenter", with_coordinates(grey, network)[None])
            here, there = _overlap(look, network.shape_zyx)
            total[here] += seen[there]
        total /= np.maximum(total.sum(axis=-1, keepdims=True), 1e-6)
        return _Crop(probability=total, grey=straight, centre_mm=centre, step_mm=step)


def _middle_of(volume: Reduced) -> Triple:
    z, y, x = (mm / 2 for mm in volume.extent_mm)
    return (z, y, x)


def _box_of_spine(spine: Float) -> tuple[slice, ...] | None:
    """Return the box of the largest body of voxels that are likely spine."""
    parts, count = ndimage.label(spine > _LIKELY_SPINE, structure=np.ones((3, 3, 3)))
    if not count:
        return None
    weights = ndimage.sum_labels(spine, parts, np.arange(1, count + 1))
    return tuple(ndimage.find_objects(parts)[int(np.argmax(weights))])


def _overlap(
    look: tuple[int, int, int], shape: tuple[int, int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a grid that was moved by ``look`` voxels lies on the other one."""
    here = tuple(
        slice(max(n, 0), size + min(n, 0)) for n, size in zip(look, shape, strict=True)
    )
    there = tuple(
        slice(max(-n, 0), size - max(n, 0)) for n, size in zip(look, shape, strict=True)
    )
    return here, there


def _to_slices(volume: Reduced, crop: _Crop, labels: Labels) -> Labels:
    """Bring probabilities to the full grid inside the box of the labels."""
    mask = np.zeros(volume.full_shape, dtype=np.uint8)
    boxes = ndimage.find_objects((labels > 0).astype(np.uint8))
    if not boxes:
        return mask
    box = tuple(
        slice(max(p.start - 2, 0), min(p.stop + 2, n))
        for p, n in zip(boxes[0], labels.shape, strict=True)
    )
    cleaned = _agree(crop.probability[box], labels[box])
    full, weights = [], []
    for axis in range(3):
        grid = grid_points_mm(crop.centre_mm[axis], labels.shape[axis], crop.step_mm)[
            box[axis]
        ]
        step = volume.full_spacing_mm[axis]
        first = max(int(np.ceil(grid[0] / step)), 0)
        stop = min(int(np.floor(grid[-1] / step)) + 1, volume.full_shape[axis])
        if stop <= first:
            return mask
        at = np.arange(first, stop) * step
        matrix = resampling_weights(grid, at, step)
        full.append(slice(first, stop))
        weights.append(matrix.astype(np.float32))
    by_slice, rows, columns = weights
    part = mask[full[0], full[1], full[2]]
    by_class = np.ascontiguousarray(cleaned.transpose(3, 0, 1, 2))
    for index, along in enumerate(by_slice):
        near = np.flatnonzero(along)
        plane = np.tensordot(along[near], by_class[:, near], axes=(0, 1))
        present = np.flatnonzero(plane[1:].max(axis=(1, 2)) > _PRESENT) + 1
        if present.size:
            chosen = np.concatenate([[0], present])
            fine = np.matmul(np.matmul(rows, plane[chosen]), columns.T)
            part[index] = chosen[fine.argmax(axis=0)]
    return mask


def _agree(probability: Float, labels: Labels) -> Float:
    """Return probabilities whose highest class is what cleaning has left."""
    changed = probability.argmax(axis=-1) != labels
    agreed = probability.copy()
    agreed[changed] = np.eye(CLASSES, dtype=np.float32)[labels[changed]]
    return agreed
