"""Shapes of C1, C2 and the vertebrae below, in their own frames.

The frame of a vertebra lies in the middle of its body; that of C1 in the middle of the
dens. Distances are in the mm of an average neck: the frame holds the size of this one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from csfd_core.phantom.grid import Bounds, Float, LocalGrid, Vector
from csfd_core.phantom.shapes import (
    Capsule,
    Carver,
    Column,
    Ellipsoid,
    Plate,
    Slab,
    smooth_max,
)
from csfd_core.phantom.spine import C1, C1_HALF_SPAN, C2, C7, T1, Spine, VertebraSize

JOINT_GAP: Final = 1.5  # mm between articular surfaces


@dataclass(frozen=True, slots=True)
class Body:
    """The drum of a vertebra: saddle-shaped upper end and uncinate processes."""

    half_width: float
    half_depth: float
    height: float
    uncus: float

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        upper = np.array(
            [
                self.half_width * 1.1,
                self.half_depth * 1.1,
                self.height / 2 + self.uncus + 1,
            ]
        )
        lower = -upper
        lower[2] = -self.height / 2 - 2
        return lower, upper

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        half = np.float32(self.height / 2)
        waist = z * np.float32(1 / half)
        waist *= waist
        waist *= np.float32(0.08)
        waist += np.float32(0.92)
        qx = x * np.float32(1 / self.half_width) / waist
        qx *= qx
        qy = y * np.float32(1 / self.half_depth) / waist
        depth = qy.copy()
        qy *= qy
        # A round front and a flat back.
        squared = qx * qx + qy * qy + np.where(depth < 0, 1.6, 0.2) * (qx * qy)
        side = np.sqrt(np.sqrt(squared)) - 1
        side *= np.float32(min(self.half_width, self.half_depth))
        edge = np.clip((qx - np.float32(0.3)) * 2, 0, 1)
        rear = np.clip(depth * np.float32(1.4) + np.float32(1.0), 0, 1)
        top = z - half + np.float32(0.5) - np.float32(0.6) * depth
        top -= np.float32(self.uncus) * edge * rear
        hollow = np.float32(1.3) * (1 - qy) - np.float32(0.7)
        bottom = -half + hollow - z - np.float32(0.8) * depth
        bottom += np.float32(0.45 * self.uncus) * edge
        ends = np.maximum(top, bottom)
        return smooth_max(np.asarray(side, dtype=np.float32), ends, 2.0)


def vertebra_bounds(level: int, spine: Spine) -> Bounds:
    """Return a box in the vertebra's frame that holds all of it."""
    if level == C1:
        return np.array([-43.0, -17.0, -17.0]), np.array([43.0, 37.0, 17.0])
    size = spine.sizes[level]
    side = size.half_span + 5
    back = size.half_depth + size.canal_depth + size.spinous_length + 9
    top = 31.0 if level == C2 else size.height / 2 + 12
    bottom = -size.height / 2 - max(12.0, size.spinous_drop + 6)
    return np.array([-side, -size.half_depth - 5, bottom]), np.array([side, back, top])


def carve_vertebra(level: int, spine: Spine, local: LocalGrid) -> Carver:
    """Return the signed distance of one vertebra on its local grid."""
    carver = Carver(local)
    if level == C1:
        _carve_c1(carver)
        return carver
    size = spine.sizes[level]
    if level == C2:
        _carve_c2(carver, size)
    else:
        carver.add(Body(size.half_width, size.half_depth, size.height, size.uncus))
        _carve_pillars(carver, size)
        _carve_transverse(carver, size, level)
    _carve_arch(carver, size, level)
    if size.foramen:
        x = size.half_width + 0.8 + size.foramen * 1.15
        top = 0.0 if level == C2 else 9.0
        hole = Column((x, 1.5), (size.foramen * 1.1, size.foramen), (-9.0, top))
        carver.cut_pair(hole, 0.6)
    return carver


def _carve_c1(carver: Carver) -> None:
    """A ring of two lateral masses and two arches; no body, no spinous process."""
    mass = Slab((19.0, 1.5, 0.0), (7.6, 9.2, 8.6), rounding=8.0)
    carver.add_pair(mass, 1.0)
    carver.cut_pair(Ellipsoid((17.0, 1.0, 14.6), (8.5, 13.0, 9.0)), 0.8)
    carver.cut_pair(Ellipsoid((15.0, 1.0, -17.5), (13.0, 14.0, 11.5)), 0.8)
    carver.add_pair(Plate((15.0, -5.5), (8.0, -9.2), 2.6, 0.0, 4.6), 2.0)
    carver.add_pair(Plate((8.0, -9.2), (0.0, -10.2), 2.5, 0.0, 5.0), 2.0)
    carver.add(Ellipsoid((0.0, -12.0, 0.0), (4.5, 2.8, 4.5)), 2.0)
    carver.add_pair(Plate((21.0, 8.0), (18.5, 17.0), 2.5, 0.5, 3.0), 2.0)
    carver.add_pair(Plate((18.5, 17.0), (11.0, 24.0), 2.4, 0.0, 4.0), 2.0)
    carver.add_pair(Plate((11.0, 24.0), (0.0, 27.6), 2.5, 0.0, 4.6), 2.0)
    carver.add(Ellipsoid((0.0, 29.3, 0.0), (4.5, 3.0, 4.2)), 2.0)
    span = C1_HALF_SPAN
    stretch = (1.0, 1.1, 1.0)
    carver.add_pair(Capsule((24, 5, -1), (span - 3, 3, -2), 3.0, 3.6, stretch), 2.0)
    carver.add_pair(Capsule((24, -3.5, 0), (span - 4, 2, -2), 2.0, 2.4), 2.0)
    carver.cut_pair(Column((28.2, 1.0), (3.2, 3.0), (-9, 9)), 0.6)


