"""How models look: colour, line and marker of each, apart from the levels' colours."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from csfd_core.vocabulary import OVERALL

Line: TypeAlias = str | tuple[int, tuple[float, ...]]  # of Matplotlib

STAR: Final = "★"
# At least 3:1 on the card of a page, in light and in dark.
_COLOURS: Final = ("#3F7FC4", "#D9544D", "#2E9152", "#9A6FC0", "#B07D10", "#1F9AA8")
# No dots: they stand for chance.
_LINES: Final[tuple[Line, ...]] = ("-", "--", "-.", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How one model is drawn, in every figure of a report."""

    colour: str
    line: Line
    marker: str


def styles_of(models: Iterable[str]) -> dict[str, Style]:
    """Give each model its style, by its place among the sorted names."""
    return {
        model: Style(
            colour=_COLOURS[index % len(_COLOURS)],
            line=_LINES[index % len(_LINES)],
            marker=_MARKERS[index % len(_MARKERS)],
        )
        for index, model in enumerate(sorted(models))
    }


def starred(model: str, best: str | None) -> str:
    """Mark the best model by a character, not by colour alone."""
    return f"{STAR} {model}" if model == best else model


def short(level: str) -> str:
    """Return a label's name as it stands in a figure."""
    return "overall" if level == OVERALL else level
