"""What dicomweb-client retrieves is what lies there, in the form it asks for."""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from support.dicom_studies import STUDY_UID, write_study
from support.dicomweb import SERIES_UID, Archive, files_in, nameless, value
from support.viewed_study import SLICES

from csfd_core.dicom_objects.stored import read_results


def test_every_instance_comes_as_it_lies_there(archive: Archive) -> None:
    found = archive.client.retrieve_series(STUDY_UID, SERIES_UID)
    assert len(found) == SLICES
    for dataset in found:
        stored = pydicom.dcmread(io.BytesIO(archive.files[dataset.SOPInstanceUID]))
        assert dataset == stored
    whole = archive.client.retrieve_study(STUDY_UID)
    assert {"CT", "SEG", "SR"} <= {str(one.Modality) for one in whole}
    sop = next(iter(archive.files))
    one = archive.client.retrieve_instance(STUDY_UID, SERIES_UID, sop)
    assert one == pydicom.dcmread(io.BytesIO(archive.files[sop]))


def test_the_bytes_of_one_object_come_without_a_frame_around_them(
    archive: Archive,
) -> None:
    sop, content = next(iter(archive.files.items()))
    path = f"studies/{STUDY_UID}/series/{SERIES_UID}/instances/{sop}"
    answer = archive.get(path, "application/dicom")
    assert answer.content == content
    assert answer.headers["content-type"].startswith("application/dicom;")
    several = archive.get(f"studies/{STUDY_UID}", "application/dicom")
    assert several.status_code == 406


def test_metadata_are_those_of_the_files(archive: Archive) -> None:
    found = archive.client.retrieve_series_metadata(STUDY_UID, SERIES_UID)
    assert len(found) == SLICES
    for one in found:
        told = Dataset.from_json(one)
        stored = pydicom.dcmread(io.BytesIO(archive.files[told.SOPInstanceUID]))
        del stored.PixelData
        assert told.pop("AvailableTransferSyntaxUID").value == ExplicitVRLittleEndian
        assert told == stored
    whole = archive.client.retrieve_study_metadata(STUDY_UID)
    seg = next(one for one in whole if value(one, "00080060") == "SEG")
    assert len(seg["00620002"]["Value"]) == 7
    assert all("7FE00010" not in one for one in whole)


def test_frames_are_the_pixels_of_the_files(archive: Archive) -> None:
    for sop, content in list(archive.files.items())[:3]:
        stored = pydicom.dcmread(io.BytesIO(content)).PixelData
        for media_types in (None, ("application/octet-stream",)):
            (frame,) = archive.client.retrieve_instance_frames(
                STUDY_UID, SERIES_UID, sop, [1], media_types=media_types
            )
            assert frame == stored
        path = f"studies/{STUDY_UID}/series/{SERIES_UID}/instances/{sop}/frames/1"
        ohif = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
        assert stored in archive.get(path, ohif).content
        assert archive.get(path, "application/octet-stream").content == stored
        assert archive.get(path, "text/html").status_code == 406


def test_frames_of_the_segmentation_are_its_masks(archive: Archive) -> None:
    results = read_results(archive.web.services.stores, STUDY_UID)
    seg = next(one for one in results if one.kind == "seg")
    dataset = pydicom.dcmread(io.BytesIO(seg.read(archive.web.services.stores)))
    masks = dataset.pixel_array
    numbers = [1, 2, len(masks)]
    frames = archive.client.retrieve_instance_frames(
        STUDY_UID, seg.series_uid, seg.sop_uid, numbers
    )
    for number, frame in zip(numbers, frames, strict=True):
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")
        np.testing.assert_array_equal(bits.reshape(64, 64), masks[number - 1])


def in_syntax(syntax: str) -> Any:
    def edit(dataset: Dataset) -> None:
        nameless(dataset)
        if syntax == ExplicitVRBigEndian:
            values = np.frombuffer(dataset.PixelData, "<i2").astype(">i2")
            dataset.PixelData = values.tobytes()
            dataset["PixelData"].VR = "OW"
            dataset.file_meta.TransferSyntaxUID = syntax
        elif syntax == ImplicitVRLittleEndian:
            dataset.file_meta.TransferSyntaxUID = syntax
        elif syntax == RLELossless:
            dataset.compress(
                RLELossless, encoding_plugin="pydicom", generate_instance_uid=False
            )
        elif syntax == JPEG2000Lossless:
            values = np.frombuffer(dataset.PixelData, "<i2").reshape(64, 64)
            coded = imagecodecs.jpeg2k_encode(
                values, level=0, codecformat="j2k", reversible=True
            )
            dataset.PixelData = encapsulate([coded])
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = syntax

    return edit


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless],
)
def test_what_is_stored_otherwise_is_sent_as_stored_or_plain(
    empty: Archive, syntax: str
) -> None:
    source = Path(empty.web.services.settings.source)
    write_study(source / "plain")
    plain = files_in(source / "plain")
    write_study(source, edit=in_syntax(syntax))
    files = files_in(source / "train_images")
    as_stored = empty.client.retrieve_series(
        STUDY_UID, SERIES_UID, media_types=(("application/dicom", "*"),)
    )
    assert {str(d.file_meta.TransferSyntaxUID) for d in as_stored} == {syntax}
    uncompressed = empty.client.retrieve_series(
        STUDY_UID, SERIES_UID, media_types=("application/dicom",)
    )
    for dataset in uncompressed:
        original = pydicom.dcmread(io.BytesIO(plain[dataset.SOPInstanceUID]))
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert dataset.PixelData == original.PixelData
        assert dataset.ImagePositionPatient == original.ImagePositionPatient
    sop = uncompressed[0].SOPInstanceUID
    (frame,) = empty.client.retrieve_instance_frames(
        STUDY_UID, SERIES_UID, sop, [1], media_types=("application/octet-stream",)
    )
    assert frame == pydicom.dcmread(io.BytesIO(plain[sop])).PixelData
    if syntax in (RLELossless, JPEG2000Lossless):
        (coded,) = empty.client.retrieve_instance_frames(
            STUDY_UID, SERIES_UID, sop, [1]
        )
        assert coded in files[sop]
        assert len(coded) < len(frame)
    accept = 'multipart/related; type="application/dicom"; transfer-syntax='
    other = empty.get(f"studies/{STUDY_UID}", accept + "1.2.840.10008.1.2.4.80")
    assert other.status_code == 406
