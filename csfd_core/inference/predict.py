"""Probabilities of fractures for studies: from DICOM, or from what a store holds.

Each study gives one JSON file, the same from either.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from csfd_core.classification.assessment import Assessment
from csfd_core.classification.ensemble import Ensemble, suspicion
from csfd_core.classification.study_facts import SeenStudy
from csfd_core.classification.training_reference import read_seen
from csfd_core.classification.unlike import NOT_MEASURED, Unlike, verdict_of
from csfd_core.crops.study import MaskedStudy
from csfd_core.errors import StoreError
from csfd_core.inference.earlier import CONTENT, MADE_FROM, Earlier
from csfd_core.inference.evidence import stored_affines
from csfd_core.inference.judgement import (
    JudgedScan,
    Judgement,
    WriteBeside,
    judge_study,
    judge_vertebrae,
)
from csfd_core.inference.reading import (
    Reading,
    ReadScan,
    Say,
    each_judged,
    read_scans,
)
from csfd_core.inference.segment import find_vertebrae, write_file
from csfd_core.inference.stored_heat import write_heats
from csfd_core.inference.uncertainty import spreads_to_json
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.store import paths
from csfd_core.store.notes import LevelNote, PredictedMaskNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

_FORMAT: Final = 3  # of the JSON; raised when what it says of the same study changes


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedStudy:
    """What became of one study."""

    name: str  # of its file: the study, of a further volume with its number
    # PREDICTED or NOT_ASSESSED; UNCHANGED: an earlier result holds; REFUSED or FAILED:
    # nothing else is told.
    action: Outcome
    message: str = ""  # why it was refused
    notes: tuple[str, ...] = ()  # what was said of its files
    probabilities: Mapping[str, float | None] = field(default_factory=dict)
    suspicious: tuple[str, ...] = ()  # above the operating point
    unlike: Unlike | None = None  # how far it lies from what was learnt
    not_assessed: tuple[str, ...] = ()  # levels without a number
    flags: tuple[str, ...] = ()  # why a person must look at it, a sentence each
    seconds: float = 0.0
    number: int = 1  # of the study in the input, among so many:
    total: int = 1


def predict_input(
    source: str,
    out: Path,
    predictor: VertebraPredictor,
    ensemble: Ensemble,
    say: Say,
    reading: Reading,
    *,
    beside: Sequence[WriteBeside] = (),
    endings: Sequence[str] = (),
    again: bool = True,
) -> Iterator[PredictedStudy]:
    """Predict every study of a DICOM folder, zip file or source.

    Args:
        source: The input.
        out: Folder of the results.
        predictor: Finds the vertebrae.
        ensemble: Judges them.
        say: Told what of the input belongs to no study.
        reading: How the input is read.
        beside: Called with each study before its JSON is written.
        endings: Of the names of the files that these write.
        again: Make also what is there already, of the same files by the same models.

    Raises:
        SourceError: If the input cannot be read, or holds no files.
        SettingsError: If the results cannot be written.
    """
    made_from = _input_made_from(predictor, ensemble)
    earlier = Earlier({}) if again else Earlier.read(out, made_from, endings)

    def judge(read_scan: ReadScan) -> PredictedStudy:
        if read_scan.is_known:
            study = _told_again(read_scan, earlier.notes[read_scan.name])
        else:
            study = _predict_scan(read_scan, out, predictor, ensemble, beside)
        return replace(study, number=read_scan.number, total=read_scan.total)

    reading = replace(reading, contents=earlier.contents())
    yield from each_judged(read_scans(source, say, reading), judge)


def predict_stored(
    stores: Stores, study_uid: str, ensemble: Ensemble
) -> dict[str, Any]:
    """Predict a study from its crops, and keep the result in the store.

    What was looked at is kept first, so that whoever reads the JSON finds it.

    Raises:
        StoreError: If the crops were cut in another way than the ensemble takes them.
    """
    started = time.perf_counter()
    seen = _stored_vertebrae(stores, study_uid, ensemble)
    affines = stored_affines(stores, study_uid, ensemble.crop)
    judgement = judge_vertebrae(ensemble, seen, affines)
    masks = stores.predicted_masks.read_note(study_uid)
    note = _note(
        study_uid,
        judgement,
        ensemble,
        segmentation=_segmentation_of(masks),
        seconds={"classify": round(time.perf_counter() - started, 3)},
    )
    if masks is not None:
        sop_uids = stores.metadata.read_sop_uids(study_uid)
        note["evidence"] = judgement.evidence(masks.geometry, sop_uids)
    note[CONTENT] = None if masks is None else masks.content_hash
    record = stores.metadata.read_record(study_uid)
    if record is not None and record.volumes:
        note |= {"volume": record.volume, "notes": list(record.notes)}
    note[MADE_FROM] = _made_from(stores, study_uid, ensemble)
    write_heats(stores, study_uid, judgement.heats)
    stores.root.write(prediction_path(study_uid), _to_bytes(note))
    return note


class StoredPredictor:
    """Predicts studies of a store; opens the networks when the first one needs them."""

    def __init__(self, stores: Stores, open_model: Callable[[], Ensemble]) -> None:
        """Take the stores, and how to open the ensemble."""
        self._stores = stores
        self._open = open_model
        self._ensemble: Ensemble | None = None

    def make(self, study_uid: str) -> StudyOutcome:
        """Predict and keep a study, unless its prediction is current.

        Raises:
            StoreError: If its crops were cut in another way than the ensemble takes.
        """
        if self._stores.crops.read_note(study_uid) is None:
            return StudyOutcome(study_uid=study_uid, action=Outcome.QUARANTINED)
        self._ensemble = self._ensemble or self._open()
        if prediction_is_current(self._stores, study_uid, self._ensemble):
            return StudyOutcome(study_uid=study_uid, action=Outcome.UNCHANGED)
        note = predict_stored(self._stores, study_uid, self._ensemble)
        return StudyOutcome(
            study_uid=study_uid,
            action=Outcome.WRITTEN,
            seconds=sum(note["seconds"].values()),
        )


def read_prediction(stores: Stores, study_uid: str) -> dict[str, Any] | None:
    """Return what the store says of a study; ``None`` where it was not predicted.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    path = prediction_path(study_uid)
    content = stores.root.read_if_there(path)
    if content is None:
        return None
    note: dict[str, Any] = json.loads(content)
    if "not_seen" in note:
        note = _upgraded(note)
    return note if "unlike" in note else _without_distance(note)


