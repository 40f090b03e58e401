"""Lineage as trees for a terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.markup import escape
from rich.tree import Tree

from csfd_core.lineage.back import (
    NOT_RECORDED,
    ModelLineage,
    PredictionLineage,
    SeenStudy,
    StudyLineage,
)
from csfd_core.lineage.forward import (
    CLASSIFIER,
    PREDICTION,
    REPORT,
    SEGMENTATION,
    VERSION,
    StudyUsage,
)
from csfd_core.store.label_history import LabelVersion
from csfd_core.vocabulary import LEVEL_NAMES

_SHOWN: Final = 12  # hex digits of a digest
_LISTED: Final = 20  # predictions, at most
_TITLES: Final = {
    SEGMENTATION: "segmentation models",
    CLASSIFIER: "classifiers",
    VERSION: "versions, frozen for the champion",
    REPORT: "reports",
    PREDICTION: "predictions",
}
_ORIGINS: Final = {"table": "a table", "file": "a label file"}


def prediction_tree(lineage: PredictionLineage) -> Tree:
    """Draw the way back from a prediction."""
    tree = Tree(escape(f"prediction of {lineage.study.study_uid}: {lineage.place}"))
    _draw_study(tree, lineage.study)
    version = f"version {lineage.version}" if lineage.version else "the newest training"
    titles = ", ".join([version, *lineage.aliases])
    branch = tree.add(escape(f"classifier {lineage.model}, {titles}"))
    branch.add(escape(f"frozen ensemble: {lineage.digest or 'none'}"))
    branch.add(escape(f"trained on {lineage.trained_on} data"))
    for member in lineage.members:
        _draw_model(branch, member)
    if lineage.segmentation is None:
        tree.add(f"segmentation: {NOT_RECORDED}")
    else:
        _draw_model(
            tree.add("segmentation that found the vertebrae"), lineage.segmentation
        )
    if lineage.problem:
        tree.add(escape(f"MLflow was not asked: {lineage.problem}"))
    return tree


def usage_tree(usage: StudyUsage) -> Tree:
    """Draw the way forward from a study."""
    tree = Tree(f"study {usage.study_uid}")
    if (withdrawal := usage.withdrawal) is not None:
        told = f"withdrawn {withdrawal.at} by {withdrawal.by}: {withdrawal.reason}"
        tree.add(escape(told))
    _list(tree, "in the store", list(usage.holds))
    _list(tree, "labels", _label_lines(usage.labels))
    for kind, title in _TITLES.items():
        lines = [
            f"{use.name}: {', '.join(use.how)}  {use.place}"
            for use in usage.of_kind(kind)
        ]
        _list(tree, title, lines)
    if usage.problem:
        tree.add(escape(f"MLflow was not asked: {usage.problem}"))
    return tree


def _label_lines(versions: Sequence[LabelVersion]) -> list[str]:
    lines = []
    for before, version in zip((None, *versions), versions, strict=False):
        fractured = [name for name in LEVEL_NAMES if version.labels[name] == 1]
        changes = version.changes_from(before)
        what = [f"{name} {change}" for name, change in changes.items()]
        told = ", ".join(what or fractured) or "no fracture"
        by = f", read by {version.reader} on {version.date}" if version.reader else ""
        lines.append(
            f"version {version.version}, {version.recorded_at}, from "
            f"{_ORIGINS[version.origin]}{by}: {told}"
        )
    return lines


def _list(tree: Tree, title: str, lines: list[str]) -> None:
    branch = tree.add(f"{title}: {len(lines) or 'none'}")
    for line in lines[:_LISTED]:
        branch.add(escape(line))
    if len(lines) > _LISTED:
        branch.add(f"and {len(lines) - _LISTED} more; all are in the JSON")


def _draw_study(tree: Tree, study: StudyLineage) -> None:
    branch = tree.add(escape(f"study {study.study_uid}, {study.standing}"))
    branch.add(escape(f"source content the prediction saw: {_told(study.seen)}"))
    branch.add(escape(f"source content in the store now: {_told(study.content_hash)}"))
    branch.add(escape(f"slices: {_settings(study.conversion)}"))
    branch.add(escape(f"encoder of the slices: {_told(study.encoder)}"))
    branch.add(escape(f"crops: {_settings(study.crop)}"))


def _draw_model(tree: Tree, model: ModelLineage) -> None:
    if not model.place:
        tree.add(
            escape(f"{model.model_id}: its card is gone; it was trained again since")
        )
        return
    branch = tree.add(escape(f"{model.model_id} ({model.name}): {model.place}"))
    branch.add(escape(f"MLflow run: {_told(model.run.run_id)}"))
    branch.add(escape(f"MLflow model: {_told(model.run.model_id)}"))
    lock = _told(model.lock_sha256)[:_SHOWN]
    branch.add(escape(f"code version {_told(model.code_version)}, lock file {lock}"))
    branch.add(escape(f"manifest {_told(model.manifest)[:_SHOWN]}"))
    fold = "none" if model.fold is None else str(model.fold)
    branch.add(escape(f"held-out fold {fold}; inputs {_told(model.inputs)[:_SHOWN]}"))
    branch.add(escape(f"started from: {_told(model.start)}"))
    branch.add(escape(f"settings: {_settings(model.settings)}"))
    _draw_seen(branch, "training studies", model.training)
    _draw_seen(branch, "validation studies", model.validation)


def _draw_seen(tree: Tree, title: str, studies: tuple[SeenStudy, ...]) -> None:
    counts = Counter(study.standing for study in studies)
    told = ", ".join(f"{count} {standing}" for standing, count in counts.items())
    tree.add(escape(f"{title}: {len(studies)}" + (f" ({told})" if told else "")))


def _settings(values: Mapping[str, Any]) -> str:
    told = []
    for name, value in sorted(values.items()):
        is_group = isinstance(value, Mapping)
        told.append(f"{name} ({_settings(value)})" if is_group else f"{name} {value}")
    return ", ".join(told) or NOT_RECORDED


def _told(value: object) -> str:
    return NOT_RECORDED if value is None else str(value)
