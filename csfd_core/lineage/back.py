"""The way back: from a prediction to everything that it rests on.

Read from the store alone: the prediction names its models, their cards name the studies
with the identity of what was learnt from them, the stores' notes name how that was
made. What the store holds now is compared with what the models saw.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from csfd_core.classification.card import ClassifierCard
from csfd_core.errors import IdentifierError, SettingsError, SourceError, StoreError
from csfd_core.learning.splits import Split
from csfd_core.lineage.mlflow_records import RecordedRun, RecordedRuns
from csfd_core.lineage.trained_models import (
    TrainedEnsemble,
    TrainedModel,
    trained_classifiers,
    trained_ensembles,
    trained_segmentations,
)
from csfd_core.store import paths
from csfd_core.store.redaction import stand_in_of
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import is_uid, require_uid

SAME: Final = "as the model saw it"
CHANGED: Final = "changed since"
WITHDRAWN: Final = "withdrawn since"
GONE: Final = "not in the store"
NOT_RECORDED: Final = "not recorded"
_READERS: Final = 16  # reading footers waits for the disk or the network


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStudy:
    """A study that a model has seen, and whether it is still the same."""

    study_uid: str
    content_hash: str  # of what the model saw: crops, or slices
    mask_hash: str | None = None  # of the mask, where it learnt from one
    standing: str  # SAME, CHANGED, WITHDRAWN or GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLineage:
    """What a model was made from.

    ``place`` is empty where its card is gone: it was trained again since. ``None``
    stands for what is not recorded.
    """

    model_id: str
    name: str = ""
    place: str = ""
    fold: int | None = None
    run: RecordedRun = field(default_factory=RecordedRun)
    code_version: str | None = None
    lock_sha256: str | None = None
    manifest: str | None = None  # identity of the table it was trained on
    inputs: str | None = None
    start: str | None = None  # the weights that it started from
    settings: Mapping[str, Any] = field(default_factory=dict)
    crop: Mapping[str, Any] = field(default_factory=dict)
    training: tuple[SeenStudy, ...] = ()
    validation: tuple[SeenStudy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLineage:
    """What the predicted study itself was made from, as the store has it now.

    ``content_hash`` is that of the source's slices; ``seen`` that of those which the
    prediction was made from.
    """

    study_uid: str
    standing: str
    seen: str | None = None
    content_hash: str | None = None
    conversion: Mapping[str, Any] = field(default_factory=dict)
    encoder: str | None = None
    crop: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionLineage:
    """Everything behind one prediction."""

    place: str  # of its file
    model: str
    version: int | None
    aliases: tuple[str, ...]  # that the version has now
    digest: str | None  # of the frozen ensemble
    trained_on: str
    members: tuple[ModelLineage, ...]
    segmentation: ModelLineage | None
    study: StudyLineage
    problem: str = ""  # why MLflow could not be asked


@dataclass(frozen=True)
class StoreNow:
    """What the store holds of studies at present; each is read once."""

    stores: Stores
    _crops: dict[str, str | None] = field(default_factory=dict)
    _slices: dict[str, tuple[str, str | None] | None] = field(default_factory=dict)

    @cached_property
    def withdrawn(self) -> frozenset[str]:
        """The withdrawn studies, and what takes their place in cards."""
        uids = self.stores.withdrawn.study_uids()
        return uids | {stand_in_of(uid) for uid in uids}

    def seen(self, studies: Mapping[str, Any]) -> tuple[SeenStudy, ...]:
        """Compare studies with what a model saw of them.

        Args:
            studies: By study, the identity of its crops, or those of its slices and
                mask, as cards hold it.
        """
        uids = sorted(studies)
        with ThreadPoolExecutor(_READERS) as pool:
            return tuple(pool.map(self._seen, uids, [studies[uid] for uid in uids]))

    def content_hash(self, study_uid: str) -> str | None:
        """Return the identity of a study's slices; ``None``: it is not in the store."""
        stored = self._of_slices(study_uid)
        return None if stored is None else stored[0]

    def _seen(self, study_uid: str, saw: object) -> SeenStudy:
        content, mask = saw if isinstance(saw, list | tuple) else (saw, None)
        if study_uid in self.withdrawn:
            standing = WITHDRAWN
        elif not is_uid(study_uid):
            standing = GONE
        elif isinstance(saw, list | tuple):
            standing = _compared((content, mask), self._of_slices(study_uid))
        else:
            standing = _compared(content, self._of_crops(study_uid))
        return SeenStudy(
            study_uid=study_uid,
            content_hash=str(content),
            mask_hash=None if mask is None else str(mask),
            standing=standing,
        )

    def _of_crops(self, study_uid: str) -> str | None:
        if study_uid not in self._crops:
            note = self.stores.crops.read_note(study_uid)
            self._crops[study_uid] = None if note is None else note.inputs
        return self._crops[study_uid]

    def _of_slices(self, study_uid: str) -> tuple[str, str | None] | None:
        if study_uid not in self._slices:
            record = self.stores.metadata.read_record(study_uid)
            self._slices[study_uid] = (
                None if record is None else (record.content_hash, record.mask_hash)
            )
        return self._slices[study_uid]


