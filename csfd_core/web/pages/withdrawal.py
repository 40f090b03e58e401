"""Withdrawing a study from its page, as when a patient takes back consent."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from csfd_core.lineage.trained_models import (
    trained_classifiers,
    trained_ensembles,
    trained_segmentations,
)
from csfd_core.web.pages.render import render, short_uid
from csfd_core.web.pages.study import row_of
from csfd_core.web.security.sessions import (
    Session,
    require_administrator,
    require_form,
    require_session,
    services_of,
)
from csfd_core.web.services import Services
from csfd_core.web.withdrawing import withdraw_from_page

router = APIRouter()

MyServices = Annotated[Services, Depends(services_of)]


@router.get("/studies/{study_uid}/withdraw")
def foresee_withdrawal(
    study_uid: str,
    request: Request,
    services: MyServices,
    session: Annotated[Session, Depends(require_session)],
) -> Response:
    """Say what withdrawing a study means, before it is done."""
    require_administrator(session)
    row = row_of(services, study_uid)
    return render(
        request,
        session,
        "withdraw.html",
        row=row,
        short=short_uid(study_uid),
        models=models_that_know(services, study_uid),
    )


@router.post("/studies/{study_uid}/withdraw")
def withdraw_study(
    study_uid: str,
    request: Request,
    services: MyServices,
    session: Annotated[Session, Depends(require_form)],
    reason: Annotated[str, Form(max_length=200)],
) -> Response:
    """Withdraw a study for good."""
    require_administrator(session)
    row_of(services, study_uid)
    told = " ".join(reason.split())
    if not told:
        raise HTTPException(422, "Say why the study is withdrawn.")
    reception = request.app.state.reception
    withdraw_from_page(services, reception, study_uid, told, session.user)
    return RedirectResponse("/", 303)


def models_that_know(services: Services, study_uid: str) -> list[str]:
    """Name the models that were trained, stopped, calibrated or scored on a study."""
    stores = services.stores
    models = [*trained_segmentations(stores), *trained_classifiers(stores)]
    named = [model.name for model in models if model.roles_of(study_uid)]
    frozen = [one for one in trained_ensembles(stores) if one.roles_of(study_uid)]
    return named + [one.title for one in frozen]
