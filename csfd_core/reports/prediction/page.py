"""The page of one prediction: a single HTML file to hand to a colleague.

It carries its pictures, needs no network, and names the study by its UID alone.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from csfd_core.classification.unlike import Verdict
from csfd_core.data_kind import DataKind
from csfd_core.inference.judgement import JudgedScan
from csfd_core.inference.segment import write_file
from csfd_core.reports.html import render_html
from csfd_core.reports.prediction.levels import LevelFacts, facts_of, shown_levels
from csfd_core.reports.prediction.pictures import Painter
from csfd_core.text import Prose, chance, count, number, uncapital
from csfd_core.vocabulary import BONE_WINDOW, LEVEL_NAMES, OVERALL

PAGE: Final = ".html"  # ending of the file's name
_say: Final = Prose("csfd_core.reports", "prediction")


def write_prediction_page(judged: JudgedScan) -> None:
    """Write the page of a study beside its JSON.

    Raises:
        SettingsError: If it cannot be written.
    """
    html = build_prediction_page(judged)
    write_file(judged.out / f"{judged.name}{PAGE}", html.encode())


def build_prediction_page(judged: JudgedScan) -> str:
    """Render the page of a study. The same prediction gives the same text."""
    facts = facts_of(judged)
    levels = [facts[name] for name in LEVEL_NAMES]
    shown = shown_levels(facts)
    painter = Painter(judged)
    is_unlike = judged.judgement.unlike.is_above
    sentences = _sentences(facts[OVERALL], levels, shown, is_unlike=is_unlike)
    return render_html(
        "prediction",
        "prediction",
        caution=DataKind(judged.note["trained_on"]).caution,
        about=_about(judged),
        overall=facts[OVERALL],
        levels=levels,
        is_suspicious=judged.note["verdict"] == Verdict.SUSPICIOUS,
        is_unlike=is_unlike,
        first=judged.judgement.unlike.warnings,
        distance=judged.judgement.unlike.told,
        column=painter.column(levels, shown),
        slices={
            name: painter.original(level.evidence.slice_index)
            for name, level in facts.items()
            if level.evidence is not None
        },
        shown=[(level, painter.level(level)) for level in shown],
        flags=judged.note["segmentation"]["flags"],
        warnings=[finding.reason for finding in judged.scan.findings],
        notes=judged.scan.notes,
        window=f"W {BONE_WINDOW.width_hu:.0f} L {BONE_WINDOW.center_hu:.0f}",
        folds=len(judged.note["model_ids"]),
        has_spread=any(level.spread for level in facts.values()),
        csfd_version=version("csfd"),
        chance=chance,
        number=number,
        say=_say,
        uncapital=uncapital,
        **sentences,
    )


def _sentences(
    overall: LevelFacts,
    levels: Sequence[LevelFacts],
    shown: Sequence[LevelFacts],
    *,
    is_unlike: bool,
) -> dict[str, str]:
    above = [level for level in shown if level.is_above]
    missing = [level.name for level in levels if not level.is_assessed]
    return {
        "headline": _say(
            "headline", above=above, assessed=overall.is_assessed, unlike=is_unlike
        ),
        "summary": _say(
            "summary",
            overall=overall,
            close=[level.name for level in levels if level.is_close],
            missing=missing,
        ),
        "look": _say("look", above=above, shown=shown),
        "bars": _say("bars", has_spread=any(level.spread for level in levels)),
    }


def _about(judged: JudgedScan) -> list[tuple[str, str]]:
    """Return what the prediction rests on, a name and a value each."""
    note, geometry = judged.note, judged.study.geometry
    slices, rows, columns = geometry.shape_zyx
    gap_mm, row_mm, _ = geometry.spacing_zyx_mm
    serving = note["model_version"]
    folds = count(len(note["model_ids"]), "fold")
    model = f"{note['model']}, version {serving}" if serving else note["model"]
    return [
        ("Study", note["study_uid"]),
        (
            "Scan",
            f"{slices} slices {number(gap_mm, '.2f')} mm apart, {columns} × {rows} "
            f"pixels of {number(row_mm, '.2f')} mm",
        ),
        ("Classifier", f"{model} ({folds})"),
        ("It has learnt from", DataKind(note["trained_on"]).described),
        ("Segmentation", str(note["segmentation"]["model"])),
    ]
