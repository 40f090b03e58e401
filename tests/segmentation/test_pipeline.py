"""From a converted source to model, masks, crops and report, without Dagster."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.coarse import one_look, untraced_networks, write_converted_phantom

from csfd_core.crops.cutting import CropConfig
from csfd_core.crops.maker import CropMaker
from csfd_core.phantom.config import PhantomConfig
from csfd_core.reports.segmentation.summary import evaluate_models, is_reported
from csfd_core.segmentation import fit as fitting
from csfd_core.segmentation.config import PROFILES
from csfd_core.segmentation.fit import MaskSplit, fit_model, is_current, plan_fit
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.store.stores import Stores

CONFIG = PhantomConfig(studies=3, seed=21, masked_share=1.0, compressed_share=0.0)
CROPS = CropConfig(slices=3, side_px=48, pixel_mm=2.0)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_converted_phantom(tmp_path_factory.mktemp("pipeline"), CONFIG)


def one_of_each(studies: pd.DataFrame, fold: int) -> MaskSplit:
    """The first study trains, the second validates, the third is locked."""
    rows = [
        (str(row.study_uid), str(row.content_hash), str(row.mask_hash))
        for row in studies.itertuples()
    ]
    return MaskSplit(training=(rows[0],), validation=(rows[1],), test=(rows[2],))


@pytest.mark.slow
def test_model_masks_crops_and_report_are_made_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "split_studies", one_of_each)
    one_look(monkeypatch)
    profile = PROFILES["demo"]
    training = replace(profile.training, epochs=1, steps_per_epoch=1)
    fit = plan_fit(stores, replace(profile, training=training))
    assert not is_current(stores, fit)
    with untraced_networks():
        _, result = fit_model(stores, fit)
    assert result is not None
    assert len(result.history) == 1
    assert is_current(stores, fit)

    labels = stores.metadata.read_studies().set_index("study_uid")
    crops = CropMaker(stores, CROPS, labels, pd.DataFrame({"study_uid": []}))
    uids = stores.metadata.study_uids()
    maker = MaskMaker(stores)
    assert not any(map(crops.is_current, uids))
    standings = {}
    for uid in uids:
        outcome = maker.make(uid)
        assert outcome.action == "written"
        standings[uid] = outcome.standing
        mask = stores.predicted_masks.read_volume(uid)
        assert mask.shape == stores.slices.read_volume(uid).shape
        assert set(np.unique(mask)) <= set(range(8))
        assert crops.make(uid).action == "written"
        assert crops.make(uid).action == "unchanged"
        assert maker.make(uid).action == "unchanged"
        images, masks = stores.crops.read_level(uid, "C4")
        assert images.shape == (3, 3, 48, 48)
        assert masks.any()
    assert standings == {
        fit.split.training[0][0]: "in_sample",
        fit.split.validation[0][0]: "out_of_fold",
        fit.split.test[0][0]: "unseen",
    }
    assert all(map(crops.is_current, uids))
    assert all(map(maker.is_current, stores.metadata.read_records()))

    assert not is_reported(stores, [fit])
    found = evaluate_models(stores, [fit])
    assert is_reported(stores, [fit])
    assert set(found.scores.studies["group"]) == {"validation", "test"}
    page = stores.root.read("reports/segmentation/index.html").decode()
    assert "Mean Dice" in page
    assert "Nothing here has a clinical meaning" in page
    table = stores.root.read("reports/segmentation/studies.csv").decode()
    assert table.startswith("study_uid,level,dice,hd95_mm")
    assert len(table.splitlines()) == 1 + 2 * 7
