"""The volume while it is painted: blending by partial volume, and bone."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from csfd_core.phantom.grid import Bounds, Box, Float, Frame, Grid, local_grid
from csfd_core.phantom.shapes import Carver, Solid

AIR_HU: Final = -1000.0
_TILE: Final = (32, 48, 48)


@dataclass(frozen=True, slots=True)
class BoneTissue:
    """Densities of one bone: a cortex around a trabecular core."""

    cortex_hu: float
    trabecular_hu: float
    cortex_mm: float
    texture_hu: float = 0.0  # standard deviation within the core
    blotch_hu: float = 0.0  # the same over some millimetres
    uneven: float = 0.0  # standard deviation of the cortex, as a share of it


class Scene:
    """HU and mask on a grid, painted over from the outside to the inside."""

    def __init__(self, grid: Grid, rng: np.random.Generator) -> None:
        """Start with air everywhere."""
        self.grid = grid
        self.hounsfield: Float = np.full(grid.shape, AIR_HU, dtype=np.float32)
        self.mask: npt.NDArray[np.uint8] = np.zeros(grid.shape, dtype=np.uint8)
        tile = rng.standard_normal(_TILE, dtype=np.float32)
        blur = [0.55 / mm for mm in grid.spacing_zyx_mm]
        tile = ndimage.gaussian_filter(tile, blur, mode="wrap", truncate=3)
        self._tile: Float = tile / tile.std()
        coarse = rng.standard_normal(_TILE, dtype=np.float32)
        blur = [2.2 / mm for mm in grid.spacing_zyx_mm]
        coarse = ndimage.gaussian_filter(coarse, blur, mode="wrap", truncate=3)
        self._coarse: Float = coarse / coarse.std()

    def texture(self, box: Box, *, coarse: bool = False) -> Float:
        """Return noise of unit deviation for a box: fine as bone, coarse as muscle."""
        index = [
            np.arange(s.start, s.stop) % n for s, n in zip(box, _TILE, strict=True)
        ]
        return (self._coarse if coarse else self._tile)[np.ix_(*index)]

    def coverage(self, distance: Float) -> Float:
        """Return the share of each voxel inside a surface at ``distance`` (mm)."""
        share = distance * np.float32(-1 / self.grid.voxel_mm)
        share += np.float32(0.5)
        return np.clip(share, 0, 1, out=share)

    def blend(self, box: Box, coverage: Float, value: Float | float) -> None:
        """Mix ``value`` (HU) into a box by its coverage."""
        part = self.hounsfield[box]
        part += coverage * (np.asarray(value, dtype=np.float32) - part)

    def paint_solid(self, frame: Frame, solid: Solid, value: float) -> None:
        """Fill a solid of the frame with one density."""
        lower, upper = solid.bounds()
        margin = 1.0 + self.grid.voxel_mm / frame.scale
        local = local_grid(self.grid, frame, (lower - margin, upper + margin))
        if local is None:
            return
        distance = solid.distance(local.x, local.y, local.z)
        distance *= np.float32(frame.scale)
        self.blend(local.box, self.coverage(distance), value)

    def paint_bone(
        self,
        box: Box,
        distance: Float,
        tissue: BoneTissue,
        cortex_mm: Float | None = None,
    ) -> None:
        """Fill a bone with core and cortex.

        Args:
            box: Voxels to paint.
            distance: To the surface in mm, negative inside, shape of ``box``.
            tissue: Densities, and thickness of the cortex.
            cortex_mm: Replaces that thickness voxel by voxel.
        """
        outer = self.coverage(distance)
        thickness = np.float32(tissue.cortex_mm) if cortex_mm is None else cortex_mm
        if tissue.uneven:
            differs = np.float32(tissue.uneven) * self.texture(box, coarse=True)
            thickness = thickness * np.clip(1 + differs, 0.35, 1.8)
        inner = self.coverage(distance + thickness)
        # Trabeculae grow denser towards the cortex.
        core = np.clip(distance * np.float32(0.3) + np.float32(1.0), 0, 1)
        core *= np.float32(0.35 * max(tissue.trabecular_hu, 0.0))
        core += np.float32(tissue.trabecular_hu)
        if tissue.texture_hu:
            core += np.float32(tissue.texture_hu) * self.texture(box)
        if tissue.blotch_hu:
            core += np.float32(tissue.blotch_hu) * self.texture(box, coarse=True)
        part = self.hounsfield[box]
        part *= 1 - outer
        part += np.float32(tissue.cortex_hu) * (outer - inner)
        part += inner * core

    def paint_bones(
        self, frame: Frame, solids: list[Solid], tissue: BoneTissue, blend: float = 2.0
    ) -> None:
        """Fill one bone that is the union of several solids of a frame."""
        bounds = _join([solid.bounds() for solid in solids])
        margin = 2.0 + self.grid.voxel_mm / frame.scale
        local = local_grid(self.grid, frame, (bounds[0] - margin, bounds[1] + margin))
        if local is None:
            return
        carver = Carver(local)
        for solid in solids:
            carver.add(solid, blend)
        distance = carver.distance * np.float32(frame.scale)
        self.paint_bone(local.box, distance, tissue)


def _join(bounds: list[Bounds]) -> Bounds:
    lower = np.min([b[0] for b in bounds], axis=0)
    upper = np.max([b[1] for b in bounds], axis=0)
    return lower, upper
