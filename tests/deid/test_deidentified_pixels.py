"""Pixels and geometry survive de-identification; what is drawn into them does not."""

import io
import struct

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.deid_slices import (
    COMPRESSED,
    SECRET,
    compressed,
    read,
    refused,
    slice_of,
    written,
)

from csfd_core.deid.deidentify import deidentify
from csfd_core.deid.refusals import Reason
from csfd_core.dicom.headers import read_slice_header
from csfd_core.dicom.pixels import DecodedSlice

KEPT_WORDS = (
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "SliceThickness",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "BitsStored",
    "HighBit", "PixelRepresentation", "InstanceNumber", "WindowCenter", "KVP",
    "GantryDetectorTilt", "ConvolutionKernel", "PixelPaddingValue", "Modality",
)  # fmt: skip


def described() -> Dataset:
    dataset = slice_of()
    dataset.WindowCenter, dataset.WindowWidth = [40, 400], [400, 1800]
    dataset.KVP, dataset.GantryDetectorTilt = "120", "-3.5"
    dataset.ConvolutionKernel = ["Br59f", "3"]
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    return dataset


def check_same(before: Dataset, raw: bytes) -> None:
    result = deidentify(raw, SECRET)
    after = read(result)
    for keyword in KEPT_WORDS:
        assert after[keyword].value == before[keyword].value, keyword
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
    old, new = (read_slice_header(c, "1.dcm") for c in (raw, result.content))
    assert old is not None
    assert new is not None
    np.testing.assert_array_equal(
        DecodedSlice(raw, old).hounsfield(),
        DecodedSlice(result.content, new).hounsfield(),
    )
    assert new.kernel_key == old.kernel_key
    again = deidentify(
        result.content, SECRET
    )  # what csfd has written can be read again
    assert read(again).pixel_array.shape == before.pixel_array.shape


@pytest.mark.parametrize(
    ("implicit", "little", "syntax"),
    [
        (False, True, ExplicitVRLittleEndian),
        (True, True, ImplicitVRLittleEndian),
        (False, False, ExplicitVRBigEndian),
        (False, True, DeflatedExplicitVRLittleEndian),
    ],
)
def test_pixels_and_geometry_stay_in_native_syntaxes(
    implicit: bool, little: bool, syntax: str
) -> None:
    dataset = described()
    if not little:
        swapped = np.frombuffer(dataset.PixelData, "<i2").astype(">i2")
        dataset.PixelData = swapped.tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    sink = DicomBytesIO()
    dataset.save_as(
        sink, implicit_vr=implicit, little_endian=little, enforce_file_format=True
    )
    raw = sink.getvalue()
    check_same(dcmread(io.BytesIO(raw)), raw)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_pixels_and_geometry_stay_in_compressed_syntaxes(syntax: str) -> None:
    raw = written(compressed(described(), syntax))
    before = dcmread(io.BytesIO(raw))
    check_same(before, raw)
    result = deidentify(raw, SECRET)
    assert read(result).file_meta.TransferSyntaxUID == syntax
    if syntax != JPEG2000Lossless:  # whose encoder signs with a comment
        frames = [
            get_frame(d.PixelData, 0, number_of_frames=1)
            for d in (before, read(result))
        ]
        assert frames[0] == frames[1]


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_comments_in_and_texts_behind_code_streams_do_not_survive(syntax: str) -> None:
    text = b"MEIER^HANS*1956"
    dataset = compressed(described(), syntax)
    before = read_pixels(written(dataset))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax in (JPEGLosslessSV1, JPEGLSLossless):
        comment = b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text
        frame = frame[:2] + comment + comment.replace(b"\xfe", b"\xe1", 1) + frame[2:]
    elif syntax == JPEG2000Lossless:
        (length,) = struct.unpack_from(">H", frame, 4)
        comment = b"\xff\x64" + struct.pack(">HH", 4 + len(text), 1) + text
        frame = frame[: 4 + length] + comment + frame[4 + length :]
    dataset.PixelData = encapsulate([frame + text])
    raw = written(dataset)
    assert raw.count(text) == {RLELossless: 1, JPEG2000Lossless: 2}.get(syntax, 3)
    result = deidentify(raw, SECRET)
    assert text not in result.content
    np.testing.assert_array_equal(read(result).pixel_array, before)


def read_pixels(raw: bytes) -> np.ndarray:
    return np.array(dcmread(io.BytesIO(raw)).pixel_array)


def test_a_frame_in_many_fragments_and_its_offset_table() -> None:
    dataset = compressed(described(), JPEGLSLossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
    raw = written(dataset)
    np.testing.assert_array_equal(
        read(deidentify(raw, SECRET)).pixel_array, read_pixels(raw)
    )


def test_drawings_in_the_unused_bits_of_pixels_are_cleared() -> None:
    dataset = slice_of()
    stored = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    drawn = stored.copy()
    drawn[10:20] |= 1 << 13
    dataset.PixelData = drawn.tobytes()
    dataset.add_new(0x60000102, "US", 13)
    result = read(deidentify(written(dataset), SECRET))
    left = np.frombuffer(result.PixelData, np.uint16).reshape(64, 64)
    np.testing.assert_array_equal(left, stored)
    refused(compressed(dataset, RLELossless), Reason.OVERLAY)
