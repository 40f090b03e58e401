"""Fractures: rough planes through the sites where cervical vertebrae break.

Sites and their shares follow the usual classes: Jefferson (C1), Anderson and D'Alonzo
(dens), hangman (C2), Allen and Ferguson (C3-C7), clay-shoveler (C6, C7).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.grid import Float, LocalGrid, Vector
from csfd_core.phantom.spine import C1, C2, VertebraSize
from csfd_core.phantom.vertebrae import spinous_axis

_EDGE: Final = 0.25  # share of the region's radius over which a fracture ends


@dataclass(frozen=True, slots=True)
class Cut:
    """One rough plane within an ellipsoidal region; the fragment lies on +normal."""

    point: Vector
    normal: Vector
    centre: Vector
    radii: Vector
    gap_mm: float
    shift: Vector  # of the fragment, mm
    waves: Vector  # shape (2, 3), radians per mm
    phases: Vector  # shape (2,)
    roughness_mm: float

    def offset(self, local: LocalGrid) -> Float:
        """Return the signed distance from the rough plane."""
        n = self.normal.astype(np.float32)
        p = np.float32(self.normal @ self.point)
        distance = n[0] * local.x + n[1] * local.y + n[2] * local.z - p
        for k, (wave, phase) in enumerate(zip(self.waves, self.phases, strict=True)):
            w = wave.astype(np.float32)
            ripple = w[0] * local.x + w[1] * local.y + w[2] * local.z
            ripple += np.float32(phase)
            distance += np.float32(self.roughness_mm / (k + 1)) * np.sin(ripple)
        return np.asarray(distance, dtype=np.float32)

    def region(self, local: LocalGrid) -> Float:
        """Return 1 within the region of the fracture, falling to 0 at its edge."""
        c, r = self.centre.astype(np.float32), self.radii.astype(np.float32)
        qx, qy, qz = (
            (local.x - c[0]) / r[0],
            (local.y - c[1]) / r[1],
            (local.z - c[2]) / r[2],
        )
        norm = np.sqrt(qx * qx + qy * qy + qz * qz)
        return np.asarray(np.clip((1 - norm) / _EDGE, 0, 1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Fracture:
    """What breaks in one vertebra."""

    site: str
    cuts: tuple[Cut, ...] = field(default=())
    height_loss: float = 0.0  # share of the body's anterior height


# A site: where, which way, region centre, radii, direction of the fragment.
_Site = tuple[Vector, Vector, Vector, Vector, Vector]


def draw_fracture(
    rng: np.random.Generator,
    level: int,
    size: VertebraSize | None,
    config: PhantomConfig,
) -> Fracture:
    """Draw the fracture of one level; ``size`` is None for C1."""
    if level == C1 or size is None:
        options = _C1_SITES
    else:
        options = _C2_SITES if level == C2 else _LOWER_SITES
    names = list(options)
    shares = np.array([options[name][0] for name in names])
    if level in (6, 7):
        shares = shares * np.array([1.0 + 1.6 * (n == "spinous") for n in names])
    name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    side = float(rng.choice([-1.0, 1.0]))
    sites = options[name][1](rng, size, side)
    cuts = tuple(_draw_cut(rng, site, config) for site in sites)
    loss = float(rng.uniform(0.12, 0.38)) if name == "body_wedge" else 0.0
    return Fracture(name, cuts, loss)


def _draw_cut(rng: np.random.Generator, site: _Site, config: PhantomConfig) -> Cut:
    point, normal, centre, radii, shift = site
    normal = normal / np.linalg.norm(normal) + rng.normal(0, 0.12, 3)
    normal = normal / np.linalg.norm(normal)
    length = rng.uniform(*config.fracture_displacement_mm)
    direction = shift / max(float(np.linalg.norm(shift)), 1e-6) + rng.normal(0, 0.3, 3)
    waves = rng.normal(0, 1, (2, 3))
    waves -= (waves @ normal)[:, None] * normal
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    waves *= 2 * np.pi / np.array([[rng.uniform(7, 12)], [rng.uniform(2.5, 4.5)]])
    return Cut(
        point=point,
        normal=normal,
        centre=centre,
        radii=radii,
        gap_mm=float(rng.uniform(*config.fracture_gap_mm)),
        shift=direction / np.linalg.norm(direction) * length,
        waves=waves,
        phases=rng.uniform(0, 2 * np.pi, 2),
        roughness_mm=float(rng.uniform(0.35, 0.8)),
    )


def _v(x: float, y: float, z: float) -> Vector:
    return np.array([x, y, z], dtype=np.float64)


def _arch_c1(rng: np.random.Generator, size: object, side: float) -> list[_Site]:
    both = rng.random() < 0.7
    sites = []
    for s in (side, -side)[: 2 if both else 1]:
        x = rng.uniform(9.0, 16.5)
        y = 27.6 - 0.33 * x if x < 11 else 24.0 - (x - 11) * 0.93
        point = _v(s * x, y, 0)
        sites.append(
            (point, _v(s * 0.73, -0.68, 0), point, _v(6, 6, 8), _v(s, -0.3, 0))
        )
    return sites


def _front_c1(rng: np.random.Generator, size: object, side: float) -> list[_Site]:
    point = _v(side * rng.uniform(3, 9), -9.5, 0)
    return [(point, _v(side, 0.25, 0), point, _v(6, 6, 8), _v(side, 0, 0))]


def _jefferson(rng: np.random.Generator, size: object, side: float) -> list[_Site]:
    return _front_c1(rng, size, side) + _arch_c1(rng, size, side)


def _mass_c1(rng: np.random.Generator, size: object, side: float) -> list[_Site]:
    point = _v(side * 19, rng.uniform(-2, 5), 0)
    normal = _v(side * rng.uniform(0.1, 1), 1, 0)
    return [(point, normal, point, _v(11, 12, 12), _v(side, 0, 0))]


def _dens(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    top = size.height / 2
    normal = _v(0.1 * side, rng.uniform(-0.4, 0.4), 1)
    point = _v(0, 0, top + rng.uniform(0.0, 4.0))
    centre, radii = _v(0, 0, top + 10), _v(9.5, 10, 15)
    return [(point, normal, centre, radii, _v(0, rng.choice([-1, 1]), 0))]


def _dens_body(
    rng: np.random.Generator, size: VertebraSize, side: float
) -> list[_Site]:
    top = size.height / 2
    point = _v(0, 0, top - rng.uniform(4, 7))
    normal = _v(0.15 * side, rng.uniform(-0.2, 0.5), 1)
    return [(point, normal, _v(0, 0, top + 3), _v(15, 12, 22), _v(0, side, 0))]


def _pars(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    sites = []
    for s in (side, -side)[: 2 if rng.random() < 0.8 else 1]:
        point = _v(s * 16.5, size.half_depth + rng.uniform(-1, 2.5), 0)
        normal = _v(s * rng.uniform(-0.3, 0.5), 1, -0.35)
        sites.append((point, normal, point, _v(10, 9, 11), _v(0, 1, -0.3)))
    return sites


def _wedge(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    b, h = size.half_depth, size.height
    point = _v(0, -0.4 * b, h * rng.uniform(0.05, 0.25))
    normal = _v(rng.uniform(-0.2, 0.2), rng.uniform(0, 0.4), 1)
    centre = _v(0, -0.35 * b, 0.1 * h)
    return [(point, normal, centre, _v(14, b * 1.35, h), _v(0, -1, 0))]


def _teardrop(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    b, h = size.half_depth, size.height
    point = _v(0, -0.5 * b, -0.22 * h)
    normal = _v(0.1 * side, -0.75, -0.65)
    return [(point, normal, _v(0, -b, -h / 2), _v(16, b * 1.5, h), _v(0, -1, -0.3))]


def _split(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    point = _v(side * rng.uniform(0, 0.5) * size.half_width, 0, 0)
    normal = _v(side, rng.uniform(-0.6, 0.6), rng.uniform(-0.2, 0.2))
    radii = _v(15, size.half_depth * 1.35, size.height * 0.85)
    return [(point, normal, _v(0, 0, 0), radii, _v(side, 0, 0))]


def _facet(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    y = size.half_depth + 5.5
    z = -7.0 if size.height > 17.5 and not size.uncus else 0.0
    point = _v(side * size.pillar_x, y, z + rng.uniform(-2.5, 2.5))
    normal = _v(side * rng.uniform(-0.3, 0.3), rng.uniform(-0.5, 0.9), 1)
    return [(point, normal, point, _v(9, 10, 11), _v(0, 0.6, 1))]


def _lamina(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    start = _v(size.pillar_x - 2.5, size.half_depth + 9.0, -2.5)
    end = _v(2.0, size.half_depth + size.canal_depth + 2.2, -2.5)
    sites = []
    for s in (side, -side)[: 1 if rng.random() < 0.6 else 2]:
        flip = _v(s, 1, 1)
        point = (start + (end - start) * rng.uniform(0.3, 0.75)) * flip
        normal = (end - start) * flip
        sites.append((point, normal, point, _v(8, 8, 10), _v(s, 0.5, 0)))
    return sites


def _spinous(rng: np.random.Generator, size: VertebraSize, side: float) -> list[_Site]:
    root, tip = spinous_axis(size)
    point = root + (tip - root) * rng.uniform(0.2, 0.6)
    middle = (point + tip) / 2
    reach = float(np.linalg.norm(tip - point)) / 2 + 9
    normal = (tip - root) + _v(0, 0, rng.uniform(-8, 8))
    return [(point, normal, middle, _v(13, reach, 15), _v(0, 0.5, -1))]


def _transverse(
    rng: np.random.Generator, size: VertebraSize, side: float
) -> list[_Site]:
    point = _v(side * (size.half_span - rng.uniform(5, 9)), 4, -2)
    normal = _v(side, rng.uniform(-0.4, 0.4), 0.2)
    return [(point, normal, point, _v(9, 11, 9), _v(side, 0, -0.5))]


_Draw = Callable[..., list[_Site]]
_C1_SITES: Final[dict[str, tuple[float, _Draw]]] = {
    "posterior_arch": (0.4, _arch_c1),
    "anterior_arch": (0.15, _front_c1),
    "jefferson": (0.25, _jefferson),
    "lateral_mass": (0.2, _mass_c1),
}
_C2_SITES: Final[dict[str, tuple[float, _Draw]]] = {
    "dens": (0.4, _dens),
    "dens_body": (0.2, _dens_body),
    "pars": (0.22, _pars),
    "teardrop": (0.08, _teardrop),
    "lamina": (0.1, _lamina),
}
_LOWER_SITES: Final[dict[str, tuple[float, _Draw]]] = {
    "body_wedge": (0.14, _wedge),
    "teardrop": (0.1, _teardrop),
    "body_split": (0.08, _split),
    "facet": (0.2, _facet),
    "lamina": (0.18, _lamina),
    "spinous": (0.18, _spinous),
    "transverse": (0.12, _transverse),
}
