"""Routes of the viewer: the grid of a study, its slices, its mask and its heat.

All of it is for whoever has signed in. What a prediction says of fractures is withheld
from readers who must read blind; the mask and the names of the levels are not.
"""

from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import StreamingResponse

from csfd_core.inference.heatmap import heat_volume
from csfd_core.inference.stored_heat import read_heats
from csfd_core.store.notes import SliceNote
from csfd_core.vocabulary import require_uid
from csfd_core.web.audit import Action, record
from csfd_core.web.review.blind import is_blind
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.services import Services
from csfd_core.web.viewer.facts import (
    box_of,
    geometry_facts,
    matching_mask,
    matching_prediction,
    require_slices,
)
from csfd_core.web.viewer.volumes import (
    MOST_SLICES,
    framed_jpegs,
    has_hounsfield,
    mask_as_nifti,
    packed,
    read_hounsfield,
)

router = APIRouter(prefix="/studies/{study_uid}", tags=["viewer"])

BOX_HEADER: Final = "X-Volume-Box"  # z0,z1,y0,y1,x0,x1 of what was sent
_BYTES: Final = "application/octet-stream"

WhoAsks = Annotated[Session, Depends(require_session)]
Opened = Annotated[Services, Depends(services_of)]
SliceNumber = Annotated[int, Query(ge=0)]
# Of the slices that the geometry was told of; "": whatever there is now.
ContentHash = Annotated[str, Query(max_length=64)]


@router.get("/geometry")
def geometry(study_uid: str, session: WhoAsks, services: Opened) -> dict[str, Any]:
    """Tell the grid, the window, the levels and the evidence of a study."""
    slices = require_slices(services.stores, require_uid(study_uid))
    blind = is_blind(services, session, study_uid)
    facts = geometry_facts(services.stores, study_uid, is_blind=blind)
    facts["has_hounsfield"] = has_hounsfield(
        services.stores, services.sources, study_uid
    )
    facts["has_heat"] = not blind and _has_heat(services, slices)
    return facts


@router.get("/frames")
def frames(
    study_uid: str,
    session: WhoAsks,
    services: Opened,
    start: SliceNumber,
    stop: SliceNumber,
    content_hash: ContentHash = "",
) -> StreamingResponse:
    """Send the JPEGs of some slices, head to feet, each after its number and length."""
    del session
    slices = _require_same(services, study_uid, content_hash)
    _require_range(slices, start, stop)
    content = framed_jpegs(services.stores, study_uid, start, stop)
    return StreamingResponse(content, media_type=_BYTES)


@router.get("/volume")
def volume(
    study_uid: str,
    session: WhoAsks,
    services: Opened,
    start: SliceNumber,
    stop: SliceNumber,
    content_hash: ContentHash = "",
) -> Response:
    """Send the Hounsfield units of some slices as 16-bit numbers, little-endian."""
    del session
    slices = _require_same(services, study_uid, content_hash)
    _require_range(slices, start, stop)
    if stop - start > MOST_SLICES:
        raise HTTPException(422, f"Ask for at most {MOST_SLICES} slices at once.")
    hounsfield = read_hounsfield(
        services.stores, services.sources, study_uid, start, stop
    )
    if hounsfield.shape[1:] != slices.shape_zyx[1:]:
        raise HTTPException(409, "The images of this study have another size by now.")
    return _send(hounsfield)


@router.get("/mask")
def mask(
    study_uid: str,
    session: WhoAsks,
    services: Opened,
    *,
    cropped: bool = False,
    content_hash: ContentHash = "",
) -> Response:
    """Send the labels of all voxels, or of the smallest box that holds them."""
    del session
    _require_same(services, study_uid, content_hash)
    _require_mask(services, study_uid)
    labels = services.stores.predicted_masks.read_volume(study_uid)
    return _send_labels(labels, cropped=cropped)


@router.get("/mask.nii.gz")
def mask_file(study_uid: str, session: WhoAsks, services: Opened) -> Response:
    """Send the mask as a NIfTI file that other viewers lay on the CT."""
    _require_mask(services, study_uid)
    content = mask_as_nifti(services.stores, study_uid)
    with services.database.transaction() as connection:
        record(connection, session.user.id, Action.DOWNLOADED, study_uid, "mask")
    name = f'attachment; filename="{study_uid}_mask.nii.gz"'
    return Response(
        content, media_type="application/gzip", headers={"Content-Disposition": name}
    )


@router.get("/heat")
def heat(
    study_uid: str,
    session: WhoAsks,
    services: Opened,
    *,
    cropped: bool = False,
    content_hash: ContentHash = "",
) -> Response:
    """Send how much each voxel speaks for a fracture, 0 to 255."""
    slices = _require_same(services, study_uid, content_hash)
    if is_blind(services, session, study_uid):
        raise HTTPException(403, "This study is read blind: sign your review first.")
    if not _has_heat(services, slices):
        raise HTTPException(404, "No heatmap is kept of this study's prediction.")
    heats = read_heats(services.stores, study_uid)
    return _send_labels(heat_volume(heats, slices.geometry), cropped=cropped)


def _require_same(services: Services, study_uid: str, content_hash: str) -> SliceNote:
    """Return the note of a study's slices, if they are those that are shown.

    Slices of another volume, or of another number, must not come between them.

    Raises:
        HTTPException: 404 where there are none, 409 where they are others by now.
    """
    slices = require_slices(services.stores, require_uid(study_uid))
    if content_hash not in ("", slices.content_hash):
        raise HTTPException(
            409, "The images of this study are others by now. Load the page again."
        )
    return slices


def _require_mask(services: Services, study_uid: str) -> None:
    slices = require_slices(services.stores, require_uid(study_uid))
    if matching_mask(services.stores, slices) is None:
        raise HTTPException(404, "This study has no mask of its vertebrae yet.")


def _has_heat(services: Services, slices: SliceNote) -> bool:
    if matching_prediction(services.stores, slices) is None:
        return False
    return bool(read_heats(services.stores, slices.study_uid))


def _require_range(slices: SliceNote, start: int, stop: int) -> None:
    depth = slices.shape_zyx[0]
    if not start < stop <= depth:
        raise HTTPException(
            422, f"This study has slices 0 to {depth - 1}: ask for some of these."
        )


def _send_labels(labels: npt.NDArray[np.uint8], *, cropped: bool) -> Response:
    box = box_of(labels) if cropped else tuple((0, size) for size in labels.shape)
    z, y, x = (slice(*span) for span in box)
    response = _send(labels[z, y, x])
    ends = (str(end) for span in box for end in span)
    response.headers[BOX_HEADER] = ",".join(ends)
    return response


def _send(content: npt.NDArray[np.generic]) -> Response:
    return Response(
        packed(content), media_type=_BYTES, headers={"Content-Encoding": "gzip"}
    )
