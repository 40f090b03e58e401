"""Pixel data to stored values, Hounsfield units and 8-bit grey levels.

Uncompressed data are taken straight from the file's bytes. JPEG, JPEG-LS and JPEG 2000
go through imagecodecs, run lengths and whatever else there is through pydicom.
"""

import functools
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import imagecodecs
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydicom import dcmread
from pydicom.encaps import get_frame

from csfd_core.dicom.elements import is_native
from csfd_core.dicom.headers import SliceHeader
from csfd_core.dicom.limits import coded_size, limits
from csfd_core.errors import PixelDataError
from csfd_core.text import safe_name
from csfd_core.vocabulary import Window

READABLE_BITS: Final = (8, 16, 32)  # allocated for one uncompressed pixel
PADDING_HU: Final = -1024.0  # what lies outside the scanned circle is shown as air
# By transfer syntax (PS3.5 section A.4). imagecodecs brings libjpeg-turbo, CharLS and
# OpenJPEG, also for the JPEG processes that pydicom leaves out; none of them ends the
# process on damaged streams, as GDCM does (``benchmarks/damaged.py``).
_CODECS: Final[Mapping[str, Callable[[bytes], npt.NDArray[np.integer]]]] = {
    f"1.2.840.10008.1.2.4.{number}": codec
    for codec, numbers in (
        (imagecodecs.jpeg_decode, (50, 51, 53, 55, 57, 70)),
        (imagecodecs.jpegls_decode, (80, 81)),
        (imagecodecs.jpeg2k_decode, (90, 91, 201, 202, 203)),
    )
    for number in numbers
}
_MAX_LUT_BITS: Final = 16


def expected_pixel_bytes(header: SliceHeader) -> int | None:
    """Return the bytes of one uncompressed frame, ``None`` where its shape is unknown.

    Source: DICOM PS3.5 section 8.1.1; odd lengths are padded to even ones.
    """
    if not (header.rows and header.columns and header.bits_allocated):
        return None
    samples = header.samples_per_pixel or 1
    return header.rows * header.columns * samples * header.bits_allocated // 8


