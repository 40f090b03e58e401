"""An archive sends a study, and has its results back under the same patient."""

import io
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom
import pytest
from support.command import CSFD
from support.delivered import (
    FRAME_UID,
    NAMES,
    deliveries_of,
    finish_study,
    named_files,
    set_vault,
    wait_for,
)
from support.dicom_studies import STUDY_UID
from support.orthanc import NEEDS_ORTHANC, Orthanc, orthanc
from support.ports import free_port
from support.viewed_study import SLICES
from support.web import set_environment

from csfd_core.settings import DicomSettings
from csfd_core.web.database import studies
from csfd_core.web.delivery.deliveries import DeliveryState
from csfd_core.web.delivery.peers import all_peers
from csfd_core.web.delivery.planning import ask_by_hand
from csfd_core.web.services import Services
from csfd_core.web.vault import Vault

pytestmark = [pytest.mark.slow, NEEDS_ORTHANC]

SEX = "PatientSex"  # one letter is found everywhere
SERIES = {"CT", "SEG", "SR", "OT", "DOC"}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orthanc]:
    node_port = free_port()
    with orthanc(tmp_path / "archive", node_port=node_port) as running:
        set_environment(tmp_path / "csfd", monkeypatch)
        set_vault(monkeypatch)
        where = f"127.0.0.1:{running.dicom_port}"
        for name, value in {
            "CSFD_DICOM_PORT": str(node_port),
            "CSFD_QUIET_S": "1",
            "CSFD_DICOM_CALLERS": "ARCHIVE@127.0.0.1",
            "CSFD_DICOM_PEERS": f"archive=ARCHIVE@{where}",
        }.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def node(archive: Orthanc, tmp_path: Path) -> Iterator[Path]:
    """``csfd receive``; what it says goes into the file that is yielded."""
    said = tmp_path / "csfd" / "node.log"
    said.parent.mkdir(exist_ok=True)
    with said.open("wb") as log:
        process = subprocess.Popen([CSFD, "receive"], stdout=log, stderr=log)
    try:
        wait_for(lambda: "listens" in said.read_text(), 60)
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def accepted(services: Services) -> str:
    with services.database.transaction() as connection:
        return connection.scalar(studies.select()) or ""


def planted() -> list[bytes]:
    """What must be nowhere at csfd: the names, and the UIDs of the sender."""
    texts = [value for keyword, value in NAMES.items() if keyword != SEX]
    parts = [part for text in texts for part in text.split("^")]
    return [text.encode() for text in (*parts, STUDY_UID, FRAME_UID)]


def found_below(home: Path) -> list[str]:
    """Search every byte of a folder; of tables every text, which are compressed."""
    found = []
    for path in sorted(home.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            content += repr(table.schema.metadata).encode()
            content += json.dumps(table.to_pylist(), default=repr).encode()
        found += [f"{path}: {one!r}" for one in planted() if one in content]
    return found


def test_results_come_back_under_the_same_patient_and_nobody_else_knows_the_name(
    archive: Orthanc, node: Path, tmp_path: Path
) -> None:
    for file in named_files():
        archive.add(file)
    (study_id,) = archive.ask("/studies")
    archive.send_study(study_id)
    services = Services.open()
    wait_for(lambda: accepted(services) != "")
    uid = accepted(services)
    finish_study(services, uid)
    with services.database.transaction() as connection:
        (peer,) = all_peers(connection)
    assert ask_by_hand(services, uid, peer.id) == 1
    wait_for(lambda: state_of(services, uid) == DeliveryState.COMMITTED, 60)

    _require_one_study(archive)
    results = [
        pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
        for file in archive.instances()
    ]
    own = [one for one in results if one.Modality != "CT"]
    assert {one.Modality for one in results} == SERIES
    for one in own:
        assert one.StudyInstanceUID == STUDY_UID
        assert {name: str(one.get(name, "")) for name in NAMES} == NAMES
        assert "PatientIdentityRemoved" not in one
    _require_references(own, results)
    told = archive.ask(f"/dicom-web/studies/{STUDY_UID}/series")
    assert {one["00080060"]["Value"][0] for one in told} == SERIES
    if shutil.which("findscu"):
        assert modalities_found(archive, tmp_path / "found") == SERIES

    with services.database.transaction() as connection:
        vault = Vault.open(DicomSettings.read())
        assert vault is not None
        identity = vault.read(connection, uid)
    assert identity is not None
    assert identity.patient_and_study.PatientName == NAMES["PatientName"]
    services.database.close()
    assert len(found_below(archive.folder)) >= len(planted())  # they can be found
    assert found_below(tmp_path / "csfd") == []
    assert any("kept" in line for line in node.read_text().splitlines())


def modalities_found(archive: Orthanc, folder: Path) -> set[str]:
    """Ask by C-FIND, with dcmtk's client."""
    folder.mkdir()
    subprocess.run(
        [
            "findscu", "-S", "-X", "-od", str(folder), "-aet", "CSFD",
            "-aec", archive.ae_title, "127.0.0.1", str(archive.dicom_port),
            "-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={STUDY_UID}",
            "-k", "SeriesInstanceUID", "-k", "Modality",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    answers = [pydicom.dcmread(path) for path in folder.glob("rsp*.dcm")]
    return {str(one.Modality) for one in answers}


def state_of(services: Services, uid: str) -> DeliveryState:
    (one,) = deliveries_of(services, uid)
    return one.state


def _require_one_study(archive: Orthanc) -> None:
    assert len(archive.ask("/patients")) == 1
    assert len(archive.ask("/studies")) == 1
    assert len(archive.ask("/series")) == len(SERIES)


def _require_references(own: list[Any], results: list[Any]) -> None:
    """The segmentation lies in the frame and on the slices of the sender."""
    slices = {one.SOPInstanceUID for one in results if one.Modality == "CT"}
    assert len(slices) == SLICES
    (segmentation,) = [one for one in own if one.Modality == "SEG"]
    assert segmentation.FrameOfReferenceUID == FRAME_UID
    (series,) = segmentation.ReferencedSeriesSequence
    referenced = {
        item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence
    }
    assert referenced
    assert referenced <= slices
