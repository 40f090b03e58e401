"""Patches: where they are cut, and what of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from support.drawn_crops import SIDE, draw_vertebra

from csfd_core.classification.basic_cnn.patches import PatchPool, to_inputs
from csfd_core.classification.classifier import enlarged
from csfd_core.classification.vertebrae import Vertebra

PATCH = 17  # odd: it has a middle pixel


def make_pool(
    count: int = 12, *, boxed: bool = True, mined_share: float = 0.5
) -> PatchPool:
    rng = np.random.default_rng(3)
    labels = [index % 2 for index in range(count)]
    return pool_of(
        [draw_vertebra(bool(v), rng, boxed=boxed) for v in labels], labels, mined_share
    )


def pool_of(
    vertebrae: Sequence[Vertebra], labels: Sequence[int], mined_share: float = 0.5
) -> PatchPool:
    pool = PatchPool(PATCH, mined_share)
    for vertebra, label in zip(vertebrae, labels, strict=True):
        pool.add(vertebra, label)
    return pool


def nowhere(vertebrae: Sequence[Vertebra]) -> list[npt.NDArray[np.float64]]:
    """Finds the same place the most suspicious in every vertebra, then another."""
    return [np.array([[1.0, 10.0, 20.0], [0.0, 5.0, 6.0]]) for _ in vertebrae]


def test_places_of_fractures_are_the_middles_of_the_boxes() -> None:
    pool = make_pool()
    assert len(pool.boxed) == 6
    for place in pool.boxed:
        vertebra = pool.vertebrae[place.vertebra]
        assert place.vertebra in pool.fractured
        assert vertebra.boxes is not None
        (box,) = vertebra.boxes[int(place.plane)]
        assert box[0] < place.row < box[2]
        assert box[1] < place.column < box[3]
        plane = vertebra.images[int(place.plane), 1]
        assert plane[round(place.row), round(place.column)] == 250


def test_a_box_outside_of_the_crop_is_no_place() -> None:
    inside = draw_vertebra(True, np.random.default_rng(0))
    boxes = (np.array([[0, -9, 4, -2], [2, 3, 6, 9]], np.float32), np.empty((0, 4)))
    vertebra = replace(inside, boxes=boxes)
    pool = pool_of([vertebra], [1])
    assert [(p.plane, p.row, p.column) for p in pool.boxed] == [(0, 4.0, 6.0)]


@pytest.mark.parametrize("size", [2, 7, 40])
def test_half_of_a_batch_has_a_fracture(size: int) -> None:
    patches, labels = make_pool().batch(size, np.random.default_rng(0))
    assert patches.shape == (size, PATCH, PATCH, 4)
    assert patches.dtype == np.float32
    assert labels.sum() == size // 2


def test_patches_of_fractures_show_the_bright_cross_about_their_middle() -> None:
    patches, labels = make_pool().batch(600, np.random.default_rng(0))
    shown = patches[..., 1]  # the slice itself, between its neighbours
    bright = shown[labels == 1].mean(axis=0)
    middle = slice(PATCH // 2 - 3, PATCH // 2 + 4)
    inner = bright[middle, middle].mean()
    outer = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]]).mean()
    assert inner > outer + 0.3
    weights = bright - bright.min()
    rows, columns = np.mgrid[:PATCH, :PATCH]
    assert np.average(rows, weights=weights) == pytest.approx(PATCH // 2, abs=0.5)
    assert np.average(columns, weights=weights) == pytest.approx(PATCH // 2, abs=0.5)
    peaks = shown.reshape(len(shown), -1).max(axis=1)
    assert np.median(peaks[labels == 1]) > np.median(peaks[labels == 0]) + 1


def test_patches_without_a_fracture_come_from_whole_bone() -> None:
    patches, labels = make_pool().batch(200, np.random.default_rng(1))
    whole = patches[labels == 0]
    assert (whole[..., -1].max(axis=(1, 2)) > 0.5).all()  # the mask is in every one
    assert 0.3 < whole[..., -1].mean() < 0.95
    # A cross is at least 0.75 * (250 / 255 - 0.3) / 0.2 = 2.5 bright.
    assert whole[..., :3].max() < 1.5


def test_without_any_boxes_fractured_vertebrae_teach_at_first() -> None:
    pool = make_pool(boxed=False)
    assert pool.boxed == []
    assert pool.can_train
    patches, labels = pool.batch(400, np.random.default_rng(0))
    peaks = patches[..., :3].reshape(400, -1).max(axis=1)
    assert (peaks[labels == 1] > 2).mean() > 0.15  # some show the cross by chance
    assert (peaks[labels == 0] > 2).sum() == 0


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_one_kind_of_vertebrae_cannot_train(labels: list[int]) -> None:
    vertebrae = [draw_vertebra(bool(v), np.random.default_rng(0)) for v in labels]
    assert not pool_of(vertebrae, labels).can_train


def test_mined_places_lie_in_whole_vertebrae() -> None:
    pool = make_pool()
    pool.mine(nowhere, np.random.default_rng(0), trusted=False)
    assert {place.vertebra for place in pool.mined} == {0, 2, 4, 6, 8, 10}
    assert len(pool.mined) == 12
    assert pool.suspected == []


def test_unboxed_fractures_are_guessed_once_the_network_is_trusted() -> None:
    rng = np.random.default_rng(3)
    vertebrae = [
        draw_vertebra(True, rng),
        draw_vertebra(True, rng, boxed=False),
        draw_vertebra(False, rng),
    ]
    pool = pool_of(vertebrae, [1, 1, 0])
    pool.mine(nowhere, rng, trusted=False)
    assert pool.suspected == []
    pool.mine(nowhere, rng, trusted=True)
    (place,) = pool.suspected  # one each, the most suspicious
    assert (place.vertebra, place.plane, place.row, place.column) == (1, 1, 10.0, 20.0)


def test_mined_places_have_their_share_of_the_patches() -> None:
    pool = make_pool(mined_share=0.5)
    # Mark the mined place, which lies in the bone of every vertebra.
    vertebrae = [replace(v, images=v.images.copy()) for v in pool.vertebrae]
    for vertebra in vertebrae:
        vertebra.images[1, :, 8:13, 18:23] = 255
    marked = pool_of(vertebrae, [index % 2 for index in range(12)])
    plain, labels = marked.batch(400, np.random.default_rng(0))
    marked.mine(
        lambda some: [np.array([[1.0, 10.0, 20.0]]) for _ in some],
        np.random.default_rng(0),
        trusted=False,
    )
    mined, _ = marked.batch(400, np.random.default_rng(0))
    shares = [
        (p[labels == 0][..., 1].max(axis=(1, 2)) > 2.3).mean() for p in (plain, mined)
    ]
    assert shares[1] > shares[0] + 0.2


@pytest.mark.parametrize("channels", [3, 5])
def test_patches_are_the_planes_turned_about_their_place(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with SciPy's linear interpolation, without the changes of grey."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(
        rng.integers(0, 256, (1, channels, SIDE, SIDE)).astype(float), (0, 0, 2, 2)
    ).astype(np.uint8)
    masks = np.full((1, SIDE, SIDE), 255, dtype=np.uint8)
    vertebra = Vertebra(images=images, masks=masks, heights_mm=np.zeros(1), boxes=None)
    pool = pool_of([vertebra, vertebra], [0, 1])
    seen: list[npt.NDArray[np.float64]] = []
    real = cv2.warpAffine

    def warp(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - as OpenCV's
        seen.append(args[1])
        return real(*args, **named)

    monkeypatch.setattr(cv2, "warpAffine", warp)
    monkeypatch.setattr(PatchPool, "_vary", lambda _, patches, rng: patches)
    patches, _ = pool.batch(20, rng)
    grid = np.stack(np.mgrid[:PATCH, :PATCH][::-1])  # column, row
    from_feet = 0
    for patch, to_plane in zip(patches, seen, strict=True):
        x, y = (
            np.einsum("ij,jrc->irc", to_plane[:, :2], grid) + to_plane[:, 2, None, None]
        )
        expected = [
            ndimage.map_coordinates(
                plane.astype(float), (y, x), order=1, mode="nearest"
            )
            for plane in images[0]
        ]
        middle = to_plane[:, :2] @ np.full(2, PATCH // 2) + to_plane[:, 2]
        assert (np.abs(middle - SIDE / 2) < SIDE / 2 + 3).all()
        found = np.moveaxis(patch[..., :-1], -1, 0).astype(float)
        errors = [np.abs(found - e).max() for e in (expected, expected[::-1])]
        assert min(errors) < 4  # grey levels; OpenCV places points to 1/32 pixel
        from_feet += errors[1] < errors[0]
        assert (patch[..., -1] == 255).all()
    assert 0 < from_feet < 20


def test_a_pool_holds_no_memory_of_the_study() -> None:
    vertebra = draw_vertebra(True, np.random.default_rng(0))
    pool = pool_of([vertebra], [1])
    (own,) = pool.vertebrae
    assert not np.shares_memory(own.images, vertebra.images)
    assert not np.shares_memory(own.masks, vertebra.masks)
    np.testing.assert_array_equal(own.images, vertebra.images)
    np.testing.assert_array_equal(own.masks, vertebra.masks)


def test_a_seed_gives_the_same_batch_and_another_seed_another() -> None:
    pool = make_pool()
    first, _ = pool.batch(6, np.random.default_rng([0, 1, 2]))
    again, _ = make_pool().batch(6, np.random.default_rng([0, 1, 2]))
    other, _ = pool.batch(6, np.random.default_rng([0, 1, 3]))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.5


def test_a_whole_vertebra_is_fed_as_patches_are() -> None:
    vertebra = draw_vertebra(False, np.random.default_rng(0))
    inputs = to_inputs(vertebra)
    assert inputs.shape == (2, SIDE, SIDE, 4)
    expected = (vertebra.images[1, 2].astype(float) / 255 - 0.3) / 0.2
    np.testing.assert_allclose(inputs[1, ..., 2], expected, atol=1e-5)
    assert set(np.unique(inputs[..., 3])) == {0.0, 1.0}


@pytest.mark.parametrize(("cells", "side"), [(24, 96), (3, 96), (7, 112)])
def test_a_hot_cell_lies_in_the_middle_of_the_pixels_that_it_covers(
    cells: int, side: int
) -> None:
    """The oracle is the middle of the cell: (cell + 1/2) of its width, minus 1/2."""
    wide = side / cells
    for row, column in ((1, 1), (cells - 2, 1), (cells // 2, cells - 2)):
        maps = np.zeros((1, cells, cells), dtype=np.float32)
        maps[0, row, column] = 1
        heat = enlarged(maps, side)
        assert heat.shape == (1, side, side)
        middle = ndimage.center_of_mass(heat[0])
        wanted = (np.array([row, column]) + 0.5) * wide - 0.5
        if cells > 3:  # else the ramps end at the edge
            np.testing.assert_allclose(middle, wanted, atol=0.05)
        at = np.argwhere(heat[0] == heat.max()).mean(axis=0)
        np.testing.assert_allclose(at, wanted, atol=0.5)
