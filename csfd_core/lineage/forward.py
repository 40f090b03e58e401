"""The way forward: everything that has used a study, and what the store holds of it.

Models name their studies in their cards. A report has used a study if its tables or
its page name it, or if a model that it is on has used it; the report on the data
describes every study of the table.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from csfd_core.learning.checkpoint import learning_from
from csfd_core.learning.splits import Split
from csfd_core.lineage.mlflow_records import RecordedRuns
from csfd_core.lineage.trained_models import (
    TrainedEnsemble,
    TrainedModel,
    trained_classifiers,
    trained_ensembles,
    trained_segmentations,
)
from csfd_core.store import paths
from csfd_core.store.label_history import LabelVersion
from csfd_core.store.redaction import pattern_of
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.vocabulary import require_uid

SEGMENTATION: Final = "segmentation model"
CLASSIFIER: Final = "classifier"
VERSION: Final = "version"  # of the registry: frozen, may be the champion
REPORT: Final = "report"
PREDICTION: Final = "prediction"

PREDICTED: Final = "predicted"
NAMED: Final = "named in it"
DESCRIBED: Final = "described"
THROUGH: Final = "through its models"

_TEXTS: Final = (".csv", ".json", ".html")
_READERS: Final = 16  # reading small files waits for the disk or the network


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One thing that has used a study."""

    kind: str  # SEGMENTATION, CLASSIFIER, VERSION, REPORT or PREDICTION
    name: str
    place: str  # below the store's root
    how: tuple[str, ...]

    @property
    def has_learnt(self) -> bool:
        """Say whether it is a model that was trained, stopped or calibrated on it."""
        return bool({Split.TRAINING, Split.VALIDATION} & set(self.how))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyUsage:
    """What used a study, and what is there of it."""

    study_uid: str
    holds: tuple[str, ...]  # paths of its own files, below the store's root
    uses: tuple[Use, ...]
    withdrawal: Withdrawal | None
    labels: tuple[LabelVersion, ...] = ()  # all versions, the oldest first
    problem: str = ""  # why MLflow could not be asked

    @property
    def is_known(self) -> bool:
        """Say whether the store has ever heard of the study."""
        return bool(self.holds or self.uses or self.withdrawal)

    def of_kind(self, kind: str) -> list[Use]:
        """Return the uses of one kind."""
        return [use for use in self.uses if use.kind == kind]


