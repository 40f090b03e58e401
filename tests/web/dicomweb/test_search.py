"""dicomweb-client finds what lies there, by whatever it asks for."""

import pytest
from pydicom.dataset import Dataset
from support.dicom_studies import STUDY_UID
from support.dicomweb import SERIES_UID, Archive, value
from support.viewed_study import SLICES

from csfd_core.dicom_objects.stored import read_results


def test_the_study_is_found_with_its_results(archive: Archive) -> None:
    archive.client.search_for_series(STUDY_UID)  # which makes the results
    (found,) = archive.client.search_for_studies()
    dataset = Dataset.from_json(found)
    assert dataset.StudyInstanceUID == STUDY_UID
    assert dataset.PatientID == "csfd-" + "a1" * 17
    assert dataset.PatientName == ""
    assert {"CT", "SEG", "SR"} <= set(dataset.ModalitiesInStudy)
    results = read_results(archive.web.services.stores, STUDY_UID)
    assert len(results) >= 4
    assert dataset.NumberOfStudyRelatedInstances == SLICES + len(results)
    series = {SERIES_UID, *(one.series_uid for one in results)}
    assert dataset.NumberOfStudyRelatedSeries == len(series)
    listed = archive.client.search_for_series(STUDY_UID)
    assert {value(one, "0020000E") for one in listed} == series


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"StudyInstanceUID": STUDY_UID}, 1),
        ({"StudyInstanceUID": f"1.2.3,{STUDY_UID}"}, 1),
        ({"StudyInstanceUID": "1.2.3"}, 0),
        ({"PatientID": "csfd-" + "a1" * 17}, 1),
        ({"PatientID": "csfd-a1*"}, 1),
        ({"00100020": "csfd-?1*"}, 1),
        ({"PatientID": "a1*"}, 0),
        ({"PatientID": "[c]sfd*"}, 0),
        ({"PatientName": "*"}, 1),
        ({"PatientName": "Sensitive*"}, 0),
        ({"StudyDate": "19000101-20991231"}, 0),
        ({"ModalitiesInStudy": "CT"}, 1),
        ({"ModalitiesInStudy": "MR"}, 0),
    ],
)
def test_studies_are_matched(
    archive: Archive, filters: dict[str, str], count: int
) -> None:
    assert len(archive.client.search_for_studies(search_filters=filters)) == count


def test_series_and_instances_are_matched(archive: Archive) -> None:
    client = archive.client
    (images,) = client.search_for_series(STUDY_UID, search_filters={"Modality": "CT"})
    assert value(images, "0020000E") == SERIES_UID
    assert value(images, "00201209") == SLICES
    assert value(images, "00200011") == 3
    everywhere = client.search_for_series(search_filters={"Modality": "SEG"})
    assert [value(one, "0020000D") for one in everywhere] == [STUDY_UID]
    assert value(everywhere[0], "00100020").startswith("csfd-")
    found = client.search_for_instances(STUDY_UID, SERIES_UID)
    numbers = [value(one, "00200013") for one in found]
    assert numbers == list(range(1, SLICES + 1))
    assert {value(one, "00080018") for one in found} == set(archive.files)
    assert value(found[0], "00280010") == 64
    sop = value(found[5], "00080018")
    (one,) = client.search_for_instances(search_filters={"SOPInstanceUID": sop})
    assert value(one, "0020000E") == SERIES_UID
    only = client.search_for_instances(search_filters={"Modality": "SR"})
    assert len(only) == 1


def test_pages_of_matches_hold_each_once(archive: Archive) -> None:
    found: list[str] = []
    while True:
        page = archive.get(
            f"studies/{STUDY_UID}/series/{SERIES_UID}/instances",
            limit="7",
            offset=str(len(found)),
        )
        if page.status_code == 204:
            break
        found += [value(one, "00080018") for one in page.json()]
        is_last = len(found) == SLICES
        assert ("further matches" in page.headers.get("warning", "")) == (not is_last)
    assert len(found) == len(set(found)) == SLICES


def test_fields_that_are_asked_for_are_told(archive: Archive) -> None:
    path = f"studies/{STUDY_UID}/series/{SERIES_UID}/instances"
    plain = archive.get(path).json()[0]
    assert "00180050" not in plain
    more = archive.get(path, includefield="SliceThickness,00200032").json()[0]
    assert value(more, "00180050") == 2.0
    assert len(more["00200032"]["Value"]) == 3
    assert "00281053" in archive.get(path, includefield="all").json()[0]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": "-1"}, 400),
        ({"limit": "x"}, 400),
        ({"offset": "1" * 30}, 400),
        ({"limit": "0"}, 204),
        ({"limit": "100000"}, 200),
        ({"fuzzymatching": "true"}, 200),
        ({"NoSuchAttribute": "x"}, 200),
        ({"PatientID": "x" * 3000}, 400),
        ({"PatientID": "(a+)+$"}, 204),
    ],
)
def test_parameters_that_cannot_be_meant_are_told(
    archive: Archive, query: dict[str, str], status: int
) -> None:
    assert archive.get("studies", **query).status_code == status
