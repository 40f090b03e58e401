"""Orthanc sends a study by STOW-RS, and takes it back by WADO-RS."""

import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.dicom_studies import STUDY_UID
from support.dicomweb import ROUTE, ServedWeb, make_token, settle
from support.orthanc import NEEDS_ORTHANC, orthanc
from support.uploading import study_files

pytestmark = [pytest.mark.slow, NEEDS_ORTHANC]


def test_a_study_goes_from_orthanc_to_csfd_and_back(
    node: ServedWeb, tmp_path: Path
) -> None:
    files = study_files(tmp_path / "sent")
    with orthanc(tmp_path / "archive") as archive:
        for content in files:
            archive.add(content)
        server = {
            "Url": f"{node.address}{ROUTE}/",
            "HttpHeaders": {"Authorization": f"Bearer {make_token(node.web)}"},
        }
        archive.put("/dicom-web/servers/csfd", server)
        (study,) = archive.ask("/studies")
        asked = json.dumps({"Resources": [study], "Synchronous": True}).encode()
        archive.ask("/dicom-web/servers/csfd/stow", asked)
        (keyed,) = settle(node.web)
        assert len(node.web.services.inbox.find("train_images")[0]) == len(files)
        asked = json.dumps({"Resources": [{"Study": keyed}], "Synchronous": True})
        archive.ask("/dicom-web/servers/csfd/retrieve", asked.encode())
        found = [pydicom.dcmread(io.BytesIO(f)) for f in archive.instances()]
    back = {int(d.InstanceNumber): d for d in found if d.StudyInstanceUID == keyed}
    sent = {int(d.InstanceNumber): d for d in found if d.StudyInstanceUID == STUDY_UID}
    assert len(back) == len(sent) == len(files)
    for number, dataset in back.items():
        assert dataset.PatientName == ""
        np.testing.assert_array_equal(dataset.pixel_array, sent[number].pixel_array)
