"""Every setting of csfd: one environment variable each, read on use."""

from typing import Final

from pydantic import Field

from csfd_core.settings.environment import (
    Environment,
    allowed_values,
    take_over,
    variable_of,
)
from csfd_core.settings.graph import (
    ClassificationSettings,
    LimitSettings,
    PromotionSettings,
    ScheduleSettings,
    SegmentationSettings,
    Settings,
)
from csfd_core.settings.page import DicomSettings, OidcSettings, WebSettings

__all__ = [
    "GROUPS",
    "ClassificationSettings",
    "DiagnosticSettings",
    "DicomSettings",
    "Environment",
    "LimitSettings",
    "OidcSettings",
    "PromotionSettings",
    "ScheduleSettings",
    "SegmentationSettings",
    "Settings",
    "WebSettings",
    "allowed_values",
    "take_over",
    "variable_of",
]


class DiagnosticSettings(Environment):
    """What helps to find a fault."""

    debug: bool = Field(
        default=False,
        description="Show where an unexpected failure happened.",
    )


GROUPS: Final[tuple[type[Environment], ...]] = (
    Settings,
    ScheduleSettings,
    ClassificationSettings,
    SegmentationSettings,
    PromotionSettings,
    LimitSettings,
    WebSettings,
    OidcSettings,
    DicomSettings,
    DiagnosticSettings,
)
