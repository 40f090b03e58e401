"""Builder: a store as training leaves it, without training: six studies, four models.

Every file is written by the store that owns it. Which study is for what is fixed here,
so that a test knows it without asking the code that it tests.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.learning.splits import Split
from csfd_core.registry.frozen import FrozenEnsemble, freeze
from csfd_core.segmentation.bundle import ModelBundle, write_bundle
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store.layout import LABELS_FILE
from csfd_core.store.locations import Location
from csfd_core.store.notes import PredictedMaskNote
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LABEL_COLUMNS
from support.cards import classifier_card, segmentation_card
from support.dicom_studies import SIZE, SLICES, write_study
from support.drawn_crops import CROPS, crop_rows, manifest_of, write_crops

# One begins as another, as UIDs do.
UIDS = [f"1.2.3.{number}" for number in (1, 2, 3, 4, 5, 11)]
FIRST, SECOND, THIRD, FOURTH, TESTED, NEW = UIDS
UNKNOWN = "1.2.3.99"
REASON = "consent withdrawn by letter"

# Studies by fold that is held out: trained on, calibrated on, tested on.
CLASSIFIERS = {
    0: ([FIRST, SECOND], [THIRD], [TESTED]),
    3: ([SECOND, THIRD], [FIRST], [TESTED]),
}
SEGMENTATION = ([FIRST, FOURTH], [SECOND])
SEGMENTATION_ID = "fold0-segments"


def model_id(fold: int) -> str:
    return f"basic_cnn-fold{fold}-abc"


def sources_of(folder: Path) -> Sources:
    return Sources([Source(folder / "source"), Source(folder / "inbox")])


def write_source(folder: Path) -> None:
    source = folder / "source"
    for uid in UIDS:
        write_study(source, uid)
    rows = [f"StudyInstanceUID,{','.join(LABEL_COLUMNS)}"]
    rows += [f"{uid},1,0,1,0,0,0,0,0" for uid in UIDS]
    (source / LABELS_FILE).write_text("\n".join(rows) + "\n")


def write_lineage_store(folder: Path) -> Stores:
    """Write the source and the store; NEW is predicted and trains nothing."""
    write_source(folder)
    stores = Stores(Location(folder / "store"))
    for study in Source(folder / "source").studies():
        convert_study(StudyTask(study, stores))
    write_studies_table(stores, sources_of(folder))
    for uid in UIDS:
        write_vertebrae(stores, uid)
        stores.pictures.write("slice_store", uid, b"a montage")
    stores.pictures.write_chart("metadata_table", "distributions", b"a chart")
    manifest_of(stores)
    write_models(stores)
    write_reports(stores)
    return stores


def write_vertebrae(stores: Stores, uid: str, content: str = "as it was") -> None:
    """Write the predicted mask, the crops and the features of a study."""
    record = stores.metadata.read_record(uid)
    assert record is not None
    geometry = record.volume_geometry()
    assert geometry is not None
    note = PredictedMaskNote(
        study_uid=uid, format=1, content_hash=record.content_hash,
        model_id=SEGMENTATION_ID, fold=0, standing="unseen", levels={}, flags=(),
        **asdict(geometry),
    )  # fmt: skip
    mask = np.zeros((SLICES, SIZE, SIZE), np.uint8)
    stores.predicted_masks.write(uid, mask, note)
    rows = crop_rows([0, 1, 0, 0, 0, 0, 0], np.random.default_rng(0))
    write_crops(stores, uid, rows, inputs=crop_content(uid, content))
    stores.root.write(f"features/resnet50-0123/{uid}-abcd.npz", b"features")


def crop_content(uid: str, content: str = "as it was") -> str:
    return f"crops of {uid}, {content}"


def slices_of(stores: Stores, uid: str) -> list[str | None]:
    record = stores.metadata.read_record(uid)
    assert record is not None
    return [record.content_hash, record.mask_hash]


def write_models(stores: Stores) -> None:
    training, validation = (
        {uid: slices_of(stores, uid) for uid in group} for group in SEGMENTATION
    )
    card = segmentation_card(
        model_id=SEGMENTATION_ID, inputs="segments", initial="general-2",
        training_studies=training, validation_studies=validation, code_version="1",
        lock_sha256="d" * 64,
    )  # fmt: skip
    bundle = ModelBundle(card=card, weights=[])
    write_bundle(ModelStore(stores.root).of_fold(0), bundle)
    for fold, groups in CLASSIFIERS.items():
        write_classifier(stores, fold, *groups)


def write_classifier(
    stores: Stores,
    fold: int,
    training: list[str],
    validation: list[str],
    test: list[str],
) -> None:
    rows = [
        {"study_uid": uid, "patient": uid, "level": "C1", "label": 0,
         "group": Split.TEST, "logit": 0.0, "probability": 0.5}
        for uid in test
    ]  # fmt: skip
    card = classifier_card(
        model_id=model_id(fold), fold=fold, inputs=f"inputs-{fold}", manifest="m" * 64,
        code_version="2", lock_sha256="e" * 64, mlflow_run_id=f"run-{fold}",
        crop=CROPS.to_note(),
        training_studies={uid: crop_content(uid) for uid in training},
        validation_studies={uid: crop_content(uid) for uid in validation},
        test_studies={uid: crop_content(uid) for uid in test},
    )  # fmt: skip
    weights = [np.full(3, float(fold))]
    ClassifierStore(stores.root).write(card, weights, rows)


def freeze_champion(stores: Stores) -> FrozenEnsemble:
    return freeze(stores, "basic_cnn")


def write_prediction(
    stores: Stores, uid: str, version: int | None = None
) -> dict[str, Any]:
    record = stores.metadata.read_record(uid)
    note = {
        "study_uid": uid, "model": "basic_cnn", "model_version": version,
        "model_ids": [model_id(fold) for fold in CLASSIFIERS],
        "trained_on": "phantom", "segmentation": {"model": SEGMENTATION_ID},
        "content_hash": None if record is None else record.content_hash,
    }  # fmt: skip
    stores.root.write(f"predictions/{uid}.json", json.dumps(note).encode())
    return note


def write_reports(stores: Stores) -> None:
    """Write what the reports name: the tested study, and the one scored on masks."""
    rows = f"study_uid,model\n{TESTED},basic_cnn\n"
    stores.root.write("reports/comparison/predictions.csv", rows.encode())
    stores.root.write("reports/comparison/index.html", b"<html></html>")
    note = json.dumps({"models": {"0": SEGMENTATION_ID}})
    stores.root.write("reports/segmentation/report.json", note.encode())
    stores.root.write("reports/segmentation/studies.csv", f"{SECOND},C1\n".encode())
    table = "".join(f"{uid},3\n" for uid in (FOURTH, NEW))
    stores.root.write("reports/leakage/tables/studies.csv", table.encode())
    state = json.dumps({"since": "2020-01-01T00:00:00+00:00"})
    stores.root.write("reports/eda/state.json", state.encode())


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def own_files(found: dict[str, bytes], uid: str) -> set[str]:
    """Files named by a study, and not by one that begins alike."""
    return {
        path
        for path in found
        if Path(path).name.startswith(
            (f"{uid}.parquet", f"{uid}.json", f"{uid}.jpg", f"{uid}-")
        )
    }
