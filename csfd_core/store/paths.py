"""Where everything lies below a store's root: every folder and shared file, once.

Files of one study are named by it; what else a folder holds is the business of the
module that writes it.
"""

import time
import uuid
from typing import Final

from csfd_core.vocabulary import require_uid

STORE_RECORD: Final = "store.json"
HEADERS: Final = "metadata/slices"
LISTINGS: Final = "metadata/listings"
STUDIES: Final = "metadata/studies.parquet"
LABEL_VERSIONS: Final = "metadata/label_versions"  # one file for what came at once
OLD_LABEL_VERSIONS: Final = f"{LABEL_VERSIONS}.parquet"  # of csfd before 0.3
MANIFEST: Final = "metadata/manifest.parquet"
NOTE_SEGMENTS: Final = "metadata/notes"  # copies of what stands in footers
WITHDRAWN: Final = "withdrawn"
VOLUME_CHOICES: Final = "volume_choices"  # by study: one file for each choice

SLICES: Final = "slices"
MASKS: Final = "masks"
PREDICTED_MASKS: Final = "predicted_masks"
CROPS: Final = "crops"
NOTED: Final = (HEADERS, SLICES, MASKS, PREDICTED_MASKS, CROPS)  # a note per study
FEATURES: Final = "features"  # of a frozen backbone, or of a study; made again if lost
GREY_LEVELS: Final = f"{FEATURES}/grey_levels"

MODELS: Final = "models"  # everything below it that was trained
SEGMENTATION_MODELS: Final = f"{MODELS}/segmentation"
CLASSIFIERS: Final = f"{MODELS}/classification"  # the newest training of each
BEST_CLASSIFIER: Final = f"{CLASSIFIERS}/best.json"
FROZEN_ENSEMBLES: Final = f"{MODELS}/champion"  # copies, by digest
CHAMPION_HISTORY: Final = f"{FROZEN_ENSEMBLES}/history"  # one file for each change
CHAMPION_CLAIMS: Final = f"{CHAMPION_HISTORY}/claims"  # likewise, before it is made
OLD_CHAMPION_HISTORY: Final = f"{CHAMPION_HISTORY}.jsonl"  # of csfd before 0.3
CHAMPION_REGISTRY: Final = f"{FROZEN_ENSEMBLES}/registry.json"
LAST_DECISION: Final = f"{FROZEN_ENSEMBLES}/decision.json"

CHECKPOINTS: Final = "checkpoints"  # of trainings under way, to go on with

PREDICTIONS: Final = "predictions"
HEATS: Final = "heats"  # what the classifier looked at, beside each prediction
DICOM_RESULTS: Final = "dicom_results"  # by study: objects for a PACS

PICTURES: Final = "pictures"  # by asset: of each study, and charts of all

REPORTS: Final = "reports"
EDA_REPORT: Final = f"{REPORTS}/eda"
SEGMENTATION_REPORT: Final = f"{REPORTS}/segmentation"
COMPARISON_REPORT: Final = f"{REPORTS}/comparison"
LEAKAGE_REPORT: Final = f"{REPORTS}/leakage"
DRIFT_REPORT: Final = f"{REPORTS}/drift"
EVERY_REPORT: Final = (
    EDA_REPORT,
    SEGMENTATION_REPORT,
    COMPARISON_REPORT,
    LEAKAGE_REPORT,
    DRIFT_REPORT,
)


def of_fact(folder: str, suffix: str) -> str:
    """Return a new path in a folder of facts; they sort as they were written.

    Each fact has a file of its own, so that two writers lose none.
    """
    return f"{folder}/{time.time_ns():020d}-{uuid.uuid4().hex}{suffix}"


def of_study(folder: str, study_uid: str, suffix: str = ".parquet") -> str:
    """Return the path of a study's file in a folder, relative to the store.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    return f"{folder}/{require_uid(study_uid)}{suffix}"
