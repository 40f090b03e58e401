"""Domain randomization: one labelled volume becomes endless different ones.

A network that is to carry over from phantoms to patients must not learn how a phantom
looks. So pose, size and curvature, the field of view, the brightness of each tissue,
texture, sharpness, noise and what else lies in the neck are drawn anew for every step.
Left and right are not mirrored: nobody has shown that it helps.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.vocabulary import LEVELS

Float = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

# Grey levels 0..1 of the bone window: air, fat, muscle, spongy bone, cortex, metal.
_ANCHORS: Final = np.array([0.0, 0.22, 0.31, 0.46, 0.75, 1.0])
_ANCHOR_SPREAD: Final = np.array([0.0, 0.035, 0.035, 0.07, 0.12, 0.05])
_LEAST_SHOWN: Final = 0.3  # of the height of the labels, where a scan ends in them
_SOFT: Final = (0.18, 0.40)  # grey levels that are neither air nor bone


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Maps points of the wanted grid, mm from its middle, to the source volume."""

    matrix: Float  # (3, 3), axes z, y, x
    centre_mm: Float  # (3,): where the middle of the grid lies in the source
    bends_mm: Float  # (3, 6, 5, 4): displacement at control points of the grid

    def points_mm(self, shape: tuple[int, int, int], spacing_mm: float) -> Float:
        """Return the source positions of a grid's voxels, shape (3, Z, Y, X)."""
        z, y, x = (
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(spacing_mm)
            for n in shape
        )
        points = [
            row[0] * z[:, None, None] + row[1] * y[:, None] + row[2] * x + centre
            for row, centre in zip(self.matrix, self.centre_mm, strict=True)
        ]
        positions = np.stack(points)
        if self.bends_mm.any():
            positions += _enlarge(self.bends_mm, shape)
        return positions

    def moved(self, offset_mm: Float) -> "Pose":
        """Return the same pose seen by a grid whose middle lies elsewhere."""
        return replace(self, centre_mm=self.centre_mm + self.matrix @ offset_mm)

    def rigid(self) -> "Pose":
        """Return the pose without its bends."""
        return replace(self, bends_mm=np.zeros_like(self.bends_mm))


def draw_pose(rng: np.random.Generator, centre_mm: Float, strength: float) -> Pose:
    """Draw a turned, tilted, scaled, sheared and bent neck around a point."""
    pitch, roll, yaw = np.deg2rad(rng.normal(0, (11, 6, 11)) * strength)
    scale = np.exp(rng.normal(0, 0.11) * strength + rng.normal(0, 0.04, 3) * strength)
    shear = np.eye(3) + np.triu(rng.normal(0, 0.05, (3, 3)) * strength, 1)
    matrix = _turn(pitch, roll, yaw) @ np.diag(scale) @ shear
    size = rng.choice([0.0, 1.5, 3.0, 5.0]) * strength
    bends = rng.normal(0, size, (3, 6, 5, 4)) if size else np.zeros((3, 6, 5, 4))
    return Pose(
        matrix=matrix.astype(np.float32),
        centre_mm=np.asarray(centre_mm, dtype=np.float32),
        bends_mm=bends.astype(np.float32),
    )


def cut_field_of_view(
    grey: Float, labels: Labels, rng: np.random.Generator, spacing_mm: float
) -> tuple[Float, Labels]:
    """End the scan somewhere in the column, or narrow it to a cylinder.

    What lies outside becomes air without a label. Nearly a third of the height of C1 to
    C7 remains; what lies below them, as far as the scan goes on.
    """
    grey, labels = grey.copy(), labels.copy()
    cervical = (labels > 0) & (labels <= int(LEVELS[-1]))
    levels = np.flatnonzero(cervical.any(axis=(1, 2)))
    first, last = (int(levels[0]), int(levels[-1])) if levels.size else (0, 0)
    span = last - first
    # A scan that ends within the column is where levels are told from too little.
    top = first
    if rng.random() < 0.45:
        top = int(rng.uniform(first - 30 / spacing_mm, first + 0.5 * span))
        grey[: max(top, 0)], labels[: max(top, 0)] = 0, 0
    if rng.random() < 0.5:
        highest = max(last - 0.5 * span, top + _LEAST_SHOWN * span)
        end = int(rng.uniform(highest, last + 30 / spacing_mm))
        grey[end:], labels[end:] = 0, 0
    if rng.random() < 0.3:
        radius = rng.uniform(62, 130) / spacing_mm
        middle = np.array(grey.shape[1:]) / 2 + rng.normal(0, 8, 2) / spacing_mm
        y, x = np.ogrid[: grey.shape[1], : grey.shape[2]]
        outside = np.hypot(y - middle[0], x - middle[1]) > radius
        grey[:, outside], labels[:, outside] = 0, 0
    return grey, labels


