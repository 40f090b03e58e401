"""The other bones: skull base, jaws and teeth, hyoid, larynx, ribs, clavicles; lungs.

The skull's frame lies in the middle of the dens, as that of C1.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from csfd_core.phantom.bones import Painted
from csfd_core.phantom.grid import Bounds, Float, Frame, local_grid
from csfd_core.phantom.scene import BoneTissue, Scene
from csfd_core.phantom.shapes import (
    Capsule,
    Carver,
    Column,
    Ellipsoid,
    Plate,
    Slab,
    Solid,
)
from csfd_core.phantom.spine import C7, Spine

_TEETH: Final = 8  # on each side of a jaw


@dataclass(frozen=True, slots=True)
class Head:
    """What differs between the heads of two patients."""

    jaw_drop: float  # mm; an open mouth
    face: float  # depth of the face, 1 = average
    upper_teeth: tuple[bool, ...]
    lower_teeth: tuple[bool, ...]
    metal: tuple[int, ...]  # crowns: upper 0..15, lower 16..31; right side is odd
    cells: float  # air in the mastoids, 0..1
    calcified: float  # cartilage of the larynx, 0..1
    brain_hu: float


def draw_head(rng: np.random.Generator, age: float, metal_share: float) -> Head:
    """Draw one head; older ones have fewer teeth and more metal."""
    tooth_share = 0.97 - 0.45 * age**2
    metal = rng.random() < metal_share
    count = int(rng.integers(1, 7)) if metal else 0
    return Head(
        jaw_drop=float(rng.uniform(0, 10)),
        face=float(rng.normal(1.0, 0.05)),
        upper_teeth=tuple(bool(t) for t in rng.random(2 * _TEETH) < tooth_share),
        lower_teeth=tuple(bool(t) for t in rng.random(2 * _TEETH) < tooth_share),
        metal=tuple(int(t) for t in rng.choice(4 * _TEETH, count, replace=False)),
        cells=float(rng.uniform(0.2, 1.0)),
        calcified=float(np.clip(age + rng.normal(0, 0.25), 0, 1)),
        brain_hu=float(rng.uniform(28, 40)),
    )


@dataclass(frozen=True, slots=True)
class _Shell:
    """The wall of an ellipsoid."""

    inner: Ellipsoid
    half_mm: float

    def bounds(self) -> Bounds:
        """Return the lower and upper corner (x, y, z)."""
        lower, upper = self.inner.bounds()
        return lower - self.half_mm, upper + self.half_mm

    def distance(self, x: Float, y: Float, z: Float) -> Float:
        """Return the signed distance at each position."""
        distance = np.abs(self.inner.distance(x, y, z)) - np.float32(self.half_mm)
        return np.asarray(distance, dtype=np.float32)


_CRANIUM: Final = Ellipsoid((0, 20, 78), (69, 88, 65))


def paint_skull(
    scene: Scene, spine: Spine, head: Head, tissue: BoneTissue
) -> Painted | None:
    """Paint brain and skull base; return the distance of its condyles."""
    frame = spine.skull
    scene.paint_solid(frame, _CRANIUM, head.brain_hu)
    bounds = np.array([-78.0, -45.0, 3.0]), np.array([78.0, 112.0, 75.0])
    local = local_grid(scene.grid, frame, bounds)
    if local is None:
        return None
    carver = Carver(local)
    carver.add(_Shell(_CRANIUM, 3.0))
    carver.add(Capsule((0, -3, 18), (0, -24, 44), 6.5, 8, (1.9, 1, 1)), 3.0)
    carver.add_pair(Capsule((52, 4, 30), (17, -14, 34), 9, 6), 4.0)
    carver.add_pair(Ellipsoid((53, 9, 17), (9, 13, 18)), 4.0)
    carver.cut(Column((0, 14), (14.5, 16.5), (4, 26)), 2.0)
    carver.add_pair(Ellipsoid((17.5, 2, 12.5), (6.5, 10.5, 6.5)), 3.0)
    distance = carver.distance * np.float32(frame.scale)
    scene.paint_bone(local.box, distance, tissue)
    _paint_cells(scene, frame, head)
    return Painted(local.box, distance)


def _paint_cells(scene: Scene, frame: Frame, head: Head) -> None:
    """Air cells of the mastoids, the ear canals and the air of nose and sinuses."""
    for side in (-1, 1):
        cells = Ellipsoid((side * 53, 9, 19), (6.5, 10, 14))
        lower, upper = cells.bounds()
        local = local_grid(scene.grid, frame, (lower, upper))
        if local is None:
            continue
        inside = scene.coverage(cells.distance(local.x, local.y, local.z))
        air = (scene.texture(local.box) > 1.2 - 1.6 * head.cells).astype(np.float32)
        scene.blend(local.box, inside * air * np.float32(0.85), -700.0)
        ear = Capsule((side * 40, -6, 28), (side * 75, -8, 27), 3.5)
        scene.paint_solid(frame, ear, -1000.0)


def paint_face(scene: Scene, spine: Spine, head: Head, tissue: BoneTissue) -> None:
    """Paint upper jaw, nose, sinuses and lower jaw, without the teeth."""
    frame, f = spine.skull, head.face
    palate: list[Solid] = [Slab((0, -70 * f, 9), (21, 24, 2.2))]
    for side in (-1, 1):
        palate.append(Capsule((side * 14, -42, 6), (side * 15, -42, 30), 2.4))
        sinus = Ellipsoid((side * 27, -62 * f, 29), (14, 18, 16))
        scene.paint_bones(frame, [sinus], BoneTissue(700, -1000, 1.3))
        palate.append(Capsule((side * 20, -55 * f, 5), (side * 12, -92 * f, 5), 4.5))
    scene.paint_bones(frame, palate, tissue)
    nose = Ellipsoid((0, -62 * f, 24), (11, 26, 13))
    scene.paint_solid(frame, nose, -950.0)
    septum: list[Solid] = [Slab((0, -66 * f, 24), (0.8, 22, 12))]
    scene.paint_bones(frame, septum, BoneTissue(300, 250, 0.6))
    drop = head.jaw_drop
    for side in (-1, 1):
        chin = (0.0, -98 * f, -32 - drop)
        bend = (side * 13, -95 * f, -31 - drop)
        bow = (side * 26, -80 * f, -28 - drop)
        angle = (side * 43, -44 * f, -22 - 0.5 * drop)
        neck = (side * 47, -26, 14.0)
        jaw: list[Solid] = [
            Capsule(chin, bend, 5.0, 5.0, (1, 1, 2.6)),
            Capsule(bend, bow, 5.2, 5.2, (1, 1, 2.4)),
            Capsule(bow, angle, 5.2, 4.6, (1, 1, 2.2)),
            Capsule(angle, neck, 3.6, 3.0, (1, 2.4, 1)),
            Capsule(neck, (side * 48, -22, 26.0), 4.5, 5.5, (1.5, 1, 1)),
        ]
        scene.paint_bones(frame, jaw, tissue, 3.0)
        styloid: list[Solid] = [
            Capsule((side * 38, -8, 14), (side * 33, -18, -14), 2.2, 1)
        ]
        scene.paint_bones(frame, styloid, tissue)


def paint_teeth(
    scene: Scene, spine: Spine, head: Head
) -> list[tuple[float, float, float]]:
    """Paint the teeth; return the world positions of crowns of metal."""
    crowns: list[tuple[float, float, float]] = []
    for jaw, is_present in enumerate((head.upper_teeth, head.lower_teeth)):
        drop = -jaw * head.jaw_drop
        root, tip = (5.0, -6.0) if jaw == 0 else (-24.0 + drop, -9.0 + drop)
        for tooth in range(2 * _TEETH):
            if not is_present[tooth]:
                continue
            side = 1 if tooth % 2 == 0 else -1
            step = (tooth // 2 + 0.4) / _TEETH
            x = side * 24 * np.sin(step * 1.45)
            y = (-97 + 44 * step**1.7) * head.face
            wide = 3.0 + 1.6 * step
            solid = Capsule((x, y, root), (x, y, tip), 2.4, wide)
            scene.paint_bones(spine.skull, [solid], BoneTissue(2300, 1500, 1.2))
            if jaw * 2 * _TEETH + tooth in head.metal:
                crown = Ellipsoid((x, y, tip), (wide, wide, 4.0))
                scene.paint_solid(spine.skull, crown, 5000.0)
                at = spine.skull.to_world((x, y, tip))
                crowns.append((float(at[0]), float(at[1]), float(at[2])))
    return crowns


def paint_larynx(scene: Scene, spine: Spine, head: Head) -> None:
    """Paint hyoid, thyroid cartilage and cricoid."""
    high, low = spine.frames[3], spine.frames[5]
    arc = [(0, -50, -6), (13, -45, -6), (19, -27, -4)]
    ring = [(0, -45, -14), (9, -40, -14), (11, -32, -14), (8, -24, -14), (0, -22, -13)]
    wing = 130 + 500 * head.calcified
    for side in (-1, 1):
        hyoid = [(side * x, y, z) for x, y, z in arc]
        bones: list[Solid] = [
            Capsule(a, b, 2.4, 2.0, (1, 1, 1.4))
            for a, b in zip(hyoid[:-1], hyoid[1:], strict=True)
        ]
        scene.paint_bones(high, bones, BoneTissue(900, 250, 1.0))
        plate: list[Solid] = [
            Plate((side * 1.0, -49.0), (side * 18.0, -24.0), 1.5, 3.0, 11.0)
        ]
        scene.paint_bones(low, plate, BoneTissue(wing, 110, 0.7))
        cricoid: list[Solid] = [
            Capsule(
                (side * a[0], a[1], a[2]),
                (side * b[0], b[1], b[2]),
                1.6,
                1.6,
                (1, 1, 2.4),
            )
            for a, b in zip(ring[:-1], ring[1:], strict=True)
        ]
        scene.paint_bones(low, cricoid, BoneTissue(wing * 0.9, 130, 0.7))


# A rib in the frame of its thoracic vertebra, left side.
_RIB: Final = (
    (13, 8, 5),
    (27, 17, 1),
    (46, 13, -7),
    (58, -6, -18),
    (54, -34, -30),
    (34, -58, -42),
)


def paint_chest(scene: Scene, spine: Spine, tissue: BoneTissue) -> None:
    """Paint lungs, ribs, collar bones and the handle of the breastbone."""
    for side in (-1, 1):
        lung = Ellipsoid((side * 36, -8, -62), (27, 36, 60))
        scene.paint_solid(spine.frames[8], lung, -860.0)
    for label in (8, 9, 10, 11):
        grown = 1 + 0.16 * (label - 8)
        scales = (grown, 1 + 0.2 * (label - 8), grown)
        for side in (-1, 1):
            points = [
                (side * (x if i < 2 else x * scales[0]), y * scales[1], z * scales[2])
                for i, (x, y, z) in enumerate(_RIB)
            ]
            rib: list[Solid] = [
                Capsule(a, b, 3.0, 3.2, (1.2, 1.2, 1.5))
                for a, b in zip(points[:-1], points[1:], strict=True)
            ]
            scene.paint_bones(spine.frames[label], rib, tissue)
    low = spine.frames[C7]
    for side in (-1, 1):
        inner, middle = (side * 14.0, -62.0, -52.0), (side * 55.0, -58.0, -38.0)
        collar: list[Solid] = [
            Capsule(inner, middle, 8.5, 5.5),
            Capsule(middle, (side * 105.0, -25.0, -22.0), 5.5, 6.0),
            Capsule(
                (side * 105.0, -25.0, -22.0), (side * 150.0, -2.0, -14.0), 6.0, 7.0
            ),
        ]
        scene.paint_bones(low, collar, tissue)
        blade: list[Solid] = [
            Capsule((side * 78, 62, -30), (side * 135, 40, -8), 4.0, 6.0, (1, 1, 1.5))
        ]
        scene.paint_bones(low, blade, tissue)
    handle: list[Solid] = [Slab((0, -68, -72), (24, 6, 20))]
    scene.paint_bones(low, handle, tissue)