def prediction_is_current(stores: Stores, study_uid: str, ensemble: Ensemble) -> bool:
    """Say whether the stored prediction is what the ensemble would say again."""
    note = read_prediction(stores, study_uid) or {}
    return note.get(MADE_FROM) == _made_from(stores, study_uid, ensemble)


def prediction_path(study_uid: str) -> str:
    """Return the path of a study's prediction, relative to the store.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    return paths.of_study(paths.PREDICTIONS, study_uid, ".json")


def _made_from(stores: Stores, study_uid: str, ensemble: Ensemble) -> dict[str, Any]:
    """Identify what a stored prediction follows from: crops and models."""
    crops = stores.crops.read_note(study_uid)
    return {
        "crops": None if crops is None else crops.inputs,
        "models": ensemble.model_ids,
        "version": ensemble.version,
        "format": _FORMAT,
    }


def _input_made_from(
    predictor: VertebraPredictor, ensemble: Ensemble
) -> dict[str, Any]:
    """Identify what a prediction of DICOM files follows from, beside these."""
    return {
        "segmentation": predictor.bundle.name,
        "models": ensemble.model_ids,
        "version": ensemble.version,
        "thresholds": ensemble.thresholds,
        "format": _FORMAT,
        "csfd": version("csfd"),
    }


def _stored_vertebrae(stores: Stores, study_uid: str, ensemble: Ensemble) -> SeenStudy:
    """Read the vertebrae of a study that show enough to be judged."""
    note = stores.crops.read_note(study_uid)
    if note is None or note.crop != ensemble.crop.to_note():
        raise StoreError(
            f"The crops of study {study_uid} are missing, or were cut in another way "
            f"than {ensemble.title} takes them. Materialize vertebra_crops of it again."
        )
    return read_seen(stores, study_uid)


def _predict_scan(
    read_scan: ReadScan,
    out: Path,
    predictor: VertebraPredictor,
    ensemble: Ensemble,
    beside: Sequence[WriteBeside],
) -> PredictedStudy:
    scan = read_scan.scan
    if scan is None or scan.geometry is None or read_scan.grey is None:
        return PredictedStudy(
            name=read_scan.name,
            action=Outcome.FAILED if scan is None else Outcome.REFUSED,
            message=read_scan.refusal,
            notes=read_scan.notes,
        )
    prediction = find_vertebrae(scan, read_scan.grey, predictor)
    started = time.perf_counter()
    levels = prediction.review.notes()
    study = MaskedStudy(
        grey=read_scan.grey, mask=prediction.mask, geometry=scan.geometry, levels=levels
    )
    judgement = judge_study(study, ensemble)
    seconds = {
        "read": round(read_scan.read_s, 3),
        **prediction.seconds,
        "classify": round(time.perf_counter() - started, 3),
    }
    note = _note(
        scan.study_uid,
        judgement,
        ensemble,
        segmentation={
            "model": predictor.bundle.name,
            "standing": None,
            "levels": _to_json(levels),
            "flags": list(prediction.review.flags),
        },
        seconds=seconds,
    )
    sop_uids = [header.sop_uid for header in scan.headers]
    note["evidence"] = judgement.evidence(scan.geometry, sop_uids)
    note["volume"] = scan.volume
    note[CONTENT] = scan.content_hash
    note[MADE_FROM] = _input_made_from(predictor, ensemble)
    note["warnings"] = [finding.code for finding in scan.findings]
    note["notes"] = list(scan.notes)
    judged = JudgedScan(scan=scan, study=study, judgement=judgement, note=note, out=out)
    for write in beside:
        write(judged)
    write_file(out / f"{scan.name}.json", _to_bytes(note))
    return PredictedStudy(
        name=scan.name,
        action=judgement.assessment.outcome,
        notes=read_scan.notes,
        probabilities=judgement.assessment.probabilities,
        suspicious=tuple(note["suspicious"]),
        unlike=judgement.unlike,
        not_assessed=judgement.assessment.not_assessed,
        flags=tuple(note["needs_eyes"]),
        seconds=sum(seconds.values()),
    )


def _told_again(read_scan: ReadScan, note: Mapping[str, Any]) -> PredictedStudy:
    """Return what an earlier call has said of a study."""
    return PredictedStudy(
        name=read_scan.name,
        action=Outcome.UNCHANGED,
        notes=read_scan.notes,
        probabilities=note["probabilities"],
        suspicious=tuple(note["suspicious"]),
        unlike=Unlike.from_json(note["unlike"]),
        not_assessed=tuple(note["not_assessed"]),
        flags=tuple(note["needs_eyes"]),
    )


def _note(
    study_uid: str,
    judgement: Judgement,
    ensemble: Ensemble,
    *,
    segmentation: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    assessment, unlike = judgement.assessment, judgement.unlike
    suspicious = suspicion(assessment.probabilities, ensemble.thresholds)
    return {
        "study_uid": study_uid,
        "verdict": verdict_of(unlike, assessment.probabilities, suspicious),
        "unlike": unlike.to_json(),
        "format": _FORMAT,
        "model": ensemble.name,
        "model_version": ensemble.version,
        "model_ids": ensemble.model_ids,
        "trained_on": ensemble.data_kind,
        **assessment.to_note(segmentation["flags"], unlike.warnings),
        "thresholds": ensemble.thresholds,
        "suspicious": suspicious,
        "answers": judgement.answers,
        "uncertainty": spreads_to_json(judgement.spreads),
        "evidence": dict.fromkeys(judgement.assessed),
        "segmentation": segmentation,
        "seconds": seconds,
        "notice": ensemble.data_kind.notice,
    }


def _upgraded(note: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prediction as it is written now.

    Up to version 0.2 a level that was not seen had its prevalence for a number.
    """
    remaining = {name: value for name, value in note.items() if name != "not_seen"}
    assessed = [name for name in LEVEL_NAMES if name not in note["not_seen"]]
    assessment = Assessment.of(note["probabilities"], assessed)
    suspicious = suspicion(assessment.probabilities, note["thresholds"])
    told = assessment.to_note(note["segmentation"]["flags"])
    return {**remaining, **told, "suspicious": suspicious}


def _without_distance(note: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prediction of a csfd that measured no distance as it is written now."""
    unlike = Unlike(score=None, limit=None, why_not=NOT_MEASURED)
    verdict = verdict_of(unlike, note["probabilities"], note["suspicious"])
    return {**note, "verdict": verdict, "unlike": unlike.to_json()}


def _segmentation_of(masks: PredictedMaskNote | None) -> dict[str, Any]:
    if masks is None:
        return {"model": None, "standing": None, "levels": {}, "flags": []}
    return {
        "model": masks.model_id,
        "standing": masks.standing,
        "levels": _to_json(masks.levels),
        "flags": list(masks.flags),
    }


def _to_json(levels: Mapping[str, LevelNote]) -> dict[str, Any]:
    return {name: level.model_dump(mode="json") for name, level in levels.items()}


def _to_bytes(note: Mapping[str, Any]) -> bytes:
    return (json.dumps(note, indent=2) + "\n").encode()
