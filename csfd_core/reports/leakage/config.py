"""Settings of the leakage audit: which slices, and how long each network learns."""

from dataclasses import asdict, dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """What every protocol of an audit shares, so that they differ in the split alone.

    The images take ``most_studies * slices_per_study * side * side`` bytes of memory.
    """

    seed: int = 0
    steps: int = 500  # of each network
    batch_size: int = 32
    side: int = 64  # pixels, height and width of a slice for the network
    slices_per_study: int = 48  # evenly spaced from head to feet
    most_studies: int = 60  # that take part; a digest of the patient chooses them
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Require values that can be meant."""
        least = {
            "seed": 0,
            "steps": 1,
            "batch_size": 1,
            "side": 16,
            "slices_per_study": 1,
            "most_studies": 1,
        }
        for name, lowest in least.items():
            value = getattr(self, name)
            if value < lowest:
                raise ValueError(
                    f"`{name}` must be at least {lowest}. Received: {name}={value}."
                )
        if not self.learning_rate > 0:
            raise ValueError(
                "`learning_rate` must be above 0. Received: "
                f"learning_rate={self.learning_rate}."
            )

    def to_note(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


PROFILES: Final[dict[str, AuditConfig]] = {
    "demo": AuditConfig(),
    "full": AuditConfig(steps=6000, side=96, most_studies=400),  # 177 MB of images
}
