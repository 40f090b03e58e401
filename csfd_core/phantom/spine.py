"""Sizes and positions of the vertebrae C1..T4 of one neck.

Sizes follow Panjabi et al., "Cervical human vertebrae" (Spine 16, 1991) and "Thoracic
human vertebrae" (Spine 16, 1991); curvature follows the usual range of C2-C7 lordosis.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from csfd_core.phantom.grid import Float, Frame, Grid, Vector, rotation_of
from csfd_core.phantom.ranges import Ranges

C1, C2, C7, T1 = 1, 2, 7, 8
LOWEST: Final = 12  # T5, far enough below any field of view
DENS_MIDDLE: Final = 8.4  # mm above the upper end of the C2 body
_AXIAL_SHARE: Final = {1: 1.0, 2: 0.45, 3: 0.33, 4: 0.24, 5: 0.16, 6: 0.1, 7: 0.05}


@dataclass(frozen=True, slots=True)
class VertebraSize:
    """Measures of one vertebra in mm; ``half_`` ones are from the middle outwards."""

    half_width: float
    half_depth: float
    height: float
    half_canal_width: float
    canal_depth: float
    pillar_x: float
    spinous_length: float
    spinous_drop: float
    half_span: float  # to the tip of a transverse process
    uncus: float  # height of the uncinate processes
    foramen: float  # radius of the transverse foramina; 0 where there are none
    pitch: float  # to the vertebra above and below, for the articular pillars
    facet_tilt: float = 0.95  # fall of their ends towards the back, mm per mm


# Width, depth, height, canal width and depth, pillar, spinous length and drop, span,
# uncus, foramen.
_SIZES: Final[dict[int, tuple[float, ...]]] = {
    2: (9.3, 8.0, 19.0, 11.8, 16.5, 20.0, 17.0, 9.0, 26.0, 0.0, 2.8),
    3: (9.4, 7.9, 11.3, 11.6, 14.8, 19.6, 13.0, 11.5, 26.0, 4.0, 2.9),
    4: (9.8, 8.0, 11.3, 12.0, 14.6, 20.0, 13.0, 13.0, 26.5, 4.2, 2.9),
    5: (10.3, 8.2, 11.4, 12.3, 14.8, 20.4, 14.5, 14.2, 27.0, 4.4, 2.9),
    6: (11.0, 8.5, 11.7, 12.6, 15.0, 20.6, 19.0, 16.0, 28.5, 4.2, 2.9),
    7: (12.2, 8.8, 13.2, 12.2, 15.0, 20.4, 29.0, 23.5, 33.0, 3.4, 1.8),
    8: (13.8, 9.0, 15.2, 10.6, 14.8, 18.6, 29.0, 26.0, 37.0, 1.2, 0.0),
    9: (13.4, 9.4, 17.2, 9.6, 14.6, 17.0, 27.0, 27.0, 34.0, 0.0, 0.0),
    10: (13.0, 10.0, 17.8, 9.2, 14.6, 15.8, 26.0, 28.0, 32.0, 0.0, 0.0),
    11: (12.0, 10.0, 18.4, 9.0, 14.6, 15.0, 26.0, 28.0, 31.0, 0.0, 0.0),
    12: (12.2, 10.5, 19.0, 9.0, 14.6, 15.0, 26.0, 28.0, 31.0, 0.0, 0.0),
}
C1_HALF_SPAN: Final = 39.0
_BLOCKS: Final = (2, 2, 5, 3, 6)  # levels that are one with the next, C2 most often
_BLOCK_MM: Final = 0.5  # what is left of the disc within a block


@dataclass(frozen=True, slots=True)
class Spine:
    """Frames and sizes by label (1 = C1 ... 12 = T5), and what all levels share."""

    frames: dict[int, Frame]
    sizes: dict[int, VertebraSize]  # without C1, which is drawn from fixed measures
    discs_mm: dict[int, float]  # height of the disc below a level
    skull: Frame
    scale: float
    age: float  # 0 young .. 1 old: degeneration, density, calcification
    fused: int | None = None  # a level that is one block with the next below

    def along(self, grid: Grid, local: tuple[float, float, float]) -> Vector:
        """Return the world x and y of a local point at every slice, shape (2, Z)."""
        order = sorted(self.frames, reverse=True)
        points = np.array([self.frames[i].to_world(local) for i in order])
        points = points[np.argsort(points[:, 2])]
        z = grid.z_mm
        return np.stack([np.interp(z, points[:, 2], points[:, k]) for k in range(2)])

    def level_z(self, grid: Grid) -> Float:
        """Return the fractional label at every slice, shape (Z,): 1 at C1, 8 at T1.

        Above C1 it falls by one in each 18 mm and below the lowest it rises.
        """
        order = sorted(self.frames)
        heights = np.array([self.frames[i].centre[2] for i in order])
        z = grid.z_mm.astype(np.float64)
        level = np.interp(-z, -heights, order)
        over = np.maximum(z - heights[0], 0) / (18 * self.scale)
        return np.asarray(level - over, dtype=np.float32)


def draw_spine(
    rng: np.random.Generator, build_rng: np.random.Generator, ranges: Ranges
) -> Spine:
    """Draw a neck with its C4 body at the origin.

    Args:
        rng: Sizes, pose and wear.
        build_rng: What only the later versions of the phantom draw.
        ranges: How far necks differ.
    """
    age = float(rng.beta(1.3, 1.3))
    scale = ranges.scale.draw(rng)
    disc_mm = ranges.disc_mm.draw(build_rng)
    sizes = _grown(_draw_sizes(rng, disc_mm), build_rng, ranges)
    discs = {i: float(_draw_disc(rng, i, age, disc_mm)) for i in range(2, LOWEST)}
    fused = None
    if build_rng.random() < ranges.fused_share:
        fused = int(build_rng.choice(_BLOCKS))
        discs[fused] = _BLOCK_MM
    rotations = _draw_rotations(rng, ranges)
    if fused is not None:
        rotations[fused] = rotations[fused + 1]
    dens_gap = ranges.dens_gap_mm.draw(build_rng)
    frames = _stack(rotations, sizes, discs, scale, dens_gap)
    nod = rotation_of(rng.normal(-0.02, 0.07), rng.normal(0, 0.03), 0.0)
    lifted = (0.0, 0.0, ranges.skull_gap_mm.draw(build_rng))
    skull = Frame(frames[C1].to_world(lifted), rotations[C1] @ nod, scale)
    return Spine(frames, sizes, discs, skull, scale, age, fused)


def _draw_disc(
    rng: np.random.Generator, level: int, age: float, disc_mm: float
) -> float:
    usual = disc_mm if level < T1 else disc_mm - 0.2
    worn = age * rng.beta(1.2, 2.5) * (0.9 if 4 <= level <= 7 else 0.5)
    return usual * rng.uniform(0.9, 1.12) * (1 - worn)


def _grown(
    sizes: dict[int, VertebraSize], rng: np.random.Generator, ranges: Ranges
) -> dict[int, VertebraSize]:
    """Return sizes of a neck that is longer or shorter, level by level."""
    stature = ranges.stature.draw(rng)
    tilt = ranges.facet_tilt.draw(rng)
    deeper, fall = ranges.body_depth.draw(rng), ranges.spinous_fall.draw(rng)
    grown = {}
    for level, size in sizes.items():
        longer = stature * ranges.level_height.draw(rng)
        height = size.height * longer
        grown[level] = replace(
            size,
            half_depth=size.half_depth * deeper,
            height=height,
            spinous_drop=size.spinous_drop * fall,
            pitch=size.pitch + (height - size.height) * (level > C2),
            facet_tilt=tilt,
        )
    return grown


def _draw_sizes(rng: np.random.Generator, disc_mm: float) -> dict[int, VertebraSize]:
    """Draw sizes that deviate alike in neighbouring levels."""
    shared = rng.normal(
        1, [0.05, 0.05, 0.05, 0.06, 0.08, 0.03, 0.08, 0.1, 0.04, 0.2, 0.1]
    )
    drawn = {}
    for level, usual in _SIZES.items():
        deviation = rng.normal(1, np.array([1, 1, 1.2, 1, 1, 1, 3, 3, 2, 6, 5]) * 0.018)
        values = np.array(usual) * np.clip(shared * deviation, 0.6, 1.6)
        pitch = values[2] + disc_mm if level > C2 else 17.0
        drawn[level] = VertebraSize(*(float(v) for v in (*values, pitch)))
    return drawn


def _draw_rotations(rng: np.random.Generator, ranges: Ranges) -> dict[int, Vector]:
    """Draw the pose of each level: lordosis, scoliosis, a turned head and a tilt."""
    slope_t1 = np.deg2rad(ranges.slope_t1_deg.draw(rng))
    lordosis = np.deg2rad(ranges.lordosis_deg.draw(rng))
    tilt = np.deg2rad(ranges.tilt_deg.draw(rng))
    curve = np.deg2rad(ranges.curve_deg.draw(rng))
    head_yaw = np.deg2rad(ranges.head_yaw_deg.draw(rng))
    body_yaw = np.deg2rad(rng.normal(0, 3))
    apex = rng.uniform(0.8, 1.3)
    rotations = {}
    for level in range(LOWEST, 0, -1):
        above = np.clip((T1 - level) / 6, 0, 1.05) ** apex
        pitch = slope_t1 - lordosis * above - 0.05 * max(level - T1, 0)
        roll = tilt + curve * np.cos(level / 10 * np.pi)
        yaw = body_yaw + head_yaw * _AXIAL_SHARE.get(level, 0.0)
        jitter = np.deg2rad(rng.normal(0, 1.2, 3))
        if level == C1:  # nods on its own
            jitter[0] += rng.normal(-0.05, 0.12)
        rotations[level] = rotation_of(
            float(pitch + jitter[0]), float(roll + jitter[1]), float(yaw + jitter[2])
        )
    return rotations


def _stack(
    rotations: dict[int, Vector],
    sizes: dict[int, VertebraSize],
    discs: dict[int, float],
    scale: float,
    dens_gap_mm: float,
) -> dict[int, Frame]:
    """Pile the bodies up from the lowest, then move C4 to the origin."""
    up = {i: r[:, 2] for i, r in rotations.items()}
    centres = {LOWEST: np.zeros(3)}
    for level in range(LOWEST - 1, 1, -1):
        below = level + 1
        step = up[below] * sizes[below].height / 2 + up[level] * sizes[level].height / 2
        between = (up[below] + up[level]) / 2 * discs[level]
        centres[level] = centres[below] + scale * (step + between)
    reach = sizes[C2].height / 2 + DENS_MIDDLE + dens_gap_mm
    dens = rotations[C2] @ np.array([0.0, -0.4, reach])
    centres[C1] = centres[C2] + scale * dens
    origin = centres[4]
    return {i: Frame(c - origin, rotations[i], scale) for i, c in centres.items()}
