"""``/dicom-web``: STOW-RS, QIDO-RS and WADO-RS of DICOM PS3.18."""

from fastapi import APIRouter

from csfd_core.web.dicomweb import retrieve, search, stow

router = APIRouter(prefix="/dicom-web")
for _room in (stow, search, retrieve):
    router.include_router(_room.router)
