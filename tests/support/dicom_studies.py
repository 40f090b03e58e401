"""Synthetic DICOM studies and masks for tests, each slice a small neck-like disc."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

STUDY_UID = "1.2.826.0.1.3680043.11"
LABEL_HEADER = "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n"
SIZE = 64
SLICES = 24
PIXEL_MM = 1.5
SLICE_MM = 2.0

Edit = Callable[[Dataset], None]


def neck_hounsfield(slices: int = SLICES, size: int = SIZE) -> npt.NDArray[np.int16]:
    """A disc of soft tissue in air with a bone column that leans forward to the head.

    Shape (Z, H, W), head to feet. The column lies off the centre, so that no flip or
    permutation maps the volume onto itself.
    """
    rows, columns = np.mgrid[:size, :size]
    volume = np.full((slices, size, size), -1000, dtype=np.int16)
    for index in range(slices):
        disc = np.hypot(rows - size / 2, columns - size / 2) < size * 0.45
        volume[index][disc] = 40
        volume[index][bone_disc(index, slices, size)] = 700
    return volume


def bone_disc(index: int, slices: int, size: int) -> npt.NDArray[np.bool_]:
    """Where the bone column crosses a slice, shape (H, W)."""
    rows, columns = np.mgrid[:size, :size]
    row = size * (0.62 + 0.1 * index / slices)
    return np.asarray(np.hypot(rows - row, columns - size * 0.42) < size * 0.1)


def neck_mask(slices: int = SLICES, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Labels 1 to 7 down the bone column of ``neck_hounsfield``, shape (Z, H, W)."""
    mask = np.zeros((slices, size, size), dtype=np.uint8)
    for index in range(2, slices - 2):
        label = 1 + (index - 2) * 7 // (slices - 4)
        mask[index][bone_disc(index, slices, size)] = label
    return mask


def slice_dataset(
    stored: npt.NDArray[np.integer],
    number: int,
    z_mm: float,
    study_uid: str = STUDY_UID,
) -> Dataset:
    """One uncompressed CT slice with the values given, as stored, and rescale 1, 0."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{study_uid}.1.{number}"
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "CT"
    dataset.PatientName = "Sensitive^Name"
    dataset.PatientID = f"patient-of-{study_uid}"
    dataset.PatientBirthDate = "19700101"
    dataset.SliceThickness = str(SLICE_MM)
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = f"{study_uid}.1"
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [-48.0, -40.0, z_mm]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelSpacing = [PIXEL_MM, PIXEL_MM]
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.RescaleIntercept = 0
    dataset.RescaleSlope = 1
    dataset.PixelData = stored.tobytes()
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    """Write a data set as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_study(
    source: Path,
    study_uid: str = STUDY_UID,
    *,
    hounsfield: npt.NDArray[np.int16] | None = None,
    z_descending: bool = True,
    edit: Edit | None = None,
) -> Path:
    """Write a study into ``train_images`` of a source and return its folder.

    Instance numbers follow z down (``z_descending``) or up. ``edit`` changes each data
    set before it is written.
    """
    volume = neck_hounsfield() if hounsfield is None else hounsfield
    folder = source / "train_images" / study_uid
    count = len(volume)
    for index, plane in enumerate(volume):
        number = index + 1 if z_descending else count - index
        z_mm = 100.0 - index * SLICE_MM
        dataset = slice_dataset(plane, number, z_mm, study_uid)
        if edit is not None:
            edit(dataset)
        save(dataset, folder / f"{number}.dcm")
    return folder


def volume_affine_ras() -> npt.NDArray[np.float64]:
    """Affine from (slice, row, column) of a study of ``write_study`` to RAS mm."""
    lps = np.array(
        [
            [0, 0, PIXEL_MM, -48.0],
            [0, PIXEL_MM, 0, -40.0],
            [-SLICE_MM, 0, 0, 100.0],
            [0, 0, 0, 1],
        ]
    )
    return np.asarray(np.diag([-1, -1, 1, 1]) @ lps)


def reorient(
    mask: npt.NDArray[np.uint8],
    affine: npt.NDArray[np.float64],
    axes: Sequence[int],
    flips: Sequence[bool],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Permute and flip the axes of a mask and correct its affine accordingly."""
    moved = np.transpose(mask, axes)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, old in enumerate(axes):
        change[old, new] = -1 if flips[new] else 1
        change[old, 3] = mask.shape[old] - 1 if flips[new] else 0
    flipped = [axis for axis, flip in enumerate(flips) if flip]
    return np.flip(moved, flipped), affine @ change


def write_mask(
    source: Path,
    mask: npt.NDArray[np.generic],
    affine: npt.NDArray[np.float64],
    study_uid: str = STUDY_UID,
    suffix: str = ".nii",
) -> Path:
    """Write a NIfTI mask into ``segmentations`` of a source."""
    path = source / "segmentations" / f"{study_uid}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


def add_series(
    folder: Path, name: str, every: int = 1, edit: Edit | None = None, slices: int = 24
) -> None:
    """Add a series beside the slices, each ``every`` slices apart."""
    neck = neck_hounsfield()
    for index in range(0, slices, every):
        z_mm = 100.0 - index * SLICE_MM
        dataset = slice_dataset(neck[index % SLICES], index + 1, z_mm)
        dataset.SeriesInstanceUID = f"{STUDY_UID}.{name}"
        dataset.SOPInstanceUID = f"{STUDY_UID}.{name}.{index + 1}"
        if edit is not None:
            edit(dataset)
        save(dataset, folder / f"{name}-{index + 1}.dcm")
