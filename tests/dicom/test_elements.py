import struct
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_files
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from support.dicom_studies import SIZE, neck_hounsfield, slice_dataset
from support.material import require_material

from csfd_core.dicom import elements, tags
from csfd_core.dicom.elements import read_elements
from csfd_core.dicom.headers import _to_header, read_slice_header
from csfd_core.errors import DicomError, NotDicomError


def file_bytes(tmp_path: Path, dataset: Dataset | None = None) -> bytes:
    dataset = dataset or slice_dataset(neck_hounsfield(1)[0], 1, 0.0)
    path = tmp_path / "1.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def test_short_path_and_pydicom_give_the_same_header() -> None:
    compared = 0
    for name in get_testdata_files():
        path = Path(name)
        if not path.is_file():
            continue
        raw = path.read_bytes()
        short = elements._read_plain(raw)
        if short is None:  # not in the usual form: pydicom reads it in any case
            continue
        whole = elements._read_with_pydicom(raw)
        assert _to_header(short, "1.dcm", 1, "") == _to_header(whole, "1.dcm", 1, "")
        compared += 1
    assert compared > 60


def test_usual_file_takes_the_short_path(tmp_path: Path) -> None:
    assert elements._read_plain(file_bytes(tmp_path)) is not None


def test_header_agrees_with_pydicom(tmp_path: Path) -> None:
    raw = file_bytes(tmp_path)
    header = read_slice_header(raw, "1.dcm")
    dataset = dcmread(tmp_path / "1.dcm")
    assert header is not None
    assert header.rows == dataset.Rows == SIZE
    assert header.position_mm == tuple(dataset.ImagePositionPatient)
    assert header.orientation == tuple(dataset.ImageOrientationPatient)
    assert header.pixel_spacing_mm == tuple(dataset.PixelSpacing)
    assert header.series_uid == dataset.SeriesInstanceUID
    assert header.pixel_offset is not None
    assert raw[header.pixel_offset :][: header.pixel_length] == dataset.PixelData


def test_header_holds_no_text_of_the_patient(tmp_path: Path) -> None:
    header = read_slice_header(file_bytes(tmp_path), "1.dcm")
    text = repr(header)
    assert "Sensitive" not in text
    assert "patient-of" not in text
    assert "19700101" not in text


def test_beginning_of_a_file_is_enough_for_its_header(tmp_path: Path) -> None:
    raw = file_bytes(tmp_path)
    whole = read_slice_header(raw, "1.dcm")
    assert whole is not None
    beginning = raw[: (whole.pixel_offset or 0) + 16]
    assert read_slice_header(beginning, "1.dcm", size_bytes=len(raw)) == whole


def test_too_short_a_beginning_asks_for_more(tmp_path: Path) -> None:
    raw = file_bytes(tmp_path)
    assert read_slice_header(raw[:400], "1.dcm", size_bytes=len(raw)) is None


@pytest.mark.parametrize("raw", [b"", b"hello", b"\0" * 300, b"PK\x03\x04" * 99])
def test_bytes_of_something_else_are_no_dicom(raw: bytes) -> None:
    with pytest.raises(NotDicomError, match="DICM prefix|cannot be parsed"):
        read_elements(raw)


def test_header_cut_off_is_told(tmp_path: Path) -> None:
    raw = file_bytes(tmp_path)
    name = raw.index(b"Sensitive")
    with pytest.raises(DicomError, match="ends inside an element"):
        read_elements(raw[: name + 4])


def test_damaged_header_is_told(tmp_path: Path) -> None:
    raw = file_bytes(tmp_path)
    # A length that points behind the end of the file.
    broken = raw[:140] + struct.pack("<I", 2**20) + raw[144:200]
    with pytest.raises(DicomError, match="cut off"):
        read_elements(broken)


def test_want_of_memory_is_no_fault_of_a_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(elements, "dcmread", exhausted)
    with pytest.raises(MemoryError):
        elements._read_with_pydicom(file_bytes(tmp_path))


def test_file_without_preamble_is_read(tmp_path: Path) -> None:
    dataset = slice_dataset(neck_hounsfield(1)[0], 1, 0.0)
    path = tmp_path / "bare.dcm"
    del dataset.file_meta
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    header = read_slice_header(path.read_bytes(), "bare.dcm")
    assert header is not None
    assert (header.rows, header.has_pixel_data) == (SIZE, True)


def test_every_syntax_gives_the_same_header() -> None:
    folder = require_material("difficult_dicom", "cornerstone")
    headers = {}
    for path in sorted(folder.glob("CTImage.dcm_*")):
        header = read_slice_header(path.read_bytes(), "1.dcm")
        assert header is not None
        assert header.has_pixel_data
        headers[header.transfer_syntax_uid] = (
            header.sop_uid is not None,
            header.position_mm,
            header.pixel_spacing_mm,
            header.rows,
        )
    assert len(headers) == 15
    assert len(set(headers.values())) == 1


def test_wanted_tags_have_the_numbers_of_the_dictionary() -> None:
    words = {"UID": "UID", "ID": "ID", "SOP": "SOP"}
    named = {
        "".join(words.get(word, word.capitalize()) for word in name.split("_")): value
        for name, value in vars(tags).items()
        if name.isupper() and isinstance(value, int)
    }
    assert len(named) == len(tags.WANTED) + 1
    for keyword, value in named.items():
        assert tag_for_keyword(keyword) == value, keyword


def test_an_implicit_data_set_that_calls_itself_explicit_is_read(
    tmp_path: Path,
) -> None:
    """As pydicom reads it; at its word, its pixel data would have other bounds."""
    dataset = slice_dataset(neck_hounsfield(1)[0], 1, 0.0)
    explicit = file_bytes(tmp_path, dataset)
    (length,) = struct.unpack_from("<I", explicit, 140)  # of the file meta
    implicit = DicomBytesIO()
    implicit.is_implicit_VR, implicit.is_little_endian = True, True
    write_dataset(implicit, dataset)
    found = read_elements(explicit[: 144 + length] + implicit.getvalue())
    told = read_elements(explicit)
    assert found.pixel_length == told.pixel_length == 2 * SIZE * SIZE
    assert found.values[tags.IMAGE_POSITION_PATIENT].strip() == (
        told.values[tags.IMAGE_POSITION_PATIENT].strip()
    )
    assert found.values[tags.ROWS] == told.values[tags.ROWS]
