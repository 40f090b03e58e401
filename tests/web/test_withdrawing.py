"""What came in and nobody has signed does not stay longer than it may."""

import time

import pytest
import sqlalchemy as sa
from support.dicom_studies import STUDY_UID
from support.reviews import add_study, sign
from support.web import WebUnderTest

from csfd_core.lineage.withdrawal import withdraw
from csfd_core.store.label_notes import read_label_notes
from csfd_core.web.audit import verify
from csfd_core.web.database import audit, studies
from csfd_core.web.status.follower import take_over
from csfd_core.web.withdrawing import withdraw_expired

DAY_S = 86_400.0


@pytest.fixture
def study(web: WebUnderTest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A study that came in 31 days ago, where 30 days are allowed."""
    add_study(web)
    change(web, accepted_at=time.time() - 31 * DAY_S)
    kept = web.services.web.model_copy(update={"keep_days": 30})
    object.__setattr__(web.services, "web", kept)
    return STUDY_UID


def change(web: WebUnderTest, **values: object) -> None:
    with web.services.database.transaction() as connection:
        connection.execute(studies.update().values(**values))


def expire(web: WebUnderTest) -> int:
    return withdraw_expired(web.services, web.app.state.reception)


def images(web: WebUnderTest) -> int:
    return len(web.services.inbox.entries(f"train_images/{STUDY_UID}"))


def test_it_is_withdrawn_as_an_administrator_would(
    web: WebUnderTest, study: str
) -> None:
    assert images(web) > 0
    assert expire(web) == 1
    assert images(web) == 0
    (note,) = read_label_notes(web.services.inbox).notes.values()
    assert note.study_uid == study
    assert note.withdrawn == "Kept for 30 days, and nobody has signed it."
    page = web.client.get("/api/v1/studies", params={"state": "all"}).json()
    assert page["studies"][0]["state"] == "refused"
    with web.services.database.transaction() as connection:
        last = connection.execute(sa.select(audit).order_by(audit.c.number)).all()[-1]
    assert (last.user_id, last.action, last.subject) == (None, "study withdrawn", study)
    assert verify(web.services.database)[1] is None


@pytest.mark.parametrize(
    "values",
    [
        {"accepted_at": time.time() - 29 * DAY_S},
        {"state": "running"},
        {"slices": 0},  # of the source: nothing came in
    ],
)
@pytest.mark.usefixtures("study")
def test_what_is_younger_on_its_way_or_of_the_source_stays(
    web: WebUnderTest, values: dict[str, object]
) -> None:
    change(web, **values)
    assert expire(web) == 0
    assert images(web) > 0


@pytest.mark.usefixtures("study")
def test_what_was_signed_stays(web: WebUnderTest) -> None:
    sign(web.client)
    assert expire(web) == 0
    assert images(web) > 0


@pytest.mark.usefixtures("study")
def test_nothing_is_withdrawn_unless_it_was_asked_for(web: WebUnderTest) -> None:
    kept = web.services.web.model_copy(update={"keep_days": 0})
    object.__setattr__(web.services, "web", kept)
    assert expire(web) == 0


def test_no_more_at_once_than_label_files_may(web: WebUnderTest, study: str) -> None:
    with web.services.database.transaction() as connection:
        row = connection.execute(sa.select(studies)).one()._asdict()
        for number in range(25):
            other = row | {"study_uid": f"{study}.{number}"}
            connection.execute(studies.insert().values(**other))
    assert [expire(web) for _ in range(4)] == [10, 10, 6, 0]
    assert len(read_label_notes(web.services.inbox).notes) == 26


def test_once_the_graph_has_removed_it_the_list_forgets_it(
    web: WebUnderTest, study: str
) -> None:
    assert expire(web) == 1
    take_over(web.services)
    assert state_of(web, study) == "refused"  # the graph is not done yet
    withdraw(web.services.stores, study, "Kept for 30 days.", "csfd")
    take_over(web.services)
    assert state_of(web, study) is None


def state_of(web: WebUnderTest, study_uid: str) -> str | None:
    with web.services.database.transaction() as connection:
        own = studies.c.study_uid == study_uid
        found: str | None = connection.scalar(sa.select(studies.c.state).where(own))
    return found
