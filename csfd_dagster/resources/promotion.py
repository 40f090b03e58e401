"""What a challenger must reach to become champion, as a resource."""

import dagster as dg
from pydantic import Field

from csfd_core.registry.decision import PromotionConfig

_DEFAULT = PromotionConfig()


class PromotionResource(dg.ConfigurableResource):
    """Margins of a promotion; the defaults are those of the core."""

    least_subjects: int = Field(
        default=_DEFAULT.least_subjects,
        ge=2,
        description="Fewest patients of the locked test set that can decide.",
    )
    loss_margin: float = Field(
        default=_DEFAULT.loss_margin,
        description="Upper end of the 95 % interval of challenger minus champion must "
        "lie below it, competition log loss in nats; 0: better by more than chance.",
    )
    sensitivity_margin: float = Field(
        default=_DEFAULT.sensitivity_margin,
        ge=0,
        description="Sensitivity that may be lost at the operating point.",
    )
    calibration_margin: float = Field(
        default=_DEFAULT.calibration_margin,
        ge=0,
        description="By which the calibration error may grow.",
    )
    latency_factor: float = Field(
        default=_DEFAULT.latency_factor,
        ge=1,
        description="Times the champion's milliseconds per study.",
    )
    unhurried_ms: float = Field(
        default=_DEFAULT.unhurried_ms,
        ge=0,
        description="Per study; no challenger below this is too slow.",
    )

    def to_core(self) -> PromotionConfig:
        """Return the settings of a decision."""
        return PromotionConfig(
            least_subjects=self.least_subjects,
            loss_margin=self.loss_margin,
            sensitivity_margin=self.sensitivity_margin,
            calibration_margin=self.calibration_margin,
            latency_factor=self.latency_factor,
            unhurried_ms=self.unhurried_ms,
        )
