"""What is served names nobody, and nobody sees what they must not."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.dicom_studies import STUDY_UID, add_series, write_study
from support.dicomweb import ROUTE, SERIES_UID, Archive, nameless, value
from support.viewed_study import SLICES

from csfd_core.dicom_objects.stored import read_results
from csfd_core.store.withdrawn import Withdrawal


@pytest.mark.parametrize(
    "path",
    [
        "studies/{0}",
        "studies/{0}/metadata",
        "studies/{0}/series",
        "studies/{0}/instances",
        f"studies/{STUDY_UID}/series/{{0}}",
        f"studies/{STUDY_UID}/series/{{0}}/metadata",
        f"studies/{STUDY_UID}/series/{SERIES_UID}/instances/{{0}}",
        f"studies/{STUDY_UID}/series/{SERIES_UID}/instances/{{0}}/frames/1",
    ],
)
@pytest.mark.parametrize(
    "uid",
    [
        "1.2.3",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "1.2.03",
        "2.25." + "9" * 60,
        "*",
        "%00",
        "1.2.3%0d%0aX: y",
        "\N{ARABIC-INDIC DIGIT ONE}.2",
    ],
)
def test_what_is_no_study_of_ours_is_not_found(
    archive: Archive, path: str, uid: str
) -> None:
    answer = archive.get(path.format(uid))
    assert answer.status_code in (404, 204), answer.text
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    ("frames", "status"), [("0", 404), ("2", 404), ("x", 400), ("1,", 400), ("-1", 400)]
)
def test_frames_that_are_not_there_are_told(
    archive: Archive, frames: str, status: int
) -> None:
    sop = next(iter(archive.files))
    path = f"studies/{STUDY_UID}/series/{SERIES_UID}/instances/{sop}/frames/{frames}"
    assert archive.get(path).status_code == status


def test_images_that_may_name_a_patient_are_not_served(empty: Archive) -> None:
    source = Path(empty.web.services.settings.source)
    write_study(source)
    assert empty.get("studies").status_code == 204
    assert empty.get(f"studies/{STUDY_UID}").status_code == 404
    for path in sorted((source / "train_images" / STUDY_UID).iterdir())[:3]:
        dataset = pydicom.dcmread(path)
        nameless(dataset)
        dataset.save_as(path)
    found = empty.client.retrieve_study(STUDY_UID)
    assert len(found) == 3
    assert {str(one.PatientName) for one in found} == {""}


def test_a_file_that_is_replaced_by_one_with_a_name_is_not_sent(
    empty: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_study(Path(empty.web.services.settings.source), edit=nameless)
    assert len(empty.client.retrieve_study(STUDY_UID)) == 24
    path = folder / "1.dcm"
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"YES ", b"NO  "))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as it was listed
    sop = f"{STUDY_UID}.1.1"
    one = f"studies/{STUDY_UID}/series/{SERIES_UID}/instances/{sop}"
    assert empty.get(one).status_code == 404
    assert empty.get(f"{one}/frames/1").status_code == 404


def test_phantoms_are_served_as_they_are(empty: Archive) -> None:
    source = Path(empty.web.services.settings.source)
    write_study(source)
    (source / "phantom.json").write_text("{}")
    assert len(empty.client.retrieve_study(STUDY_UID)) == 24


def test_a_withdrawn_study_is_gone(empty: Archive) -> None:
    write_study(Path(empty.web.services.settings.source), edit=nameless)
    assert len(empty.client.retrieve_study(STUDY_UID)) == 24
    withdrawal = Withdrawal(study_uid=STUDY_UID, reason="consent", by="ann")
    empty.web.services.stores.withdrawn.add(withdrawal)
    assert empty.get("studies").status_code == 204
    assert empty.get(f"studies/{STUDY_UID}").status_code == 404


def test_every_series_is_told_apart(empty: Archive) -> None:
    folder = write_study(Path(empty.web.services.settings.source), edit=nameless)
    add_series(folder, "7", every=2, edit=nameless)
    found = empty.client.search_for_series(STUDY_UID)
    assert {value(one, "0020000E"): value(one, "00201209") for one in found} == {
        SERIES_UID: 24,
        f"{STUDY_UID}.7": 12,
    }
    assert len(empty.client.retrieve_series(STUDY_UID, f"{STUDY_UID}.7")) == 12


def test_who_reads_blind_sees_images_and_nothing_of_the_prediction(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = archive.web.sign_in_as("ann")
    path = f"{ROUTE}/studies/{STUDY_UID}"
    seen = client.get(f"{path}/series").json()
    assert {"SEG", "SR"} <= {value(one, "00080060") for one in seen}
    results = read_results(archive.web.services.stores, STUDY_UID)
    object.__setattr__(
        archive.web.services,
        "web",
        archive.web.services.web.model_copy(update={"blind": True}),
    )
    try:
        (series,) = client.get(f"{path}/series").json()
        assert value(series, "00080060") == "CT"
        (study,) = client.get(f"{ROUTE}/studies").json()
        assert study["00080061"]["Value"] == ["CT"]
        assert value(study, "00201208") == SLICES
        assert len(client.get(f"{path}/metadata").json()) == SLICES
        for one in results:
            own = f"{path}/series/{one.series_uid}"
            assert client.get(own).status_code == 404
            assert client.get(f"{own}/instances/{one.sop_uid}").status_code == 404
        # A program that may read sees all, as its token says.
        assert len(archive.get(f"studies/{STUDY_UID}/series").json()) > 1
    finally:
        object.__setattr__(
            archive.web.services,
            "web",
            archive.web.services.web.model_copy(update={"blind": False}),
        )


@pytest.mark.slow
def test_metadata_of_350_slices_come_within_a_second(empty: Archive) -> None:
    volume = np.zeros((350, 16, 16), dtype=np.int16)
    write_study(
        Path(empty.web.services.settings.source), hounsfield=volume, edit=nameless
    )
    found = empty.client.search_for_instances(STUDY_UID)
    assert len(found) == 350
    times = []
    for _ in range(3):
        start = time.perf_counter()
        answer = empty.get(f"studies/{STUDY_UID}/metadata")
        times.append(time.perf_counter() - start)
        assert len(json.loads(answer.content)) == 350
    assert min(times[1:]) < 1.0
