"""Pixel data to stored values, Hounsfield units and 8-bit grey levels.

Uncompressed data are taken straight from the file's bytes. Compressed data go through
pydicom's decoders (GDCM, CharLS, OpenJPEG), and through imagecodecs (libjpeg-turbo) for
the JPEG processes that pydicom leaves out: 12-bit extended, spectral selection, full
progression.
"""

import functools
import io
import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.uid import JPEGExtended12Bit

from csfd_core.dicom.elements import is_native
from csfd_core.dicom.headers import SliceHeader, safe_file_name
from csfd_core.errors import PixelDataError
from csfd_core.vocabulary import Window

READABLE_BITS: Final = (8, 16, 32)  # allocated for one uncompressed pixel
PADDING_HU: Final = -1024.0  # what lies outside the scanned circle is shown as air
_RETIRED_JPEG: Final = frozenset(
    ["1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55", str(JPEGExtended12Bit)]
)
_MAX_LUT_BITS: Final = 16


def expected_pixel_bytes(header: SliceHeader) -> int | None:
    """Return the bytes of one uncompressed frame, ``None`` where its shape is unknown.

    Source: DICOM PS3.5 section 8.1.1; odd lengths are padded to even ones.
    """
    if not (header.rows and header.columns and header.bits_allocated):
        return None
    samples = header.samples_per_pixel or 1
    return header.rows * header.columns * samples * header.bits_allocated // 8


def read_stored_values(raw: bytes, header: SliceHeader) -> npt.NDArray[np.integer]:
    """Decode the pixel data of one slice.

    Args:
        raw: The whole DICOM file.
        header: Its header.

    Returns:
        Stored values, shape ``(H, W)``, before the rescale. Bits above ``bits_stored``
        are cleared or sign-extended (PS3.5 section 8.1.1).

    Raises:
        PixelDataError: If the data are missing, too short or cannot be decoded.
    """
    if not header.has_pixel_data:
        raise PixelDataError(f"{_name(header)} has no pixel data.")
    if is_native(header.transfer_syntax_uid) and header.pixel_offset is not None:
        return _extend_sign(_read_native(raw, header), header)
    return _extend_sign(_decode(raw, header), header)


def read_hounsfield(raw: bytes, header: SliceHeader) -> npt.NDArray[np.float32]:
    """Decode one slice into Hounsfield units, shape ``(H, W)``.

    Padding becomes air (-1024 HU). A missing rescale is taken as identity; whether that
    is right is for ``checks`` to say.

    Source: DICOM PS3.3 C.11.1.1.2 (output = slope x stored value + intercept).

    Raises:
        PixelDataError: If the pixel data cannot be decoded.
    """
    stored = read_stored_values(raw, header)
    slope, intercept = _rescale(header)
    hounsfield = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    padding = _padding_mask(stored, header)
    if padding is not None:
        hounsfield[padding] = PADDING_HU
    return hounsfield


def read_grey_levels(
    raw: bytes, header: SliceHeader, window: Window
) -> npt.NDArray[np.uint8]:
    """Decode one slice into 8-bit grey levels of a window, shape ``(H, W)``.

    Equal to ``window_to_uint8(read_hounsfield(...))``, but through a table over all
    16-bit stored values, which is several times faster.

    Raises:
        PixelDataError: If the pixel data cannot be decoded.
    """
    stored = read_stored_values(raw, header)
    if stored.dtype.itemsize * 8 > _MAX_LUT_BITS:
        return window_to_uint8(read_hounsfield(raw, header), window)
    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    slope, intercept = _rescale(header)
    table = _grey_table(
        stored.dtype.str, slope, intercept, window, _padding_range(header)
    )
    # Arrow takes 16-bit indices as they are; NumPy would widen them to 64 bits first.
    levels = table.take(pa.array(stored.view(unsigned).ravel()))
    return np.asarray(levels).reshape(stored.shape)


def window_to_uint8(
    hounsfield: npt.NDArray[np.floating], window: Window
) -> npt.NDArray[np.uint8]:
    """Apply a linear window and scale the result to 0..255.

    Args:
        hounsfield: Pixel values in HU after rescale, shape ``(..., H, W)``.
        window: Values at or below its lower edge become 0, above its upper 255.

    Raises:
        ValueError: If any pixel is NaN or infinite.

    Source: DICOM PS3.3 C.11.2.1.2.1, VOI LUT Function LINEAR.
    """
    if not np.isfinite(hounsfield).all():
        raise ValueError("`hounsfield` must be finite. Received NaN or infinity.")
    offset_hu = hounsfield - (window.center_hu - 0.5)
    grey = np.clip(offset_hu / (window.width_hu - 1) + 0.5, 0, 1) * 255
    return np.asarray(np.rint(grey), dtype=np.uint8)