def find_prediction(stores: Stores, name: str) -> tuple[str, dict[str, Any]]:
    """Return where a prediction lies, and what it says.

    Args:
        stores: Where predictions of studies are.
        name: A study, or the path of a prediction's JSON.

    Raises:
        IdentifierError: If it is neither a UID nor a file.
        SettingsError: If the store has no prediction of the study.
        StoreError: If the file is no prediction of csfd.
    """
    path = Path(name)
    if is_uid(name):
        inside = f"{paths.PREDICTIONS}/{name}.json"
        content = stores.root.read_if_there(inside)
        if content is None:
            raise SettingsError(
                f"The store {stores.root} has no prediction of study {name}. "
                "Materialize unseen_predictions, or give the path of a JSON that csfd "
                "predict has written."
            )
        address = f"{stores.root}/{inside}"
    elif path.is_file():
        address, content = str(path), _read_file(path)
    elif path.suffix == ".json":
        raise SourceError(f"There is no file {name}.")
    else:
        raise IdentifierError(
            f"Neither a prediction's file nor a valid DICOM UID: {name[:80]!r}."
        )
    try:
        note = dict(json.loads(content))
        require_uid(note["study_uid"])
        list(note["model_ids"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{address} is no prediction of csfd.") from error
    return address, note


def trace_prediction(
    stores: Stores, name: str, recorded: RecordedRuns
) -> PredictionLineage:
    """Walk back from a prediction.

    Args:
        stores: Where the models and studies are.
        name: A study, or the path of a prediction's JSON.
        recorded: MLflow.

    Raises:
        IdentifierError: If it is neither a UID nor a file.
        SettingsError: If there is no such prediction.
        StoreError: If the file is no prediction of csfd.
    """
    address, note = find_prediction(stores, name)
    now = StoreNow(stores)
    version = note.get("model_version")
    model_ids = [str(model_id) for model_id in note["model_ids"]]
    ensemble = _ensemble_of(stores, version, model_ids, recorded)
    models = [*trained_classifiers(stores), *(ensemble.members if ensemble else ())]
    by_id = {model.model_id: model for model in models}  # the frozen ones win
    members = tuple(
        trace_model(by_id.get(model_id), model_id, now, recorded)
        for model_id in model_ids
    )
    return PredictionLineage(
        place=address,
        model=str(note.get("model")),
        version=version,
        aliases=tuple(recorded.aliases.get(version, ())) if version else (),
        digest=ensemble.digest if ensemble else None,
        trained_on=str(note.get("trained_on")),
        members=members,
        segmentation=_segmentation_of(stores, note, now, recorded),
        study=trace_study(stores, note, now),
        problem=recorded.problem,
    )


def trace_model(
    trained: TrainedModel | None, model_id: str, now: StoreNow, recorded: RecordedRuns
) -> ModelLineage:
    """Return what a model was made from; ``trained`` is None where its card is gone."""
    if trained is None:
        return ModelLineage(model_id=model_id)
    card = trained.card
    return ModelLineage(
        model_id=model_id,
        name=trained.name,
        place=trained.folder,
        fold=card.fold,
        run=recorded.training_run(card),
        code_version=card.code_version,
        lock_sha256=card.lock_sha256,
        manifest=card.manifest if isinstance(card, ClassifierCard) else None,
        inputs=card.inputs or None,
        start=card.started_from,
        settings=card.settings,
        crop=dict(card.crop) if isinstance(card, ClassifierCard) else {},
        training=now.seen(card.contents(Split.TRAINING)),
        validation=now.seen(card.contents(Split.VALIDATION)),
    )


def trace_study(
    stores: Stores, prediction: Mapping[str, Any], now: StoreNow
) -> StudyLineage:
    """Return what the study of a prediction was made from."""
    study_uid = require_uid(prediction["study_uid"])
    seen, present = prediction.get("content_hash"), now.content_hash(study_uid)
    standing = _compared(seen, present)
    if seen is None and present is not None:
        standing = NOT_RECORDED
    slices = stores.slices.read_note(study_uid)
    crops = stores.crops.read_note(study_uid)
    return StudyLineage(
        study_uid=study_uid,
        standing=WITHDRAWN if study_uid in now.withdrawn else standing,
        seen=seen,
        content_hash=present,
        conversion={} if slices is None else slices.conversion.model_dump(),
        encoder=None if slices is None else slices.encoder,
        crop={} if crops is None else crops.crop,
    )


def _segmentation_of(
    stores: Stores, note: Mapping[str, Any], now: StoreNow, recorded: RecordedRuns
) -> ModelLineage | None:
    model_id = (note.get("segmentation") or {}).get("model")
    if model_id is None:
        return None
    by_id = {model.model_id: model for model in trained_segmentations(stores)}
    return trace_model(by_id.get(model_id), str(model_id), now, recorded)


def _ensemble_of(
    stores: Stores, version: int | None, model_ids: list[str], recorded: RecordedRuns
) -> TrainedEnsemble | None:
    """Return the frozen ensemble that spoke, ``None`` where the newest folds did."""
    if version is None:
        return None
    ensembles = [e for e in trained_ensembles(stores) if e.model_ids == model_ids]
    registered = recorded.versions.get(version)
    exact = [
        e for e in ensembles if registered is not None and e.digest == registered.digest
    ]
    return next(iter([*exact, *ensembles]), None)


def _compared(saw: object, present: object) -> str:
    if present is None:
        return GONE
    return SAME if saw == present else CHANGED


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}.") from error
