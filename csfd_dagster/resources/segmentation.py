"""How the segmentation is trained and the crops are cut, as a resource.

The profile is that of ``CSFD_PROFILE``; what is not set is what the profile says.
"""

from dataclasses import asdict, replace

import dagster as dg

from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.segmentation.config import PROFILES, SegmentationProfile
from csfd_core.settings import SegmentationSettings, Settings
from csfd_dagster.presentation import version_of
from csfd_dagster.resources.overrides import given, override_of


class SegmentationResource(dg.ConfigurableResource):
    """What deviates from the profile of the segmentation."""

    seed: int | None = override_of(SegmentationSettings, "seed")
    folds: list[int] | None = override_of(
        SegmentationSettings, "folds", "A model is trained without each of these folds."
    )
    epochs: int | None = override_of(SegmentationSettings, "epochs")
    steps_per_epoch: int | None = override_of(SegmentationSettings, "steps_per_epoch")
    patience: int | None = override_of(SegmentationSettings, "patience")
    initial: str | None = override_of(SegmentationSettings, "initial")

    def settings(self) -> SegmentationProfile:
        """Return the settings of a training.

        Raises:
            SettingsError: If one of them cannot be used.
        """
        fields = given(self, "seed", "epochs", "steps_per_epoch", "patience", "initial")
        wanted = SegmentationSettings.read(**fields)
        profile = PROFILES[Settings.read().profile]
        values = wanted.model_dump(exclude={"folds"}, exclude_none=True)
        return replace(profile, training=replace(profile.training, **values))

    def trained_folds(self) -> list[int]:
        """Return the folds that models are trained without.

        Raises:
            SettingsError: If the setting is no number of folds.
        """
        return self.folds or list(range(SegmentationSettings.read().folds))

    def version(self) -> str:
        """Identify the settings; a training with other ones gives another model."""
        settings = self.settings()
        folds = self.trained_folds()
        parts = (asdict(settings.model), asdict(settings.training), folds)
        return version_of(parts)

    def crops(self) -> CropConfig:
        """Return how vertebrae are cut out."""
        return CROP_PROFILES[Settings.read().profile]
