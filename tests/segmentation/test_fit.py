"""Which studies a model learns from, and when it must learn again."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.cards import segmentation_card

from csfd_core.evaluation.folds import assign_folds
from csfd_core.learning.loop import Trained
from csfd_core.segmentation.bundle import ModelBundle, write_bundle
from csfd_core.segmentation.config import PROFILES, TrainingConfig
from csfd_core.segmentation.fit import (
    Fit,
    fit_model,
    is_current,
    plan_fit,
    split_studies,
)
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.segmentation.training import VALIDATION_DICE
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores


def table(count: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "study_uid": [f"1.2.{i}" for i in range(count)],
            "patient_key": [f"p{i // 2}" for i in range(count)],
            "status": ["quarantined" if i % 10 == 9 else "good" for i in range(count)],
            "content_hash": [f"c{i}" for i in range(count)],
            "mask_hash": [None if i % 3 == 2 else f"m{i}" for i in range(count)],
        }
    )


def test_locked_test_patients_and_held_out_folds_never_train() -> None:
    studies = table()
    folds = assign_folds(studies).set_index("study_uid")
    for fold in range(5):
        split = split_studies(studies, fold)
        trained = [uid for uid, _, _ in split.training]
        assert trained
        assert not folds.loc[trained, "is_test"].any()
        assert (folds.loc[trained, "fold"] != fold).all()
        validated = [uid for uid, _, _ in split.validation]
        assert (folds.loc[validated, "fold"] == fold).all()
        assert folds.loc[[uid for uid, _, _ in split.test], "is_test"].all()
        groups = [set(folds.loc[part, "patient"]) for part in (trained, validated)]
        assert groups[0].isdisjoint(groups[1])


def test_quarantined_studies_and_those_without_mask_take_no_part() -> None:
    studies = table().set_index("study_uid", drop=False)
    split = split_studies(studies.reset_index(drop=True), 0)
    used = [uid for uid, _, _ in (*split.training, *split.validation, *split.test)]
    assert (studies.loc[used, "status"] == "good").all()
    assert studies.loc[used, "mask_hash"].notna().all()


class _Metadata:
    def __init__(self, studies: pd.DataFrame) -> None:
        self.studies = studies

    def read_studies(self) -> pd.DataFrame:
        return self.studies


def plan(
    monkeypatch: pytest.MonkeyPatch,
    stores: Stores,
    studies: pd.DataFrame,
    seed: int = 0,
) -> Fit:
    monkeypatch.setattr(Stores, "metadata", _Metadata(studies))
    profile = PROFILES["demo"]
    settings = replace(profile, training=replace(profile.training, seed=seed))
    return plan_fit(stores, settings, 0)


def test_a_model_is_current_until_its_studies_or_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(Location(tmp_path))
    studies = table()
    fit = plan(monkeypatch, stores, studies)
    assert not is_current(stores, fit)
    bundle = ModelBundle(card=segmentation_card(inputs=fit.inputs), weights=[])
    write_bundle(ModelStore(stores.root).of_fold(0), bundle)
    assert is_current(stores, plan(monkeypatch, stores, studies))
    assert not is_current(stores, plan(monkeypatch, stores, studies, seed=1))
    changed = studies.assign(
        content_hash=["new", *studies["content_hash"][1:]]
    )  # the first study has a mask and is no test study
    assert fit.split.training[0] != plan(monkeypatch, stores, changed).split.training[0]
    assert not is_current(stores, plan(monkeypatch, stores, changed))
    without_labels = studies.assign(status="warning")
    split = plan(monkeypatch, stores, without_labels).split
    assert len(split.training) > len(fit.split.training)


FIRST_DEMO = TrainingConfig(
    epochs=6, steps_per_epoch=25, learning_rate=3e-4, patience=4
)


@pytest.mark.parametrize(
    ("training", "inputs"),
    [
        (
            FIRST_DEMO,
            "28fd396f011575a66510ac369c7054ec740a042c9a9eeba898b155b720829459",
        ),
        (
            PROFILES["full"].training,
            "e43761a5a6ace384e0ddcc4edf640f47df41761e07e2784b8fd2f4b1d2caa16d",
        ),
    ],
)
def test_identity_is_what_it_was_for_the_same_inputs(
    training: TrainingConfig,
    inputs: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another digest trains everything again.

    The second is of the first release; the first is of the general model that it starts
    from, too, and changes with it.
    """
    monkeypatch.setattr(Stores, "metadata", _Metadata(table()))
    stores = Stores(Location(tmp_path))
    profile = replace(PROFILES[training.profile], training=training)
    assert plan_fit(stores, profile, 0).inputs == inputs


def test_a_card_tells_what_the_weights_scored_that_no_epoch_made_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(Location(tmp_path))
    trained = Trained(
        weights=[],
        history=[{"epoch": 1.0, "validation_dice": 0.86}],
        before={"validation_dice": 0.88},
    )
    monkeypatch.setattr("csfd_core.segmentation.fit._train", lambda *_: trained)
    fit_model(stores, plan(monkeypatch, stores, table()))
    card = ModelStore(stores.root).card(0)
    assert card is not None
    told = card.unimproved(VALIDATION_DICE)
    assert told.startswith("Training made it no better: validation_dice 0.880 before")
