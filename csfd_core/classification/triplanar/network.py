"""The triplanar CNN: every place of a vertebra, seen in three planes at once.

A break that lies in the plane of the slices, as of the dens or of a facet, shows on
sagittal and coronal reformats. Each place is looked at by three small networks, one a
plane, and judged by what all of them see (Prasoon et al. 2013, triplanar CNN). It
learns from places as the basic CNN does; on a whole vertebra the three networks run
over the slices and reformats, and what they see meets in a grid of places.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.classification.classifier import require_same_shapes
from csfd_core.classification.patchwise.classifier import (
    NOWHERE,
    PatchClassifier,
    most_suspicious,
)
from csfd_core.classification.patchwise.layers import STEP, convolutions, folded
from csfd_core.classification.triplanar.patches import (
    CHANNELS,
    GREY_MIDDLE,
    GREY_WIDTH,
    OFFSETS,
    PLANES,
    TriplanarPool,
)
from csfd_core.classification.triplanar.volume import VertebraVolume
from csfd_core.classification.vertebrae import Grey, Vertebra
from csfd_core.learning.checkpoint import Weights
from csfd_core.runtime.compute import computing

if TYPE_CHECKING:
    import keras

NAME: Final = "triplanar_cnn"
_NEAR: Final = 4  # voxels: places so far from the mask count
_RIM: Final = 12  # voxels above and below that the networks look into
_BESIDE: Final = 14  # voxels around the mask that are looked at
_PATCH_PX: Final = 36  # of which a plane's network sees 30, and what lies beside them
_NEARBY: Final = 3  # places on a side, whose strongest features a plane tells
_HIDDEN: Final = 64  # of what joins the three planes

Float = npt.NDArray[np.float32]


class TriplanarCnn(PatchClassifier[VertebraVolume]):
    """See the module."""

    name = NAME

    def open_pool(self) -> TriplanarPool:
        """Return an empty pool of volumes."""
        return TriplanarPool(_PATCH_PX, self.config.mined_share, self.shape)

    def judge(
        self, vertebrae: Sequence[Vertebra], *, all_views: bool
    ) -> list[npt.NDArray[np.float32]]:
        """Return the logits of all places, (Z / 4, side / 4, side / 4) each."""
        volumes = [VertebraVolume.of(vertebra, self.shape) for vertebra in vertebrae]
        return [self._judge(volume, mirrored=all_views) for volume in volumes]

    def suspects(
        self, vertebrae: Sequence[VertebraVolume]
    ) -> list[npt.NDArray[np.float64]]:
        """Return the most suspicious places: plane, row and column, shape (n, 3)."""
        return [
            _to_voxels(most_suspicious(self._judge(volume, mirrored=False)))
            for volume in vertebrae
        ]

    def spread_out(self, chances: Float, vertebra: Vertebra) -> Float:
        """Interpolate between the places, at the heights of the slices."""
        volume = VertebraVolume.of(vertebra, self.shape)
        side = np.arange(volume.grey.shape[1], dtype=float)
        at = np.stack(np.meshgrid(volume.planes, side, side, indexing="ij"))
        heat = np.empty(at.shape[1:], dtype=np.float32)
        ndimage.map_coordinates(
            chances, _to_cells(at), output=heat, order=1, mode="nearest"
        )
        return heat

    def patch_model(self) -> "keras.Model":
        """Return the network for three patches around one place."""
        import keras

        side = _PATCH_PX
        inputs = keras.Input((len(PLANES), side, side, CHANNELS))
        centre = side // STEP // 2
        seen = [
            eye(inputs[:, index])[:, centre, centre]
            for index, eye in enumerate(self._eyes)
        ]
        joined = keras.layers.Concatenate()(seen)
        return keras.Model(inputs, self._judgement(joined), name=NAME)

    def get_weights(self) -> Weights:
        """Return all weights: of each plane's network, then of what joins them."""
        return [array for part in self._parts for array in part.get_weights()]

    def set_weights(self, weights: Weights) -> None:
        """Use weights that were kept."""
        require_same_shapes(self.get_weights(), weights, NAME)
        left = list(weights)
        for part in self._parts:
            count = len(part.weights)
            part.set_weights(left[:count])
            del left[:count]

    def keras_model(self) -> tuple["keras.Model", npt.NDArray[np.float32]]:
        """Return the network for patches, and grey ones."""
        side = _PATCH_PX
        shape = (1, len(PLANES), side, side, CHANNELS)
        with computing(self.config.mixed_precision):
            return self.patch_model(), np.zeros(shape, dtype=np.float32)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(part.count_params()) for part in self._parts)

    @property
    def _parts(self) -> list["keras.Model"]:
        return [*self._eyes, self._judgement]

    @cached_property
    def _eyes(self) -> list["keras.Model"]:
        """The networks of the planes: (N, H, W, C) to (N, H / 4, W / 4, features)."""
        with computing(self.config.mixed_precision):
            import keras

            return [_build_eye(plane, self.config.filters, keras) for plane in PLANES]

    @cached_property
    def _judgement(self) -> "keras.Model":
        """What joins the planes: features (..., 3 x features) to logits (..., 1)."""
        with computing(self.config.mixed_precision):
            import keras

            layers = keras.layers
            width = self.config.filters[-1] * len(PLANES)
            return keras.Sequential(
                [
                    keras.Input((width,)),
                    layers.Dropout(0.2),
                    layers.Dense(_HIDDEN, activation="relu"),
                    layers.Dropout(0.2),
                    layers.Dense(1, dtype="float32"),
                ],
                name="judgement",
            )

    @cached_property
    def _calls(self) -> list[Any]:
        """The parts as graphs that take vertebrae of any size."""
        with computing(self.config.mixed_precision):
            import tensorflow as tf

            return [
                tf.function(folded(part), reduce_retracing=True) for part in self._parts
            ]

    def _judge(self, volume: VertebraVolume, *, mirrored: bool) -> Float:
        """Return the logits of a vertebra's places, (Z / 4, side / 4, side / 4)."""
        whole = tuple(-(-length // STEP) for length in volume.grey.shape)
        grid = np.full(whole, NOWHERE, dtype=np.float32)
        block = _Block.around(volume)
        if block is None:
            return grid
        near = _near(block.mask)
        logits = self._logits_of(block.grey, block.mask, near)
        if mirrored:
            turned = self._logits_of(
                block.grey[..., ::-1], block.mask[..., ::-1], near[..., ::-1]
            )
            logits = np.asarray((logits + turned[..., ::-1]) / 2, dtype=np.float32)
        inside = np.where(near, logits, NOWHERE)[_RIM // STEP :]
        first_row, first_column = block.first
        part = grid[:, first_row:, first_column:]
        part = part[:, : inside.shape[1], : inside.shape[2]]
        part[:] = inside[: len(part)]
        return grid

    def _logits_of(self, grey: Grey, mask: Grey, near: npt.NDArray[np.bool_]) -> Float:
        """Return the logits of the places that are near, 0 of all others.

        Planes that cross none of them are not looked at.
        """
        *eyes, judgement = self._calls
        cells = np.nonzero(near)
        seen = []
        for eye, (row_axis, column_axis, across) in zip(
            eyes, PLANES.values(), strict=True
        ):
            order = (across, row_axis, column_axis)
            crossed = np.unique(cells[across])
            features = np.asarray(eye(_slabs(grey, mask, order, crossed)))
            plane = np.searchsorted(crossed, cells[across])
            seen.append(features[plane, cells[row_axis], cells[column_axis]])
        logits = np.zeros(near.shape, dtype=np.float32)
        logits[near] = np.asarray(judgement(np.concatenate(seen, axis=-1)))[:, 0]
        return logits


class _Block:
    """The part of a volume that is looked at: sides in multiples of the step."""

    def __init__(self, grey: Grey, mask: Grey, first: tuple[int, int]) -> None:
        self.grey, self.mask = grey, mask
        self.first = first  # place of its first row and column

    @classmethod
    def around(cls, volume: VertebraVolume) -> "_Block | None":
        """Cut around the mask, with a rim above and below; ``None``: it is empty."""
        shown = np.asarray(volume.mask.max(axis=0) > 0)
        if not shown.any():
            return None
        rows, columns = _span(shown.max(axis=1)), _span(shown.max(axis=0))
        below = _RIM + -len(volume.grey) % STEP
        part = (slice(None), rows, columns)
        rim = ((_RIM, below), (0, 0), (0, 0))
        grey = np.pad(volume.grey[part], rim, mode="edge")
        mask = np.pad(volume.mask[part], rim)
        # Where the side of a crop is no multiple of the step.
        odd = [(0, -length % STEP) for length in grey.shape]
        first = rows.start // STEP, columns.start // STEP
        return cls(np.pad(grey, odd, mode="edge"), np.pad(mask, odd), first)


def _span(shown: npt.NDArray[np.bool_]) -> slice:
    """Return what is looked at along one side, from a multiple of the step on."""
    at = np.flatnonzero(shown)
    start = max(int(at[0]) - _BESIDE, 0) // STEP * STEP
    return slice(start, min(int(at[-1]) + _BESIDE + 1, len(shown)))


def _slabs(
    grey: Grey,
    mask: Grey,
    order: tuple[int, int, int],
    planes: npt.NDArray[np.int64],
) -> Float:
    """Return planes across an axis with their neighbours and their mask.

    A plane lies between two voxels, as the middle of a place does.

    Args:
        grey: Shape (Z, Y, X), sides in multiples of four.
        mask: The same shape.
        order: Axes across the planes, along their rows and along their columns.
        planes: Which, of every fourth plane.

    Returns:
        Shape (planes, rows, columns, channels).
    """
    values = grey.transpose(order).astype(np.float32) / 255
    last = len(values) - 1
    middles = planes * STEP + STEP // 2 - 1

    def between(offset: int) -> Float:
        low, high = middles + offset, middles + offset + 1
        pair = values[np.clip(low, 0, last)] + values[np.clip(high, 0, last)]
        return np.asarray(pair / 2)

    seen = np.stack([between(offset) for offset in OFFSETS], axis=-1)
    shown = mask.transpose(order)[middles, ..., None].astype(np.float32) / 255
    return np.concatenate([(seen - GREY_MIDDLE) / GREY_WIDTH, shown], axis=-1)


def _near(mask: Grey) -> npt.NDArray[np.bool_]:
    """Say which places lie on or beside the vertebra."""
    reach = 2 * _NEAR  # even, as the middle of a place lies between two voxels
    half = STEP // 2
    wide = ndimage.maximum_filter(mask, size=reach)
    return np.asarray(wide[half::STEP, half::STEP, half::STEP] > 0)


def _to_voxels(cells: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray((cells + 0.5) * STEP - 0.5)


def _to_cells(voxels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((voxels + 0.5) / STEP - 0.5)


def _build_eye(plane: str, filters: Sequence[int], keras: Any) -> "keras.Model":  # noqa: ANN401
    inputs = keras.Input((None, None, CHANNELS))
    features = convolutions(inputs, filters)
    # What lies beside a place counts: boxes do not say to the pixel where bone breaks,
    # and planes through one place cut a break at places beside each other.
    nearby = keras.layers.MaxPooling2D(_NEARBY, strides=1, padding="same")(features)
    return keras.Model(inputs, nearby, name=plane)