def trace_usage(stores: Stores, study_uid: str, recorded: RecordedRuns) -> StudyUsage:
    """Walk forward from a study.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    uid = require_uid(study_uid)
    segmentations = [m for m in trained_segmentations(stores) if m.roles_of(uid)]
    classifiers = [m for m in trained_classifiers(stores) if m.roles_of(uid)]
    ensembles = [e for e in trained_ensembles(stores) if e.roles_of(uid)]
    withdrawal = stores.withdrawn.read(uid)
    uses = [
        *(_use_of(SEGMENTATION, model, uid) for model in segmentations),
        *(_use_of(CLASSIFIER, model, uid) for model in classifiers),
        *(_version(ensemble, uid, recorded) for ensemble in ensembles),
        *_reports(stores, uid, segmentations, classifiers),
        *_predictions(stores, uid, [*classifiers, *_members(ensembles)]),
    ]
    return StudyUsage(
        study_uid=uid,
        holds=tuple(files_of(stores, uid)),
        uses=tuple(uses),
        withdrawal=withdrawal,
        labels=tuple(stores.label_history.versions(uid)),
        problem=recorded.problem,
    )


def files_of(stores: Stores, study_uid: str) -> list[str]:
    """Return the files of a study in the store, the record of its headers last.

    The states of trainings under way that learn from it are among them.
    """
    uid = require_uid(study_uid)
    features = [
        entry.path
        for folder in stores.root.folders(paths.FEATURES)
        for entry in stores.root.entries(f"{paths.FEATURES}/{folder}")
        if entry.name.startswith(f"{uid}-")
    ]
    objects, _ = stores.root.find(f"{paths.DICOM_RESULTS}/{uid}")
    chosen, _ = stores.root.find(f"{paths.VOLUME_CHOICES}/{uid}")
    fixed = (
        paths.of_study(paths.PREDICTIONS, uid, ".json"),
        paths.of_study(paths.HEATS, uid, ".npz"),
        stores.crops.path(uid),
        stores.predicted_masks.path(uid),
        stores.masks.path(uid),
        stores.slices.path(uid),
        stores.metadata.listing_path(uid),
        stores.metadata.path(uid),
    )
    return [
        *learning_from(stores.root, uid),
        *features,
        *(entry.path for entry in (*objects, *chosen)),
        *stores.pictures.paths_of(uid),
        *(path for path in fixed if stores.root.exists(path)),
    ]


def reports_on(stores: Stores, study_uid: str) -> list[str]:
    """Return the files of every report that names a study or shows it, sorted.

    A report is a whole: its figures and pictures bear no name.
    """
    uid = require_uid(study_uid)
    shown = [use for use in _reports(stores, uid, [], []) if use.how]
    return [file.path for use in shown for file in stores.root.find(use.place)[0]]


def _use_of(kind: str, model: TrainedModel, uid: str) -> Use:
    name = f"{model.name} ({model.model_id})"
    return Use(kind=kind, name=name, place=model.folder, how=tuple(model.roles_of(uid)))


def _version(ensemble: TrainedEnsemble, uid: str, recorded: RecordedRuns) -> Use:
    titles = recorded.titles_of(ensemble.digest)
    name = ": ".join([*titles, ensemble.title])
    how = tuple(ensemble.roles_of(uid))
    return Use(kind=VERSION, name=name, place=ensemble.folder, how=how)


def _members(ensembles: list[TrainedEnsemble]) -> list[TrainedModel]:
    return [member for ensemble in ensembles for member in ensemble.members]


def _reports(
    stores: Stores,
    uid: str,
    segmentations: list[TrainedModel],
    classifiers: list[TrainedModel],
) -> Iterator[Use]:
    through = {
        paths.SEGMENTATION_REPORT: bool(
            {model.model_id for model in segmentations} & _reported_models(stores)
        ),
        paths.COMPARISON_REPORT: bool(classifiers),
    }
    for name in stores.root.folders(paths.REPORTS):
        folder = f"{paths.REPORTS}/{name}"
        how = [NAMED] if _names(stores, folder, uid) else []
        if folder == paths.EDA_REPORT and _is_described(stores, uid):
            how.append(DESCRIBED)
        if through.get(folder) and stores.root.entries(folder):
            how.append(THROUGH)
        if how:
            yield Use(kind=REPORT, name=name, place=folder, how=tuple(how))


def _reported_models(stores: Stores) -> set[str]:
    """Return the segmentation models that the report is on."""
    note = _read_json(stores, f"{paths.SEGMENTATION_REPORT}/report.json")
    return {str(model_id) for model_id in note.get("models", {}).values()}


def _names(stores: Stores, report: str, uid: str) -> bool:
    """Say whether a text of a report names a study, and not one that begins alike."""
    name = pattern_of(uid)
    files, _ = stores.root.find(report)
    return any(
        name.search(stores.root.read(file.path))
        for file in files
        if file.name.endswith(_TEXTS)
    )


def _is_described(stores: Stores, uid: str) -> bool:
    """Say whether the report on the data rests on a study, also one withdrawn since."""
    since = _read_json(stores, f"{paths.EDA_REPORT}/state.json").get("since")
    if since is None:
        return False
    withdrawal = stores.withdrawn.read(uid)
    if withdrawal is None:
        return stores.root.exists(stores.metadata.path(uid))
    return datetime.fromisoformat(since) <= datetime.fromisoformat(withdrawal.at)


def _predictions(stores: Stores, uid: str, learnt: list[TrainedModel]) -> Iterator[Use]:
    """Yield the prediction of a study, and those by models that have used it."""
    roles: dict[str, set[str]] = {}
    for model in learnt:
        roles.setdefault(model.model_id, set()).update(model.roles_of(uid))
    entries = [
        entry
        for entry in stores.root.entries(paths.PREDICTIONS)
        if entry.name.endswith(".json")
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        notes = list(pool.map(lambda entry: _read_json(stores, entry.path), entries))
    for entry, note in zip(entries, notes, strict=True):
        used_as = {
            role
            for model_id in note.get("model_ids", ())
            for role in roles.get(str(model_id), ())
        }
        how = [PREDICTED] if note.get("study_uid") == uid else []
        how += [role for role in (Split.TRAINING, Split.VALIDATION) if role in used_as]
        if how:
            name = f"{note.get('study_uid')} by {note.get('model')}"
            yield Use(kind=PREDICTION, name=name, place=entry.path, how=tuple(how))


def _read_json(stores: Stores, path: str) -> Mapping[str, Any]:
    """Return a JSON object; {} where there is none."""
    try:
        content = json.loads(stores.root.read_if_there(path) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
