"""A training in a bucket that is killed on one machine goes on on another."""

from pathlib import Path

import numpy as np
import pytest
from support.drawn_crops import write_store
from support.killed_training import NAME, go_on, train_until_killed
from support.s3_bucket import Bucket

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

STUDIES = 14


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_goes_on_from_the_bucket_with_the_same_weights(
    bucket: Bucket, tmp_path: Path
) -> None:
    local = write_store(tmp_path / "store", STUDIES)
    bucket.upload(tmp_path / "store", "store")
    stores = Stores(Location(bucket.url("store")))
    train_until_killed(bucket.url("store"), tmp_path)
    names = {Path(key).suffix for key in bucket.objects("store/checkpoints/")}
    assert names == {".npz", ".json"}
    resumed, epochs = go_on(stores)
    assert epochs == [3]
    assert bucket.objects("store/checkpoints/") == {}
    straight, epochs = go_on(local)
    assert epochs == [1, 2, 3]
    kept = [
        ClassifierStore(found.root).read_weights(NAME, 0) for found in (stores, local)
    ]
    for ours, theirs in zip(*kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert resumed.card.inputs == straight.card.inputs
    files = {Path(key).name for key in bucket.objects("store/models/")}
    assert files == {
        "card.json",
        *(resumed.card.file_name(n) for n in ("weights.npz", "predictions.parquet")),
    }
