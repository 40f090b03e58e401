"""One phantom study as arrays: HU, mask, geometry, labels and fracture boxes.

Needs no files. With a ``GridOverride`` the same neck is sampled on any grid, for
training on endless phantoms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from csfd_core.phantom.bones import Painted, VertebraPlan, paint_vertebra
from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.fractures import Fracture, draw_fracture
from csfd_core.phantom.grid import Float
from csfd_core.phantom.imaging import (
    Scanner,
    add_physics,
    add_streaks,
    add_table,
    draw_scanner,
    to_int16,
)
from csfd_core.phantom.labels import require_labels
from csfd_core.phantom.lookalikes import Variants, draw_variants
from csfd_core.phantom.neck import (
    SoftTissue,
    draw_soft_tissue,
    paint_airway,
    paint_body,
    paint_canal,
    paint_fat_layer,
    paint_neck,
    smooth_shade,
    trace_contour,
)
from csfd_core.phantom.ranges import Normal
from csfd_core.phantom.scene import BoneTissue, Scene
from csfd_core.phantom.shapes import Ellipsoid
from csfd_core.phantom.skeleton import (
    draw_head,
    paint_chest,
    paint_face,
    paint_larynx,
    paint_skull,
    paint_teeth,
)
from csfd_core.phantom.spine import C1, C2, Spine
from csfd_core.phantom.streams import open_stream
from csfd_core.phantom.study import Scan, StudyPlan, plan_study
from csfd_core.vocabulary import LEVEL_NAMES

_LOWEST_DRAWN: Final = 11  # T4
_BOX_MARGIN_MM: Final = 3.5


@dataclass(frozen=True, slots=True)
class FractureBox:
    """The visible fracture of one level on one slice, in pixels."""

    slice_index: int  # from 0
    x: float  # left edge
    y: float  # upper edge
    width: float
    height: float
    level: str


@dataclass(frozen=True, slots=True)
class PhantomVolume:
    """One study, its slices in the order of their instance numbers."""

    plan: StudyPlan
    hounsfield: npt.NDArray[np.int16]  # (Z, H, W)
    mask: npt.NDArray[np.uint8]  # (Z, H, W): 0 none, 1 C1 ... 8 T1, 9 T2 ...
    labels: dict[str, int]
    fractures: dict[str, str]  # site of the fracture of each fractured level
    boxes: tuple[FractureBox, ...]
    spacing_zyx_mm: tuple[float, float, float]
    first_position_mm: tuple[float, float, float]  # LPS of the first voxel
    z_step_mm: float  # from one slice to the next; negative towards the feet
    seen_levels: tuple[str, ...]  # levels of which the mask has at least one voxel

    def position_of(self, slice_index: int) -> tuple[float, float, float]:
        """Return ImagePositionPatient of a slice: x, y, z of its first pixel."""
        x, y, z = self.first_position_mm
        return x, y, z + slice_index * self.z_step_mm


def build_phantom_volume(
    config: PhantomConfig,
    index: int,
    *,
    labels: Mapping[str, int] | None = None,
    grid: GridOverride | None = None,
) -> PhantomVolume:
    """Draw and paint one study.

    Args:
        config: Seed, profile and ranges.
        index: Which study of the seed, from 0.
        labels: Replaces the drawn labels; the neck, its pose and the noise stay.
        grid: Replaces the drawn grid.
    """
    plan = plan_study(config, index, grid)
    if labels is not None:
        plan = replace(plan, labels=require_labels(labels))
    fractures = _draw_fractures(config, plan)
    scene = Scene(plan.scan.grid(), open_stream(plan.seed, index, "texture"))
    painted = _paint(config, plan, scene, fractures)
    hounsfield = to_int16(scene.hounsfield)
    return _pack(plan, scene, hounsfield, fractures, painted)


def lookalikes_of(config: PhantomConfig, index: int) -> dict[str, Variants]:
    """Return what resembles a fracture and is none, by level that has any of it."""
    plan = plan_study(config, index)
    bone = _draw_bone(plan)
    variants = {
        name: _plan_vertebra(plan, level, None, bone).variants
        for level, name in enumerate(LEVEL_NAMES, start=1)
    }
    return {
        name: of_level for name, of_level in variants.items() if of_level != Variants()
    }


def _draw_fractures(config: PhantomConfig, plan: StudyPlan) -> dict[int, Fracture]:
    fractures = {}
    for level, name in enumerate(LEVEL_NAMES, start=1):
        if plan.labels[name]:
            rng = open_stream(plan.seed, plan.index, f"fracture {level}")
            fractures[level] = draw_fracture(
                rng, level, plan.spine.sizes.get(level), config
            )
    return fractures


def _paint(
    config: PhantomConfig, plan: StudyPlan, scene: Scene, fractures: dict[int, Fracture]
) -> dict[int, Painted]:
    """Paint everything in order; return what is known of each vertebra."""
    spine = plan.spine

    def stream(purpose: str) -> np.random.Generator:
        return open_stream(plan.seed, plan.index, purpose)

    soft = draw_soft_tissue(stream("soft tissue"), plan.ranges)
    head = draw_head(stream("head"), spine.age, config.metal_share)
    pixel_mm = plan.scan.spacing_zyx_mm[1]
    scanner = draw_scanner(stream("scanner"), pixel_mm, plan.ranges)
    bone = _draw_bone(plan)
    contour = trace_contour(scene, spine, soft)
    paint_body(scene, contour, soft)
    paint_neck(scene, spine, soft)
    paint_fat_layer(scene, contour, soft)
    paint_chest(scene, spine, bone)
    paint_canal(scene, spine, soft)
    paint_airway(scene, spine, soft)
    skull = paint_skull(scene, spine, head, bone)
    _paint_discs(scene, spine, soft, stream("discs"))
    painted = _paint_vertebrae(scene, plan, fractures, bone, skull)
    paint_face(scene, spine, head, bone)
    paint_larynx(scene, spine, head)
    crowns = paint_teeth(scene, spine, head)
    _add_scanner(scene, plan, scanner, soft, crowns)
    return painted


def _draw_bone(plan: StudyPlan) -> BoneTissue:
    rng = open_stream(plan.seed, plan.index, "bone")
    build = open_stream(plan.seed, plan.index, "bone build")
    ranges, age = plan.ranges, plan.spine.age
    return BoneTissue(
        cortex_hu=ranges.cortex_hu.draw(rng) * (1 - 0.2 * age),
        trabecular_hu=Normal(380 - 190 * age, ranges.trabecular_sd_hu, 110, 520).draw(
            rng
        ),
        cortex_mm=ranges.cortex_mm.draw(rng) * (1 - 0.2 * age),
        texture_hu=float(rng.uniform(15, 55)),
        blotch_hu=ranges.blotch_hu.draw(build),
        uneven=ranges.cortex_uneven.draw(build),
    )


def _paint_vertebrae(
    scene: Scene,
    plan: StudyPlan,
    fractures: dict[int, Fracture],
    bone: BoneTissue,
    skull: Painted | None,
) -> dict[int, Painted]:
    """Paint C1 to T4, each at a joint's distance from the bone above."""
    vertebrae: dict[int, Painted] = {}
    above = skull
    for level in range(C1, _LOWEST_DRAWN + 1):
        vertebra = _plan_vertebra(plan, level, fractures.get(level), bone)
        if plan.spine.fused == level - 1:
            above = None  # one block
        painted = paint_vertebra(scene, plan.spine, vertebra, above)
        if painted is not None:
            vertebrae[level] = painted
        above = painted
    return vertebrae


