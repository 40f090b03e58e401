"""The facts of the one-page summary of a study."""

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from PIL import Image

from csfd_core.reports.summary_pdf import Column, SignedLine, Summary
from csfd_core.store.parquet import read_rows
from csfd_core.store.stores import Stores
from csfd_core.web.review.label_files import to_moment
from csfd_core.web.review.shown import require_study
from csfd_core.web.review.signing import newest_of_each, signed_reviews
from csfd_core.web.services import Services

_AROUND_MM: Final = 60.0  # shown before and behind the column
_AT_ONCE: Final = 32  # slices in memory


def summary_of(
    services: Services, study_uid: str, prediction: Mapping[str, Any]
) -> Summary:
    """Gather what the summary of a study says.

    Raises:
        HTTPException: 404 where there is no such study.
    """
    with services.database.transaction() as connection:
        study = require_study(connection, study_uid)
        newest = newest_of_each(signed_reviews(connection, study_uid), study.version)
    signed = [
        SignedLine(
            reader=row.name,
            signed_at=to_moment(row.signed_at),
            saw_ai=row.saw_ai,
            levels=json.loads(row.body)["levels"],
        )
        for row in sorted(newest, key=lambda row: -row.id)
    ]
    return Summary(
        study_uid=study_uid,
        prediction=prediction,
        signed=signed,
        column=column_of(services.stores, study_uid),
        made_at=datetime.now(UTC),
    )


def column_of(stores: Stores, study_uid: str) -> Column | None:
    """Cut a study through its cervical column, from the side; ``None``: not found."""
    slices = stores.slices.read_note(study_uid)
    mask = stores.predicted_masks.read_note(study_uid)
    if slices is None or mask is None or not mask.levels:
        return None
    if mask.content_hash != slices.content_hash:
        return None
    depth, rows, columns = slices.shape_zyx
    down_mm, back_mm, left_mm = slices.spacing_zyx_mm
    centres = {name: level.centre_zyx_mm for name, level in mask.levels.items()}
    middle = np.mean([centre[2] for centre in centres.values()]) / left_mm
    across = int(np.clip(np.rint(middle), 0, columns - 1))
    backs = [centre[1] / back_mm for centre in centres.values()]
    reach = _AROUND_MM / back_mm
    first = int(np.clip(min(backs) - reach, 0, rows - 1))
    last = int(np.clip(max(backs) + reach, first + 1, rows))
    lines = []
    for start in range(0, depth, _AT_ONCE):
        stop = min(start + _AT_ONCE, depth)
        path = stores.slices.path(study_uid)
        table, _ = read_rows(stores.root, path, start, stop)
        for jpeg in table.column("jpeg"):
            plane = np.asarray(Image.open(io.BytesIO(jpeg.as_py())))
            lines.append(plane[first:last, across])
    return Column(
        grey=np.stack(lines).astype(np.uint8),
        spacing_mm=(down_mm, back_mm),
        places_mm={
            name: (centre[0], centre[1] - first * back_mm)
            for name, centre in centres.items()
        },
    )