def _carve_c2(carver: Carver, size: VertebraSize) -> None:
    """The axis: a tall body that bears the dens, and facets like shoulders."""
    top = size.height / 2
    carver.add(Body(size.half_width, size.half_depth, size.height, 0.0))
    dens = Capsule((0, -0.6, top - 6), (0, -0.2, top + 9.5), 4.9, 5.2, (1, 1.06, 1))
    carver.add(dens, 4.0)
    carver.add(Capsule((0, 0, top + 10), (0, 0.8, top + 13.5), 4.2, 3.2), 2.0)
    facet = Capsule(
        (10.5, 0.5, top - 2.6), (17, 0.5, top - 5), 6.0, 6.0, (1, 1.4, 0.85)
    )
    carver.add_pair(facet, 2.5)
    carver.add_pair(Capsule((9, 3, 0), (14, 3, top - 6), 4.5, 5.0), 3.0)
    back = size.half_depth
    carver.add_pair(Capsule((14, 3, 3), (19, back + 5, -4), 4.6, 4.6), 3.0)
    pillar = Slab(
        (size.pillar_x, back + 5.5, -7.0), (5.6, 5.6, 4.5), tilt=size.facet_tilt
    )
    carver.add_pair(pillar, 2.0)
    tip = (size.half_span, 5.0, -4.0)
    carver.add_pair(Capsule((15, 5, -1), tip, 3.4, 2.3), 2.0)


def _carve_pillars(carver: Carver, size: VertebraSize) -> None:
    """Articular pillars: their ends fall towards the back at about 45 degrees."""
    half = (size.pitch - JOINT_GAP * 1.4) / 2
    centre = (size.pillar_x, size.half_depth + 5.5, -1.0)
    carver.add_pair(Slab(centre, (5.6, 5.4, half), tilt=size.facet_tilt), 1.5)
    start = (size.half_width - 2, size.half_depth - 3.5, 1.5)
    end = (size.pillar_x - 2, size.half_depth + 3.5, 0.8)
    carver.add_pair(Capsule(start, end, 2.7, 3.0, (1, 1, 1.25)), 2.0)


def _carve_transverse(carver: Carver, size: VertebraSize, level: int) -> None:
    tip = size.half_span
    back = size.half_depth
    if level >= T1:
        start = (size.pillar_x - 1, back + 5.5, 1.0)
        end = (tip - 3, back + 12.0, 2.5)
        carver.add_pair(Capsule(start, end, 4.2, 3.8), 2.5)
        return
    web = Capsule(
        (size.half_width - 1, 1.5, -0.5),
        (size.pillar_x, 3.0, -1.0),
        3.4,
        3.6,
        (1, 1.2, 1),
    )
    carver.add_pair(web, 1.5)
    front = (min(tip - 4, 24.0), -1.5, -1.5)
    rear = (tip - 2.2, 5.5, -3.0)
    carver.add_pair(Capsule((size.half_width - 1.5, -1.5, 0), front, 2.2, 2.0), 1.5)
    carver.add_pair(Capsule(front, rear, 2.0, 2.2), 1.5)
    carver.add_pair(Capsule((size.pillar_x - 1, back + 1, -1), rear, 3.0, 2.3), 1.5)


def _carve_arch(carver: Carver, size: VertebraSize, level: int) -> None:
    """Laminae and spinous process, then the canal cut clear."""
    back = size.half_depth + size.canal_depth
    z = -5.0 if level == C2 else -2.5
    height = size.height * (0.3 if level == C2 else 0.48)
    shoulder = (size.pillar_x - 2.5, size.half_depth + 9.0)
    lean = 0.3 if level < T1 else 0.15
    thickness = 2.4 if level != C2 else 3.2
    carver.add_pair(Plate(shoulder, (2.0, back + 2.2), thickness, z, height, lean), 2.0)
    _carve_spinous(carver, size, level, z)
    half = (size.half_canal_width, size.canal_depth / 2)
    middle = size.half_depth + size.canal_depth / 2
    top = 30.0 if level == C2 else 14.0
    carver.cut(Column((0.0, middle), half, (-14.0, top)), 1.0)


def _carve_spinous(carver: Carver, size: VertebraSize, level: int, z: float) -> None:
    root = (0.0, size.half_depth + size.canal_depth + 2.0, z - 0.5)
    tip_y = root[1] + size.spinous_length
    tip = (0.0, tip_y, z - size.spinous_drop)
    oval = (1.25, 1.4, 2.3) if level != C2 else (1.7, 1.5, 2.5)
    if level >= C7:
        carver.add(Capsule(root, tip, 2.5, 3.0, (1.0, 1.3, 1.8)), 2.0)
        return
    split = root[1] + size.spinous_length * 0.65
    fork = (0.0, split, z - size.spinous_drop * 0.65)
    carver.add(Capsule(root, fork, 2.4, 2.1, oval), 2.0)
    carver.add_pair(Capsule(fork, (4.2, tip_y, tip[2]), 2.1, 2.3, (1, 1.1, 1.5)), 2.0)


def spinous_axis(size: VertebraSize) -> tuple[Vector, Vector]:
    """Return root and tip (x, y, z) of the spinous process of C2 and below."""
    z = -5.0 if size.uncus == 0 and size.foramen else -2.5
    y = size.half_depth + size.canal_depth + 2.0
    root = np.array([0.0, y, z - 0.5])
    tip = np.array([0.0, y + size.spinous_length, z - size.spinous_drop])
    return root, tip
