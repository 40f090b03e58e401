"""A small labelled store, and tables of slices without images."""

from pathlib import Path

import numpy as np
import pandas as pd

from csfd_core.evaluation.folds import fold_of, is_test, key_of
from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores
from support import dicom_studies

STUDIES = 16
SLICES = 10


def write_store(folder: Path, edit_label: str = "") -> Stores:
    """Write a store of studies of noise, half of each group fractured.

    Args:
        folder: For source and store; what is there already is kept.
        edit_label: The study whose label is the other one.
    """
    rng = np.random.default_rng(0)
    source = folder / "source"
    for index in range(STUDIES):
        noise = rng.integers(-500, 1300, (SLICES, 32, 32), dtype=np.int16)
        noise[:, :8] = -1000  # as every patient has air around
        if not (source / "train_images" / uid_of(index)).exists():
            dicom_studies.write_study(source, uid_of(index), hounsfield=noise)
    stores = Stores(Location(folder / "store"))
    sources = Sources([Source(source)])
    for study in sources.studies():
        convert_study(StudyTask(study, stores))
    rows, counts = "", {True: 0, False: 0}
    for record in stores.metadata.read_records():
        group = is_test(key_of(record.study_uid, record.patient_key))
        counts[group] += 1
        label = (counts[group] + (record.study_uid == edit_label)) % 2
        rows += f"{record.study_uid},{label},{label},0,0,0,0,0,0\n"
    (source / "train.csv").write_text(dicom_studies.LABEL_HEADER + rows)
    write_studies_table(stores, Sources([Source(source)]))
    return stores


def uid_of(index: int) -> str:
    """Return the study's UID."""
    return f"{dicom_studies.STUDY_UID}.{index}"


def slices_of(patients: list[str], per_study: int = 4) -> pd.DataFrame:
    """Return a table of slices: one study for each name, fractured every other one."""
    count = len(patients)
    studies = pd.DataFrame(
        {
            "study_uid": [f"1.2.{number}" for number in range(count)],
            "patient": patients,
            "fold": [fold_of(patient) for patient in patients],
            "is_test": [is_test(patient) for patient in patients],
            "label": [number % 2 for number in range(count)],
        }
    )
    slices = studies.loc[studies.index.repeat(per_study)].reset_index(drop=True)
    slices["slice_index"] = np.tile(np.arange(per_study), count)
    return slices
