"""Reviews of the page as the result objects want them."""

import json
from typing import Any

import sqlalchemy as sa

from csfd_core.dicom_objects.source import ReviewBox, SignedReview
from csfd_core.store.stores import Stores
from csfd_core.web.database import reviews, studies
from csfd_core.web.review.label_files import to_moment
from csfd_core.web.review.signing import signed_reviews


def reviews_for_report(
    connection: sa.Connection, stores: Stores, study_uid: str, review_id: int
) -> tuple[SignedReview, SignedReview | None] | None:
    """Return a signed review, and the one before it of the same reader, if any.

    Without their comments: readers are told that these stay on the page.

    Args:
        connection: Of a transaction.
        stores: That know on which slice a box lies now.
        study_uid: Keyed.
        review_id: Number of the review.

    Returns:
        Both; ``None`` where there is no such review.
    """
    rows = signed_reviews(connection, study_uid)
    chosen = next((row for row in rows if row.id == review_id), None)
    if chosen is None:
        return None
    before = [r for r in rows if r.user_id == chosen.user_id and r.id < review_id]
    index_of = {
        uid: index for index, uid in enumerate(stores.metadata.read_sop_uids(study_uid))
    }
    earlier = _to_review(before[-1], index_of) if before else None
    return _to_review(chosen, index_of), earlier


def is_outdated(connection: sa.Connection, review_id: int) -> bool:
    """Say whether its study has had further images since a review was signed."""
    wanted = (
        sa.select(reviews.c.id)
        .join(studies, studies.c.study_uid == reviews.c.study_uid)
        .where(reviews.c.id == review_id, reviews.c.version < studies.c.version)
    )
    return connection.scalar(wanted) is not None


def _to_review(row: sa.Row[Any], index_of: dict[str | None, int]) -> SignedReview:
    body = json.loads(row.body)
    boxes = []
    for box in body["boxes"]:
        sop_uid = box.get("sop_instance_uid")
        index = box["slice_index"] if sop_uid is None else index_of.get(sop_uid)
        if index is not None:  # its slice is still there
            size = {name: box[name] for name in ("x", "y", "width", "height")}
            boxes.append(ReviewBox(level=box["level"], slice_index=index, **size))
    return SignedReview(
        reader=row.name,
        signed_at=to_moment(row.signed_at),
        saw_ai=row.saw_ai,
        levels=body["levels"],
        boxes=tuple(boxes),
        reference=str(row.id),
    )
