"""What resembles a fracture and is none: vessels, wear, and variants.

Drawn for every study, fractured or not, so that they tell nothing about the labels.
"""

from dataclasses import dataclass

import numpy as np

from csfd_core.phantom.ranges import Ranges
from csfd_core.phantom.shapes import Capsule, Column, Ellipsoid
from csfd_core.phantom.spine import C1, C2, Spine, VertebraSize


@dataclass(frozen=True, slots=True)
class Variants:
    """Additions to one vertebra and removals from it, in its own frame."""

    spurs: tuple[Ellipsoid, ...] = ()  # osteophytes, joined to the bone
    pits: tuple[Ellipsoid, ...] = ()  # Schmorl nodes, with a dense rim
    canals: tuple[Capsule, ...] = ()  # nutrient and basivertebral canals
    clefts: tuple[Column, ...] = ()  # smooth gaps of an arch that never closed
    ossicles: tuple[Ellipsoid, ...] = ()  # corticated bone beside the vertebra


def draw_variants(
    rng: np.random.Generator, level: int, spine: Spine, ranges: Ranges
) -> Variants:
    """Draw the look-alikes of one vertebra; older necks have more of them."""
    if level == C1:
        x = float(rng.normal(0, 0.8))
        cleft = Column((x, 27.0), (float(rng.uniform(0.7, 2.0)), 7.0), (-8, 8))
        return Variants(clefts=(cleft,) if rng.random() < 0.06 else ())
    size = spine.sizes[level]
    return Variants(
        spurs=_draw_spurs(rng, size, spine.age, level, ranges),
        pits=_draw_pits(rng, size, spine.age, level),
        canals=_draw_canals(rng, size, level),
        ossicles=_draw_ossicles(rng, size, spine.age, level),
    )


def _draw_spurs(
    rng: np.random.Generator,
    size: VertebraSize,
    age: float,
    level: int,
    ranges: Ranges,
) -> tuple[Ellipsoid, ...]:
    likely = age**1.5 * (0.75 if 4 <= level <= 7 else 0.3)
    spurs = []
    for end in (-1, 1):
        if level == C2 and end == 1:
            continue
        for _ in range(int(rng.binomial(4, likely))):
            angle = rng.uniform(-np.pi, np.pi)
            x = float(size.half_width * np.sin(angle))
            y = float(-size.half_depth * np.cos(angle))
            z = end * (size.height / 2 - 0.3)
            big = ranges.spur_mm.draw(rng)
            flat = float(rng.uniform(0.9, 1.7))
            spurs.append(Ellipsoid((x * 1.03, y * 1.05, z), (big * 1.4, big, flat)))
    return tuple(spurs)


def _draw_pits(
    rng: np.random.Generator, size: VertebraSize, age: float, level: int
) -> tuple[Ellipsoid, ...]:
    pits = []
    for end in (-1, 1):
        if rng.random() < 0.07 + 0.08 * age and not (level == C2 and end == 1):
            x = float(rng.normal(0, 0.3 * size.half_width))
            y = float(rng.normal(0, 0.3 * size.half_depth))
            r = float(rng.uniform(1.6, 3.2))
            pits.append(Ellipsoid((x, y, end * size.height / 2), (r, r, r * 0.9)))
    return tuple(pits)


def _draw_canals(
    rng: np.random.Generator, size: VertebraSize, level: int
) -> tuple[Capsule, ...]:
    canals = []
    z = float(rng.normal(0, 0.8)) - (2.0 if level == C2 else 0.0)
    back = size.half_depth
    if rng.random() < 0.5:
        wide = float(rng.uniform(0.4, 1.0))
        hub = (float(rng.normal(0, 1)), float(back * rng.uniform(-0.1, 0.35)), z)
        canals.append(Capsule((0.0, back, z), hub, wide, wide * 0.8, (1.6, 1, 1)))
        for side in (-1, 1):
            if rng.random() < 0.6:
                far = (side * size.half_width * 0.6, -0.45 * back, z)
                end = (far[0] + float(rng.normal(0, 1)), far[1], far[2])
                canals.append(Capsule(hub, end, wide * 0.7, wide * 0.35))
    for side in (-1, 1):
        if rng.random() < 0.12:
            x, y = side * (size.pillar_x - 3.0), back + 8.0
            start = (x, y, float(rng.uniform(-3, 2)))
            end = (x - side * 4.0, y + 4.0, start[2] + float(rng.uniform(-2, 2)))
            canals.append(Capsule(start, end, 0.55))
    return tuple(canals)


def _draw_ossicles(
    rng: np.random.Generator, size: VertebraSize, age: float, level: int
) -> tuple[Ellipsoid, ...]:
    ossicles = []
    if level > C2 and rng.random() < 0.05 + 0.08 * age:
        # In front of a disc, as after a limbus vertebra.
        y, z = -size.half_depth - 2.2, -size.height / 2 - 1.5
        r = float(rng.uniform(1.2, 2.2))
        ossicles.append(
            Ellipsoid((float(rng.normal(0, 3)), y, z), (r * 1.5, r * 0.8, r))
        )
    if level in (5, 6, 7) and rng.random() < 0.06 + 0.12 * age:
        # In the nuchal ligament, behind a spinous process.
        y = size.half_depth + size.canal_depth + size.spinous_length + 7.5
        r = float(rng.uniform(1.3, 2.5))
        z = -size.spinous_drop - float(rng.uniform(-3, 5))
        ossicles.append(
            Ellipsoid((float(rng.normal(0, 1)), y, z), (r * 0.8, r, r * 2.2))
        )
    return tuple(ossicles)
