import warnings
from pathlib import Path

import gdcm
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom_studies import neck_hounsfield, slice_dataset
from support.material import require_material

from csfd_core.dicom.headers import SliceHeader, read_slice_header
from csfd_core.dicom.pixels import (
    DecodedSlice,
    window_to_uint8,
)
from csfd_core.errors import PixelDataError
from csfd_core.vocabulary import BONE_WINDOW, Window

NECK = neck_hounsfield(1)[0]


def saved(tmp_path: Path, dataset: Dataset) -> tuple[bytes, SliceHeader]:
    path = tmp_path / "1.dcm"
    dataset.save_as(path, enforce_file_format=True)
    raw = path.read_bytes()
    header = read_slice_header(raw, "1.dcm")
    assert header is not None
    return raw, header


def test_window_agrees_with_pydicom_on_every_hu_of_a_ct() -> None:
    hounsfield = np.arange(-1024, 3072, dtype=np.float64)
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 8, 0
    dataset.WindowCenter = BONE_WINDOW.center_hu
    dataset.WindowWidth = BONE_WINDOW.width_hu
    expected = np.rint(apply_windowing(hounsfield, dataset))
    np.testing.assert_array_equal(window_to_uint8(hounsfield, BONE_WINDOW), expected)


def test_window_refuses_infinity() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        window_to_uint8(np.array([1.0, np.inf]), BONE_WINDOW)


def test_window_needs_a_width() -> None:
    with pytest.raises(ValueError, match="width_hu=1"):
        Window(center_hu=40, width_hu=1)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_compression_gives_back_the_hounsfield_units(
    tmp_path: Path, syntax: str
) -> None:
    dataset = slice_dataset(NECK, 1, 0.0)
    dataset.compress(syntax, generate_instance_uid=False)
    raw, header = saved(tmp_path, dataset)
    np.testing.assert_array_equal(DecodedSlice(raw, header).hounsfield(), NECK)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_syntaxes_give_back_the_hounsfield_units(
    tmp_path: Path, syntax: str
) -> None:
    dataset = slice_dataset(NECK, 1, 0.0)
    dataset.file_meta.TransferSyntaxUID = syntax
    raw, header = saved(tmp_path, dataset)
    assert header.transfer_syntax_uid == syntax
    np.testing.assert_array_equal(DecodedSlice(raw, header).hounsfield(), NECK)


def test_big_endian_gives_back_the_hounsfield_units(tmp_path: Path) -> None:
    dataset = slice_dataset(NECK, 1, 0.0)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = NECK.astype(">i2").tobytes()
    dataset["PixelData"].VR = "OW"
    raw, header = saved(tmp_path, dataset)
    np.testing.assert_array_equal(DecodedSlice(raw, header).hounsfield(), NECK)


@pytest.mark.parametrize(
    ("dtype", "bits_stored", "slope", "intercept"),
    [
        (np.uint16, 12, 1, -1024),
        (np.uint16, 16, 1, -1024),
        (np.int16, 12, 2, -1024),
        (np.int16, 16, 0.5, 0),
        (np.uint8, 8, 10, -1000),
        (np.int32, 32, 1, 0),
    ],
)
def test_rescale_and_bits_agree_with_pydicom(
    tmp_path: Path,
    dtype: type[np.integer],
    bits_stored: int,
    slope: float,
    intercept: float,
) -> None:
    stored = np.clip((NECK - intercept) / slope, 0, 2 ** min(bits_stored - 1, 15) - 1)
    dataset = slice_dataset(stored.astype(dtype), 1, 0.0)
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    raw, header = saved(tmp_path, dataset)
    again = dcmread(tmp_path / "1.dcm")
    expected = again.pixel_array * float(slope) + intercept
    np.testing.assert_allclose(DecodedSlice(raw, header).hounsfield(), expected)


def test_bits_above_those_stored_are_ignored(tmp_path: Path) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    dataset = slice_dataset(stored | 0xF000, 1, 0.0)
    dataset.BitsStored, dataset.HighBit = 12, 11
    raw, header = saved(tmp_path, dataset)
    np.testing.assert_array_equal(DecodedSlice(raw, header).stored_values(), stored)


def test_twelve_bit_signed_values_keep_their_sign(tmp_path: Path) -> None:
    values = np.arange(-2048, 2048, dtype=np.int16).reshape(64, 64)
    packed = (values.view(np.uint16) & 0x0FFF).view(np.int16)
    dataset = slice_dataset(packed, 1, 0.0)
    dataset.BitsStored, dataset.HighBit = 12, 11
    raw, header = saved(tmp_path, dataset)
    np.testing.assert_array_equal(DecodedSlice(raw, header).stored_values(), values)


def test_padding_is_air(tmp_path: Path) -> None:
    padded = NECK.copy()
    padded[:4] = 3000  # brighter than any bone, so that it would show
    dataset = slice_dataset(padded, 1, 0.0)
    dataset.add_new(0x00280120, "SS", 3000)
    raw, header = saved(tmp_path, dataset)
    hounsfield = DecodedSlice(raw, header).hounsfield()
    assert (hounsfield[:4] == -1024).all()
    np.testing.assert_array_equal(hounsfield[4:], NECK[4:])
    assert (DecodedSlice(raw, header).grey_levels(BONE_WINDOW)[:4] == 0).all()


