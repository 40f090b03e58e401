"""How the classifiers are trained, as a resource. Empty values: what the profile says.

``CSFD_WEIGHTS`` names the weights that backbones start from, and ``CSFD_FOLDS`` says
how many of the folds are trained, where the configuration does not.
"""

import os
from dataclasses import asdict

import dagster as dg
from pydantic import Field

from csfd_core.classification.config import ClassifierConfig, settings_of
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.errors import SettingsError
from csfd_core.vocabulary import FOLD_COUNT
from csfd_dagster.presentation import version_of


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
        default=[],
        description="Folds that csfd run trains, whereas a backfill may take any; "
        "CSFD_FOLDS: how many, 1 to 5.",
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

    def trained_folds(self) -> list[int]:
        """Return the folds that a run of everything trains.

        Raises:
            SettingsError: If CSFD_FOLDS is no number of folds.
        """
        if self.folds:
            return self.folds
        count = os.environ.get("CSFD_FOLDS") or "1"
        if not (count.isdecimal() and 1 <= int(count) <= FOLD_COUNT):
            raise SettingsError(
                f"CSFD_FOLDS must be from 1 to {FOLD_COUNT}. Received: {count}."
            )
        return list(range(int(count)))

    def version(self) -> str:
        """Identify the settings; a training with other ones gives another model."""
        return version_of(asdict(self.settings()))

    def crops(self) -> CropConfig:
        """Return how the crops to learn from were cut."""
        return CROP_PROFILES[self.profile]
