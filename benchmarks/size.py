"""How large are the JPEGs, and how true inside bone?

PSNR = 10 log10(255² / mean squared error), in grey levels of the bone window before and
after JPEG, over all pixels of a study above 150 HU (cortical and trabecular bone,
teeth and metal; noise in soft tissue reaches it too where a kernel is sharp).
"""

import math

import numpy as np
import numpy.typing as npt
import simplejpeg

from benchmarks.harness import Result, spread
from benchmarks.studies import large_volume, scanner_of
from csfd_core.dicom.pixels import window_to_uint8
from csfd_core.store.slices import ConversionSettings

SLICES = 24
STUDIES = 8
BONE_HU = 150
LARGEST_KB, LOWEST_DB = 80.0, 42.0


def measure(
    hounsfield: npt.NDArray[np.int16], settings: ConversionSettings
) -> tuple[float, float]:
    """Return (mean kilobytes of 1000 bytes, PSNR inside bone in dB) of a volume."""
    size, squares, count = 0, 0.0, 0
    for plane in hounsfield:
        grey = window_to_uint8(plane.astype(np.float32), settings.window)
        jpeg = simplejpeg.encode_jpeg(
            grey[:, :, None], quality=settings.jpeg_quality, colorspace="GRAY"
        )
        size += len(jpeg)
        decoded = simplejpeg.decode_jpeg(jpeg, colorspace="GRAY")[:, :, 0]
        bone = plane > BONE_HU
        error = decoded[bone].astype(np.float64) - grey[bone]
        squares += float((error**2).sum())
        count += int(bone.sum())
    return size / len(hounsfield) / 1000, 10 * math.log10(255**2 * count / squares)


def run() -> Result:
    """Encode phantoms of several kernels and doses."""
    settings = ConversionSettings()
    rows = []
    for index in range(STUDIES):
        volume, scanner = large_volume(SLICES, index), scanner_of(index)
        kilobytes, psnr_db = measure(volume.hounsfield, settings)
        rows.append(
            {
                "noise_hu": round(scanner.noise_hu, 1),
                "kernel_cutoff_per_mm": round(scanner.cutoff_per_mm, 2),
                "kilobytes_per_slice": round(kilobytes, 1),
                "psnr_in_bone_db": round(psnr_db, 1),
            }
        )
    rows.sort(key=lambda row: row["noise_hu"])
    sizes = [row["kilobytes_per_slice"] for row in rows]
    psnrs = [row["psnr_in_bone_db"] for row in rows]
    mean_kb = sum(sizes) / len(sizes)
    return Result(
        question="Size of a slice, and PSNR inside bone (above 150 HU)",
        target=f"at most {LARGEST_KB:.0f} KB on average, at least {LOWEST_DB:.0f} dB",
        met=mean_kb <= LARGEST_KB and min(psnrs) >= LOWEST_DB,
        data=f"{STUDIES} full-profile phantoms, {SLICES} slices of 512x512 each",
        measured={
            "mean_kilobytes_per_slice": round(mean_kb, 1),
            "kilobytes_per_slice": spread(sizes, 1),
            "psnr_in_bone_db": spread(psnrs, 1),
            "alternative": f"uncompressed window, {512 * 512 / 1000:.0f} KB",
            "jpeg_quality": settings.jpeg_quality,
            "by_study": rows,
        },
    )