def _read_native(raw: bytes, header: SliceHeader) -> npt.NDArray[np.integer]:
    expected = expected_pixel_bytes(header)
    offset = header.pixel_offset
    if expected is None or offset is None or header.bits_allocated not in READABLE_BITS:
        raise PixelDataError(
            f"{_name(header)} does not say the shape of its pixel data, or has "
            f"{header.bits_allocated} bits allocated (8, 16 and 32 can be read)."
        )
    if len(raw) - offset < expected:
        raise PixelDataError(
            f"{_name(header)} holds {len(raw) - offset} of {expected} bytes of "
            "pixel data."
        )
    order = "<" if header.is_little_endian else ">"
    kind = "i" if header.is_signed else "u"
    width = header.bits_allocated // 8
    flat = np.frombuffer(raw, f"{order}{kind}{width}", expected // width, offset)
    if order == ">":
        flat = flat.astype(flat.dtype.newbyteorder("="))
    return flat.reshape(header.rows or 0, header.columns or 0)


def _decode(raw: bytes, header: SliceHeader) -> npt.NDArray[np.integer]:
    try:
        if header.transfer_syntax_uid in _RETIRED_JPEG:
            return _decode_retired_jpeg(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(dcmread(io.BytesIO(raw), force=True).pixel_array)
    except PixelDataError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders fail in many ways
        raise PixelDataError(
            f"The pixel data of {_name(header)} (transfer syntax "
            f"{header.transfer_syntax_uid}) cannot be decoded: {type(error).__name__}."
        ) from error


def _decode_retired_jpeg(raw: bytes) -> npt.NDArray[np.integer]:
    import imagecodecs

    dataset = dcmread(io.BytesIO(raw), force=True)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    return np.asarray(imagecodecs.jpeg_decode(frame))


def _extend_sign(
    stored: npt.NDArray[np.integer], header: SliceHeader
) -> npt.NDArray[np.integer]:
    """Clear or sign-extend the bits above ``bits_stored``, where there are any."""
    if stored.ndim != 2 or stored.dtype.kind not in "iu":
        raise PixelDataError(
            f"{_name(header)} does not hold one grey-scale image: its decoded pixel "
            f"data have the shape {stored.shape} and the type {stored.dtype}."
        )
    unused = stored.dtype.itemsize * 8 - (header.bits_stored or 0)
    if not header.bits_stored or unused <= 0:
        return stored
    if stored.dtype.kind == "i":
        return np.asarray(np.right_shift(np.left_shift(stored, unused), unused))
    used = stored.dtype.type((1 << header.bits_stored) - 1)
    return np.asarray(np.bitwise_and(stored, used))


def _name(header: SliceHeader) -> str:
    return safe_file_name(header.file_name)


def _rescale(header: SliceHeader) -> tuple[float, float]:
    slope, intercept = header.rescale_slope, header.rescale_intercept
    return (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def _padding_range(header: SliceHeader) -> tuple[int, int] | None:
    """Return the lowest and highest stored value of padding (PS3.3 C.7.5.1.1.2)."""
    if header.padding_value is None:
        return None
    limit = header.padding_limit
    other = header.padding_value if limit is None else limit
    return min(header.padding_value, other), max(header.padding_value, other)


def _padding_mask(
    stored: npt.NDArray[np.integer], header: SliceHeader
) -> npt.NDArray[np.bool_] | None:
    padding = _padding_range(header)
    if padding is None:
        return None
    return np.asarray((stored >= padding[0]) & (stored <= padding[1]))


@functools.lru_cache(maxsize=64)
def _grey_table(
    dtype: str,
    slope: float,
    intercept: float,
    window: Window,
    padding: tuple[int, int] | None,
) -> pa.Array:
    """Grey level of every stored value, indexed by its unsigned bit pattern."""
    bits = np.dtype(dtype).itemsize * 8
    stored = np.arange(1 << bits, dtype=f"u{bits // 8}").view(dtype).astype(np.float32)
    hounsfield = stored * np.float32(slope) + np.float32(intercept)
    if padding is not None:
        hounsfield[(stored >= padding[0]) & (stored <= padding[1])] = PADDING_HU
    return pa.array(window_to_uint8(hounsfield, window))
