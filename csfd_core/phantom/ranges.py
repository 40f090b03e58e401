"""How necks differ from one another: what is drawn, and within which range.

Version 1 is the first phantom, much alike from neck to neck. Version 2 is drawn after
published anatomy: discs of about a third of a body's height (Gilad and Nissan, Spine
11, 1986), lordosis down to kyphosis (Scheer et al., J Neurosurg Spine 19, 2013), cortex
that is thin and nowhere even (Panjabi et al., Spine 26, 2001), congenital blocks
(Klippel-Feil). Foreign necks lie in some respects outside of what version 2 ever draws;
nothing is trained on them.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

_FOREIGN_SHARE: Final = 0.35  # of the respects in which a foreign neck lies outside
_FOREIGN_ENDS: Final = 0.4  # share of scans that end within its column, at either end


class Range(Protocol):
    """A number that differs from neck to neck."""

    def draw(self, rng: np.random.Generator) -> float:
        """Draw it for one neck."""


@dataclass(frozen=True, slots=True)
class Normal:
    """About ``mean``, cut off at ``low`` and ``high``."""

    mean: float
    sd: float
    low: float = -np.inf
    high: float = np.inf

    def draw(self, rng: np.random.Generator) -> float:
        """Draw it for one neck."""
        return float(np.clip(rng.normal(self.mean, self.sd), self.low, self.high))


@dataclass(frozen=True, slots=True)
class Uniform:
    """Anything from ``low`` to ``high``, all alike."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """Draw it for one neck."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True, slots=True)
