"""Settings of the vertebra segmentation: its two networks and how they are trained.

Every setting is recorded with the model. No heavy imports, no file access.
"""

from dataclasses import dataclass, field
from typing import Final

from csfd_core.vocabulary import LEVELS, Profile

CLASSES: Final = len(LEVELS) + 1  # background, C1 ... C7
FORMAT: Final = 1  # of the networks; part of what a training is made from


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """One 3-D U-Net on an isotropic grid (axes: feet, back, left)."""

    shape_zyx: tuple[int, int, int]
    spacing_mm: float
    classes: int
    filters: tuple[int, ...]  # per resolution, the finest first
    stem: int  # step of the first convolution; the last one undoes it
    coordinates: bool  # whether the network sees where in the grid it is

    def __post_init__(self) -> None:
        """Require a grid that halves evenly down to the coarsest resolution."""
        step = self.stem * 2 ** (len(self.filters) - 1)
        if any(size % step for size in self.shape_zyx):
            raise ValueError(
                f"`shape_zyx` must hold multiples of {step}. Received: "
                f"shape_zyx={self.shape_zyx}, stem={self.stem}, "
                f"{len(self.filters)} resolutions."
            )
        if self.spacing_mm <= 0 or self.classes < 2 or self.stem not in (1, 2):
            raise ValueError(
                "`spacing_mm` must be positive, `classes` at least 2 and `stem` 1 or "
                f"2. Received: {self.spacing_mm}, {self.classes}, {self.stem}."
            )

    @property
    def channels(self) -> int:
        """Input channels: grey level, and the coordinates z, y, x if it sees them."""
        return 4 if self.coordinates else 1

    @property
    def extent_zyx_mm(self) -> tuple[float, float, float]:
        """Size of the grid."""
        z, y, x = (size * self.spacing_mm for size in self.shape_zyx)
        return z, y, x


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The two networks: the locator finds C1-C7, the segmenter tells them apart."""

    locator: NetworkConfig
    segmenter: NetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a model is trained."""

    profile: Profile = "demo"
    seed: int = 0
    epochs: int = 10
    steps_per_epoch: int = 40
    batch_size: int = 1
    learning_rate: float = 8e-4
    weight_decay: float = 1e-4
    warm_up: float = 0.05  # share of the steps before the full learning rate
    # Epochs whose validation Dice stays below the best one; 0 never stops early.
    patience: int = 0
    strength: float = 0.5  # of the augmentation, 0 none
    initial: str = "builtin"  # model to start from; "none" starts from nothing
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        """Require counts of at least one."""
        for name in ("epochs", "steps_per_epoch", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {getattr(self, name)}."
                )


LOCATOR: Final = NetworkConfig(
    shape_zyx=(48, 40, 40),
    spacing_mm=6.0,
    classes=2,
    filters=(10, 20, 32, 48),
    stem=1,
    coordinates=False,
)
SMALL: Final = ModelConfig(
    locator=LOCATOR,
    segmenter=NetworkConfig(
        shape_zyx=(112, 80, 64),
        spacing_mm=1.5,
        classes=CLASSES,
        filters=(24, 48, 96, 128),
        stem=2,
        coordinates=True,
    ),
)
LARGE: Final = ModelConfig(
    locator=LOCATOR,
    segmenter=NetworkConfig(
        shape_zyx=(128, 128, 128),
        spacing_mm=1.25,
        classes=CLASSES,
        filters=(48, 96, 192, 320),
        stem=2,
        coordinates=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationProfile:
    """What ``demo`` and ``full`` stand for."""

    model: ModelConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)


PROFILES: Final[dict[str, SegmentationProfile]] = {
    # It goes on from the general model, which knows the phantom well: one short epoch
    # shows whether there is anything to gain, and it stops where there is not.
    "demo": SegmentationProfile(
        model=SMALL,
        training=TrainingConfig(
            epochs=6, steps_per_epoch=8, learning_rate=3e-4, patience=1
        ),
    ),
    "full": SegmentationProfile(
        model=LARGE,
        training=TrainingConfig(
            profile="full",
            epochs=300,
            steps_per_epoch=87,
            batch_size=2,
            learning_rate=1.5e-3,
            strength=1.0,
            patience=40,
            initial="none",
            mixed_precision=True,
        ),
    ),
}
