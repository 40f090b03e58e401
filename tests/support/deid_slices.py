"""Slices to de-identify, damaged and compressed, and what is refused."""

import io
import pickle
import struct

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from csfd_core.deid.deidentify import Deidentified, deidentify
from csfd_core.deid.refusals import Reason, RefusedError, tell
from support.dicom_studies import neck_hounsfield, slice_dataset

SECRET, OTHER = bytes(range(32)), bytes(32)
COMPRESSED = (JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless)


def slice_of(number: int = 1) -> Dataset:
    dataset = slice_dataset(neck_hounsfield()[number], number, 10.0 - number)
    dataset.FrameOfReferenceUID = "1.2.3.4.5"
    dataset.AccessionNumber = "ACC-77"
    return dataset


def written(dataset: Dataset) -> bytes:
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def compressed(dataset: Dataset, syntax: str) -> Dataset:
    """Compress with what the phantom uses."""
    from csfd_core.phantom.dicom_writer import PixelStyle, _encode

    style = PixelStyle(syntax, True, 16, 0, padded=False)  # type: ignore[arg-type]
    stored = np.frombuffer(dataset.PixelData, np.int16)
    dataset.PixelData = _encode(stored.reshape(dataset.Rows, dataset.Columns), style)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def read(result: Deidentified) -> Dataset:
    return dcmread(io.BytesIO(result.content))


def with_raw(tag: int, vr: bytes, value: bytes) -> bytes:
    """Return a file whose element holds these bytes, whatever its VR is."""
    dataset = slice_of()
    dataset["PixelData"].VR = "OW"
    dataset.pop(tag, None)
    raw = written(dataset)
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    pixels = raw.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return raw[:pixels] + head + value + raw[pixels:]


def refused(dataset: Dataset | bytes, reason: Reason) -> None:
    raw = dataset if isinstance(dataset, bytes) else written(dataset)
    with pytest.raises(RefusedError) as error:
        deidentify(raw, SECRET)
    assert error.value.reason is reason
    assert str(error.value) == tell(reason, 1)
    assert pickle.loads(pickle.dumps(error.value)).reason is reason