def randomize_look(
    grey: Float, labels: Labels, rng: np.random.Generator, strength: float
) -> Float:
    """Redraw how everything looks; ``labels`` protect the vertebrae from occlusion."""
    steps: tuple[tuple[float, Callable[[Float], Float]], ...] = (
        (0.8, lambda g: _recolour(g, rng)),
        (0.5, lambda g: _vary_levels(g, labels, rng)),
        (0.6, lambda g: _marble(g, rng)),
        (0.6, lambda g: _occlude(g, labels, rng)),
        (0.4, lambda g: _shade(g, rng)),
        (0.5, lambda g: _coarsen(g, rng)),
        (0.4, lambda g: _blur(g, rng)),
        (0.25, lambda g: _sharpen(g, rng)),
        (0.7, lambda g: _add_noise(g, rng)),
        (0.3, lambda g: _bend_contrast(g, rng)),
    )
    for likely, step in steps:
        if rng.random() < likely * strength:
            grey = step(grey)
    return np.asarray(np.clip(grey, 0, 1), dtype=np.float32)


def _recolour(grey: Float, rng: np.random.Generator) -> Float:
    """Give each tissue another brightness; their order stays."""
    wanted = _ANCHORS + rng.uniform(-2, 2, _ANCHORS.size) * _ANCHOR_SPREAD
    wanted = np.maximum.accumulate(np.clip(wanted, 0, 1))
    return np.interp(grey, _ANCHORS, wanted).astype(np.float32)


def _vary_levels(grey: Float, labels: Labels, rng: np.random.Generator) -> Float:
    """Make each vertebra denser or lighter than its neighbours."""
    table = np.zeros(256, dtype=np.float32)
    table[1:32] = rng.normal(0, 0.05, 31)
    return np.asarray(grey + table[labels] * (grey > _SOFT[1]), dtype=np.float32)


def _marble(grey: Float, rng: np.random.Generator) -> Float:
    """Put fat between muscles, and coarse texture into everything."""
    field = smooth_field(rng, grey.shape, int(rng.integers(6, 22)))
    soft = (grey > _SOFT[0]) & (grey < _SOFT[1])
    fat = soft & (field > rng.uniform(0.5, 1.8))
    grey = np.where(fat, np.float32(rng.uniform(0.15, 0.26)), grey)
    texture = smooth_field(rng, grey.shape, int(rng.integers(10, 34)))
    return np.asarray(
        grey + np.float32(rng.uniform(0, 0.035)) * texture * (grey > 0.08),
        dtype=np.float32,
    )


def _occlude(grey: Float, labels: Labels, rng: np.random.Generator) -> Float:
    """Put ellipsoids of any tissue beside the vertebrae: vessels, bones, air, metal."""
    grey = grey.copy()
    shape = np.array(grey.shape)
    for _ in range(int(rng.integers(1, 14))):
        radii = np.exp(rng.uniform(np.log(1.5), np.log(16), 3))
        centre = rng.uniform(0, 1, 3) * shape
        reach = int(np.ceil(radii.max()))
        low = np.clip(np.floor(centre - reach).astype(int), 0, shape)
        high = np.clip(np.ceil(centre + reach).astype(int), 0, shape)
        if (high - low).min() < 1:
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.meshgrid(
            *(np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True)),
            indexing="ij",
            sparse=True,
        )
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] / radii[:, None]
        square = sum(
            (row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2]) ** 2
            for row in turn
        )
        inside: npt.NDArray[np.bool_] = np.asarray(square) < 1
        if rng.random() < 0.4:  # a shell: cortex, an airway
            inside &= np.asarray(square) > rng.uniform(0.4, 0.8)
        inside &= labels[box] == 0
        grey[box][inside] = rng.choice([0.02, 0.2, 0.33, 0.45, 0.6, 0.85])
    return grey


