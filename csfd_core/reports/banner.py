"""What every report says of the data it rests on, above all numbers."""

from typing import Final

from csfd_core.store.source import DataKind

_BANNERS: Final[dict[DataKind, str]] = {
    "phantom": "Synthetic phantom: computed images and labels of no patient. Nothing "
    "here has a clinical meaning.",
    "mixed": "Part of these data is a synthetic phantom of no patient. The numbers "
    "have no clinical meaning.",
}


def banner_of(data_kind: DataKind) -> str | None:
    """Return the warning of a report on these data, ``None`` for real data."""
    return _BANNERS.get(data_kind)
