"""What is kept of a network's weights."""

from pathlib import Path

import numpy as np

from csfd_core.classification.models import ClassifierStore
from csfd_core.store.locations import Location

CARD = {"model_id": "m"}


def kept(folder: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    store = ClassifierStore(Location(folder))
    store.write("basic_cnn", 0, arrays, [], CARD)
    return store.read_weights("basic_cnn", 0)


def test_tiny_variances_survive(tmp_path: Path) -> None:
    """Features of an untrained backbone vary by 1e-9; half precision makes that 0."""
    variance = np.array([1e-9, 3e-12, 2.0, 1e6], dtype=np.float32)
    np.testing.assert_array_equal(kept(tmp_path, variance)[0], variance)


def test_kernels_keep_three_digits(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    np.testing.assert_allclose(kept(tmp_path, kernel)[0], kernel, rtol=0, atol=2e-3)


def test_kernels_take_half_the_space_where_that_says_the_same(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)
    kept(tmp_path, kernel)
    size = (tmp_path / "models/classification/basic_cnn/fold_0/weights.npz").stat()
    assert size.st_size < kernel.nbytes * 0.6
