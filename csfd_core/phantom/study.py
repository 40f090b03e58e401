"""The plan of one study: who is scanned and how. Nothing is painted here."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Final

import numpy as np

from csfd_core.phantom.config import GridOverride, PhantomConfig
from csfd_core.phantom.grid import Grid, Vector
from csfd_core.phantom.labels import draw_labels
from csfd_core.phantom.ranges import Ranges, ranges_of
from csfd_core.phantom.spine import C1, C7, Spine, draw_spine
from csfd_core.phantom.streams import open_stream

# Quantiles of the slices per study of the real data set.
_SLICE_QUANTILES: Final = (
    (0.0, 0.25, 0.5, 0.75, 0.95, 1.0),
    (69, 257, 314, 429, 626, 1082),
)
_THICKNESS_MM: Final = (
    (0.625, 0.516),
    (1.0, 0.306),
    (0.5, 0.07),
    (0.75, 0.05),
    (0.8, 0.04),
    (0.488, 0.018),
)
# mm of scan above C1 and below C7 in the masked studies of the real data set.
_SHARES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_ABOVE: Final = (4, 10, 23, 33, 48, 80, 95)
_BELOW: Final = (4, 10, 23, 36, 53, 85, 100)
_FALLING_SHARE: Final = 0.9024
_FULL_SIDE: Final = 512
_WHOLE_MM: Final = 12.0  # from the end of a scan to the middle of what it shows whole


@dataclass(frozen=True, slots=True)
class Scan:
    """Where the voxels of a study lie in the frame of the phantom."""

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    thickness_mm: float
    centre_lps_mm: tuple[float, float, float]  # C4 is the origin
    z_falling: bool  # as the instance number rises
    offset_lps_mm: tuple[float, float, float]  # of the scanner's coordinates

    def grid(self) -> Grid:
        """Return the centres of all voxels, relative to C4."""
        z, y, x = (
            (np.arange(n) - (n - 1) / 2) * mm + centre
            for n, mm, centre in zip(
                self.shape_zyx,
                self.spacing_zyx_mm,
                self.centre_lps_mm[::-1],
                strict=True,
            )
        )
        z = z[::-1] if self.z_falling else z
        axes = [np.ascontiguousarray(a, dtype=np.float32) for a in (x, y, z)]
        return Grid(axes[0], axes[1], axes[2], self.spacing_zyx_mm)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """All that is fixed about a study before it is painted."""

    index: int
    seed: int
    study_uid: str
    labels: dict[str, int]
    ranges: Ranges
    spine: Spine
    scan: Scan
    has_mask: bool
    has_boxes: bool


def study_uid_of(config: PhantomConfig, index: int) -> str:
    """Return the StudyInstanceUID of one study: 2.25 and a number from its key."""
    kind = "" if config.version == 1 else f"{config.version} "
    kind += "foreign " if config.foreign else ""
    return derive_uid(f"csfd phantom {kind}{config.profile} {config.seed} {index}")


def derive_uid(key: str) -> str:
    """Return a UID of the 2.25 root (DICOM PS3.5 annex B.2) that depends on ``key``."""
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def has_mask(config: PhantomConfig, index: int) -> bool:
    """Say whether a study has a mask: evenly spaced indices, the first among them."""
    share = config.masked_share
    return int((index + 1) * share + 1 - 1e-9) > int(index * share + 1 - 1e-9)


def plan_study(
    config: PhantomConfig, index: int, grid: GridOverride | None = None
) -> StudyPlan:
    """Draw the plan of the study with this index.

    Args:
        config: Seed and profile; ``studies`` and ``first`` do not matter.
        index: Which study, from 0.
        grid: Replaces the drawn grid.
    """
    labels = draw_labels(open_stream(config.seed, index, "labels"))
    respects = open_stream(config.seed, index, "ranges")
    ranges = ranges_of(config.version, foreign=config.foreign, rng=respects)
    build = open_stream(config.seed, index, "build")
    spine = draw_spine(open_stream(config.seed, index, "spine"), build, ranges)
    masked = has_mask(config, index)
    rng = open_stream(config.seed, index, "scan")
    if grid is not None:
        scan = _take(grid)
    elif config.profile == "demo":
        scan = _draw_demo(rng, spine, labels, ranges, may_end=not masked)
    else:
        scan = _draw_full(rng, spine, labels)
    boxed = open_stream(config.seed, index, "boxes").random() < config.boxed_share
    return StudyPlan(
        index=index,
        seed=config.seed,
        study_uid=study_uid_of(config, index),
        labels=labels,
        ranges=ranges,
        spine=spine,
        scan=scan,
        has_mask=masked,
        has_boxes=boxed and any(labels.values()),
    )


def _take(grid: GridOverride) -> Scan:
    return Scan(
        shape_zyx=grid.shape_zyx,
        spacing_zyx_mm=grid.spacing_zyx_mm,
        thickness_mm=grid.spacing_zyx_mm[0],
        centre_lps_mm=grid.centre_lps_mm,
        z_falling=grid.z_falling,
        offset_lps_mm=(0.0, 0.0, 0.0),
    )


def _draw_demo(
    rng: np.random.Generator,
    spine: Spine,
    labels: dict[str, int],
    ranges: Ranges,
    *,
    may_end: bool,
) -> Scan:
    side = int(rng.choice([160, 176, 192]))
    pixel = float(np.round(rng.uniform(0.84, 1.06) * 170 / side, 4))
    top, bottom = _draw_ends(rng, spine, labels, ranges, may_end=may_end)
    gap = float(rng.choice([1.25, 1.5, 1.75, 2.0], p=[0.15, 0.3, 0.25, 0.3]))
    gap = max(gap, float(np.ceil((top - bottom) / 125 * 8) / 8))
    slices = max(round((top - bottom) / gap), 50)
    middle = (top + bottom) / 2
    return _place_scan(
        rng, (slices, side, side), (gap, pixel, pixel), gap, middle, spine
    )


def _draw_ends(
    rng: np.random.Generator,
    spine: Spine,
    labels: dict[str, int],
    ranges: Ranges,
    *,
    may_end: bool,
) -> tuple[float, float]:
    """Return the highest and lowest z of a scan that shows the neck or nearly all."""
    c1, c7 = (float(spine.frames[i].centre[2]) for i in (C1, C7))
    above, below = (
        float(np.interp(rng.random(), _SHARES, q)) for q in (_ABOVE, _BELOW)
    )
    top, bottom = c1 + 12 + 0.75 * above, c7 - 16 - 0.75 * below
    cut_top, cut_bottom = rng.random(2) < (ranges.cut_top, ranges.cut_bottom)
    low_top = c1 - ranges.cut_top_mm.draw(rng)
    high_bottom = c7 - ranges.cut_bottom_mm.draw(rng)
    broken = [
        float(spine.frames[i].centre[2]) for i, n in enumerate(labels, 1) if labels[n]
    ]
    cut_top &= max(broken, default=-np.inf) < low_top - _WHOLE_MM
    cut_bottom &= min(broken, default=np.inf) > high_bottom + _WHOLE_MM
    if cut_top and may_end and not labels["C1"] and not labels["C2"]:
        top = low_top
    if cut_bottom and may_end and not labels["C7"] and not labels["C6"]:
        bottom = high_bottom
    return top, bottom


def _draw_full(rng: np.random.Generator, spine: Spine, labels: dict[str, int]) -> Scan:
    slices = int(round(float(np.interp(rng.random(), *_SLICE_QUANTILES))))
    thickness, gap = _draw_spacing(rng, slices)
    pixel = float(np.round(np.clip(0.318 * np.exp(rng.normal(0, 0.2)), 0.19, 0.713), 4))
    extent = slices * gap
    c1, c7 = (float(spine.frames[i].centre[2]) for i in (C1, C7))
    high, low = c1 + 16, c7 - 20
    spare = extent - (high - low)
    if spare >= 0:
        middle = (high + low) / 2 + spare * rng.uniform(-0.25, 0.15)
    else:
        broken = [i for i, name in enumerate(labels, start=1) if labels[name]]
        if not broken:
            middle = (high + low) / 2 + spare * rng.uniform(-0.5, 0.5)
        else:
            heights = [float(spine.frames[i].centre[2]) for i in broken]
            middle = (max(heights) + min(heights)) / 2
    shape = (slices, _FULL_SIDE, _FULL_SIDE)
    return _place_scan(rng, shape, (gap, pixel, pixel), thickness, middle, spine)


def _draw_spacing(rng: np.random.Generator, slices: int) -> tuple[float, float]:
    """Return thickness and gap such that the stack is as long as real ones are."""
    options, weights = [], []
    for thickness, share in _THICKNESS_MM:
        for step, likely in ((1.0, 0.75), (0.8, 0.15), (0.5, 0.1)):
            extent = slices * thickness * step
            if 48 <= extent <= 334:
                near = np.exp(-0.5 * (np.log(extent / 200) / 0.3) ** 2)
                options.append((thickness, round(thickness * step, 4)))
                weights.append(share * likely * (near + 1e-3))
    if not options:
        gap = round(334 / slices, 4)
        return max(gap, 0.5), gap
    shares = np.array(weights)
    return options[int(rng.choice(len(options), p=shares / shares.sum()))]


def _place_scan(
    rng: np.random.Generator,
    shape_zyx: tuple[int, int, int],
    spacing_zyx_mm: tuple[float, float, float],
    thickness_mm: float,
    middle_z: float,
    spine: Spine,
) -> Scan:
    """Put the field of view around the neck and into the scanner."""
    centres: Vector = np.array([spine.frames[i].centre for i in range(C1, C7 + 1)])
    x, y = (centres[:, :2].max(axis=0) + centres[:, :2].min(axis=0)) / 2
    half = shape_zyx[1] * spacing_zyx_mm[1] / 2
    ahead = np.clip(half - 70, -8, 30)
    x += rng.normal(0, 5)
    y += rng.uniform(2, 18) - ahead * rng.uniform(0.2, 0.9)
    offset = rng.normal([0, -120, -300], [12, 60, 250])
    return Scan(
        shape_zyx=shape_zyx,
        spacing_zyx_mm=spacing_zyx_mm,
        thickness_mm=thickness_mm,
        centre_lps_mm=(float(x), float(y), middle_z),
        z_falling=bool(rng.random() < _FALLING_SHARE),
        offset_lps_mm=(float(offset[0]), float(offset[1]), float(offset[2])),
    )
