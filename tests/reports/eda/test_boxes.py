"""Where fracture boxes lie."""

import numpy as np
import pytest
from support.dicom_studies import PIXEL_MM, SLICES, neck_mask
from support.eda_source import BROKEN, MASKED, PLAIN
from support.material import require_material

from csfd_core.reports.eda.boxes import boxes_per_level, describe_boxes
from csfd_core.reports.eda.inputs import read_inputs
from csfd_core.reports.eda.sentences import say_boxes
from csfd_core.store.labels import read_boxes, read_labels
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES


def describe(sources: Sources, stores: Stores | None) -> dict[str, list[dict]]:
    inputs = read_inputs(sources, stores)
    boxes = describe_boxes(inputs.boxes, usable_studies(inputs.studies), inputs.stores)
    groups = boxes.groupby("study_uid")
    return {str(uid): part.to_dict(orient="records") for uid, part in groups}


def test_level_comes_from_the_mask_where_there_is_one(
    sources: Sources, stores: Stores
) -> None:
    (box,) = describe(sources, stores)[MASKED]
    index = 12  # instance number 13 of a stack numbered head to feet
    values, counts = np.unique(neck_mask()[index], return_counts=True)
    level = values[1:][counts[1:].argmax()]
    assert box["level"] == LEVEL_NAMES[level - 1]
    assert box["level_from"] == "mask"
    assert box["slice_index"] == index
    assert box["depth"] == index / (SLICES - 1)
    assert box["width_mm"] == 12 * PIXEL_MM
    assert box["height_mm"] == 10 * PIXEL_MM


def test_level_comes_from_the_only_fractured_level_elsewhere(
    sources: Sources, stores: Stores
) -> None:
    first, lost = describe(sources, stores)[PLAIN]
    assert (first["level"], first["level_from"]) == ("C7", "only fractured level")
    # Instance numbers rise from feet to head: number 1 is the last slice.
    assert first["slice_index"] == SLICES - 1
    assert np.isnan(lost["slice_index"])


def test_boxes_of_quarantined_studies_do_not_count(
    sources: Sources, stores: Stores
) -> None:
    assert BROKEN not in describe(sources, stores)


def test_boxes_without_images_keep_their_pixels(sources: Sources) -> None:
    (box,) = describe(sources, None)[MASKED]
    assert box["level"] == "unknown"  # two levels are fractured
    assert np.isnan(box["depth"])
    assert np.isnan(box["width_mm"])
    assert box["width"] == 12


def test_real_boxes_are_counted_per_level() -> None:
    location = Location(require_material("rsna2022"))
    inputs = read_inputs(Sources([Source(location)]), None)
    boxes = describe_boxes(inputs.boxes, inputs.studies)
    assert (len(boxes), boxes["study_uid"].nunique()) == (7217, 235)
    per_level = boxes_per_level(boxes)
    assert per_level["boxes"].sum() == 7217
    labels = read_labels(location).table
    levels = labels[list(LEVEL_NAMES)]
    single = levels[levels.sum(axis=1) == 1]
    raw = read_boxes(location).table["study_uid"].value_counts()
    for level, count in per_level.set_index("level")["boxes"].items():
        if level in LEVEL_NAMES:
            uids = single.index[single[level] == 1]
            assert count == raw.reindex(uids).fillna(0).sum()
    assert "7217 boxes in 235 studies" in say_boxes(boxes, per_level)


@pytest.mark.parametrize("count", [1, 2])
def test_box_sentence_counts(sources: Sources, stores: Stores, count: int) -> None:
    inputs = read_inputs(sources, stores)
    good = usable_studies(inputs.studies)
    boxes = describe_boxes(inputs.boxes.head(count), good, stores)
    text = say_boxes(boxes, boxes_per_level(boxes))
    whole = {1: "1 box in 1 study.", 2: "2 boxes in 2 studies."}
    assert text.startswith(whole[count])
    assert "18 mm wide and 15 mm high" in text
