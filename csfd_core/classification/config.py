"""Settings of the classifiers. Every one is recorded with the model it made.

No heavy imports, no file access.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from csfd_core.errors import SettingsError
from csfd_core.vocabulary import Profile

NONE: Final = "none"  # random weights
IMAGENET: Final = "imagenet"  # downloaded by Keras
GENERAL: Final = "general"  # trained on phantoms; come with csfd


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
    # Of the basic and the triplanar CNN, which learn from patches.
    initial: str = GENERAL  # GENERAL, NONE, or a file of weights as csfd writes them
    refine_epochs: int = 6  # in place of ``epochs`` where it starts from weights,
    refine_steps: int = 30  # of ``steps_per_epoch``: few show whether it is of use,
    refine_rate: float = 5e-4  # of ``learning_rate``,
    refine_patience: int = 1  # and of ``patience``
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
        for name in (
            "epochs",
            "refine_epochs",
            "refine_steps",
            "batch_size",
            "steps_per_epoch",
            "patch_px",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(
                    f"`{name}` must be at least 1. Received: {getattr(self, name)}."
                )
        for name in ("patience", "refine_patience", "fine_tune_epochs"):
            if getattr(self, name) < 0:
                raise SettingsError(
                    f"`{name}` must not be negative. Received: {getattr(self, name)}."
                )

    @property
    def is_refined(self) -> bool:
        """Whether networks for patches start from trained weights."""
        return self.initial != NONE

    def planned_epochs(self, *, has_backbone: bool) -> int:
        """Return how many epochs a training takes at most."""
        if has_backbone:
            return self.epochs + self.fine_tune_epochs
        return self.refine_epochs if self.is_refined else self.epochs

    @property
    def planned_steps(self) -> int:
        """How many steps an epoch of a network for patches has."""
        return self.refine_steps if self.is_refined else self.steps_per_epoch

    def planned_patience(self, *, has_backbone: bool) -> int:
        """Return after how many epochs without a lower loss a training stops."""
        return (
            self.patience
            if has_backbone or not self.is_refined
            else (self.refine_patience)
        )

    def identity(self, *, has_backbone: bool) -> dict[str, Any]:
        """Return the settings that one kind of classifier depends on.

        Args:
            has_backbone: It is a head on a backbone, and no network for patches.
        """
        others = _OF_PATCHES if has_backbone else _OF_BACKBONES
        if not self.is_refined:  # as of a csfd where nothing was
            others |= _OF_REFINEMENT
        return {name: v for name, v in asdict(self).items() if name not in others}


_OF_REFINEMENT: Final = frozenset(
    ("initial", "refine_epochs", "refine_steps", "refine_rate", "refine_patience")
)
_OF_PATCHES: Final = _OF_REFINEMENT | frozenset(
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
        initial=NONE,  # the general networks are smaller, and see larger pixels
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
    initial: str = "",
) -> ClassifierConfig:
    """Return the settings of a profile with what deviates from it.

    Args:
        profile: ``demo`` or ``full``.
        seed: Same seed, same model.
        epochs: Of every training, refinements too; 0 takes the profile's.
        steps_per_epoch: Of refinements too; 0 takes the profile's.
        weights: Of backbones; empty takes the profile's.
        initial: Of networks for patches; empty takes the profile's.

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
        refine_epochs=epochs or settings.refine_epochs,
        steps_per_epoch=steps_per_epoch or settings.steps_per_epoch,
        refine_steps=steps_per_epoch or settings.refine_steps,
        weights=weights or settings.weights,
        initial=initial or settings.initial,
    )