def _plan_vertebra(
    plan: StudyPlan, level: int, fracture: Fracture | None, bone: BoneTissue
) -> VertebraPlan:
    rng = open_stream(plan.seed, plan.index, f"vertebra {level}")
    core = bone.trabecular_hu * rng.normal(1.15 if level <= C2 else 1.0, 0.05)
    return VertebraPlan(
        level=level,
        tissue=replace(bone, trabecular_hu=float(core)),
        variants=draw_variants(rng, level, plan.spine, plan.ranges),
        fracture=fracture,
        seed=int(rng.integers(2**32)),
    )


def _paint_discs(
    scene: Scene, spine: Spine, soft: SoftTissue, rng: np.random.Generator
) -> None:
    for level in range(C2, _LOWEST_DRAWN):
        size, disc = spine.sizes[level + 1], spine.discs_mm[level]
        z = size.height / 2 + disc / 2
        radii = (size.half_width, size.half_depth * 1.05, disc + 2.0)
        frame = spine.frames[level + 1]
        scene.paint_solid(frame, Ellipsoid((0, -0.3, z), radii), soft.disc_hu)
        gas, x, y = rng.random(), rng.normal(0, 2), rng.normal(0, 2)
        if gas < 0.35 * spine.age**2:
            vacuum = Ellipsoid((x, y, z - 0.4), (4.0, 3.0, 0.9))
            scene.paint_solid(frame, vacuum, -600.0)


