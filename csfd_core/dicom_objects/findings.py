"""What a prediction says of each level, as the objects tell it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csfd_core.classification.ensemble import threshold_of
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.vocabulary import LABEL_COLUMNS, LEVEL_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box on a slice, in pixels; (0, 0) is the outer corner of the first."""

    slice_index: int  # 0 is nearest the head
    x: float
    y: float
    width: float
    height: float

    def corners(self) -> list[tuple[float, float]]:
        """Return column and row of its corners, around and back to the first."""
        right, bottom = self.x + self.width, self.y + self.height
        around = ((self.x, self.y), (right, self.y), (right, bottom), (self.x, bottom))
        return [*around, around[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a model says of one level, or of the whole study.

    Attributes:
        name: C1 to C7, or ``patient_overall``.
        probability: Of a fracture; ``None``: it was not assessed.
        threshold: The operating point.
        answer: What is certain of it: ``fractured``, ``whole``, ``undecided``.
        box: Where it is suspected most.
    """

    name: str
    probability: float | None
    threshold: float
    answer: str | None
    box: Box | None

    @property
    def is_above(self) -> bool:
        """Whether it reaches its operating point."""
        return self.probability is not None and self.probability >= self.threshold

    @property
    def ratio(self) -> float:
        """How far it lies above its operating point; 1 at it."""
        if self.probability is None:
            return 0.0
        return self.probability / max(self.threshold, 1e-6)

    @property
    def told(self) -> str:
        """Say it in words."""
        if self.probability is None:
            return "not assessed"
        side = "above" if self.is_above else "below"
        number = f"{self.probability:.2f}"
        return f"{number}, {side} the operating point {self.threshold:.2f}"


def findings_of(source: ResultSource) -> dict[str, Finding]:
    """Return what a prediction says of the study and of each level."""
    note = source.prediction
    answers = note.get("answers") or {}
    evidence = note.get("evidence") or {}
    return {
        name: Finding(
            name=name,
            probability=note["probabilities"].get(name),
            threshold=threshold_of(note["thresholds"], name),
            answer=answers.get(name),
            box=_box(evidence.get(name), len(source.headers)),
        )
        for name in LABEL_COLUMNS
    }


def worst_levels(findings: Mapping[str, Finding], most: int) -> list[Finding]:
    """Return the levels above their operating point that have a place, worst first."""
    above = [
        finding
        for name in LEVEL_NAMES
        if (finding := findings[name]).is_above and finding.box is not None
    ]
    return sorted(above, key=lambda finding: -finding.ratio)[:most]


def _box(evidence: Mapping[str, Any] | None, slices: int) -> Box | None:
    if not evidence or not 0 <= evidence["slice_index"] < slices:
        return None
    edges = {name: float(evidence["box_px"][name]) for name in _EDGES}
    return Box(slice_index=int(evidence["slice_index"]), **edges)


_EDGES = ("x", "y", "width", "height")