def _shade(grey: Float, rng: np.random.Generator) -> Float:
    field = smooth_field(rng, grey.shape, int(rng.integers(2, 5)))
    return np.asarray(
        grey * (1 + np.float32(rng.uniform(0, 0.12)) * field), dtype=np.float32
    )


def _coarsen(grey: Float, rng: np.random.Generator) -> Float:
    """Look as if the slices were thick, or the pixels wide."""
    steps = np.ones(3)
    kind = rng.random()
    if kind < 0.6:
        steps[0] = rng.uniform(1.2, 3.0)
    if kind > 0.4:
        steps[1:] = rng.uniform(1.2, 3.2)
    soft = ndimage.gaussian_filter(grey, 0.35 * (steps - 1))
    sizes = np.maximum(2, np.round(np.array(grey.shape) / steps)).astype(int)
    picks = [np.linspace(0, n - 1, m) for n, m in zip(grey.shape, sizes, strict=True)]
    small: Float = soft[np.ix_(*(np.round(p).astype(int) for p in picks))]
    return np.asarray(_enlarge(small[None], grey.shape)[0])


def _blur(grey: Float, rng: np.random.Generator) -> Float:
    return np.asarray(
        ndimage.gaussian_filter(grey, rng.uniform(0.2, 1.0)), dtype=np.float32
    )


def _sharpen(grey: Float, rng: np.random.Generator) -> Float:
    soft = ndimage.gaussian_filter(grey, rng.uniform(0.6, 1.5))
    return np.asarray(grey + rng.uniform(0.2, 1.0) * (grey - soft), dtype=np.float32)


def _add_noise(grey: Float, rng: np.random.Generator) -> Float:
    noise = rng.standard_normal(grey.shape, dtype=np.float32)
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, rng.uniform(0.4, 1.0)) * 2
    return np.asarray(grey + np.float32(rng.uniform(0, 0.06)) * noise, dtype=np.float32)


def _bend_contrast(grey: Float, rng: np.random.Generator) -> Float:
    power = float(np.exp(rng.normal(0, 0.3)))
    return np.asarray(np.clip(grey, 0, 1) ** power, dtype=np.float32)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], knots: int) -> Float:
    """Return a random field of about unit size, ``knots`` control points an axis."""
    values = rng.standard_normal((1, knots, knots, knots), dtype=np.float32)
    return np.asarray(_enlarge(values, shape)[0])


def _enlarge(values: Float, shape: tuple[int, ...]) -> Float:
    """Interpolate control points (C, a, b, c) linearly to (C, Z, Y, X)."""
    z, y, x = (_weights(n, m) for n, m in zip(values.shape[1:], shape, strict=True))
    enlarged = np.einsum("cabk,xk->cabx", values, x, optimize=True)
    enlarged = np.einsum("cajx,yj->cayx", enlarged, y, optimize=True)
    return np.asarray(np.einsum("ciyx,zi->czyx", enlarged, z, optimize=True))


def _weights(knots: int, size: int) -> Float:
    """Return the matrix (size, knots) of linear interpolation."""
    at = np.linspace(0, knots - 1, size)
    low = np.minimum(at.astype(int), max(knots - 2, 0))
    share = (at - low).astype(np.float32)
    matrix = np.zeros((size, knots), dtype=np.float32)
    rows = np.arange(size)
    matrix[rows, low] = 1 - share
    matrix[rows, np.minimum(low + 1, knots - 1)] += share
    return matrix


def _turn(pitch: float, roll: float, yaw: float) -> npt.NDArray[np.float64]:
    """Return the rotation of axes z, y, x: pitch about x, roll about y, yaw about z."""
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    cy, sy = np.cos(yaw), np.sin(yaw)
    about_x = np.array([[cp, -sp, 0], [sp, cp, 0], [0, 0, 1]])
    about_y = np.array([[cr, 0, -sr], [0, 1, 0], [sr, 0, cr]])
    about_z = np.array([[1, 0, 0], [0, cy, -sy], [0, sy, cy]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)