def _add_scanner(
    scene: Scene,
    plan: StudyPlan,
    scanner: Scanner,
    soft: SoftTissue,
    crowns: list[tuple[float, float, float]],
) -> None:
    def stream(purpose: str) -> np.random.Generator:
        return open_stream(plan.seed, plan.index, purpose)

    back = 88.0 * plan.spine.scale * soft.girth
    add_table(scene, scanner, back)
    wide = _shoulder_share(plan.spine.level_z(scene.grid))
    add_physics(scene, scanner, wide, stream("noise"))
    if scanner.shading_hu:
        shade = smooth_shade(scene, stream("shading"), scanner.shading_hu)
        scene.hounsfield += shade
    if crowns:
        add_streaks(scene, crowns, scanner, stream("streaks"))


def _shoulder_share(level: Float) -> Float:
    return np.asarray(np.clip((level - 6.0) / 2.0, 0, 1), dtype=np.float32)


def _pack(
    plan: StudyPlan,
    scene: Scene,
    hounsfield: npt.NDArray[np.int16],
    fractures: dict[int, Fracture],
    painted: dict[int, Painted],
) -> PhantomVolume:
    scan, grid = plan.scan, scene.grid
    boxes: list[FractureBox] = []
    for level in fractures:
        if level in painted:
            boxes += _boxes_of(painted[level], LEVEL_NAMES[level - 1], scan)
    counts = np.bincount(scene.mask.ravel(), minlength=9)
    first = np.array([grid.x_mm[0], grid.y_mm[0], grid.z_mm[0]], dtype=np.float64)
    x, y, z = (float(np.round(v, 4)) for v in first + np.array(scan.offset_lps_mm))
    gap = scan.spacing_zyx_mm[0]
    return PhantomVolume(
        plan=plan,
        hounsfield=hounsfield,
        mask=scene.mask,
        labels=dict(plan.labels),
        fractures={LEVEL_NAMES[i - 1]: f.site for i, f in fractures.items()},
        boxes=tuple(sorted(boxes, key=lambda b: (b.slice_index, b.level, b.x))),
        spacing_zyx_mm=scan.spacing_zyx_mm,
        first_position_mm=(x, y, z),
        z_step_mm=-gap if scan.z_falling else gap,
        seen_levels=tuple(n for i, n in enumerate(LEVEL_NAMES, 1) if counts[i]),
    )


def _boxes_of(painted: Painted, name: str, scan: Scan) -> list[FractureBox]:
    """Return one box per cut and slice around the broken bone, with a margin."""
    rows, columns = scan.shape_zyx[1:]
    margin = np.array(_BOX_MARGIN_MM) / np.array(scan.spacing_zyx_mm[1:])
    boxes = []
    for broken in painted.broken:
        for k in np.unique(broken[:, 0]):
            points = broken[broken[:, 0] == k][:, 1:]
            upper = np.maximum(np.floor(points.min(axis=0) - margin), 0)
            lower = np.ceil(points.max(axis=0) + 1 + margin)
            lower = np.minimum(lower, (rows, columns))
            high, wide = (lower - upper).tolist()
            top, left = upper.tolist()
            boxes.append(FractureBox(int(k), left, top, wide, high, name))
    return boxes
