"""What is exported of a study of which a reader has chosen a volume: that one alone.

Another csfd would read the volume that is read by default, beside the mask and the
boxes of the one that was chosen here.
"""

from dataclasses import replace

import pandas as pd

from csfd_core.store.box_slices import place_boxes
from csfd_core.store.labels import BOX_COLUMNS
from csfd_core.store.source import StudyFolder
from csfd_core.store.stores import Stores


def volume_read(stores: Stores, folder: StudyFolder) -> StudyFolder:
    """Return a study's folder; where another volume was chosen, with its slices alone.

    Args:
        stores: That hold the study.
        folder: Its files.
    """
    record = stores.metadata.read_record(folder.name)
    if record is None or record.volume == 1:
        return folder
    _, headers = stores.metadata.read_headers(folder.name)
    read = {header.file_name for header in headers}
    files = tuple(e for e in folder.files if folder.file_name(e) in read)
    return replace(folder, files=files)


def boxes_read(
    stores: Stores, study_uid: str, boxes: pd.DataFrame
) -> list[list[float]]:
    """Return the boxes of a study that lie on the volume which was read.

    Args:
        stores: That hold the study.
        study_uid: The study.
        boxes: Its boxes, as in ``BoxTable``.

    Returns:
        ``x, y, width, height`` in pixels and ``slice_number`` of each.
    """
    record = stores.metadata.read_record(study_uid)
    if record is not None and record.volumes:
        index = place_boxes(
            boxes,
            stores.metadata.read_instance_numbers(study_uid),
            stores.metadata.read_sop_uids(study_uid),
            volume=record.volume,
            has_several=True,
        )
        boxes = boxes[index.notna()]
    rows: list[list[float]] = boxes[list(BOX_COLUMNS[1:])].to_numpy(float).tolist()
    return rows