class Outside:
    """Below or above what is usual, evenly from either band."""

    below: tuple[float, float]
    above: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> float:
        """Draw it for one neck."""
        low, high = (self.below, self.above)[int(rng.random() < 0.5)]
        return float(rng.uniform(low, high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """What differs from neck to neck.

    Attributes:
        scale: Size of the whole neck, 1 an average one.
        stature: Height of bodies and discs against their width.
        level_height: Height of a single vertebra against that of its neighbours.
        body_depth: Depth of bodies against their width.
        spinous_fall: How steeply spinous processes fall, 1 as published on average.
        disc_mm: Height of a disc before it wears.
        slope_t1_deg: Forward lean of T1.
        lordosis_deg: From C2 to T1; negative is a kyphosis.
        tilt_deg, curve_deg: Of the neck to a side, and its scoliosis.
        head_yaw_deg: Turn of the head.
        facet_tilt: Fall of the articular surfaces towards the back, mm per mm.
        dens_gap_mm, skull_gap_mm: By how much the joints below and above C1 are wider
            than usual.
        fused_share: Share of necks with two vertebrae that are one block.
        cortex_hu, cortex_mm: Density and thickness of the cortex in a young neck.
        cortex_uneven: Standard deviation of that thickness, as a share of it.
        trabecular_sd_hu: Standard deviation of the density of the core at one age.
        blotch_hu: Standard deviation of the core over some millimetres.
        spur_mm: Size of an osteophyte.
        marbling_hu: Standard deviation within soft tissue.
        sheath: Fat around muscles, as a share of their width.
        sharpness: Of the kernel; 0 soft, 1 sharp.
        shoulder: Growth of the noise across the shoulders.
        cut_top, cut_bottom: Shares of scans that end within the column.
        cut_top_mm: How far below the middle of C1 these scans begin.
        cut_bottom_mm: How far below the middle of C7 they end; negative is above it.
    """

    scale: Range
    stature: Range
    level_height: Range
    body_depth: Range
    spinous_fall: Range
    disc_mm: Range
    slope_t1_deg: Range
    lordosis_deg: Range
    tilt_deg: Range
    curve_deg: Range
    head_yaw_deg: Range
    facet_tilt: Range
    dens_gap_mm: Range
    skull_gap_mm: Range
    fused_share: float
    cortex_hu: Range
    cortex_mm: Range
    cortex_uneven: Range
    trabecular_sd_hu: float
    blotch_hu: Range
    spur_mm: Range
    marbling_hu: Range
    sheath: Range
    sharpness: Range
    shoulder: Range
    cut_top: float
    cut_bottom: float
    cut_top_mm: Range
    cut_bottom_mm: Range


_ONE: Final = Normal(1.0, 0.0)
_NOTHING: Final = Normal(0.0, 0.0)

VERSION_1: Final = Ranges(
    scale=Normal(1.0, 0.07, 0.84, 1.17),
    stature=_ONE,
    level_height=_ONE,
    body_depth=_ONE,
    spinous_fall=_ONE,
    disc_mm=Normal(4.4, 0.0),
    slope_t1_deg=Normal(21, 7, 4, 38),
    lordosis_deg=Normal(19, 13, -14, 48),
    tilt_deg=Normal(0, 3.5),
    curve_deg=Normal(0, 4.5),
    head_yaw_deg=Normal(0, 10, -32, 32),
    facet_tilt=Normal(0.95, 0.0),
    dens_gap_mm=_NOTHING,
    skull_gap_mm=_NOTHING,
    fused_share=0.0,
    cortex_hu=Uniform(850, 1400),
    cortex_mm=Uniform(0.8, 1.5),
    cortex_uneven=_NOTHING,
    trabecular_sd_hu=55,
    blotch_hu=_NOTHING,
    spur_mm=Uniform(1.2, 2.8),
    marbling_hu=Uniform(2, 16),
    sheath=Uniform(0.02, 0.14),
    sharpness=Uniform(0, 1),
    shoulder=Uniform(0.2, 1.3),
    cut_top=0.06,
    cut_bottom=0.1,
    cut_top_mm=Uniform(-4, 14),
    cut_bottom_mm=Uniform(-10, 14),
)
VERSION_2: Final = Ranges(
    scale=Normal(1.0, 0.08, 0.82, 1.2),
    stature=Normal(1.04, 0.09, 0.84, 1.24),
    level_height=Normal(1.0, 0.05, 0.85, 1.15),
    body_depth=Normal(1.07, 0.07, 0.9, 1.25),
    spinous_fall=Uniform(0.4, 1.1),
    disc_mm=Uniform(2.4, 4.2),
    slope_t1_deg=Normal(24, 9, 2, 46),
    lordosis_deg=Normal(18, 17, -28, 58),
    tilt_deg=Normal(0, 4.5, -12, 12),
    curve_deg=Normal(0, 6, -16, 16),
    head_yaw_deg=Normal(0, 14, -40, 40),
    facet_tilt=Uniform(0.75, 1.35),
    dens_gap_mm=Normal(0.0, 0.9, -1.5, 2.5),
    skull_gap_mm=Normal(0.0, 1.2, -1.5, 4.0),
    fused_share=0.03,
    cortex_hu=Uniform(700, 1500),
    cortex_mm=Uniform(0.4, 1.4),
    cortex_uneven=Uniform(0.0, 0.35),
    trabecular_sd_hu=80,
    blotch_hu=Uniform(0, 45),
    spur_mm=Uniform(1.2, 4.0),
    marbling_hu=Uniform(2, 28),
    sheath=Uniform(0.02, 0.24),
    sharpness=Uniform(-0.1, 1.2),
    shoulder=Uniform(0.2, 2.0),
    cut_top=0.1,
    cut_bottom=0.15,
    cut_top_mm=Uniform(-4, 14),
    cut_bottom_mm=Uniform(-10, 14),
)
# Where a foreign neck may lie outside; each respect apart.
_FOREIGN: Final[tuple[dict[str, Range], ...]] = (
    {"stature": Outside((0.72, 0.83), (1.25, 1.36))},
    {"scale": Outside((0.72, 0.81), (1.21, 1.3))},
    {"lordosis_deg": Outside((-42, -29), (59, 70))},
    {"head_yaw_deg": Outside((-52, -41), (41, 52))},
    {"cortex_mm": Outside((0.2, 0.38), (1.45, 1.9))},
    {"marbling_hu": Uniform(30, 45), "sheath": Uniform(0.26, 0.4)},
    {"sharpness": Outside((-0.25, -0.12), (1.25, 1.5))},
)


def ranges_of(version: int, *, foreign: bool, rng: np.random.Generator) -> Ranges:
    """Return the ranges that one neck is drawn from.

    Args:
        version: Of the phantom.
        foreign: Whether the neck lies outside of the usual in at least one respect.
        rng: Chooses these respects; unused for others.
    """
    if not foreign:
        return {1: VERSION_1, 2: VERSION_2}[version]
    is_outside = rng.random(len(_FOREIGN)) < _FOREIGN_SHARE
    is_outside[int(rng.integers(len(_FOREIGN)))] = True
    changes: dict[str, Any] = {}
    for outside, respect in zip(is_outside, _FOREIGN, strict=True):
        changes |= respect if outside else {}
    changes |= {"cut_top": _FOREIGN_ENDS, "cut_top_mm": Uniform(14, 45)}
    changes |= {"cut_bottom": _FOREIGN_ENDS, "cut_bottom_mm": Uniform(-45, -10)}
    return replace(VERSION_2, **changes)
