"""The pictures of a prediction's page: the whole column, and each level's place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from csfd_core.inference.judgement import JudgedScan
from csfd_core.reports.eda.images import midline_column
from csfd_core.reports.prediction.levels import LevelFacts
from csfd_core.reports.prediction.views import (
    AXES,
    Field,
    Kind,
    Mark,
    Planes,
    Vector,
    View,
)
from csfd_core.text import Prose, number
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES

WINDOW: Final = f"W {BONE_WINDOW.width_hu:.0f} L {BONE_WINDOW.center_hu:.0f}"
_SCALE_MM: Final = 20  # length of the bar
_LEVEL_MM: Final = 96.0  # side of the square around a level
_AROUND_MM: Final = 25.0  # above and below the column
_IN_FRONT_MM: Final = 60.0
_BEHIND_MM: Final = 25.0
_NAME_GAP_MM: Final = 4.0  # from a name to its vertebra
_NAME_STEP_MM: Final = 9.0  # between names

_say: Final = Prose("csfd_core.reports", "prediction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A level's name on a picture, its right edge at a place in percent."""

    level: LevelFacts
    right: float
    top: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A view with all that lies on it.

    Attributes:
        view: The plane.
        title: What is shown, for its corner and for readers of screens.
        plane: Which plane of the study it is.
        position: Where along its normal it lies.
        marks: Boxes.
        names: Of levels.
        across: Where the other plane cuts it, from the left in percent.
        down: The same, from the top.
    """

    view: View
    title: str
    plane: str
    position: str
    marks: tuple[Mark, ...] = ()
    names: tuple[Name, ...] = ()
    across: float | None = None
    down: float | None = None

    @property
    def scale(self) -> float:
        """Length of the bar, in percent of the width."""
        return round(100 * _SCALE_MM / self.view.field.width_mm, 2)


class Painter:
    """Draws the pictures of one study."""

    def __init__(self, judged: JudgedScan) -> None:
        """Take the study."""
        self._planes = Planes(judged.study)
        self._headers = judged.scan.headers

    def column(
        self, levels: Sequence[LevelFacts], shown: Sequence[LevelFacts]
    ) -> Picture:
        """Show the plane through the middle of the column, with the levels named.

        Args:
            levels: All of them.
            shown: Those whose boxes lie on it.
        """
        mask = self._planes.scan.mask
        at_mm = midline_column(mask) * self._planes.scan.spacing_mm[2]
        middle = np.array([0.0, 0.0, at_mm])
        view = self._planes.view("sagittal", at_mm, self._column_field())
        boxes = [level.evidence for level in shown if level.evidence is not None]
        return Picture(
            view=view,
            title="Mid-sagittal",
            plane=_say("reformat"),
            position=self._position(middle, "sagittal"),
            marks=tuple(
                view.mark(self._planes.box_of(box, "sagittal")) for box in boxes
            ),
            names=self._names(view, levels, midline_column(mask)),
        )

    def level(self, level: LevelFacts) -> tuple[Picture, ...]:
        """Show the place of a level on its axial and on its sagittal plane.

        Without a place, its middle; nothing where that is not known either.
        """
        if level.vertebra is None:
            return ()
        centre = np.array(level.vertebra.centre_zyx_mm)
        kinds: tuple[Kind, ...] = ("axial", "sagittal")
        return tuple(self._level(level, kind, centre) for kind in kinds)

    def _level(self, level: LevelFacts, kind: Kind, centre_mm: Vector) -> Picture:
        evidence = level.evidence
        place_mm = (
            centre_mm if evidence is None else self._planes.to_mm(evidence.peak_zyx)
        )
        along, down, across = AXES[kind]
        # Both the vertebra and its place, none at the edge.
        field = self._planes.around((centre_mm + place_mm) / 2, kind, _LEVEL_MM)
        view = self._planes.view(kind, float(place_mm[along]), field)
        index = round(float(place_mm[0]) / self._planes.scan.spacing_mm[0])
        shown = Picture(
            view=view,
            title=f"{level.name} {kind}",
            plane=self.original(index) if kind == "axial" else _say("reformat"),
            position=self._position(place_mm, kind),
        )
        if evidence is None:
            return shown
        return replace(
            shown,
            marks=(view.mark(self._planes.box_of(evidence, kind)),),
            across=view.share_across(float(place_mm[across])),
            down=view.share_down(float(place_mm[down])),
        )

    def original(self, index: int) -> str:
        """Say which slice of the study one is, as people count and as its file says."""
        image = self._headers[index].instance_number
        return _say("original", index=index, slices=len(self._headers), image=image)

    def _position(self, place_mm: Vector, kind: Kind) -> str:
        axis = {"axial": 2, "sagittal": 0}[kind]
        lps = self._planes.to_lps(place_mm)
        return f"{'xyz'[axis]} {number(float(lps[axis]), '.1f')} mm"

    def _column_field(self) -> Field:
        """Return the part of a sagittal plane that shows the column."""
        whole = self._planes.whole("sagittal")
        mask = self._planes.scan.mask
        cervical = (mask > 0) & (mask <= len(LEVEL_NAMES))
        if not cervical.any():
            return whole
        step_z, step_y, _ = self._planes.scan.spacing_mm
        z = np.flatnonzero(cervical.any(axis=(1, 2))) * step_z
        y = np.flatnonzero(cervical.any(axis=(0, 2))) * step_y
        return Field(
            top=max(whole.top, float(z[0]) - _AROUND_MM),
            bottom=min(whole.bottom, float(z[-1]) + _AROUND_MM),
            left=max(whole.left, float(y[0]) - _IN_FRONT_MM),
            right=min(whole.right, float(y[-1]) + _BEHIND_MM),
        )

    def _names(
        self, view: View, levels: Sequence[LevelFacts], column: int
    ) -> tuple[Name, ...]:
        """Write each level's name in front of it, none over another."""
        mask = self._planes.scan.mask
        step_z, step_y, _ = self._planes.scan.spacing_mm
        names, lowest = [], -np.inf
        for label, level in enumerate(levels, start=1):
            rows, columns = np.nonzero(mask[:, :, column] == label)
            if not rows.size:  # beside this plane
                rows, columns = np.nonzero((mask == label).any(axis=2))
            if not rows.size:
                continue
            z = max(float(np.median(rows)) * step_z, lowest + _NAME_STEP_MM)
            y = float(columns.min()) * step_y - _NAME_GAP_MM
            lowest = z
            names.append(
                Name(
                    level=level,
                    right=round(100 - view.share_across(y), 2),
                    top=view.share_down(z),
                )
            )
        return tuple(names)
