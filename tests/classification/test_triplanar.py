"""The triplanar CNN: volumes of crops, patches in three planes, and their joining."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.interpolate import interp1d
from support.drawn_crops import CROPS, SIDE, draw_vertebra, manifest_of, write_store

from csfd_core.classification.classifier import CropShape
from csfd_core.classification.classifier_store import FoldResult
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.fit import (
    ClassifierFit,
    fit_classifier,
    open_trained,
    plan_classifier,
)
from csfd_core.classification.patchwise.classifier import NOWHERE
from csfd_core.classification.patchwise.layers import folded
from csfd_core.classification.patchwise.pool import PatchCentre
from csfd_core.classification.triplanar import network as network_of_planes
from csfd_core.classification.triplanar import patches as cutting
from csfd_core.classification.triplanar.network import TriplanarCnn
from csfd_core.classification.triplanar.patches import TriplanarPool
from csfd_core.classification.triplanar.volume import VertebraVolume
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.evaluation.metrics import auroc
from csfd_core.learning.splits import Split
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import OVERALL

CONFIG = ClassifierConfig(
    epochs=2, steps_per_epoch=40, batch_size=32, filters=(8, 16, 16), initial=NONE
)
SHAPE = CropShape.of(CROPS.to_note())
FINE = CropShape(slices=9, channels=3, side_px=40, pixel_mm=1.0, neighbour_mm=1.5)


def random_vertebra(rng: np.random.Generator, shape: CropShape = FINE) -> Vertebra:
    """Noise everywhere, its slices 4.5 mm apart, the mask everywhere."""
    side = (shape.side_px, shape.side_px)
    return Vertebra(
        images=rng.integers(
            0, 256, (shape.slices, shape.channels, *side), dtype=np.uint8
        ),
        masks=np.full((shape.slices, *side), 255, dtype=np.uint8),
        heights_mm=20 + 4.5 * np.arange(shape.slices),
        boxes=None,
    )


class Still:
    """A generator that changes nothing: no jitter, no noise, grey as it is."""

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:  # noqa: ANN401
        neutral = 1.0 if low > 0 and high > 1 else 0.0
        return neutral if size is None else np.full(size, neutral)

    def standard_normal(self, shape: Any, dtype: Any) -> Any:  # noqa: ANN401
        return np.zeros(shape, dtype=dtype)


def still_patches(pool: TriplanarPool, places: list[PatchCentre]) -> npt.NDArray[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "_draw_turn", lambda rng: np.eye(3))
        return pool.cut(places, Still())  # type: ignore[arg-type]


def network(shape: CropShape = FINE, **settings: Any) -> TriplanarCnn:  # noqa: ANN401
    return TriplanarCnn(replace(CONFIG, **settings), shape, Location("memory://x"))


def test_a_volume_is_what_lies_between_the_slices_and_their_neighbours() -> None:
    """Compared with SciPy, plane by plane."""
    vertebra = random_vertebra(np.random.default_rng(0))
    volume = VertebraVolume.of(vertebra, FINE)
    heights = (vertebra.heights_mm[:, None] + [-1.5, 0, 1.5]).ravel()
    planes = vertebra.images.reshape(-1, 40, 40).astype(float)
    wanted = np.arange(heights[0], heights[-1] + 1e-9)
    expected = interp1d(heights, planes, axis=0)(wanted)
    assert volume.grey.shape == expected.shape
    assert np.abs(volume.grey - expected).max() <= 0.501
    np.testing.assert_allclose(volume.planes, vertebra.heights_mm - heights[0])


def test_a_mask_is_interpolated_between_its_slices() -> None:
    vertebra = random_vertebra(np.random.default_rng(0))
    masks = np.zeros_like(vertebra.masks)
    masks[3:5, 10:20, 10:20] = 255
    volume = VertebraVolume.of(replace(vertebra, masks=masks), FINE)
    shown = np.flatnonzero(volume.mask.any(axis=(1, 2)))
    first, last = volume.planes[3], volume.planes[4]
    # Half-way to the slices beside it, which show nothing.
    assert shown[0] == np.ceil(first - 2.25)
    assert shown[-1] == np.floor(last + 2.25)


def test_patches_are_the_planes_through_their_place() -> None:
    vertebra = random_vertebra(np.random.default_rng(1))
    pool = TriplanarPool(5, 0.0, FINE)
    pool.add(vertebra, 0)
    grey = pool.vertebrae[0].grey / 255
    z, y, x = 20, 18, 22
    (patch,) = still_patches(pool, [PatchCentre(0, z, y, x)])
    around = [slice(at - 2, at + 3) for at in (z, y, x)]
    expected = {
        0: [grey[z + o, around[1], around[2]] for o in (-2, 0, 2)],
        1: [grey[around[0], around[1], x + o] for o in (-2, 0, 2)],
        2: [grey[around[0], y + o, around[2]] for o in (-2, 0, 2)],
    }
    for plane, channels in expected.items():
        scaled = (np.stack(channels, axis=-1) - 0.3) / 0.2
        np.testing.assert_allclose(patch[plane, ..., :3], scaled, atol=1e-4)
        np.testing.assert_array_equal(patch[plane, ..., 3], 1)


def test_boxes_lie_at_the_height_of_their_slice() -> None:
    vertebra = random_vertebra(np.random.default_rng(1))
    none = np.empty((0, 4), np.float32)
    boxes = [none] * FINE.slices
    boxes[4] = np.array([[3, 5, 9, 13]], np.float32)
    pool = TriplanarPool(5, 0.0, FINE)
    pool.add(replace(vertebra, boxes=tuple(boxes)), 1)
    # 4.5 mm from slice to slice, and 1.5 mm from the first neighbour to the first.
    assert pool.boxed == [PatchCentre(0, 4 * 4.5 + 1.5, 6.0, 9.0)]


def test_whole_vertebrae_are_judged_as_the_patches_around_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What training sees of a place is what the use sees of it, in all three planes.

    Exactly so of a patch that is a little wider than those of the training.
    """
    monkeypatch.setattr(network_of_planes, "_PATCH_PX", 44)
    large = replace(FINE, slices=15, side_px=64)
    vertebra = random_vertebra(np.random.default_rng(2), large)
    own = network(large, average_views=False)
    (places,) = own.judge([vertebra], all_views=False)
    assert places.shape == (17, 16, 16)
    pool = TriplanarPool(44, 0.0, large)
    pool.add(vertebra, 0)
    cells = [(8, 8, 8), (7, 8, 8), (8, 7, 8), (8, 8, 7)]
    at = [PatchCentre(0, *((np.array(cell) + 0.5) * 4 - 0.5)) for cell in cells]
    expected = own.patch_model()(still_patches(pool, at), training=False)
    found = [places[cell] for cell in cells]
    assert np.ptp(found) > 1e-4  # or this would tell nothing
    np.testing.assert_allclose(found, np.ravel(expected), rtol=1e-3, atol=1e-4)


