"""What claims more than a slice is refused before it is decoded."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom_studies import write_study
from support.scans import scan

from csfd_core.dicom.limits import coded_size, limits

LARGE = 60_000


def of_run_lengths(path: Path) -> None:
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(path)


def of_a_code_stream(path: Path) -> None:
    """JPEG 2000 whose own size is not that of its header (T.800 A.5.1)."""
    dataset = dcmread(path)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = bytearray(dataset.PixelData)
    size = stream.find(b"\xff\x4f\xff\x51") + 8
    for place in (size, size + 16):  # of the image, of its tiles
        struct.pack_into(">II", stream, place, LARGE, LARGE)
    dataset["PixelData"].value = bytes(stream)
    dataset.save_as(path)


def deflated(path: Path) -> None:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    sink = io.BytesIO()
    dataset.save_as(sink)
    raw = sink.getvalue()
    (length,) = struct.unpack_from("<I", raw, 140)
    end = 144 + length
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(zlib.decompress(raw[end:], -zlib.MAX_WBITS))]
    parts += [packer.compress(bytes(2**22)) for _ in range(80)]
    path.write_bytes(raw[:end] + b"".join([*parts, packer.flush()]))


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (of_run_lengths, "5.dcm claims 4,294,836,225 pixels"),
        (of_a_code_stream, "holds 60000 x 60000 pixels where its header says 64 x 64"),
        (deflated, "inflates to more than 256 MB (CSFD_MAX_FILE_MB)"),
    ],
)
def test_a_bomb_costs_its_own_study(tmp_path: Path, plant, told: str) -> None:  # type: ignore[no-untyped-def]
    plant(write_study(tmp_path) / "5.dcm")
    found = scan(tmp_path)
    assert any(told in finding.detail for finding in found.findings)


def test_a_limit_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSFD_MAX_PIXELS", "1000")
    limits.cache_clear()
    try:
        write_study(tmp_path)
        details = [finding.detail for finding in scan(tmp_path).findings]
    finally:
        limits.cache_clear()
    assert "at most 1,000 (CSFD_MAX_PIXELS)" in details[0]


@pytest.mark.parametrize("name", ["jpeg", "jpegls", "jpeg2k", "ljpeg"])
def test_a_code_stream_tells_its_size(name: str) -> None:
    image = np.zeros((40, 56), dtype=np.uint8)
    options = {"codecformat": "j2k"} if name == "jpeg2k" else {}
    stream = getattr(imagecodecs, f"{name}_encode")(image, **options)
    assert coded_size(bytes(stream)) == (40, 56)
    assert coded_size(bytes(stream)[:3]) is None


def test_what_is_no_code_stream_has_no_size() -> None:
    assert coded_size(b"") is None
    assert coded_size(b"\0" * 100) is None


def test_a_stream_of_another_size_is_refused(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        if dataset.InstanceNumber == 5:
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
            dataset.Rows = 32

    write_study(tmp_path, edit=edit)
    details = [finding.detail for finding in scan(tmp_path).findings]
    assert any("64 x 64 pixels where its header says 32 x 64" in d for d in details)
