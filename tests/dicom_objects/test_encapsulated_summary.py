"""The one-page summary as an Encapsulated PDF."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from support.dicom_studies import STUDY_UID
from support.result_objects import headers, made, result_source, validator_errors

from csfd_core.dicom_objects.column import column_of
from csfd_core.dicom_objects.results import ResultKind, make_results
from csfd_core.dicom_objects.stored import to_bytes


def test_a_validator_finds_no_error_and_the_pdf_is_whole(tmp_path: Path) -> None:
    (path,) = made(result_source(), ResultKind.PDF, tmp_path)
    assert validator_errors(path) == []
    found = dcmread(path)
    content = found.EncapsulatedDocument[: found.EncapsulatedDocumentLength]
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert found.Modality == "DOC"
    assert found.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert found.VerificationFlag == "UNVERIFIED"


def test_it_names_the_study_and_not_the_patient(tmp_path: Path) -> None:
    (path,) = made(result_source(), ResultKind.PDF, tmp_path)
    content = dcmread(path).EncapsulatedDocument
    streams = re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL)
    text = content
    for stream in streams:
        try:
            text += zlib.decompress(stream)
        except zlib.error:
            continue
    assert STUDY_UID.encode() in text
    assert b"Sensitive" not in text


def test_made_again_it_is_the_same_byte_for_byte() -> None:
    (first,) = make_results(result_source(), [ResultKind.PDF])
    (second,) = make_results(result_source(), [ResultKind.PDF])
    assert to_bytes(first.dataset) == to_bytes(second.dataset)


@pytest.mark.parametrize("to_front", [False, True])
def test_the_column_is_seen_from_the_side_with_its_levels(to_front: bool) -> None:
    stack = headers()
    grey = np.zeros((24, 64, 64), dtype=np.uint8)
    mask = np.zeros((24, 64, 64), dtype=np.uint8)
    mask[6, 40, 30], mask[18, 44, 32] = 2, 5
    grey[6, 40, 31], grey[18, 44, 31] = 200, 100
    if to_front:
        for one in stack:
            one.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
    column = column_of(result_source(headers=stack, mask=mask, grey=grey))
    assert column is not None
    assert column.spacing_mm == (2.0, 1.5)
    for name, level in (("C2", 200), ("C5", 100)):
        down, back = column.places_mm[name]
        assert column.grey[round(down / 2.0), round(back / 1.5)] == level


def test_a_stack_from_the_side_has_no_column() -> None:
    stack = headers()
    for one in stack:
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    assert column_of(result_source(headers=stack)) is None
