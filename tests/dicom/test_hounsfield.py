"""Values that are no Hounsfield units are told, in whatever way they are wrong."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from support.dicom_studies import SLICES, Edit, neck_hounsfield, write_study
from support.scans import codes, scan

from csfd_core.dicom.findings import Status

NECK = neck_hounsfield()


def fill(dataset: Dataset, stored: npt.NDArray[np.integer]) -> None:
    """Store values; the header says no more of them than it has to."""
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes()


def plane(dataset: Dataset) -> npt.NDArray[np.int16]:
    return NECK[dataset.InstanceNumber - 1]


def intercept_zero(dataset: Dataset) -> None:
    fill(dataset, (plane(dataset) + 1024).astype(np.int16))


def intercept_twice(dataset: Dataset) -> None:
    dataset.RescaleIntercept = -1024


def slope_zero(dataset: Dataset) -> None:
    dataset.RescaleSlope = 0


def slope_of_another_kind(dataset: Dataset) -> None:
    dataset.RescaleSlope = 0.25


def signed_called_unsigned(dataset: Dataset) -> None:
    dataset.PixelRepresentation = 0


def window_of_eight_bits(dataset: Dataset) -> None:
    grey = np.clip((plane(dataset) + 500) / 1800 * 255, 0, 255)
    fill(dataset, grey.astype(np.uint8))


def another_quantity(dataset: Dataset) -> None:
    dataset.RescaleType = "Z_EFF"
    fill(dataset, (plane(dataset) // 100 + 12).astype(np.int16))


def padding_hides_it(dataset: Dataset) -> None:
    """All air is padding, and what is left lies 1024 too high."""
    stored = (plane(dataset) + 1024).astype(np.int16)
    stored[plane(dataset) < -500] = -2000
    fill(dataset, stored)
    dataset.add_new(0x00280120, "SS", -2000)


def one_slice(dataset: Dataset) -> None:
    if dataset.InstanceNumber == 7:
        intercept_zero(dataset)


def one_header(dataset: Dataset) -> None:
    if dataset.InstanceNumber == 7:
        dataset.RescaleIntercept = 1024


def all_is_padding(dataset: Dataset) -> None:
    fill(dataset, np.full_like(plane(dataset), -2000))
    dataset.add_new(0x00280120, "SS", -2000)


def one_of_many_rescales(dataset: Dataset) -> None:
    """Each slice has a rescale of its own, and that of one in the middle is wrong."""
    offset = 1000 + dataset.InstanceNumber
    fill(dataset, (plane(dataset) + offset).astype(np.int16))
    dataset.RescaleIntercept = 0 if dataset.InstanceNumber == 20 else -offset


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (intercept_zero, "would be dense bone"),
        (intercept_twice, "lie where soft tissue is"),
        (slope_zero, "24 of 24 slices have a rescale slope of 0"),
        (slope_of_another_kind, "would be lung"),
        (signed_called_unsigned, "lie above 4096 HU"),
        (window_of_eight_bits, "span no more than"),
        (another_quantity, "24 of 24 slices have a RescaleType other than HU"),
        (padding_hides_it, "lie where soft tissue is"),
        (all_is_padding, "Hardly any pixel is no padding"),
        (one_slice, "1 of 24 slices deviate"),
        (one_header, "1 of 24 slices deviate"),
        (one_of_many_rescales, "1 of 24 slices deviate"),
    ],
)
def test_values_that_are_no_hounsfield_units_quarantine_the_study(
    tmp_path: Path, edit: Edit, told: str
) -> None:
    write_study(tmp_path, edit=edit)
    found = scan(tmp_path)
    assert codes(found) == ["no_hounsfield"]
    assert told in found.findings[0].detail


def offset_in_the_header(dataset: Dataset) -> None:
    fill(dataset, (plane(dataset) + 1024).astype(np.uint16))
    dataset.RescaleIntercept = -1024


def rescale_of_each_slice(dataset: Dataset) -> None:
    offset = 1000 + dataset.InstanceNumber
    fill(dataset, (plane(dataset) + offset).astype(np.int16))
    dataset.RescaleIntercept = -offset


def named_hounsfield(dataset: Dataset) -> None:
    dataset.RescaleType = "HU"


def another_name_for_it(dataset: Dataset) -> None:
    dataset.RescaleType = "US"


def undeclared_padding(dataset: Dataset) -> None:
    stored = plane(dataset).copy()
    stored[:3] = -3024
    fill(dataset, stored)


def declared_padding(dataset: Dataset) -> None:
    undeclared_padding(dataset)
    dataset.add_new(0x00280120, "SS", -3024)


def metal(dataset: Dataset) -> None:
    stored = plane(dataset).copy()
    stored[30:34, 30:34] = 30_000
    fill(dataset, stored)


def cut_inside_the_neck(dataset: Dataset) -> None:
    stored = plane(dataset).copy()
    stored[stored < -500] = 30  # no air in the field of view
    stored[::2, ::3] -= 120  # fat
    fill(dataset, stored)


def ends_in_air(dataset: Dataset) -> None:
    if dataset.InstanceNumber in (1, 2, SLICES):
        fill(dataset, np.full_like(plane(dataset), -1000))


def bits_at_the_top(dataset: Dataset) -> None:
    stored = ((plane(dataset) + 1024) << 4).astype(np.uint16)
    fill(dataset, stored)
    dataset.BitsStored, dataset.HighBit = 12, 15
    dataset.RescaleIntercept = -1024


def wrong_high_bit(dataset: Dataset) -> None:
    stored = (plane(dataset) + 1024).astype(np.uint16)
    fill(dataset, stored)
    dataset.BitsStored, dataset.HighBit = 12, 15
    dataset.RescaleIntercept = -1024


@pytest.mark.parametrize(
    "edit",
    [
        offset_in_the_header, rescale_of_each_slice, named_hounsfield,
        another_name_for_it, undeclared_padding, declared_padding, metal,
        cut_inside_the_neck, ends_in_air, bits_at_the_top, wrong_high_bit,
    ],
)  # fmt: skip
def test_hounsfield_units_are_good_however_they_are_stored(
    tmp_path: Path, edit: Edit
) -> None:
    write_study(tmp_path, edit=edit)
    found = scan(tmp_path)
    assert (codes(found), found.status) == ([], Status.GOOD)
