"""One page on one study, for the file: what a model says, and what readers have signed.

It is no report, and says so. Matplotlib draws it, imported when it is asked for.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from csfd_core.classification.assessment import rests_on
from csfd_core.classification.ensemble import threshold_of
from csfd_core.data_kind import DataKind
from csfd_core.reports.render import INK, MUTED
from csfd_core.vocabulary import LEVEL_COLOURS, LEVEL_NAMES, OVERALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_REPORT: Final = (
    "Research software, not a medical device. This page is no report: a reading of the "
    "images by a radiologist counts, this does not."
)
_PAGE_IN: Final = (8.27, 11.69)  # A4
_LEFT: Final = 0.08  # of the page's width
_LINE: Final = 0.0165  # of its height
_WRAP: Final = 94  # characters
_NARROW: Final = 62  # beside the picture
_MOST_READERS: Final = 6
_MOST_REASONS: Final = 5
_ANSWERS: Final = {
    "fractured": "fractured",
    "whole": "not fractured",
    "not_assessable": "not assessable",
    "undecided": "undecided",
    None: "",
}
# Where the columns of the table begin, of the page's width.
_COLUMNS: Final = (("Level", 0.0), ("Probability", 0.065), ("Operating point", 0.16))
_ANSWER_AT: Final = 0.285
_READER_AT: Final = 0.42
_LONGEST_NAME: Final = 24  # of a reader, above the table


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLine:
    """What one reader has signed."""

    reader: str
    signed_at: datetime
    saw_ai: bool
    levels: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The cervical column from the side.

    Attributes:
        grey: Rows head to feet, columns front to back, 8 bits.
        spacing_mm: Of its rows and columns.
        places_mm: Of the middle of each level: down, and to the back.
    """

    grey: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float]
    places_mm: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the page says.

    Attributes:
        study_uid: Keyed, as everywhere.
        prediction: The JSON of the prediction.
        signed: The newest review of each reader, the newest first; ``None``: what was
            signed stands elsewhere.
        column: ``None``: there is no picture.
        made_at: When the page was made.
    """

    study_uid: str
    prediction: Mapping[str, Any]
    signed: Sequence[SignedLine] | None
    column: Column | None
    made_at: datetime


def summary_pdf(summary: Summary) -> bytes:
    """Return the page as PDF."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_PAGE_IN)
    page = _Page(figure)
    note = summary.prediction
    page.line("Cervical spine fractures in CT: summary of one study", 15, bold=True)
    page.line(f"Study {summary.study_uid}", 8.5, colour=MUTED)
    page.skip(0.4)
    page.paragraph(NO_REPORT, _WRAP, 9.5, bold=True)
    page.paragraph(DataKind(note["trained_on"]).caution, _WRAP, 8.5, colour=MUTED)
    page.skip(0.6)
    top = page.at
    _draw_verdict(page, note)
    _draw_table(page, note, summary.signed or ())
    if summary.column is not None:
        _draw_column(figure, summary.column, top)
    if summary.signed is not None:
        _draw_signatures(page, summary.signed)
    page.at = 0.045
    version = note.get("model_version")
    model = f"{note['model']}{f' version {version}' if version else ''}"
    page.line(
        f"Model {model}. Made {_told(summary.made_at)}. Not for clinical use.",
        8,
        colour=MUTED,
    )
    sink = io.BytesIO()
    title = f"Summary of study {summary.study_uid}"
    facts = {"Title": title, "Creator": "csfd", "CreationDate": summary.made_at}
    figure.savefig(sink, format="pdf", metadata=facts)
    return sink.getvalue()


class _Page:
    """Writes lines from above."""

    def __init__(self, figure: "Figure") -> None:
        self._figure = figure
        self.at = 0.95  # of the page's height

    def skip(self, lines: float) -> None:
        self.at -= _LINE * lines

    def text(
        self, x: float, told: str, size: float, colour: str = INK, *, bold: bool = False
    ) -> None:
        self._figure.text(
            _LEFT + x,
            self.at,
            told,
            fontsize=size,
            color=colour,
            fontweight="bold" if bold else "normal",
            va="top",
            parse_math=False,
        )

    def line(
        self, told: str, size: float, colour: str = INK, *, bold: bool = False
    ) -> None:
        self.text(0, told, size, colour, bold=bold)
        self.skip(max(1.0, size / 9))

    def paragraph(
        self,
        told: str,
        width: int,
        size: float,
        colour: str = INK,
        *,
        bold: bool = False,
    ) -> None:
        for line in textwrap.wrap(told, width if not bold else width - 10):
            self.line(line, size, colour, bold=bold)


