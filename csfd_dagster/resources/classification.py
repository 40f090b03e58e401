"""How the classifiers are trained, as a resource.

The profile is that of ``CSFD_PROFILE``; what is not set is what the profile says.
"""

from dataclasses import asdict

import dagster as dg

from csfd_core.classification.config import ClassifierConfig, settings_of
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.settings import ClassificationSettings, Settings
from csfd_core.vocabulary import Profile
from csfd_dagster.presentation import version_of
from csfd_dagster.resources.overrides import given, override_of


class ClassificationResource(dg.ConfigurableResource):
    """What deviates from the profile of the classifiers."""

    seed: int | None = override_of(ClassificationSettings, "seed")
    epochs: int | None = override_of(ClassificationSettings, "epochs")
    steps_per_epoch: int | None = override_of(ClassificationSettings, "steps_per_epoch")
    weights: str | None = override_of(ClassificationSettings, "weights")
    initial: str | None = override_of(ClassificationSettings, "initial")
    folds: list[int] | None = override_of(
        ClassificationSettings,
        "folds",
        "Folds that csfd run trains, whereas a backfill may take any.",
    )

    @property
    def profile(self) -> Profile:
        """The profile of the deployment."""
        return Settings.read().profile

    def settings(self) -> ClassifierConfig:
        """Return the settings of a training.

        Raises:
            SettingsError: If one of them cannot be used.
        """
        fields = given(self, "seed", "epochs", "steps_per_epoch", "weights", "initial")
        wanted = ClassificationSettings.read(**fields)
        values = wanted.model_dump(exclude={"folds"}, exclude_none=True)
        return settings_of(self.profile, **values)

    def trained_folds(self) -> list[int]:
        """Return the folds that a run of everything trains.

        Raises:
            SettingsError: If the setting is no number of folds.
        """
        return self.folds or list(range(ClassificationSettings.read().folds))

    def version(self) -> str:
        """Identify the settings; a training with other ones gives another model."""
        return version_of(asdict(self.settings()))

    def crops(self) -> CropConfig:
        """Return how the crops to learn from were cut."""
        return CROP_PROFILES[self.profile]
