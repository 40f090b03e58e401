"""Figures of the leakage audit: the slices of each protocol, and their AUC."""

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.reports.leakage.audit import Audit, ProtocolResult
from csfd_core.reports.leakage.protocols import ProtocolSplit, Rows
from csfd_core.reports.render import (
    GRID,
    INK,
    MUTED,
    NEUTRAL,
    chart,
    new_figure,
    say_nothing_to_show,
)
from csfd_core.text import number, share_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), colour-blind safe.
_TRAINED: Final = NEUTRAL
_SEEN_SLICE: Final = "#D55E00"
_SEEN_PATIENT: Final = "#E69F00"
_NEW_PATIENT: Final = "#009E73"
_COLOURS: Final = (_TRAINED, _SEEN_SLICE, _SEEN_PATIENT, _NEW_PATIENT)
_MEANINGS: Final = (
    "training",
    "held out, but the slice is in training",
    "held out, but the patient is in training",
    "held out, of a new patient",
)
_NOT_TAKEN: Final = -1


@chart
def plot_protocols(audit: Audit) -> "Figure":
    """One panel per protocol, a lane per set: studies along x, their slices along y."""
    from matplotlib.patches import Patch

    figure = new_figure(1.35 * len(audit.splits) + 1.2)
    panels = figure.subplots(len(audit.splits), 1, sharex=True, squeeze=False).ravel()
    for axes, split in zip(panels, audit.splits, strict=True):
        _plot_split(axes, audit.slices, split)
    panels[-1].set_xlabel("study, in the order of the stream; in each, head to feet")
    handles = [
        Patch(facecolor=colour, label=meaning)
        for colour, meaning in zip(_COLOURS, _MEANINGS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=1, fontsize=8.5)
    return figure


@chart
def plot_auc(audit: Audit) -> "Figure":
    """AUC of each protocol on its own test set, with its interval."""
    figure = new_figure(0.55 * len(audit.results) + 1.2)
    axes = figure.subplots()
    for y, result in enumerate(audit.results):
        auc = result.auc
        if math.isnan(auc.estimate):
            axes.text(0.01, y, "undefined", va="center", color=MUTED, fontsize=9)
            continue
        axes.barh(y, auc.estimate, color=_COLOURS[_standing(result)], height=0.62)
        end = auc.estimate
        if not math.isnan(auc.low):
            spread = [[auc.estimate - auc.low], [auc.high - auc.estimate]]
            axes.errorbar(
                auc.estimate, y, xerr=np.clip(spread, 0, None), fmt="none",
                ecolor=INK, elinewidth=1.1, capsize=4,
            )  # fmt: skip
            end = max(end, auc.high)
        axes.annotate(
            number(auc.estimate), (end, y), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.axvline(0.5, color=MUTED, linewidth=1, linestyle="--")
    axes.text(
        0.5, -0.62, "guessing", ha="center", va="bottom", color=MUTED, fontsize=8.5
    )
    names = [f"{result.title}\n{_tell(result)}" for result in audit.results]
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("AUC on its own test slices, 95 % interval")
    return figure


def _standing(result: ProtocolResult) -> int:
    """Return the code of ``_COLOURS`` that most of a test set has."""
    if result.slices_seen_in_training >= 0.5:
        return 1
    return 2 if result.patients_seen_in_training >= 0.5 else 3


def _tell(result: ProtocolResult) -> str:
    """Say in short how far a test set was seen in training."""
    if result.slices_seen_in_training > 0:
        return f"{share_of(result.slices_seen_in_training)} of its test slices seen"
    if result.patients_seen_in_training > 0:
        share = share_of(result.patients_seen_in_training)
        return f"{share} of its test patients seen"
    return "new patients"


def _plot_split(axes: "Axes", slices: pd.DataFrame, split: ProtocolSplit) -> None:
    """Draw the lanes of one protocol, each as high as a study has slices."""
    from matplotlib.colors import ListedColormap

    axes.set_title(split.title)
    if slices.empty:
        say_nothing_to_show(axes)
        return
    lanes = [_lane(slices, split, rows) for rows in split.parts().values()]
    gap = max(1, len(lanes[0]) // 6)
    apart = [np.pad(n, ((0, gap), (0, 0)), constant_values=_NOT_TAKEN) for n in lanes]
    shown = np.ma.masked_equal(np.concatenate(apart), _NOT_TAKEN)
    height, width = apart[0].shape
    axes.imshow(
        shown, cmap=ListedColormap(list(_COLOURS)), vmin=-0.5, vmax=3.5,
        aspect="auto", interpolation="nearest",
        extent=(0.5, width + 0.5, len(lanes) * height, 0),
    )  # fmt: skip
    for lane in range(len(lanes)):
        axes.axhline((lane + 1) * height - gap / 2, color=GRID, linewidth=0.7)
    middles = [lane * height + (height - gap) / 2 for lane in range(len(lanes))]
    axes.set_yticks(middles, list(split.parts()), fontsize=8.5)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _lane(
    slices: pd.DataFrame, split: ProtocolSplit, rows: Rows
) -> npt.NDArray[np.int8]:
    """Return a code of ``_COLOURS`` per slice (row) and study (column)."""
    studies, _ = pd.factorize(slices["study_uid"])
    positions = slices.groupby("study_uid", sort=False).cumcount().to_numpy()
    codes = _codes(slices, split, rows)
    lane = np.full((positions.max() + 1, studies.max() + 1), _NOT_TAKEN, dtype=np.int8)
    lane[positions, studies] = codes
    return lane


def _codes(
    slices: pd.DataFrame, split: ProtocolSplit, rows: Rows
) -> npt.NDArray[np.int8]:
    """Return a code of ``_COLOURS`` for each row of the stream."""
    codes = np.full(len(slices), _NOT_TAKEN, dtype=np.int8)
    if rows is split.training:
        codes[rows] = 0
        return codes
    patients = slices["patient"].to_numpy()
    is_seen = np.isin(rows, split.training)
    is_known = np.isin(patients[rows], patients[split.training])
    codes[rows] = np.where(is_seen, 1, np.where(is_known, 2, 3))
    return codes
