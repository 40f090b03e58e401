"""Soft tissues: skin, fat, muscles, airway, vessels, cord, glands, discs, lungs.

Muscles, vessels and the airway are upright tubes that follow the spine. Their
way-points are given relative to the vertebral bodies (to the left, to the back, in mm)
at levels from the skull base (-1) over C1 (1) to T3 (10).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from csfd_core.phantom.grid import Float, Vector
from csfd_core.phantom.ranges import Ranges
from csfd_core.phantom.scene import Scene
from csfd_core.phantom.spine import Spine

_SLAB: Final = 24  # slices painted together
# Contour of the body at a level: half width, front and back edge from the bodies.
_CONTOUR: Final = np.array(
    [
        (-4.0, 78, 112, 92),
        (-1.0, 78, 116, 88),
        (0.5, 74, 116, 76),
        (1.5, 68, 112, 66),
        (2.3, 63, 104, 61),
        (3.0, 60, 88, 58),
        (3.7, 58, 64, 56),
        (4.5, 58, 56, 55),
        (5.5, 60, 55, 57),
        (6.3, 70, 54, 61),
        (7.0, 100, 54, 66),
        (7.6, 150, 58, 70),
        (8.5, 190, 68, 74),
        (10.0, 205, 92, 80),
        (13.0, 205, 118, 86),
    ]
)


@dataclass(frozen=True, slots=True)
class Tube:
    """A tube: way-points (level, x, y, half width, half depth)."""

    name: str
    points: tuple[tuple[float, float, float, float, float], ...]
    paired: bool = True


MUSCLES: Final = (
    Tube("longus", ((0.5, 5.5, -11, 5, 3.5), (5, 7, -12, 7, 4), (10, 8, -13, 6, 4))),
    Tube(
        "sternomastoid",
        ((0.5, 52, 8, 6, 15), (4, 45, -16, 14, 10), (8.5, 22, -43, 12, 7)),
    ),
    Tube("scalene", ((3, 28, -1, 7, 9), (6, 33, -5, 11, 11), (8.5, 42, -6, 13, 12))),
    Tube("posterior scalene", ((3, 33, 9, 7, 8), (8.5, 50, 10, 11, 12))),
    Tube("levator", ((1, 38, 14, 8, 10), (4, 42, 16, 9, 13), (8, 58, 30, 13, 12))),
    Tube("deep", ((2, 10, 30, 10, 8), (5, 13, 29, 12, 11), (10, 15, 34, 15, 12))),
    Tube("rectus", ((0.3, 16, 34, 14, 11), (1.6, 18, 28, 15, 10), (2.4, 19, 24, 9, 6))),
    Tube("obliquus", ((0.6, 28, 16, 9, 8), (2.2, 20, 20, 9, 7))),
    Tube("semispinalis", ((0, 16, 47, 15, 9), (4, 14, 42, 14, 8), (9, 15, 46, 14, 8))),
    Tube("splenius", ((0, 42, 34, 13, 13), (4, 30, 34, 12, 14), (9, 32, 46, 18, 7))),
    Tube("trapezius", ((0, 12, 60, 12, 3.5), (5, 26, 49, 25, 4.5), (9, 60, 55, 58, 8))),
    Tube("pterygoid", ((-1.5, 36, -42, 10, 16), (1.8, 42, -40, 9, 14))),
    Tube("masseter", ((-1.0, 58, -52, 8, 18), (2.5, 52, -58, 7, 15))),
    Tube("tongue", ((1.1, 0, -60, 24, 26), (3.2, 0, -60, 21, 22)), paired=False),
    Tube("floor", ((2.4, 12, -62, 11, 24), (3.8, 10, -50, 9, 12))),
    Tube("strap", ((4, 9, -50, 8, 3.5), (9, 11, -46, 12, 4.5))),
    Tube("prevertebral", ((0.5, 0, -14, 13, 3), (9, 0, -15, 13, 3.5)), paired=False),
    Tube("pharynx", ((0.5, 0, -21, 19, 11), (5.5, 0, -25, 17, 13)), paired=False),
    Tube("shoulder", ((7.5, 105, 30, 42, 32), (10, 110, 25, 52, 48))),
)
GLANDS: Final = (
    Tube("parotid", ((0.3, 53, -18, 9, 15), (2.6, 48, -24, 8, 10))),
    Tube("submandibular", ((2.6, 32, -46, 9, 13), (3.8, 28, -44, 9, 10))),
)
VESSELS: Final = (
    Tube(
        "carotid", ((0, 23, -9, 2.6, 2.6), (4, 25, -20, 3.4, 3.4), (8, 21, -27, 4, 4))
    ),
    Tube("jugular", ((0, 28, -2, 4, 4), (4, 31, -18, 5.5, 4.5), (8, 29, -28, 7, 5.5))),
    Tube("vertebral", ((0.8, 27, 1, 2, 2), (2, 17, 2, 2, 2), (6.4, 15, 1.5, 2, 2))),
)
THYROID: Final = Tube(
    "thyroid", ((5.8, 14, -31, 5, 8), (7, 16, -31, 8, 10), (8, 13, -31, 5, 6))
)
AIRWAY: Final = Tube(
    "airway",
    (
        (-1.2, 0, -38, 12, 8),
        (0.6, 0, -25, 13, 7),
        (1.4, 0, -24, 11, 6),
        (2.6, 0, -25, 11, 7),
        (4.0, 0, -26, 12, 6),
        (4.9, 0, -31, 4.5, 8),
        (5.5, 0, -32, 5, 9),
        (6.2, 0, -32, 8, 8.5),
        (8, 0, -32, 8.5, 8.5),
        (10, 0, -34, 9, 9),
    ),
    paired=False,
)
OESOPHAGUS: Final = Tube(
    "oesophagus", ((5.7, 1, -17, 8, 4), (10, 4, -18, 8, 5)), paired=False
)


@dataclass(frozen=True, slots=True)
class SoftTissue:
    """Densities and build of one patient."""

    skin_hu: float
    fat_hu: float
    muscle_hu: float
    gland_hu: float
    vessel_hu: float
    vein_hu: float
    thyroid_hu: float
    disc_hu: float
    cord_hu: float
    csf_hu: float
    girth: float  # of the neck, 1 = average
    fat_mm: float  # below the skin
    bulk: float  # of the muscles
    airway: float  # its width; 0.35 where a tube or swelling narrows it
    swelling_mm: float  # in front of the spine
    collar_mm: float  # from the skin to a stiff collar; 0 if none is worn
    collar_hu: float
    sheath: float  # thickness of the fat around muscles, share of their width
    marbling_hu: float  # standard deviation within soft tissue


def draw_soft_tissue(rng: np.random.Generator, ranges: Ranges) -> SoftTissue:
    """Draw one patient; about a third have contrast medium in their vessels."""
    contrast = rng.random() < 0.35
    vessel = rng.uniform(150, 420) if contrast else rng.uniform(30, 55)
    vein = vessel * rng.uniform(0.4, 1.0) if contrast else vessel
    muscle = rng.uniform(40, 75)
    return SoftTissue(
        skin_hu=float(rng.uniform(0, 60)),
        fat_hu=float(rng.uniform(-120, -75)),
        muscle_hu=float(muscle),
        gland_hu=float(rng.uniform(-15, 45)),
        vessel_hu=float(vessel),
        vein_hu=float(vein),
        thyroid_hu=float(rng.uniform(75, 130) + 60 * contrast),
        disc_hu=float(rng.uniform(55, 115)),
        cord_hu=float(rng.uniform(30, 50)),
        csf_hu=float(rng.uniform(2, 22)),
        girth=float(np.clip(rng.normal(1.06, 0.12), 0.8, 1.45)),
        fat_mm=float(np.clip(rng.gamma(3.0, 2.2), 2, 18)),
        bulk=float(rng.uniform(0.85, 1.2)),
        airway=float(
            rng.uniform(0.35, 0.7) if rng.random() < 0.2 else rng.uniform(0.75, 1.3)
        ),
        swelling_mm=float(rng.gamma(1.2, 1.2)),
        collar_mm=float(rng.uniform(4, 12) if rng.random() < 0.25 else 0.0),
        collar_hu=float(rng.uniform(-500, 20)),
        sheath=ranges.sheath.draw(rng),
        marbling_hu=ranges.marbling_hu.draw(rng),
    )


@dataclass(frozen=True, slots=True)
class Contour:
    """Outline of the body at every slice: centre and half axes in mm, shape (Z,)."""

    x: Float
    y: Float
    wide: Float
    deep: Float
    head: Float  # 1 in the head, 0 below the jaw

    def inward(self, scene: Scene, rows: slice) -> Float:
        """Return the distance from the skin, negative inside, in some slices."""
        qx = (scene.grid.x_mm - self.x[rows, None]) / self.wide[rows, None]
        qy = (scene.grid.y_mm - self.y[rows, None]) / self.deep[rows, None]
        norm = np.sqrt(np.square(qx)[:, None, :] + np.square(qy)[:, :, None])
        norm -= 1
        norm *= np.minimum(self.wide, self.deep)[rows, None, None]
        return np.asarray(norm, dtype=np.float32)


def trace_contour(scene: Scene, spine: Spine, tissue: SoftTissue) -> Contour:
    """Return the outline of the body on the grid of the scene."""
    level = spine.level_z(scene.grid)
    wide, front, back = (
        np.interp(level, _CONTOUR[:, 0], _CONTOUR[:, k]) * spine.scale * tissue.girth
        for k in (1, 2, 3)
    )
    centre = spine.along(scene.grid, (0.0, 0.0, 0.0))
    head = np.interp(level, [0.0, 1.5], [0.9, 0.0])
    deep = (back + front) / 2
    arrays = (centre[0], centre[1] + (back - front) / 2, wide, deep, head)
    return Contour(*(np.asarray(a, dtype=np.float32) for a in arrays))


def paint_body(scene: Scene, contour: Contour, tissue: SoftTissue) -> None:
    """Paint skin, fat, the loose tissue between the muscles, and a collar if worn."""
    _, rows, columns = scene.grid.shape
    mixed = 0.45 * tissue.muscle_hu + 0.55 * tissue.fat_hu
    for start in range(0, scene.grid.shape[0], _SLAB):
        part = slice(start, start + _SLAB)
        box = (part, slice(0, rows), slice(0, columns))
        distance = contour.inward(scene, part)
        body = scene.coverage(distance)
        scene.hounsfield[box] += body * np.float32(tissue.skin_hu + 1000.0)
        scene.blend(box, scene.coverage(distance + np.float32(1.8)), tissue.fat_hu)
        distance += np.float32(1.8 + tissue.fat_mm)
        distance *= np.float32(0.5)  # a soft border
        inner = scene.coverage(distance)
        scene.blend(box, inner, mixed)
        head = contour.head[part]
        if head.any():
            scene.blend(box, inner * head[:, None, None], 0.9 * tissue.muscle_hu)


def paint_fat_layer(scene: Scene, contour: Contour, tissue: SoftTissue) -> None:
    """Paint fat below the skin, over muscles that reach it, and what is outside."""
    count, rows, columns = scene.grid.shape
    for start in range(0, scene.grid.shape[0], _SLAB):
        part = slice(start, start + _SLAB)
        box = (
            slice(start, min(start + _SLAB, count)),
            slice(0, rows),
            slice(0, columns),
        )
        distance = contour.inward(scene, part)
        layer = scene.coverage(distance + np.float32(1.8))
        layer -= scene.coverage(distance + np.float32(1.8 + 0.75 * tissue.fat_mm))
        scene.blend(box, layer, tissue.fat_hu)
        skin = scene.coverage(distance)
        skin -= scene.coverage(distance + np.float32(1.8))
        scene.blend(box, skin, tissue.skin_hu)
        inside = scene.coverage(distance + np.float32(2.0))
        inside *= np.float32(tissue.marbling_hu)
        scene.hounsfield[box] += inside * scene.texture(box, coarse=True)
        outside = scene.coverage(np.float32(scene.grid.voxel_mm / 2) - distance)
        scene.blend(box, outside, -1000.0)
        if tissue.collar_mm:
            worn = (contour.head[part] < 0.8).astype(np.float32)
            wall = np.abs(distance - np.float32(tissue.collar_mm)) - np.float32(1.3)
            shell = scene.coverage(wall) * worn[:, None, None]
            scene.blend(box, shell, tissue.collar_hu)


def paint_tube(
    scene: Scene, spine: Spine, tube: Tube, value: float, swell: float = 1.0
) -> None:
    """Paint a tube, on both sides if it is paired; ``swell`` widens it."""
    points = np.array(tube.points)
    level = spine.level_z(scene.grid)
    inside = np.flatnonzero((level >= points[0, 0]) & (level <= points[-1, 0]))
    if inside.size == 0:
        return
    x, y, rx, ry = (np.interp(level, points[:, 0], points[:, k]) for k in range(1, 5))
    end = np.minimum(level - points[0, 0], points[-1, 0] - level)
    taper = np.sqrt(np.clip(end / 0.35, 0.02, 1)) * swell * spine.scale
    centre = spine.along(scene.grid, (0.0, 0.0, 0.0))
    left = spine.along(scene.grid, (1.0, 0.0, 0.0)) - centre
    back = spine.along(scene.grid, (0.0, 1.0, 0.0)) - centre
    radii = np.stack([rx * taper, ry * taper])
    for side in (-1.0, 1.0) if tube.paired else (1.0,):
        way = centre + left * (side * x) + back * y
        for start in range(inside[0], inside[-1] + 1, _SLAB):
            rows = slice(start, min(start + _SLAB, inside[-1] + 1))
            _paint_slab(scene, rows, way[:, rows], radii[:, rows], value)


def _paint_slab(
    scene: Scene, rows: slice, way: Vector, radii: Vector, value: float
) -> None:
    """Paint one oval per slice; ``way`` and ``radii`` (x, y) have shape (2, slices)."""
    grid = scene.grid
    margin = radii + grid.voxel_mm
    lower, upper = (way - margin).min(axis=1), (way + margin).max(axis=1)
    columns = slice(*np.searchsorted(grid.x_mm, (lower[0], upper[0])).tolist())
    lines = slice(*np.searchsorted(grid.y_mm, (lower[1], upper[1])).tolist())
    if columns.stop <= columns.start or lines.stop <= lines.start:
        return
    w, r = way.astype(np.float32)[:, :, None], radii.astype(np.float32)[:, :, None]
    qx = np.square((grid.x_mm[columns] - w[0]) / r[0])
    qy = np.square((grid.y_mm[lines] - w[1]) / r[1])
    norm = np.sqrt(qx[:, None, :] + qy[:, :, None])
    norm -= 1
    norm *= r.min(axis=0)[:, :, None]
    scene.blend((rows, lines, columns), scene.coverage(norm), value)


def paint_neck(scene: Scene, spine: Spine, tissue: SoftTissue) -> None:
    """Paint all tubes from the outside to the inside."""
    for tube in GLANDS:
        paint_tube(scene, spine, tube, tissue.gland_hu)
    for tube in MUSCLES:
        swell = tissue.bulk
        if tube.name == "prevertebral":
            swell = 1 + tissue.swelling_mm / 6
        # A sheath of fat keeps neighbours apart.
        sheath = 0.6 * tissue.fat_hu + 0.4 * tissue.muscle_hu
        paint_tube(scene, spine, tube, sheath, swell * (1 + tissue.sheath))
        paint_tube(scene, spine, tube, tissue.muscle_hu, swell)
    paint_tube(scene, spine, THYROID, tissue.thyroid_hu, tissue.bulk)
    for tube in VESSELS:
        value = tissue.vein_hu if tube.name == "jugular" else tissue.vessel_hu
        paint_tube(scene, spine, tube, value)
    paint_tube(scene, spine, OESOPHAGUS, tissue.muscle_hu * 0.8)


def paint_canal(scene: Scene, spine: Spine, tissue: SoftTissue) -> None:
    """Paint fat, fluid and cord within the spinal canal."""
    y = 15.0
    canal = (
        (-1.0, 0, y, 12, 8),
        (2, 0, y, 11, 8),
        (4, 0, y, 11.5, 7),
        (11, 0, y, 9.5, 7),
    )
    paint_tube(scene, spine, Tube("fat", canal, paired=False), tissue.fat_hu * 0.6)
    sac = ((-1.5, 0, y, 12, 8), (2, 0, y, 10, 7.2), (11, 0, y, 8.4, 6.2))
    paint_tube(scene, spine, Tube("sac", sac, paired=False), tissue.csf_hu)
    cord = ((-1.5, 0, y, 6, 5), (5.5, 0, y, 6.6, 3.9), (11, 0, y, 4.8, 3.7))
    paint_tube(scene, spine, Tube("cord", cord, paired=False), tissue.cord_hu)


def paint_airway(scene: Scene, spine: Spine, tissue: SoftTissue) -> None:
    """Paint the air of pharynx, larynx and windpipe with its wall."""
    paint_tube(scene, spine, AIRWAY, tissue.muscle_hu, tissue.airway * 1.25)
    paint_tube(scene, spine, AIRWAY, -1000.0, tissue.airway)


def smooth_shade(scene: Scene, rng: np.random.Generator, size_hu: float) -> Float:
    """Return gentle shading over the plane (beam hardening), shape (H, W)."""
    grid = scene.grid
    shade = np.zeros(grid.shape[1:], dtype=np.float32)
    for _ in range(3):
        kx, ky = rng.normal(0, 2 * np.pi / 110, 2)
        px, py = rng.uniform(0, 6.3, 2)
        wave = np.sin(kx * grid.x_mm + px) * np.sin(ky * grid.y_mm[:, None] + py)
        shade += np.float32(size_hu) * wave.astype(np.float32)
    return shade
