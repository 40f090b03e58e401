"""What a challenger must reach to become champion, as a resource."""

import dagster as dg

from csfd_core.registry.decision import PromotionConfig
from csfd_core.settings import PromotionSettings
from csfd_dagster.resources.overrides import given, override_of


class PromotionResource(dg.ConfigurableResource):
    """Margins of a promotion."""

    least_subjects: int | None = override_of(PromotionSettings, "least_subjects")
    loss_margin: float | None = override_of(PromotionSettings, "loss_margin")
    sensitivity_margin: float | None = override_of(
        PromotionSettings, "sensitivity_margin"
    )
    calibration_margin: float | None = override_of(
        PromotionSettings, "calibration_margin"
    )
    latency_factor: float | None = override_of(PromotionSettings, "latency_factor")
    unhurried_ms: float | None = override_of(PromotionSettings, "unhurried_ms")

    def to_core(self) -> PromotionConfig:
        """Return the settings of a decision.

        Raises:
            SettingsError: If one of them cannot be used.
        """
        wanted = PromotionSettings.read(**given(self, *type(self).model_fields))
        return PromotionConfig(**wanted.model_dump())
