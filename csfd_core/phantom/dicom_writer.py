"""Writing a phantom volume as a folder of DICOM CT slices.

As in the real data set the headers hold geometry and pixel format only: no
manufacturer, kernel, tube voltage, sex or age.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from csfd_core.phantom.study import derive_uid
from csfd_core.phantom.volume import PhantomVolume
from csfd_core.vocabulary import BONE_WINDOW

_PLAIN: Final = ((ExplicitVRLittleEndian, 0.85), (ImplicitVRLittleEndian, 0.15))
# JPEG 2000 takes longest to encode, so it is the rarest.
_COMPRESSED: Final = (
    (JPEGLosslessSV1, 0.45),
    (JPEG2000Lossless, 0.15),
    (RLELossless, 0.2),
    (JPEGLSLossless, 0.2),
)
_PADDING: Final = -2000  # stored value, as GE scanners write


@dataclass(frozen=True, slots=True)
class PixelStyle:
    """How one study stores its pixels."""

    transfer_syntax_uid: UID
    signed: bool
    bits_stored: int
    intercept_hu: int
    padded: bool  # `_PADDING` outside of the circular field of view


def draw_style(rng: np.random.Generator, compressed_share: float) -> PixelStyle:
    """Draw the pixel format of one study."""
    options = _COMPRESSED if rng.random() < compressed_share else _PLAIN
    shares = [share for _, share in options]
    syntax = options[int(rng.choice(len(options), p=shares))][0]
    kind = rng.choice(5, p=[0.35, 0.2, 0.15, 0.2, 0.1])
    signed, bits, intercept = (
        (True, 16, 0),
        (True, 16, -1024),
        (False, 16, -1024),
        (False, 12, -1024),
        (True, 16, -1024),
    )[int(kind)]
    return PixelStyle(syntax, signed, bits, intercept, padded=bool(kind == 4))


def write_dicom_series(volume: PhantomVolume, style: PixelStyle, folder: Path) -> int:
    """Write ``1.dcm`` to ``N.dcm`` into an existing folder; return their bytes."""
    dataset = _common_dataset(volume, style)
    outside = _outside_circle(volume) if style.padded else None
    series_uid = dataset.SeriesInstanceUID
    size = 0
    for k, plane in enumerate(volume.hounsfield):
        sop_uid = derive_uid(f"{series_uid} {k + 1}")
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid)
        dataset.SOPInstanceUID = sop_uid
        dataset.InstanceNumber = k + 1
        position = [float(np.round(v, 4)) for v in volume.position_of(k)]
        dataset.ImagePositionPatient = position
        dataset.SliceLocation = position[2]
        stored = _stored_values(plane, style, outside)
        dataset.PixelData = _encode(stored, style)
        dataset["PixelData"].VR = (
            "OB" if style.transfer_syntax_uid.is_compressed else "OW"
        )
        path = folder / f"{k + 1}.dcm"
        dcmwrite(path, dataset, enforce_file_format=True)
        size += path.stat().st_size
    return size


def _common_dataset(volume: PhantomVolume, style: PixelStyle) -> Dataset:
    """Return what all slices of the study share."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = style.transfer_syntax_uid
    dataset = Dataset()
    dataset.file_meta = meta
    study_uid = volume.plan.study_uid
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = derive_uid(f"{study_uid} series")
    dataset.Modality = "CT"
    dataset.PatientID = study_uid.rsplit(".", 1)[1]
    dataset.PatientName = ""
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    gap, row_mm, column_mm = volume.spacing_zyx_mm
    dataset.PixelSpacing = [round(row_mm, 6), round(column_mm, 6)]
    dataset.SliceThickness = round(volume.plan.scan.thickness_mm, 4)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = volume.hounsfield.shape[1:]
    dataset.BitsAllocated = 16
    dataset.BitsStored = style.bits_stored
    dataset.HighBit = style.bits_stored - 1
    dataset.PixelRepresentation = int(style.signed)
    if style.padded:
        dataset.add_new("PixelPaddingValue", "SS", _PADDING)
    dataset.RescaleIntercept = style.intercept_hu
    dataset.RescaleSlope = 1
    dataset.WindowCenter = int(BONE_WINDOW.center_hu)
    dataset.WindowWidth = int(BONE_WINDOW.width_hu)
    return dataset


def _outside_circle(volume: PhantomVolume) -> npt.NDArray[np.bool_]:
    """Return where a slice lies outside of the round field of view, shape (H, W)."""
    rows, columns = volume.hounsfield.shape[1:]
    y = (np.arange(rows) - (rows - 1) / 2) / (rows / 2)
    x = (np.arange(columns) - (columns - 1) / 2) / (columns / 2)
    return np.asarray(np.hypot(y[:, None], x) > 1)


def _stored_values(
    plane: npt.NDArray[np.int16],
    style: PixelStyle,
    outside: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.int16] | npt.NDArray[np.uint16]:
    stored = plane - np.int16(style.intercept_hu)
    if outside is not None:
        stored[outside] = _PADDING
    return stored if style.signed else stored.astype(np.uint16)


def _encode(
    stored: npt.NDArray[np.int16] | npt.NDArray[np.uint16], style: PixelStyle
) -> bytes:
    """Return the value of Pixel Data for one frame."""
    syntax = style.transfer_syntax_uid
    if not syntax.is_compressed:
        return stored.tobytes()
    if syntax == JPEGLosslessSV1:
        return encapsulate([_encode_jpeg_lossless(stored, style)])
    rows, columns = stored.shape
    frame = get_encoder(syntax).encode(
        stored,
        rows=rows,
        columns=columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=style.bits_stored,
        pixel_representation=int(style.signed),
        photometric_interpretation="MONOCHROME2",
    )
    return encapsulate([frame])


def _encode_jpeg_lossless(
    stored: npt.NDArray[np.int16] | npt.NDArray[np.uint16], style: PixelStyle
) -> bytes:
    """Encode with gdcm, as pydicom has no encoder for JPEG Lossless."""
    bits = style.bits_stored
    writer = gdcm.ImageWriter()  # owns the image: it must outlive it
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stored.shape[1], stored.shape[0], 1))
    grey = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    image.SetPhotometricInterpretation(grey)
    plain = gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian)
    image.SetTransferSyntax(plain)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, int(style.signed)))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(stored.tobytes())
    image.SetDataElement(element)
    converter = gdcm.ImageChangeTransferSyntax()
    lossless = gdcm.TransferSyntax.JPEGLosslessProcess14_1
    converter.SetTransferSyntax(gdcm.TransferSyntax(lossless))
    converter.SetInput(image)
    if not converter.Change():
        raise RuntimeError("gdcm could not encode a slice as JPEG Lossless.")
    fragments = converter.GetOutput().GetDataElement().GetSequenceOfFragments()
    buffer: str = fragments.GetFragment(0).GetByteValue().GetBuffer()
    return buffer.encode("utf-8", "surrogateescape")
