"""What is watched for drift: one feature per row of ``drift.csv``."""

from dataclasses import dataclass
from typing import Final, Literal

from csfd_core.text import uncapital
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

Kind = Literal["values", "rate", "histogram"]

INTENSITY: Final = "intensity"
GEOMETRY: Final = "geometry"
LABELS: Final = "labels"
PROBABILITIES: Final = "probabilities"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A number of each study, or its histogram of grey levels.

    ``kind`` says how two groups of studies are compared: ``values`` by their
    distribution, ``rate`` by the share of ones, ``histogram`` by the mean histogram.
    """

    name: str  # in ``drift.csv``
    title: str
    unit: str
    group: str
    kind: Kind

    @property
    def name_in_sentence(self) -> str:
        """Return the title as it stands inside a sentence."""
        return uncapital(self.title)

    @property
    def studies(self) -> str:
        """Return what studies that have this feature are called."""
        names = {LABELS: "labelled studies", PROBABILITIES: "predicted studies"}
        return names.get(self.group, "studies")

    @property
    def effect(self) -> str:
        """Return what measures the distance of two groups."""
        return "Cohen's h" if self.kind == "rate" else "PSI"


def _per_label(prefix: str, what: str, group: str, kind: Kind) -> tuple[Feature, ...]:
    return tuple(
        Feature(
            name=f"{prefix}_{column}",
            title=f"{what}, {'any level' if column == OVERALL else column}",
            unit="",
            group=group,
            kind=kind,
        )
        for column in LABEL_COLUMNS
    )


GREY_LEVELS: Final = Feature(
    name="grey_levels",
    title="Histogram of tissue",
    unit="grey levels",
    group=INTENSITY,
    kind="histogram",
)
FEATURES: Final[tuple[Feature, ...]] = (
    GREY_LEVELS,
    Feature(
        name="grey_mean",
        title="Mean grey level",
        unit="grey levels",
        group=INTENSITY,
        kind="values",
    ),
    Feature(
        name="grey_tissue",
        title="Median tissue grey",
        unit="grey levels",
        group=INTENSITY,
        kind="values",
    ),
    Feature(
        name="pixel_spacing_mm",
        title="Pixel spacing",
        unit="mm",
        group=GEOMETRY,
        kind="values",
    ),
    Feature(
        name="slice_spacing_mm",
        title="Slice spacing",
        unit="mm",
        group=GEOMETRY,
        kind="values",
    ),
    Feature(
        name="slice_count",
        title="Slices per study",
        unit="slices",
        group=GEOMETRY,
        kind="values",
    ),
    Feature(
        name="z_extent_mm",
        title="Extent along z",
        unit="mm",
        group=GEOMETRY,
        kind="values",
    ),
    *_per_label("label", "Fractured", LABELS, "rate"),
    *_per_label("probability", "Probability", PROBABILITIES, "values"),
)


def features_of(group: str) -> list[Feature]:
    """Return the features of one group, in their order."""
    return [feature for feature in FEATURES if feature.group == group]
