"""A source, an inbox and a store that are small, and all that they are known by."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csfd_core.classification.manifest import manifest_is_current, write_manifest
from csfd_core.ingest.convert import convert_studies, needs_work, study_tasks
from csfd_core.ingest.plan import plan_arrivals, survey
from csfd_core.ingest.scan import record_of, scan_study
from csfd_core.ingest.studies_table import (
    label_inputs,
    studies_table_inputs,
    write_studies_table,
)
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.record import StoreRecord, write_record
from csfd_core.store.slices import ConversionSettings
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from support.dicom_studies import (
    LABEL_HEADER,
    STUDY_UID,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.drawn_crops import CROPS, crop_rows, write_crops

SECOND_UID, INBOX_UID = "1.2.826.0.1.3680043.12", "1.2.826.0.1.3680043.13"
UIDS = (STUDY_UID, SECOND_UID, INBOX_UID)
PREDICTION = f"predictions/{STUDY_UID}.json"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the three are, each a folder or a URL."""

    source: str
    inbox: str
    store: str

    @property
    def stores(self) -> Stores:
        return Stores(Location(self.store))

    @property
    def sources(self) -> Sources:
        return Sources([Source(Location(url)) for url in (self.source, self.inbox)])

    def pairs(self, other: "Places") -> list[tuple[str, str]]:
        return [
            (self.source, other.source),
            (self.inbox, other.inbox),
            (self.store, other.store),
        ]


def places_in(root: str | Path) -> Places:
    return Places(f"{root}/source", f"{root}/inbox", f"{root}/store")


def write_places(folder: Path) -> Places:
    """Studies with labels that were corrected once, and all that is made of them."""
    places = places_in(folder)
    source, inbox = Path(places.source), Path(places.inbox)
    for place, uid in zip((source, source, inbox), UIDS, strict=True):
        write_study(place, uid)
    write_mask(source, neck_mask(), volume_affine_ras(), STUDY_UID)
    (source / "train.csv").write_text(f"{LABEL_HEADER}{STUDY_UID},1,0,1,0,0,0,0,0\n")
    make(places)
    write_labels(inbox, INBOX_UID, C5=1)
    write_labels(inbox, STUDY_UID, C2=0, C3=1)
    make(places)
    return places


def write_labels(place: Path, uid: str, **labels: int) -> None:
    note = {"study_uid": uid, "labels": labels, "reader": "AB", "date": "2026-11-25"}
    path = place / "labels" / f"{uid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(note))


def convert(places: Places) -> list[str]:
    """Convert as ``csfd run`` does; return what was done to each study."""
    tasks = study_tasks(places.sources.studies(), places.stores)
    done = list(convert_studies(tasks, InlineExecutor()))
    return [str(one.action) for one in sorted(done, key=lambda one: one.study_uid)]


def make(places: Places) -> None:
    """Fill the store; masks and predictions are stand-ins that nobody opens."""
    assert "quarantined" not in convert(places)
    stores = places.stores
    write_studies_table(stores, places.sources)
    rng = np.random.default_rng(0)
    for uid in UIDS:
        stores.root.write(f"predicted_masks/{uid}.parquet", b"made")
        write_crops(stores, uid, crop_rows([0] * 7, rng))
    stores.root.write(PREDICTION, b"{}")
    write_record(stores.root, StoreRecord(profile="demo"))
    write_manifest(stores, CROPS.to_note())


def known_by(places: Places) -> dict[str, Any]:
    """All that studies, labels, tables and files are compared by when csfd looks."""
    stores, sources = places.stores, places.sources
    folders = {folder.name: folder for folder in sources.studies()}
    scans = {uid: record_of(scan_study(one)[0]) for uid, one in folders.items()}
    records = {uid: stores.metadata.read_record(uid) for uid in UIDS}
    return {
        "fingerprints": {
            uid: (one.fingerprint, one.mask_fingerprint) for uid, one in folders.items()
        },
        "read again": {u: (s.content_hash, s.mask_hash) for u, s in scans.items()},
        "stored": {u: r and (r.content_hash, r.mask_hash) for u, r in records.items()},
        "records": {uid: stores.metadata.record_version(uid) for uid in UIDS},
        "labels": label_inputs(stores, sources),
        "label history": {uid: stores.label_history.versions(uid) for uid in UIDS},
        "table": studies_table_inputs(stores, sources),
        "prediction": [e.token for e in stores.root.entries("predictions")],
        "survey": survey(stores, sources, ConversionSettings()),
    }


def due(places: Places) -> dict[str, Any]:
    """What csfd would do now; nothing where everything is as it was made."""
    stores, sources = places.stores, places.sources
    surveyed = survey(stores, sources, ConversionSettings())
    plan = plan_arrivals(surveyed, UIDS)
    inputs = stores.metadata.read_studies_inputs()
    found: Mapping[str, Any] = {
        "studies": dict(plan.take_up),
        "conversion": [
            task.folder.name
            for task in study_tasks(sources.studies(), stores)
            if needs_work(task)
        ],
        "table": inputs != studies_table_inputs(stores, sources),
        "manifest": not manifest_is_current(stores, CROPS.to_note()),
    }
    return {name: value for name, value in found.items() if value}
