"""Settings of the classifiers. Every one is recorded with the model it made.

No heavy imports, no file access.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from csfd_core.errors import SettingsError
from csfd_core.vocabulary import Profile

NONE: Final = "none"  # random weights
IMAGENET: Final = "imagenet"  # downloaded by Keras


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """How one classifier is trained."""

    profile: Profile = "demo"
    seed: int = 0
    epochs: int = 10
    batch_size: int = 96
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    patience: int = 0  # epochs without a lower validation loss; 0 never stops early
    weights: str = NONE  # NONE, IMAGENET, or a file of Keras weights without top
    fine_tune_epochs: int = 0  # of the top blocks of a backbone, after its head
    fine_tune_rate: float = 1e-5
    mixed_precision: bool = False
    # Of the basic CNN, which learns from patches.
    steps_per_epoch: int = 80
    patch_px: int = 40
    filters: tuple[int, ...] = (24, 48, 64)
    most_vertebrae: int = 2400  # held in memory at a time
    mined_share: float = 0.4  # of the patches without a fracture: the most alike
    average_views: bool = True  # of a trained network, four times as long; see ADR 9
    # Of the heads on backbones.
    hidden: int = 64
    dropout: float = 0.3

    def __post_init__(self) -> None:
        """Require counts of at least one."""
        for name in ("epochs", "batch_size", "steps_per_epoch", "patch_px"):
            if getattr(self, name) < 1:
                raise SettingsError(
                    f"`{name}` must be at least 1. Received: {getattr(self, name)}."
                )
        if min(self.patience, self.fine_tune_epochs) < 0:
            raise SettingsError(
                "`patience` and `fine_tune_epochs` must not be negative. Received: "
                f"{self.patience}, {self.fine_tune_epochs}."
            )

    def identity(self, *, has_backbone: bool) -> dict[str, Any]:
        """Return the settings that one kind of classifier depends on.

        Args:
            has_backbone: It is a head on a backbone, and not the basic CNN.
        """
        others = _OF_PATCHES if has_backbone else _OF_BACKBONES
        return {name: v for name, v in asdict(self).items() if name not in others}


_OF_PATCHES: Final = frozenset(
    (
        "steps_per_epoch",
        "patch_px",
        "filters",
        "most_vertebrae",
        "mined_share",
        "average_views",
    )
)
_OF_BACKBONES: Final = frozenset(
    ("weights", "fine_tune_epochs", "fine_tune_rate", "hidden", "dropout")
)

# The study trained for ten epochs.
CLASSIFIER_PROFILES: Final[dict[str, ClassifierConfig]] = {
    "demo": ClassifierConfig(),
    "full": ClassifierConfig(
        profile="full",
        epochs=60,
        steps_per_epoch=400,
        patience=15,
        weights=IMAGENET,
        fine_tune_epochs=5,
        patch_px=56,
        filters=(32, 64, 96),
        most_vertebrae=1600,
        mixed_precision=True,
    ),
}


def settings_of(
    profile: str,
    *,
    seed: int = 0,
    epochs: int = 0,
    steps_per_epoch: int = 0,
    weights: str = "",
) -> ClassifierConfig:
    """Return the settings of a profile with what deviates from it.

    Args:
        profile: ``demo`` or ``full``.
        seed: Same seed, same model.
        epochs: 0 takes the profile's.
        steps_per_epoch: 0 takes the profile's.
        weights: Empty takes the profile's.

    Raises:
        SettingsError: If there is no such profile.
    """
    if profile not in CLASSIFIER_PROFILES:
        raise SettingsError(
            f"There is no profile {profile!r}. Use {' or '.join(CLASSIFIER_PROFILES)}."
        )
    settings = CLASSIFIER_PROFILES[profile]
    return replace(
        settings,
        seed=seed,
        epochs=epochs or settings.epochs,
        steps_per_epoch=steps_per_epoch or settings.steps_per_epoch,
        weights=weights or settings.weights,
    )
