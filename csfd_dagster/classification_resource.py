"""How the classifiers are trained, as a resource. Empty values: what the profile says.

``CSFD_WEIGHTS`` names the weights that backbones start from where the configuration
does not.
"""

import os

import dagster as dg
from pydantic import Field

from csfd_core.classification.config import ClassifierConfig, settings_of
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig


class ClassificationResource(dg.ConfigurableResource):
    """Profile of the classifiers, and what deviates from it."""

    profile: str = Field(default="demo", description="demo or full.")
    seed: int = Field(default=0, ge=0, description="Same seed, same model.")
    epochs: int = Field(default=0, ge=0, description="Epochs; 0: the profile's.")
    steps_per_epoch: int = Field(
        default=0, ge=0, description="Of the basic CNN; 0: the profile's."
    )
    weights: str = Field(
        default="",
        description="imagenet, none, or a file of Keras weights without top layers; "
        "CSFD_WEIGHTS.",
    )
    folds: list[int] = Field(
        default=[0], description="Folds that csfd run trains; all are in a backfill."
    )

    def settings(self) -> ClassifierConfig:
        """Return the settings of a training."""
        return settings_of(
            self.profile,
            seed=self.seed,
            epochs=self.epochs,
            steps_per_epoch=self.steps_per_epoch,
            weights=self.weights or os.environ.get("CSFD_WEIGHTS", ""),
        )

    def crops(self) -> CropConfig:
        """Return how the crops to learn from were cut."""
        return CROP_PROFILES[self.profile]
