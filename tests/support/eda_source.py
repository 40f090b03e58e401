"""A small source with labels, boxes and masks: one study of each kind."""

from pathlib import Path

import numpy as np

from csfd_core.ingest.convert import StudyTask, convert_study
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores
from support.dicom_studies import (
    LABEL_HEADER,
    neck_hounsfield,
    neck_mask,
    volume_affine_ras,
    write_mask,
)
from support.dicom_studies import write_study as write_images

MASKED, PLAIN, BROKEN, UNLABELLED = (
    f"1.2.826.0.1.3680043.2{index}" for index in range(1, 5)
)
BOXES = "StudyInstanceUID,x,y,width,height,slice_number\n"


def write_source(folder: Path) -> Path:
    """One masked study, one plain, one quarantined, one without labels."""
    for rank, uid in enumerate((MASKED, PLAIN, BROKEN, UNLABELLED)):
        add_images(folder, uid, rank, z_descending=uid != PLAIN)
    write_mask(folder, neck_mask(), volume_affine_ras(), MASKED)
    (folder / "train_images" / BROKEN / "9.dcm").unlink()
    (folder / "train.csv").write_text(
        f"{LABEL_HEADER}{MASKED},1,0,1,0,0,1,0,0\n{PLAIN},1,0,0,0,0,0,0,1\n"
        f"{BROKEN},1,1,1,1,1,1,1,1\n"
    )
    (folder / "train_bounding_boxes.csv").write_text(
        f"{BOXES}{MASKED},20,38,12,10,13\n{PLAIN},20,38,12,10,1\n"
        f"{PLAIN},20,38,12,10,999\n{BROKEN},1,1,5,5,3\n"
    )
    (folder / "phantom.json").write_text("{}")
    return folder


def add_images(
    folder: Path, uid: str, shade_hu: int, *, z_descending: bool = True
) -> None:
    """Write a study whose pixels differ from those of another shade."""
    hounsfield = neck_hounsfield()
    hounsfield[:, 30:34, 30:34] += np.int16(shade_hu)
    write_images(folder, uid, hounsfield=hounsfield, z_descending=z_descending)


def fill(stores: Stores, sources: Sources) -> None:
    """Convert what is new in the sources, and build the table of studies."""
    for folder in sources.studies():
        convert_study(StudyTask(folder, stores))
    write_studies_table(stores, sources)