def _draw_verdict(page: _Page, note: Mapping[str, Any]) -> None:
    page.line(f"The model: {note['verdict']}", 12, bold=True)
    overall = note["probabilities"][OVERALL]
    if overall is not None:
        limit = threshold_of(note["thresholds"], OVERALL)
        side = "above" if overall >= limit else "below"
        page.paragraph(
            f"Any fracture: {overall:.2f}, {side} the operating point {limit:.2f}. "
            f"Rests on {rests_on(note['overall_rests_on'])}.",
            _NARROW,
            9.5,
        )
    reasons = list(note["needs_eyes"])
    for reason in reasons[:_MOST_REASONS]:
        page.paragraph(reason, _NARROW, 8.5, colour=MUTED)
    if reasons[_MOST_REASONS:]:
        more = len(reasons) - _MOST_REASONS
        page.line(f"And {more} more in the JSON.", 8.5, colour=MUTED)
    page.skip(0.6)


def _draw_table(
    page: _Page, note: Mapping[str, Any], signed: Sequence[SignedLine]
) -> None:
    for title, x in _COLUMNS:
        page.text(x, title, 8.5, MUTED)
    page.text(_ANSWER_AT, "The model", 8.5, MUTED)
    if signed:
        page.text(_READER_AT, signed[0].reader[:_LONGEST_NAME], 8.5, MUTED)
    page.skip(1.3)
    limit = threshold_of(note["thresholds"], LEVEL_NAMES[0])
    for name in LEVEL_NAMES:
        value = note["probabilities"][name]
        page.text(0, name, 10, bold=True)
        if value is None:
            page.text(_COLUMNS[1][1], "not assessed", 10, MUTED)
        else:
            is_above = value >= limit
            page.text(_COLUMNS[1][1], f"{value:.2f}", 10, bold=is_above)
            page.text(
                _COLUMNS[2][1], f"{'above' if is_above else 'below'} {limit:.2f}", 10
            )
            page.text(_ANSWER_AT, _ANSWERS[(note.get("answers") or {}).get(name)], 10)
        if signed:
            page.text(_READER_AT, _ANSWERS[signed[0].levels[name]], 10)
        page.skip(1.35)
    page.skip(0.8)


def _draw_signatures(page: _Page, signed: Sequence[SignedLine]) -> None:
    if not signed:
        page.line("No reader has signed this study.", 9.5, bold=True)
        return
    page.line("Signed", 11, bold=True)
    for one in signed[:_MOST_READERS]:
        said = [
            f"{name} {_ANSWERS[answer]}"
            for name, answer in one.levels.items()
            if answer in ("fractured", "not_assessable")
        ]
        beside = "with the model's answer at hand" if one.saw_ai else "blind"
        told = ", ".join(said) or "no level fractured"
        page.paragraph(
            f"{one.reader}, {_told(one.signed_at)}, read {beside}: {told}.", _WRAP, 9
        )
    if signed[_MOST_READERS:]:
        page.line(f"And {len(signed) - _MOST_READERS} more readers.", 9)


def _draw_column(figure: "Figure", column: Column, top: float) -> None:
    rows, columns = column.grey.shape
    height_mm, width_mm = rows * column.spacing_mm[0], columns * column.spacing_mm[1]
    axes = figure.add_axes((0.7, top - 0.335, 0.24, 0.335))
    axes.imshow(
        column.grey,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(0, width_mm, height_mm, 0),
        interpolation="bilinear",
    )
    for name, (down, back) in column.places_mm.items():
        colour = LEVEL_COLOURS[name]
        axes.plot(back, down, "o", color=colour, markersize=3)
        axes.text(back + 9, down, name, color=colour, fontsize=8, va="center")
    axes.set_axis_off()


def _told(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
