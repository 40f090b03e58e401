"""The page of the model: who speaks, what it rests on, how good it is."""

import io
import json
from dataclasses import dataclass
from typing import Annotated, Any, Final

import pandas as pd
from fastapi import APIRouter, Depends, Request, Response
from starlette.exceptions import HTTPException

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.ensemble import read_best
from csfd_core.classification.general import BEST_GENERAL, general_card
from csfd_core.data_kind import DataKind
from csfd_core.registry.decision import DecisionNote
from csfd_core.registry.history import Alias, Change, read_history
from csfd_core.registry.serving import stand_in
from csfd_core.reports.comparison.report import MODELS_CSV
from csfd_core.reports.drift.report import read_report
from csfd_core.reports.page import INDEX
from csfd_core.store import paths
from csfd_core.store.stores import Stores
from csfd_core.text import number, span
from csfd_core.web.files import send_file
from csfd_core.web.pages.moments import iso_day_and_time
from csfd_core.web.pages.render import caution_of, render
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.services import Services

router = APIRouter()

# Heading, column of the comparison's table, and that of its interval.
_SCORES: Final = (
    ("AUC per vertebra", "auc_vertebra", True),
    ("AUC per study", "auc_overall", True),
    ("Competition log loss", "competition_log_loss", True),
    ("Sensitivity per vertebra", "sensitivity", False),
    ("Specificity per vertebra", "specificity", False),
    ("Calibration error", "ece", False),
)

MySession = Annotated[Session, Depends(require_session)]
MyServices = Annotated[Services, Depends(services_of)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who speaks.

    Attributes:
        name: Of the classifier; ``general``: the one that comes with csfd.
        version: Number in the registry; ``None``: it is not registered.
        since: When it became champion, in UTC; empty where it is none.
        told: Why it speaks, in a sentence.
        kind: What it has learnt from.
    """

    name: str
    version: int | None
    since: str
    told: str
    kind: DataKind


@router.get("/model")
def show_model(request: Request, session: MySession, services: MyServices) -> Response:
    """Show who speaks and how good it is."""
    stores = services.stores
    history = read_history(stores.root)
    standing = standing_of(stores, history)
    return render(
        request,
        session,
        "model.html",
        standing=standing,
        caution=caution_of(standing.kind),
        history=[_told_change(one) for one in reversed(history)][:20],
        scores=scores_of(stores),
        decision=_decision(stores),
        reports=[
            folder.rpartition("/")[2]
            for folder in paths.EVERY_REPORT
            if stores.root.exists(f"{folder}/{INDEX}")
        ],
        has_drift=read_report(stores) is not None,
        headings=[heading for heading, _, _ in _SCORES],
    )


@router.get("/reports/{path:path}")
def show_report(path: str, session: MySession, services: MyServices) -> Response:
    """Show a report of the store."""
    try:
        return send_file(services.stores.root, paths.REPORTS, path)
    except HTTPException:
        raise HTTPException(404, "There is no such report.") from None


def standing_of(stores: Stores, history: list[Change]) -> Standing:
    """Say who speaks, from the record in the store: MLflow is not asked."""
    champions = [change for change in history if change.alias == Alias.CHAMPION]
    if champions and champions[-1].after is not None:
        last = champions[-1]
        return Standing(
            name=last.model or "classifier",
            version=last.after,
            since=iso_day_and_time(last.at),
            told=_first_sentence(last.reason),
            kind=_learnt_from(stores, last.model),
        )
    best = stand_in(stores)
    if best is not None:
        told = "There is no champion yet, so the best of the comparison speaks."
        kind = _learnt_from(stores, best)
        return Standing(name=best, version=None, since="", told=told, kind=kind)
    card = general_card(BEST_GENERAL)
    is_compared = read_best(stores) is not None
    why = (
        "No classifier that was trained on your studies beats the prevalences yet"
        if is_compared
        else "Nothing was trained on your studies yet"
    )
    told = f"{why}, so the general classifier speaks, which comes with csfd."
    kind = DataKind.PHANTOM if card is None else DataKind(card.data_kind)
    return Standing(name="general", version=None, since="", told=told, kind=kind)


def scores_of(stores: Stores) -> list[dict[str, Any]]:
    """Return the scores of every classifier of the newest comparison, as text."""
    path = f"{paths.COMPARISON_REPORT}/{MODELS_CSV}"
    content = stores.root.read_if_there(path)
    if content is None:
        return []
    frame = pd.read_csv(io.BytesIO(content))
    rows = []
    for _, row in frame.sort_values("competition_log_loss").iterrows():
        cells = []
        for _, column, has_interval in _SCORES:
            text = number(float(row[column]), ".2f")
            low, high = f"{column}_low", f"{column}_high"
            if has_interval and low in frame:
                text += f" ({span(float(row[low]), float(row[high]), '.2f')})"
            cells.append(text)
        rows.append(
            {
                "model": row["model"],
                "cells": cells,
                "studies": int(row["test_studies"]),
                "fractures": int(row["test_fractures"]),
            }
        )
    return rows


def _learnt_from(stores: Stores, name: str) -> DataKind:
    cards = ClassifierStore(stores.root).cards([name])
    return DataKind.joined([card.data_kind for card in cards] or [DataKind.REAL])


def _decision(stores: Stores) -> DecisionNote | None:
    content = stores.root.read_if_there(paths.LAST_DECISION)
    if content is None:
        return None
    return DecisionNote.read(json.loads(content)["decision"], paths.LAST_DECISION)


def _told_change(change: Change) -> dict[str, str]:
    versions = [change.before, change.after]
    before, after = ("none" if v is None else f"version {v}" for v in versions)
    return {
        "when": iso_day_and_time(change.at),
        "alias": change.alias,
        "what": f"{before} → {after}",
        "by": change.by,
        "why": _first_sentence(change.reason),
    }


def _first_sentence(text: str) -> str:
    first, end, _ = text.partition(". ")
    return f"{first}." if end else first
