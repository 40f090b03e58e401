"""Routes: the axial volumes of a study, and which of them is read."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from csfd_core.vocabulary import require_uid
from csfd_core.web.security.sessions import Session, require_session, services_of
from csfd_core.web.services import Services
from csfd_core.web.status.api import StudyFacts, one_study
from csfd_core.web.volume_choice.choosing import choose_volume
from csfd_core.web.volume_choice.shown import StudyVolumes, volumes_of

router = APIRouter(prefix="/studies/{study_uid}")

MySession = Annotated[Session, Depends(require_session)]
MyServices = Annotated[Services, Depends(services_of)]


class WantedVolume(BaseModel):
    """The volume that is to be read, and the version that the page has shown."""

    model_config = ConfigDict(extra="forbid")

    slice_uid: Annotated[str, Field(max_length=64)]
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


@router.get("/volumes")
def show_volumes(
    study_uid: str, session: MySession, services: MyServices
) -> StudyVolumes:
    """Tell the volumes of a study and what was chosen; none where it has but one."""
    one_study(study_uid, session, services)
    return volumes_of(services, require_uid(study_uid))


@router.post("/volume", status_code=202)
def let_volume_be_read(
    study_uid: str, wanted: WantedVolume, session: MySession, services: MyServices
) -> StudyFacts:
    """Let another volume of a study be read: a new version, predicted anew."""
    choose_volume(services, session.user, study_uid, wanted.slice_uid, wanted.version)
    return one_study(study_uid, session, services)
