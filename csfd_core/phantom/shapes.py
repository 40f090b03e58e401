"""Signed distances of simple solids, negative inside, in the frame of a bone.

The formulas are those of Quilez, "Distance functions" (iquilezles.org): exact for
capsules, first-order for ellipsoids. Coordinates are float32 arrays of one shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from csfd_core.phantom.grid import Bounds, Float, LocalGrid

Point = tuple[float, float, float]
FAR: Final = 9.0  # mm; stands for "not near this bone"
_PAD: Final = 3.0  # mm around a solid in which its distance is computed


class Solid(Protocol):
    """Something with a signed distance within known bounds."""

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""


@dataclass(frozen=True, slots=True)
class Capsule:
    """A rod with round ends; ``stretch`` makes it oval along the axes."""

    start: Point
    end: Point
    radius: float
    end_radius: float | None = None
    stretch: Point = (1.0, 1.0, 1.0)

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        ends = np.array([self.start, self.end])
        widest = max(self.radius, self.end_radius or 0.0)
        reach = widest * np.array(self.stretch)
        return ends.min(axis=0) - reach, ends.max(axis=0) + reach

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        s = np.array(self.stretch, dtype=np.float32)
        start = np.array(self.start, dtype=np.float32) / s
        axis = np.array(self.end, dtype=np.float32) / s - start
        px, py, pz = x / s[0] - start[0], y / s[1] - start[1], z / s[2] - start[2]
        along = px * axis[0] + py * axis[1] + pz * axis[2]
        along /= max(np.float32(axis @ axis), np.float32(1e-6))
        np.clip(along, 0, 1, out=along)
        px -= axis[0] * along
        py -= axis[1] * along
        pz -= axis[2] * along
        distance = np.sqrt(px * px + py * py + pz * pz)
        if self.end_radius is None:
            distance -= np.float32(self.radius)
        else:
            along *= np.float32(self.end_radius - self.radius)
            distance -= along + np.float32(self.radius)
        return np.asarray(distance * s.min(), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid along the local axes."""

    centre: Point
    radii: Point

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        centre, radii = np.array(self.centre), np.array(self.radii)
        return centre - radii, centre + radii

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        c = np.array(self.centre, dtype=np.float32)
        r = np.array(self.radii, dtype=np.float32)
        px, py, pz = (x - c[0]) / r[0], (y - c[1]) / r[1], (z - c[2]) / r[2]
        norm = np.sqrt(px * px + py * py + pz * pz)
        px /= r[0]
        py /= r[1]
        pz /= r[2]
        slope = np.sqrt(px * px + py * py + pz * pz)
        slope += np.float32(1e-6)
        return np.asarray(norm * (norm - 1) / slope, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Plate:
    """An upright wall between two points of the axial plane.

    ``lean`` moves its lower edge back (mm per mm), as laminae do.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    thickness: float  # half
    z: float
    height: float  # half
    lean: float = 0.0

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        t, h = self.thickness, self.height
        shift = abs(self.lean) * h
        xs, ys = zip(self.start, self.end, strict=True)
        lower = np.array([min(xs) - t, min(ys) - t - shift, self.z - h])
        upper = np.array([max(xs) + t, max(ys) + t + shift, self.z + h])
        return lower, upper

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        ax, ay = self.end[0] - self.start[0], self.end[1] - self.start[1]
        dz = z - np.float32(self.z)
        px = x - np.float32(self.start[0])
        py = y - np.float32(self.start[1])
        if self.lean:
            py += np.float32(self.lean) * dz
        along = px * np.float32(ax) + py * np.float32(ay)
        along /= np.float32(ax * ax + ay * ay)
        np.clip(along, 0, 1, out=along)
        px -= np.float32(ax) * along
        py -= np.float32(ay) * along
        flat = np.sqrt(px * px + py * py) - np.float32(self.thickness)
        tall = np.abs(dz) - np.float32(self.height)
        return smooth_max(flat, tall, 1.5)


@dataclass(frozen=True, slots=True)
class Slab:
    """A rounded box along the local axes, its top and bottom tilted in the y-z plane.

    With ``tilt`` 1 they fall by 1 mm per mm towards the back: an articular pillar.
    """

    centre: Point
    half: Point
    tilt: float = 0.0
    tilt_side: float = 0.0  # the same along x
    rounding: float = 3.0  # of the upright edges, mm

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        half = np.array(self.half)
        half[2] += abs(self.tilt) * half[1] + abs(self.tilt_side) * half[0]
        return np.array(self.centre) - half, np.array(self.centre) + half

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        px = x - np.float32(self.centre[0])
        py = y - np.float32(self.centre[1])
        pz = z - np.float32(self.centre[2])
        steep = np.float32(1 / np.sqrt(1 + self.tilt**2 + self.tilt_side**2))
        pz += np.float32(self.tilt) * py
        if self.tilt_side:
            pz += np.float32(self.tilt_side) * px
        high = (np.abs(pz) - np.float32(self.half[2])) * steep
        deep = np.abs(py) - np.float32(self.half[1])
        wide = np.abs(px) - np.float32(self.half[0])
        return smooth_max(smooth_max(wide, deep, self.rounding), high, 2.0)


@dataclass(frozen=True, slots=True)
class Column:
    """An endless upright tube of oval, rather boxy section."""

    centre: tuple[float, float]
    half: tuple[float, float]
    z_range: tuple[float, float]

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        (cx, cy), (hx, hy), (low, high) = self.centre, self.half, self.z_range
        return np.array([cx - hx, cy - hy, low]), np.array([cx + hx, cy + hy, high])

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        qx = (x - np.float32(self.centre[0])) * np.float32(1 / self.half[0])
        qy = (y - np.float32(self.centre[1])) * np.float32(1 / self.half[1])
        qx *= qx
        qy *= qy
        norm = np.sqrt(qx + qy + np.float32(0.35) * qx * qy)
        return np.asarray((norm - 1) * np.float32(min(self.half)), dtype=np.float32)


def smooth_min(first: Float, second: Float, blend: float) -> Float:
    """Return the minimum with the crease rounded over ``blend`` mm."""
    h = np.abs(first - second)
    np.subtract(np.float32(blend), h, out=h)
    np.maximum(h, 0, out=h)
    h *= h
    h *= np.float32(0.25 / blend)
    return np.asarray(np.minimum(first, second) - h, dtype=np.float32)


def smooth_max(first: Float, second: Float, blend: float) -> Float:
    """Return the maximum with the edge rounded over ``blend`` mm."""
    h = np.abs(first - second)
    np.subtract(np.float32(blend), h, out=h)
    np.maximum(h, 0, out=h)
    h *= h
    h *= np.float32(0.25 / blend)
    return np.asarray(np.maximum(first, second) + h, dtype=np.float32)


class Carver:
    """The signed distance of one bone, put together solid by solid."""

    def __init__(self, local: LocalGrid) -> None:
        """Start with no bone at all."""
        self.local = local
        self.distance: Float = np.full(local.x.shape, FAR, dtype=np.float32)

    def add(self, solid: Solid, blend: float = 1.5) -> None:
        """Join ``solid`` to the bone."""
        self._combine(solid, lambda d, s: smooth_min(d, s, blend), mirrored=False)

    def add_pair(self, solid: Solid, blend: float = 1.5) -> None:
        """Join ``solid``, given on the left (x > 0), and its mirror image."""
        for mirrored in (False, True):
            self._combine(solid, lambda d, s: smooth_min(d, s, blend), mirrored)

    def cut(self, solid: Solid, blend: float = 1.0) -> None:
        """Take ``solid`` away from the bone."""
        self._combine(solid, lambda d, s: smooth_max(d, -s, blend), mirrored=False)

    def cut_pair(self, solid: Solid, blend: float = 1.0) -> None:
        """Take ``solid``, given on the left, and its mirror image away."""
        for mirrored in (False, True):
            self._combine(solid, lambda d, s: smooth_max(d, -s, blend), mirrored)

    def _combine(
        self, solid: Solid, rule: Callable[[Float, Float], Float], mirrored: bool
    ) -> None:
        lower, upper = solid.bounds()
        lower, upper = lower - _PAD, upper + _PAD
        if mirrored:
            lower, upper = (
                np.array([-upper[0], lower[1], lower[2]]),
                np.array([-lower[0], upper[1], upper[2]]),
            )
        part = self.local.within((lower, upper))
        x, y, z = self.local.x[part], self.local.y[part], self.local.z[part]
        if x.size == 0:
            return
        solid_distance = solid.distance(-x if mirrored else x, y, z)
        self.distance[part] = rule(self.distance[part], solid_distance)
