"""What the scanner adds: blur and noise of its kernel, streaks, shading, a table.

Noise of filtered back-projection has a spectrum that rises with frequency and falls
with the kernel (Riederer et al., Phys. Med. Biol. 23, 1978); sharp kernels overshoot at
edges. Photons that cross the shoulders are few: noise there is larger and drawn out
from side to side.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft

from csfd_core.phantom.grid import Float, Grid
from csfd_core.phantom.ranges import Ranges
from csfd_core.phantom.scene import Scene

_SLAB: Final = 24
LOWEST_HU: Final = -1024
HIGHEST_HU: Final = 3071


@dataclass(frozen=True, slots=True)
class Scanner:
    """Kernel, dose and surroundings of one study."""

    cutoff_per_mm: float  # frequency at which the kernel has fallen to 1/e
    boost: float  # overshoot of a sharp kernel
    noise_hu: float  # standard deviation in the neck
    along_z: float  # correlation of the noise of neighbouring slices, 0..1
    shoulder: float  # growth of noise across the shoulders
    shading_hu: float
    streak_hu: float
    table_mm: float  # distance of the table behind the body; negative: none seen


def draw_scanner(
    rng: np.random.Generator, spacing_mm: float, ranges: Ranges
) -> Scanner:
    """Draw a scanner; coarse pixels average over more noise."""
    sharp = ranges.sharpness.draw(rng)
    nyquist = 0.5 / spacing_mm
    base = 11.0 * np.exp(1.2 * sharp) * np.exp(rng.normal(0, 0.35))
    return Scanner(
        cutoff_per_mm=float(min(0.42 + 0.75 * sharp, 1.25 * nyquist)),
        boost=float(max(0.0, 1.6 * (sharp - 0.45))),
        noise_hu=float(np.clip(base * (0.75 / max(spacing_mm, 0.35)) ** 0.35, 5, 75)),
        along_z=float(rng.uniform(0.1, 0.65)),
        shoulder=ranges.shoulder.draw(rng),
        shading_hu=float(rng.uniform(0, 7)),
        streak_hu=float(rng.uniform(250, 900)),
        table_mm=float(rng.uniform(3, 30) if rng.random() < 0.7 else -1),
    )


def add_physics(
    scene: Scene, scanner: Scanner, wide: Float, rng: np.random.Generator
) -> None:
    """Blur the scene with the kernel and add its noise.

    Args:
        scene: Changed in place.
        scanner: Kernel and noise.
        wide: How far each slice is through the shoulders, 0..1, shape (Z,).
        rng: Source of the noise.
    """
    count, rows, columns = scene.grid.shape
    transfer, noise, smear = _filters(scene.grid, scanner)
    level = np.float32(scanner.noise_hu) * (1 + np.float32(scanner.shoulder) * wide)
    drawn = np.float32(scanner.noise_hu * scanner.shoulder * 1.2) * wide**2
    keep = np.float32(np.sqrt(1 - scanner.along_z**2))
    last = np.zeros((rows, columns // 2 + 1), dtype=np.complex64)
    for start in range(0, count, _SLAB):
        part = slice(start, min(start + _SLAB, count))
        size = (part.stop - start, rows, last.shape[1], 2)
        white = rng.standard_normal(size, dtype=np.float32)
        grain = white.view(np.complex64)[..., 0]
        for k in range(len(grain)):
            last = keep * grain[k] + np.float32(scanner.along_z) * last
            filtered = noise * level[start + k]
            if drawn[start + k] > 0.1:
                filtered = filtered + smear * drawn[start + k]
            grain[k] = last * filtered
        image = fft.rfft2(scene.hounsfield[part])
        image *= transfer
        image += grain
        scene.hounsfield[part] = fft.irfft2(image, s=(rows, columns))


def _filters(grid: Grid, scanner: Scanner) -> tuple[Float, Float, Float]:
    """Return transfer function, noise filter and shoulder filter, shape (H, W//2+1).

    White complex noise of unit parts, filtered by one of the latter two, has unit
    standard deviation after the inverse transform.
    """
    _, rows, columns = grid.shape
    fy = fft.fftfreq(rows, grid.spacing_zyx_mm[1])[:, None]
    fx = fft.rfftfreq(columns, grid.spacing_zyx_mm[2])[None, :]
    radius = np.hypot(fx, fy)
    rel = radius / scanner.cutoff_per_mm
    kernel = (1 + scanner.boost * rel**2) * np.exp(-(rel**2))
    noise = np.sqrt(radius + 0.02) * (kernel + 0.02)
    across = np.exp(-((fx / 0.05) ** 2)) * np.sqrt(np.abs(fy) + 0.01) * kernel
    twice = np.full(columns // 2 + 1, 2.0)
    twice[0] = 1.0
    filters = [kernel.astype(np.float32)]
    for spectrum in (noise, across):
        power = 2 * np.sum(spectrum**2 * twice) / (rows * columns) ** 2
        filters.append((spectrum / np.sqrt(power)).astype(np.float32))
    return filters[0], filters[1], filters[2]


def add_streaks(
    scene: Scene,
    crowns: list[tuple[float, float, float]],
    scanner: Scanner,
    rng: np.random.Generator,
) -> None:
    """Add bright and dark streaks from metal crowns to the slices that cross them."""
    grid = scene.grid
    for x, y, z in crowns:
        near = np.flatnonzero(np.abs(grid.z_mm - z) < 4.5)
        if near.size == 0:
            continue
        dx, dy = grid.x_mm - x, grid.y_mm[:, None] - y
        angle = np.arctan2(dy, dx).astype(np.float32)
        fall = np.float32(1) / (1 + np.hypot(dx, dy).astype(np.float32) / 14)
        waves = rng.integers(3, 22, 7)
        for k in near:
            pattern = np.zeros_like(angle)
            for wave in waves:
                phase = rng.uniform(0, 6.3) if wave > 9 else float(wave)
                pattern += np.sin(np.float32(wave) * angle + np.float32(phase))
            size = scanner.streak_hu * (1 - abs(float(grid.z_mm[k]) - z) / 5)
            pattern *= np.abs(pattern) * np.float32(0.09 * size)
            scene.hounsfield[k] += pattern * fall


def add_table(scene: Scene, scanner: Scanner, back_mm: float) -> None:
    """Paint a head rest behind the body, as far as it shows."""
    if scanner.table_mm < 0:
        return
    grid = scene.grid
    at = back_mm + scanner.table_mm
    curve = at - 0.0035 * grid.x_mm**2 + 0.5
    depth = grid.y_mm[:, None] - curve
    shell = np.clip(1.8 - np.abs(depth - 1.5), 0, 1).astype(np.float32)
    foam = np.clip(depth - 3, 0, 1) * np.clip(22 - depth, 0, 1)
    extra = (shell * 780 + foam * 60).astype(np.float32)
    rows = np.flatnonzero(extra.max(axis=1) > 0)
    if rows.size == 0:
        return
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    for plane in scene.hounsfield[:, part]:
        plane += (plane < -880) * extra[part]


def to_int16(hounsfield: Float) -> npt.NDArray[np.int16]:
    """Return whole HU within the range of 12 bits, shape unchanged."""
    rounded = np.empty(hounsfield.shape, dtype=np.int16)
    for k, plane in enumerate(hounsfield):
        rounded[k] = np.clip(np.rint(plane), LOWEST_HU, HIGHEST_HU)
    return rounded
