"""``/dicom-web`` on a real server, and clients that speak to it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.dataset import Dataset
from starlette.testclient import TestClient

from csfd_core.web.reception.reception import Reception
from csfd_core.web.security.tokens import add_token
from support import browser
from support.dicom_studies import STUDY_UID
from support.web import ADDRESS, WebUnderTest

ROUTE = "/dicom-web"
SERIES_UID = f"{STUDY_UID}.1"


def make_token(web: WebUnderTest, name: str = "pacs", **may: Any) -> str:
    """Make an access token; without more, for sending and reading."""
    allowed = may or {"may_send": True, "may_read": True}
    allowed = {"may_send": False, "may_read": False} | allowed
    with web.services.database.transaction() as connection:
        return add_token(connection, web.user_id, name, **allowed)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def settle(web: WebUnderTest) -> list[str]:
    """Accept what has come in, without waiting for more."""
    return Reception(web.services).settle(quiet_s=0)


@dataclass
class ServedWeb:
    """The web under test behind a real port."""

    web: WebUnderTest
    address: str

    def client(self, token: str) -> DICOMwebClient:
        session = create_session()
        session.headers.update(bearer(token))
        return DICOMwebClient(f"{self.address}{ROUTE}", session=session)


@contextmanager
def served(web: WebUnderTest) -> Iterator[ServedWeb]:
    """Let uvicorn serve the application, as ``csfd serve`` does."""
    with browser.served(web.app) as address:
        yield ServedWeb(web, address)


def nameless(dataset: Dataset) -> None:
    """As the de-identification leaves it."""
    dataset.PatientName = dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientID = "csfd-" + "a1" * 17
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = dataset.StudyID = ""
    dataset.SeriesNumber = 3
    dataset.PatientIdentityRemoved = "YES"


@dataclass
class Archive:
    """A node that holds the study, a client that reads, and the study's files."""

    node: ServedWeb
    client: DICOMwebClient
    token: str
    files: dict[str, bytes]  # by SOPInstanceUID

    @property
    def web(self) -> WebUnderTest:
        return self.node.web

    def get(self, path: str, accept: str = "*/*", **query: str) -> Any:
        client = TestClient(self.web.app, base_url=ADDRESS)
        headers = {**bearer(self.token), "Accept": accept}
        return client.get(f"{ROUTE}/{path}", headers=headers, params=query)


def files_in(folder: Path) -> dict[str, bytes]:
    found = [path.read_bytes() for path in folder.rglob("*.dcm")]
    return {str(pydicom.dcmread(io.BytesIO(f)).SOPInstanceUID): f for f in found}


def value(found: dict[str, Any], tag: str) -> Any:
    return found[tag].get("Value", [None])[0]
