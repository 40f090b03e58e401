"""Settings of the phantom and of the grid it is sampled on.

No anatomy, no files: only what a caller may choose.
"""

from dataclasses import dataclass
from typing import Final

from csfd_core.vocabulary import Profile

VERSIONS: Final = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomConfig:
    """What to draw. Every study depends on ``seed`` and its index alone.

    A larger ``studies`` therefore adds studies and changes none.
    """

    studies: int
    seed: int = 0
    profile: Profile = "demo"
    first: int = 0  # index of the first study
    # 1: the first phantom, all necks much alike; 2: as various as published anatomy.
    version: int = 2
    foreign: bool = False  # necks outside of what version 2 otherwise draws
    masked_share: float = 0.4  # studies with a NIfTI mask; real data: 87 of 2019
    boxed_share: float = 0.4  # fractured studies with boxes; real data: 235 of 961
    fracture_gap_mm: tuple[float, float] = (0.7, 2.0)
    fracture_displacement_mm: tuple[float, float] = (0.2, 2.5)
    metal_share: float = 0.2  # studies with streaks of dental metal
    compressed_share: float = 0.3  # studies with compressed pixel data
    # Direction of the stored mask axes as in nibabel's ``aff2axcodes``. Real masks are
    # stored sagittal first.
    mask_orientation: str = "LAS"

    def __post_init__(self) -> None:
        """Check every range."""
        _require(self.studies >= 0, "studies", self.studies, "must be 0 or more")
        _require(self.seed >= 0, "seed", self.seed, "must be 0 or more")
        _require(self.first >= 0, "first", self.first, "must be 0 or more")
        _require(
            self.profile in ("demo", "full"),
            "profile",
            self.profile,
            "must be 'demo' or 'full'",
        )
        _require(
            self.version in VERSIONS,
            "version",
            self.version,
            f"must be one of {VERSIONS}",
        )
        _require(
            not self.foreign or self.version == VERSIONS[-1],
            "foreign",
            self.foreign,
            f"needs version {VERSIONS[-1]}",
        )
        for name in ("masked_share", "boxed_share", "metal_share", "compressed_share"):
            share = getattr(self, name)
            _require(0 <= share <= 1, name, share, "must be between 0 and 1")
        for name in ("fracture_gap_mm", "fracture_displacement_mm"):
            low, high = getattr(self, name)
            _require(
                0 <= low <= high <= 8,
                name,
                (low, high),
                "must be (low, high) with 0 <= low <= high <= 8",
            )
        _require(
            _is_orientation(self.mask_orientation),
            "mask_orientation",
            self.mask_orientation,
            "must name each of the axes R/L, A/P and S/I once, such as 'LAS'",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridOverride:
    """A sampling grid to use in place of the one drawn for the study."""

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    # Middle of the grid relative to the middle of the C4 body: to the patient's left,
    # back and head.
    centre_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    z_falling: bool = True

    def __post_init__(self) -> None:
        """Check that the grid has voxels of a positive size."""
        _require(
            len(self.shape_zyx) == 3 and min(self.shape_zyx) >= 1,
            "shape_zyx",
            self.shape_zyx,
            "must be three counts of 1 or more",
        )
        _require(
            len(self.spacing_zyx_mm) == 3 and min(self.spacing_zyx_mm) > 0,
            "spacing_zyx_mm",
            self.spacing_zyx_mm,
            "must be three positive distances",
        )


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` {rule}. Received: {name}={value!r}.")


def _is_orientation(codes: str) -> bool:
    pairs = ("RL", "AP", "SI")
    return len(codes) == 3 and all(sum(c in p for c in codes) == 1 for p in pairs)