def test_padding_above_the_bits_stored_is_air(tmp_path: Path) -> None:
    """-2000 in 16 bits around values of 12: masked, it would be bone of 1072 HU."""
    padded = (NECK + 1024).astype(np.uint16)
    padded[:4] = 63536
    dataset = slice_dataset(padded, 1, 0.0)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.RescaleIntercept = -1024
    dataset.add_new(0x00280120, "US", 63536)
    raw, header = saved(tmp_path, dataset)
    decoded = DecodedSlice(raw, header)
    assert (decoded.hounsfield()[:4] == -1024).all()
    np.testing.assert_array_equal(decoded.hounsfield()[4:], NECK[4:])
    assert (decoded.grey_levels(BONE_WINDOW)[:4] == 0).all()
    assert decoded.sample_hounsfield().max() == NECK[4:].max()


def test_padding_range_is_air(tmp_path: Path) -> None:
    padded = NECK.copy()
    padded[0], padded[1], padded[2] = 2000, 2500, 3000
    dataset = slice_dataset(padded, 1, 0.0)
    dataset.add_new(0x00280120, "SS", 3000)
    dataset.add_new(0x00280121, "SS", 2500)
    raw, header = saved(tmp_path, dataset)
    first_values = DecodedSlice(raw, header).hounsfield()[:3, 0]
    np.testing.assert_array_equal(first_values, [2000, -1024, -1024])


def test_monochrome1_does_not_change_hounsfield_units(tmp_path: Path) -> None:
    """PS3.3 C.7.6.3.1.2 inverts the display, not the rescaled values."""
    dataset = slice_dataset(NECK, 1, 0.0)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    raw, header = saved(tmp_path, dataset)
    np.testing.assert_array_equal(DecodedSlice(raw, header).hounsfield(), NECK)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_grey_table_equals_windowing_of_hounsfield_units(
    tmp_path: Path, dtype: type[np.integer]
) -> None:
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    stored = rng.integers(info.min, info.max + 1, (64, 64)).astype(dtype)
    dataset = slice_dataset(stored, 1, 0.0)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1.5, -1000
    raw, header = saved(tmp_path, dataset)
    expected = window_to_uint8(DecodedSlice(raw, header).hounsfield(), BONE_WINDOW)
    np.testing.assert_array_equal(
        DecodedSlice(raw, header).grey_levels(BONE_WINDOW), expected
    )


def test_missing_pixel_data_are_told(tmp_path: Path) -> None:
    dataset = slice_dataset(NECK, 1, 0.0)
    del dataset.PixelData
    raw, header = saved(tmp_path, dataset)
    with pytest.raises(PixelDataError, match=r"1\.dcm has no pixel data"):
        DecodedSlice(raw, header).stored_values()


def test_short_pixel_data_are_told(tmp_path: Path) -> None:
    raw, header = saved(tmp_path, slice_dataset(NECK, 1, 0.0))
    with pytest.raises(PixelDataError, match="8092 of 8192 bytes"):
        DecodedSlice(raw[:-100], header).stored_values()


def test_damaged_compressed_data_are_told(tmp_path: Path) -> None:
    dataset = slice_dataset(NECK, 1, 0.0)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    raw, header = saved(tmp_path, dataset)
    start = header.pixel_offset or 0
    broken = raw[: start + 20] + bytes(len(raw) - start - 20)
    with pytest.raises(PixelDataError, match=r"1\.2\.4\.90\) cannot be decoded"):
        DecodedSlice(broken, header).stored_values()


def test_file_name_of_a_patient_is_not_repeated(tmp_path: Path) -> None:
    raw, _ = saved(tmp_path, slice_dataset(NECK, 1, 0.0))
    header = read_slice_header(raw, "DOE_JANE.dcm")
    assert header is not None
    with pytest.raises(PixelDataError, match="file-[0-9a-f]{8} holds"):
        DecodedSlice(raw[:-100], header).stored_values()


def independent_decoding(path: Path) -> npt.NDArray[np.integer]:
    """Stored values by GDCM's own reader; by imagecodecs, in another form of the JPEG
    library, for the processes that GDCM reads otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path, force=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    scalar = image.GetPixelFormat().GetScalarTypeAsString().lower()
    return np.frombuffer(buffer, scalar).reshape(dataset.Rows, dataset.Columns)


def test_fifteen_syntaxes_agree_with_an_independent_decoder() -> None:
    folder = require_material("difficult_dicom", "cornerstone")
    paths = sorted(folder.glob("CTImage.dcm_*"))
    assert len(paths) == 15
    for path in paths:
        raw = path.read_bytes()
        header = read_slice_header(raw, "1.dcm")
        assert header is not None
        stored = DecodedSlice(raw, header).stored_values()
        np.testing.assert_array_equal(stored, independent_decoding(path), path.name)