def test_folded_networks_compute_what_keras_does_also_once_they_have_learnt() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    cnn = network(filters=(8, 16, 16))
    values = rng.normal(0, 1, (3, 36, 40, cutting.CHANNELS)).astype(np.float32)
    for model, given in (
        (cnn._eyes[1], values),
        (cnn._judgement, rng.normal(0, 1, (50, 48)).astype(np.float32)),
    ):
        call = tf.function(folded(model))
        call(given)
        # As learnt: no mean is 0, no variance 1.
        learnt = [rng.uniform(0.5, 1.5, w.shape) * 0.3 for w in model.get_weights()]
        model.set_weights(learnt)
        expected = np.asarray(model(given, training=False))
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(call(given), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_every_plane_counts(plane: int) -> None:
    vertebra = random_vertebra(np.random.default_rng(2))
    own = network(average_views=False)
    before = own.logits([vertebra])
    eye = own.keras_model()[0].get_layer(("axial", "sagittal", "coronal")[plane])
    eye.set_weights([np.zeros_like(array) for array in eye.get_weights()])
    assert abs(own.logits([vertebra])[0] - before[0]) > 1e-5


def test_places_away_from_the_mask_are_nowhere() -> None:
    vertebra = random_vertebra(np.random.default_rng(3))
    masks = np.zeros_like(vertebra.masks)
    own = network()
    (places,) = own.judge([replace(vertebra, masks=masks)], all_views=True)
    assert (places == NOWHERE).all()
    masks[4, 16:20, 20:24] = 255
    (places,) = own.judge([replace(vertebra, masks=masks)], all_views=True)
    shown = np.argwhere(places > NOWHERE)
    assert len(shown)
    middle = (np.array([4 * 4.5 + 1.5, 17.5, 21.5]) + 0.5) / 4 - 0.5
    assert np.abs(shown - middle).max() < 2.1


def test_a_vertebra_is_judged_as_its_mirror_image() -> None:
    vertebra = random_vertebra(np.random.default_rng(4))
    mirrored = replace(vertebra, images=vertebra.images[..., ::-1])
    found = network().logits([vertebra, mirrored])
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    plain = network(average_views=False).logits([vertebra, mirrored])
    assert abs(plain[1] - plain[0]) > 1e-5


@pytest.mark.parametrize("side", [37, 38, 39, 40])
def test_sides_need_be_no_multiple_of_the_step(side: int) -> None:
    shape = replace(FINE, side_px=side)
    vertebra = random_vertebra(np.random.default_rng(5), shape)
    own = network(shape)
    (places,) = own.judge([vertebra], all_views=True)
    assert places.shape == (10, -(-side // 4), -(-side // 4))
    assert (places > NOWHERE).all()
    assert own.heat(vertebra).shape == vertebra.masks.shape


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_store(tmp_path_factory.mktemp("triplanar"))


@pytest.fixture(scope="module")
def fit(stores: Stores) -> ClassifierFit:
    return plan_classifier("triplanar_cnn", 0, CONFIG, manifest_of(stores))


@pytest.fixture(scope="module")
def result(stores: Stores, fit: ClassifierFit) -> FoldResult:
    return fit_classifier(stores, fit)


@pytest.mark.slow
def test_it_tells_bright_crosses_in_studies_that_it_has_not_seen(
    result: FoldResult,
) -> None:
    rows = result.predictions
    rows = rows[(rows["group"] == Split.TEST) & (rows["level"] != OVERALL)]
    assert rows["label"].sum() > 1
    assert auroc(rows["label"].astype(int), rows["probability"]) > 0.9


@pytest.mark.slow
def test_it_is_the_same_after_it_was_kept(
    stores: Stores, fit: ClassifierFit, result: FoldResult
) -> None:
    rows = fit.test
    kept = result.predictions.dropna(subset=["logit"]).set_index(["study_uid", "level"])
    expected = kept.loc[list(zip(rows["study_uid"], rows["level"], strict=True))]
    trained = open_trained(stores, "triplanar_cnn", 0)
    found = trained.stored_logits(stores.crops, rows)
    np.testing.assert_allclose(found, expected["logit"], atol=0.05)
    pairs = dict(read_vertebrae(stores.crops, rows))
    in_memory = trained.logits([pairs[place] for place in rows.index])
    np.testing.assert_allclose(in_memory, found, atol=1e-4)


@pytest.mark.slow
def test_heat_is_highest_where_the_fracture_is(
    stores: Stores, result: FoldResult
) -> None:
    trained = open_trained(stores, "triplanar_cnn", 0)
    rng = np.random.default_rng(12)
    hits = 0
    for _ in range(8):
        vertebra = draw_vertebra(True, rng)
        heat = trained.heat(vertebra)
        assert heat.shape == (2, SIDE, SIDE)
        assert 0 <= heat.min() <= heat.max() <= 1
        _, row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert vertebra.boxes is not None
        (box,) = next(boxes for boxes in vertebra.boxes if len(boxes))
        hits += box[0] - 2 <= row <= box[2] + 2 and box[1] - 2 <= column <= box[3] + 2
    assert hits >= 6
