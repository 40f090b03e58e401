"""Result objects for download: as csfd keeps them, without the patient."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fastapi import HTTPException

from csfd_core.web.delivery.signed import is_outdated, reviews_for_report
from csfd_core.web.review.signing import signed_reviews
from csfd_core.web.services import Services


class Artifact(StrEnum):
    """What may be downloaded."""

    SEG = "seg"
    SR = "sr"
    KEY_IMAGE = "key-image"
    SUMMARY = "summary"
    SIGNED_SR = "signed-sr"


_DICOM: Final = "application/dicom"
_ABSENT: Final = {
    Artifact.SEG: "There is no segmentation: no vertebra was found in this study.",
    Artifact.SR: "There is no report of this study.",
    Artifact.KEY_IMAGE: "There are no key images: no level is suspicious.",
    Artifact.SUMMARY: "There is no summary of this study.",
    Artifact.SIGNED_SR: "Nobody has signed this study as it is now.",
}
_KINDS: Final = {Artifact.SUMMARY: "pdf"}  # others are called alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to send."""

    name: str
    media_type: str
    content: bytes


def download_of(services: Services, study_uid: str, wanted: Artifact) -> Download:
    """Return the newest objects of a kind; they are made where they are not kept yet.

    Key images come as a zip file, as there may be several.

    Raises:
        HTTPException: 404 where there are none.
        StoreError: If the study is being predicted anew.
    """
    if wanted == Artifact.SIGNED_SR:
        files = _signed(services, study_uid)
    else:
        files = _made(services, study_uid, _KINDS.get(wanted, str(wanted)))
    if not files:
        raise HTTPException(404, _ABSENT[wanted])
    stem = f"{study_uid}_{wanted.replace('-', '_')}"
    if wanted != Artifact.KEY_IMAGE:
        return Download(name=f"{stem}.dcm", media_type=_DICOM, content=files[0])
    content = _zipped(stem, files)
    return Download(name=f"{stem}s.zip", media_type="application/zip", content=content)


def _made(services: Services, study_uid: str, kind: str) -> list[bytes]:
    from csfd_core.dicom_objects.stored import stored_results

    results = stored_results(services.stores, services.sources, study_uid)
    return [
        one.read(services.stores)
        for one in results
        if one.is_current and one.kind == kind
    ]


def _signed(services: Services, study_uid: str) -> list[bytes]:
    from csfd_core.dicom_objects.stored import store_signed

    with services.database.transaction() as connection:
        rows = signed_reviews(connection, study_uid)
        if rows and is_outdated(connection, rows[-1].id):
            return []  # it would say of the new images what was said of the old ones
        reviews = rows and reviews_for_report(
            connection, services.stores, study_uid, rows[-1].id
        )
    if not reviews:
        return []
    report = store_signed(services.stores, services.sources, study_uid, *reviews)
    return [report.read(services.stores)]


def _zipped(stem: str, files: Sequence[bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, content in enumerate(files, start=1):
            packed.writestr(f"{stem}_{number}.dcm", content)
    return sink.getvalue()
