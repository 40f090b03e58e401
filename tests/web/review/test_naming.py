"""What is told of the names of vertebrae, also to who reads blind."""

from typing import Any

import pytest

from csfd_core.classification.assessment import Assessment
from csfd_core.segmentation.columns import TWO_NECKS
from csfd_core.segmentation.postprocess import LevelFinding, _contradictions
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL
from csfd_core.web.review.naming import naming_of

MISSING = "was not assessed: not found, or hardly in the scan."
USUAL_ML = {"C1": 9.0, "C2": 12.0, "C3": 8.0, "C4": 8.0, "C5": 8.0}


def found(name: str, at_mm: float, **changes: Any) -> LevelFinding:
    facts = {"volume_ml": USUAL_ML.get(name, 9.0), "confidence": 0.9, "is_cut": False}
    facts |= {"level": name, "centre_zyx_mm": (at_mm, 0.0, 0.0)}
    return LevelFinding(**(facts | changes))


def note(flags: list[str], missing: tuple[str, ...] = ()) -> dict[str, Any]:
    """A prediction that gives every level that was found 0.82."""
    assessed = [name for name in LEVEL_NAMES if name not in missing]
    numbers = dict.fromkeys((OVERALL, *LEVEL_NAMES), 0.82)
    told = Assessment.of(numbers, assessed)
    return told.to_note(flags, ("This scan is unlike those it has learnt from.",))


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        ([found("C6", 40), found("C7", 30)], "C7 does not lie below C6."),
        ([found("C1", 0), found("C4", 45)], "C2, C3 is missing between its neigh"),
        ([found("C1", 0), found("C2", 90)], "C1 and C2 are 90 mm apart."),
        ([found("C3", 0), found("C4", 20)], "Nothing was found above C3, though"),
        (
            [found("C3", 0, is_cut=True), found("C4", 20, is_cut=True)],
            "The scan begins at C3 and ends at C4",
        ),
        (
            [found(f"C{n}", 18 * n, **({"volume_ml": 2.0} if n == 5 else {}))
             for n in range(1, 8)],
            "C5 is small beside the other levels; they may be shifted.",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_the_order_is_told(
    levels: list[LevelFinding], told: str
) -> None:
    flags = _contradictions(levels)
    assert any(one.startswith(told) for one in flags)
    assert any(one.startswith(told) for one in naming_of(note(flags)))


def test_nothing_else_gets_through() -> None:
    flags = [
        *_contradictions([found("C1", 0, volume_ml=90.0, confidence=0.2)]),
        "Metal lies at C4: it hides bone.",
        "C4 is suspicious (0.82). C7 does not lie below C6.",
        "C7 does not lie below C6, and C4 is broken (0.82).",
    ]
    assert "C1 is uncertain (20 %)." in flags
    below = "Nothing was found below C1, though the scan goes on."
    assert naming_of(note(flags, ("C7",))) == [f"C7 {MISSING}", below]


def test_a_scan_without_a_neck_or_with_two_says_so() -> None:
    assert naming_of(note([], LEVEL_NAMES)) == [
        "No cervical vertebra was found in the scan."
    ]
    assert naming_of(note([TWO_NECKS], LEVEL_NAMES)) == [TWO_NECKS]
