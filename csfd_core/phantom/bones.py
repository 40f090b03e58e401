"""Painting of the vertebrae: shape, fracture, look-alikes, mask and boxes."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.phantom.fractures import Fracture
from csfd_core.phantom.grid import (
    Box,
    Float,
    LocalGrid,
    intersect,
    local_grid,
    relative,
)
from csfd_core.phantom.lookalikes import Variants
from csfd_core.phantom.scene import BoneTissue, Scene
from csfd_core.phantom.shapes import Carver
from csfd_core.phantom.spine import C1, Spine
from csfd_core.phantom.vertebrae import JOINT_GAP, carve_vertebra, vertebra_bounds

BLOOD_HU: Final = 55.0
_SURFACE_MM: Final = 0.2  # unevenness of the surface


@dataclass(slots=True)
class Painted:
    """Distance of a painted bone, for the next one to keep its distance from."""

    box: Box
    distance: Float
    # For each cut of a fracture its voxels (slice, row, column) within bone.
    broken: tuple[npt.NDArray[np.intp], ...] = ()


@dataclass(frozen=True, slots=True)
class VertebraPlan:
    """One vertebra to paint."""

    level: int
    tissue: BoneTissue
    variants: Variants
    fracture: Fracture | None
    seed: int  # of the unevenness of its surface


def paint_vertebra(
    scene: Scene, spine: Spine, plan: VertebraPlan, above: Painted | None
) -> Painted | None:
    """Paint one vertebra and return its distance; None if it is outside the volume."""
    frame = spine.frames[plan.level]
    local = local_grid(scene.grid, frame, vertebra_bounds(plan.level, spine))
    if local is None:
        return None
    offsets = _displace(local, plan, spine)
    carver = carve_vertebra(plan.level, spine, local)
    _add_variants(carver, plan.variants)
    distance = carver.distance
    distance += _unevenness(local, plan.seed)
    distance *= np.float32(frame.scale)
    if above is not None:
        _keep_apart(distance, local.box, above)
    gaps: list[Float] = []
    if plan.fracture is not None:
        gaps = _gap_coverages(scene, offsets, plan.fracture, frame.scale)
    broken = _broken_voxels(gaps, distance, local.box)
    before = scene.hounsfield[local.box].copy() if gaps else None
    scene.paint_bone(local.box, distance, plan.tissue, _cortex(local, plan, spine))
    _paint_variants(scene, carver, plan)
    for ossicle in plan.variants.ossicles:  # no part of the vertebra, nor of its mask
        scene.paint_bones(frame, [ossicle], replace(plan.tissue, cortex_mm=0.8))
    if before is not None:
        filling = np.clip(before, np.float32(20.0), np.float32(BLOOD_HU))
        inside = scene.coverage(distance - np.float32(0.6))
        for gap in gaps:
            scene.blend(local.box, gap * inside, filling)
    scene.mask[local.box][distance < 0] = plan.level
    return Painted(local.box, distance, broken)


def _cortex(local: LocalGrid, plan: VertebraPlan, spine: Spine) -> Float:
    """Return the thickness of the cortex in mm: thin on the body, thick on the arch."""
    thin, thick = 0.65, 1.35
    if plan.level == C1:
        thin, back = 1.0, 6.0
    else:
        back = spine.sizes[plan.level].half_depth
    share = np.clip((local.y - np.float32(back - 2)) / 5, 0, 1)
    share *= np.float32(thick - thin)
    share += np.float32(thin)
    share *= np.float32(plan.tissue.cortex_mm * spine.scale)
    return np.asarray(share, dtype=np.float32)


def _displace(
    local: LocalGrid, plan: VertebraPlan, spine: Spine
) -> list[tuple[Float, Float]]:
    """Move the coordinates of the fragments; return offset and region of each cut."""
    fracture = plan.fracture
    if fracture is None:
        return []
    offsets = [(cut.offset(local), cut.region(local)) for cut in fracture.cuts]
    for cut, (offset, region) in zip(fracture.cuts, offsets, strict=True):
        moved = np.clip(offset * 4 + np.float32(0.5), 0, 1) * region
        for axis, shift in zip((local.x, local.y, local.z), cut.shift, strict=True):
            axis -= np.float32(shift / spine.scale) * moved
    if fracture.height_loss and plan.level != C1:
        size = spine.sizes[plan.level]
        depth = local.y * np.float32(-0.5 / size.half_depth) + np.float32(0.6)
        depth = np.clip(depth, 0, 1) * np.float32(fracture.height_loss)
        depth *= np.clip((np.float32(size.half_depth + 3) - local.y) / 2, 0, 1)
        above = local.z + np.float32(size.height / 2)
        np.maximum(above, 0, out=above)
        depth /= 1 - depth
        stretched = local.z
        stretched += np.where(above < size.height * 1.3, above, 0) * depth
    return offsets


def _add_variants(carver: Carver, variants: Variants) -> None:
    for spur in variants.spurs:
        carver.add(spur, 2.0)
    for pit in variants.pits:
        carver.cut(pit, 0.8)
    for cleft in variants.clefts:
        carver.cut(cleft, 1.0)


def _paint_variants(scene: Scene, carver: Carver, plan: VertebraPlan) -> None:
    local = carver.local
    core = carver.distance < -0.4
    for canal in plan.variants.canals:
        lower, upper = canal.bounds()
        part = local.within((lower - 2.0, upper + 2.0))
        x, y, z = local.x[part], local.y[part], local.z[part]
        if x.size == 0:
            continue
        distance = canal.distance(x, y, z)
        box = _shifted(local.box, part)
        wall = scene.coverage(np.abs(distance - 0.3) - np.float32(0.35)) * core[part]
        scene.blend(box, wall * np.float32(0.5), plan.tissue.cortex_hu * 0.75)
        scene.blend(box, scene.coverage(distance) * core[part], 20.0)


def _shifted(outer: Box, part: Box) -> Box:
    z, y, x = (
        slice(o.start + p.start, o.start + p.stop)
        for o, p in zip(outer, part, strict=True)
    )
    return z, y, x


def _unevenness(local: LocalGrid, seed: int) -> Float:
    rng = np.random.default_rng(seed)
    ripples = np.zeros(local.x.shape, dtype=np.float32)
    for _ in range(2):
        wave = rng.normal(0, 1, 3)
        wave *= 2 * np.pi / rng.uniform(8, 18) / np.linalg.norm(wave)
        w = wave.astype(np.float32)
        phase = w[0] * local.x + w[1] * local.y + w[2] * local.z
        phase += np.float32(rng.uniform(0, 6.3))
        ripples += np.float32(_SURFACE_MM) * np.sin(phase)
    return ripples


def _keep_apart(distance: Float, box: Box, above: Painted) -> None:
    """Take away what comes nearer than a joint's gap to the bone above."""
    common = intersect(box, above.box)
    if common is None:
        return
    mine = distance[relative(common, box)]
    other = above.distance[relative(common, above.box)]
    np.maximum(mine, np.float32(JOINT_GAP) - other, out=mine)


def _gap_coverages(
    scene: Scene, offsets: list[tuple[Float, Float]], fracture: Fracture, scale: float
) -> list[Float]:
    """Return the share of each voxel that is fracture gap, for each cut."""
    coverages = []
    for cut, (offset, region) in zip(fracture.cuts, offsets, strict=True):
        half = np.float32(cut.gap_mm / 2)
        away = offset * np.float32(scale)
        gap = scene.coverage(away - half) - scene.coverage(away + half)
        coverages.append(np.asarray(gap * region, dtype=np.float32))
    return coverages


def _broken_voxels(
    gaps: list[Float], distance: Float, box: Box
) -> tuple[npt.NDArray[np.intp], ...]:
    """Return the voxels of the volume where each cut runs through bone."""
    start = np.array([s.start for s in box])
    voxels = []
    for gap in gaps:
        seen = (gap > 0.3 * max(float(gap.max()), 1e-6)) & (distance < 0.3)
        voxels.append(np.asarray(np.argwhere(seen) + start, dtype=np.intp))
    return tuple(voxels)
