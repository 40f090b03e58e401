"""How the segmentation is trained and the crops are cut, as a resource.

Empty values stand for what the profile says.
"""

from dataclasses import asdict, replace

import dagster as dg
from pydantic import Field

from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.segmentation.config import PROFILES, SegmentationProfile
from csfd_dagster.presentation import version_of


class SegmentationResource(dg.ConfigurableResource):
    """Profile of the segmentation, and what deviates from it."""

    profile: str = Field(default="demo", description="demo or full.")
    seed: int = Field(default=0, ge=0, description="Same seed, same model.")
    folds: list[int] = Field(
        default=[0], description="A model is trained without each of these folds."
    )
    epochs: int = Field(
        default=0, ge=0, description="Epochs at most; 0: the profile's."
    )
    steps_per_epoch: int = Field(
        default=0, ge=0, description="Steps of an epoch; 0: the profile's."
    )
    patience: int = Field(
        default=-1,
        ge=-1,
        description="Epochs without a better validation Dice before a training stops; "
        "0: never; -1: the profile's.",
    )
    initial: str = Field(
        default="", description="builtin or none: the weights to start from."
    )

    def settings(self) -> SegmentationProfile:
        """Return the settings of a training."""
        profile = PROFILES[self.profile]
        training = replace(
            profile.training,
            seed=self.seed,
            epochs=self.epochs or profile.training.epochs,
            steps_per_epoch=self.steps_per_epoch or profile.training.steps_per_epoch,
            patience=profile.training.patience if self.patience < 0 else self.patience,
            initial=self.initial or profile.training.initial,
        )
        return replace(profile, training=training)

    def version(self) -> str:
        """Identify the settings; a training with other ones gives another model."""
        settings = self.settings()
        parts = (asdict(settings.model), asdict(settings.training), self.folds)
        return version_of(parts)

    def crops(self) -> CropConfig:
        """Return how vertebrae are cut out."""
        return CROP_PROFILES[self.profile]