class DecodedSlice:
    """The pixels of one slice, decoded once, in every form that is asked for."""

    def __init__(self, raw: bytes, header: SliceHeader) -> None:
        """Decode the pixel data.

        Args:
            raw: The whole DICOM file.
            header: Its header.

        Raises:
            PixelDataError: If the data are missing, too short, of another shape than
                the header says, or cannot be decoded.
        """
        self.header = header
        self._container = _read_container(raw, header)
        self._meaning = _Meaning.of(header, self._container)

    def stored_values(self) -> npt.NDArray[np.integer]:
        """Return the values before the rescale, shape ``(H, W)``.

        Bits outside of those stored are cleared or sign-extended (PS3.5 section 8.1.1).
        """
        return self._meaning.stored(self._container)

    def hounsfield(self) -> npt.NDArray[np.float32]:
        """Return Hounsfield units, shape ``(H, W)``; padding becomes air (-1024 HU).

        A missing rescale is taken as identity; whether that is right is for
        ``check_hounsfield`` to say.

        Source: DICOM PS3.3 C.11.1.1.2 (output = slope x stored value + intercept).
        """
        return self._meaning.shown(self._container)

    def sample_hounsfield(self, pixels: int = 8000) -> npt.NDArray[np.float32]:
        """Return some of the Hounsfield units, in no order, without padding.

        Args:
            pixels: About how many.
        """
        some = self._container.ravel()
        some = some[:: max(1, some.size // pixels)]
        return self._meaning.hounsfield(some[~self._meaning.is_padding(some)])

    def grey_levels(self, window: Window) -> npt.NDArray[np.uint8]:
        """Return 8-bit grey levels of a window, shape ``(H, W)``.

        Equal to ``window_to_uint8(hounsfield())``, but through a table over all 16-bit
        values, which is several times faster.
        """
        container = self._container
        if container.dtype.itemsize * 8 > _MAX_LUT_BITS:
            return window_to_uint8(self.hounsfield(), window)
        unsigned = np.dtype(f"u{container.dtype.itemsize}")
        table = _grey_table(container.dtype.str, self._meaning, window)
        # Arrow takes 16-bit indices as they are; NumPy would widen them to 64 bits.
        levels = table.take(pa.array(container.view(unsigned).ravel()))
        return np.asarray(levels).reshape(container.shape)


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


def give_back_memory() -> None:
    """Give back what grey levels have taken and no longer take: Arrow keeps it else."""
    pa.default_memory_pool().release_unused()


def _read_container(raw: bytes, header: SliceHeader) -> npt.NDArray[np.integer]:
    """Decode the pixel data as they are allocated, with the bits that do not count.

    Raises:
        PixelDataError: If they are missing, too short, of another shape than the header
            says, or cannot be decoded.
    """
    if not header.has_pixel_data:
        raise PixelDataError(f"{_name(header)} has no pixel data.")
    _require_a_slice(header)
    if is_native(header.transfer_syntax_uid) and header.pixel_offset is not None:
        return _read_native(raw, header)
    container = _decode(raw, header)
    if container.ndim != 2 or container.dtype.kind not in "iu":
        raise PixelDataError(
            f"{_name(header)} does not hold one grey-scale image: its decoded pixel "
            f"data have the shape {container.shape} and the type {container.dtype}."
        )
    _require_size(container.shape, header)
    return container


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
    syntax = header.transfer_syntax_uid
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(raw), force=True)
            if syntax not in _CODECS:
                return np.asarray(dataset.pixel_array)
            frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
            _require_size(coded_size(frame), header)
            return _as_allocated(_CODECS[syntax](frame), header)
    except (PixelDataError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders fail in many ways
        raise PixelDataError(
            f"The pixel data of {_name(header)} (transfer syntax "
            f"{syntax}) cannot be decoded: {type(error).__name__}."
        ) from error


def _as_allocated(
    decoded: npt.NDArray[np.integer], header: SliceHeader
) -> npt.NDArray[np.integer]:
    """Return what a codec gives in the width and sign that the header says.

    A code stream has its own opinion on signs, or none: the bits are the same.
    """
    bits = header.bits_allocated or 16
    if decoded.dtype.itemsize * 8 > bits:
        raise PixelDataError(
            f"{_name(header)} holds pixels of {decoded.dtype.itemsize * 8} bits where "
            f"its header says {bits}."
        )
    kind = "i" if header.is_signed else "u"
    return decoded.astype(f"{decoded.dtype.kind}{bits // 8}").view(f"{kind}{bits // 8}")


def _require_a_slice(header: SliceHeader) -> None:
    """Refuse what would take more memory than any slice, before it is decoded."""
    most = limits().pixels
    pixels = (header.rows or 0) * (header.columns or 0)
    if pixels > most or (header.frame_count or 1) > 1:
        raise PixelDataError(
            f"{_name(header)} claims {pixels:,} pixels in {header.frame_count or 1} "
            f"frames. csfd reads slices of at most {most:,} (CSFD_MAX_PIXELS)."
        )


def _require_size(size: tuple[int, int] | None, header: SliceHeader) -> None:
    if size is not None and size != (header.rows, header.columns):
        raise PixelDataError(
            f"{_name(header)} holds {size[0]} x {size[1]} pixels where its header says "
            f"{header.rows} x {header.columns}."
        )


def _name(header: SliceHeader) -> str:
    return safe_name(header.file_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """What turns the bits of a pixel into Hounsfield units: the key of a grey table."""

    slope: float
    intercept: float
    bits_stored: int | None
    bits_below: int  # that do not count
    padding: tuple[int, int] | None

    @classmethod
    def of(cls, header: SliceHeader, container: npt.NDArray[np.integer]) -> "_Meaning":
        slope, intercept = header.rescale_slope, header.rescale_intercept
        padding = None
        if header.padding_value is not None:
            limit = header.padding_limit
            ends = (
                header.padding_value,
                header.padding_value if limit is None else limit,
            )
            padding = (min(ends), max(ends))
        return cls(
            slope=1.0 if slope is None else slope,
            intercept=0.0 if intercept is None else intercept,
            bits_stored=header.bits_stored,
            bits_below=_bits_below(header, container),
            padding=padding,
        )

    def stored(self, container: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Clear or sign-extend the bits outside of those stored, if there are any."""
        allocated = container.dtype.itemsize * 8
        if not self.bits_stored or self.bits_stored >= allocated:
            return container
        unused = allocated - self.bits_stored
        # To the top, and back down: an arithmetic shift keeps the sign.
        raised = np.left_shift(container, unused - self.bits_below)
        return np.asarray(np.right_shift(raised, unused))

    def hounsfield(self, container: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Rescale; what padding becomes means nothing."""
        values = self.stored(container).astype(np.float32)
        return np.asarray(values * np.float32(self.slope) + np.float32(self.intercept))

    def is_padding(self, container: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Say which pixels are padding (PS3.3 C.7.5.1.1.2).

        It is compared as it is stored: it may use bits above those of the values.
        """
        if self.padding is None:
            return np.zeros(container.shape, dtype=bool)
        low, high = self.padding
        in_range = (container >= low) & (container <= high)
        stored = self.stored(container)
        return np.asarray(in_range | ((stored >= low) & (stored <= high)))

    def shown(self, container: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Rescale, with air in place of padding."""
        hounsfield = self.hounsfield(container)
        hounsfield[self.is_padding(container)] = PADDING_HU
        return hounsfield


def _bits_below(header: SliceHeader, container: npt.NDArray[np.integer]) -> int:
    """Return how many bits lie below those stored.

    Until 2011 values could lie higher than at the lowest bit (PS3.5 section 8.1.1).
    HighBit says so; it is believed only where nothing lies below, as more files have a
    wrong HighBit than such values.
    """
    bits, high_bit = header.bits_stored, header.high_bit
    if (
        not bits
        or high_bit is None
        or not bits <= high_bit < container.dtype.itemsize * 8
    ):
        return 0
    below = high_bit + 1 - bits
    return 0 if (container & ((1 << below) - 1)).any() else below


@functools.lru_cache(maxsize=64)
def _grey_table(dtype: str, meaning: _Meaning, window: Window) -> pa.Array:
    """Grey level of every stored value, indexed by its unsigned bit pattern."""
    bits = np.dtype(dtype).itemsize * 8
    container = np.arange(1 << bits, dtype=f"u{bits // 8}").view(dtype)
    return pa.array(window_to_uint8(meaning.shown(container), window))
