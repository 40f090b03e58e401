"""Segmentation through Dagster: checks that fail when they must."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from support.cards import segmentation_card

from csfd_core.evaluation.folds import fold_of, is_test
from csfd_core.segmentation.bundle import ModelBundle, write_bundle
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS, MetadataStore
from csfd_core.store.notes import LevelNote, PredictedMaskNote
from csfd_core.store.stores import Stores
from csfd_dagster.checks import segmentation as checks
from csfd_dagster.checks.masks import check_masks, mask_check_specs
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.resources.stores import StoreResource

UIDS = [f"1.2.826.0.1.3680043.{index}" for index in range(1, 60)]


def write_model(root: Location, trained: list[str], fold: int = 0) -> None:
    studies = dict.fromkeys(trained, ("c", "m"))
    card = segmentation_card(fold=fold, training_studies=studies)
    bundle = ModelBundle(card=card, weights=[])
    write_bundle(ModelStore(root).of_fold(fold), bundle)


def write_table(root: Location) -> None:
    rows = pd.DataFrame({"study_uid": UIDS, "status": "good"})
    missing = [n for n, _, _ in STUDIES_COLUMNS if n not in rows]
    empty = pd.DataFrame(None, index=rows.index, columns=missing, dtype=object)
    table = pd.concat([rows, empty], axis=1)
    MetadataStore(root).write_studies(table, "x", "phantom")


def run_check(check: dg.AssetChecksDefinition, tmp_path: Path) -> dg.AssetCheckResult:
    result = check(store=StoreResource(store_url=str(tmp_path)))
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_a_planted_test_study_fails_the_leak_check(tmp_path: Path) -> None:
    root = Location(tmp_path)
    write_table(root)
    clean = [uid for uid in UIDS if not is_test(uid) and fold_of(uid) != 0]
    locked = next(uid for uid in UIDS if is_test(uid))
    held_out = next(uid for uid in UIDS if not is_test(uid) and fold_of(uid) == 0)
    write_model(root, clean)
    assert run_check(checks.no_test_study_trained, tmp_path).passed
    write_model(root, [*clean, locked])
    leaky = run_check(checks.no_test_study_trained, tmp_path)
    assert not leaky.passed
    assert leaky.metadata["leaked"].value == [locked]
    write_model(root, [*clean, held_out])
    assert not run_check(checks.no_test_study_trained, tmp_path).passed


def level(z_mm: float, *, is_cut: bool = False, volume_ml: float = 9.0) -> dict:
    return {
        "volume_ml": volume_ml,
        "confidence": 0.9,
        "is_cut": is_cut,
        "centre_zyx_mm": [z_mm, 0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("levels", "failing"),
    [
        ({f"C{i}": level(18.0 * i) for i in range(1, 8)}, set()),
        (
            {f"C{i}": level(18.0 * i, is_cut=i == 5) for i in range(1, 6)},
            set(),
        ),
        ({f"C{i}": level(18.0 * i) for i in range(1, 6)}, {"levels_are_found"}),
        (
            {f"C{i}": level(18.0 * i) for i in range(1, 8) if i != 4},
            {"levels_are_found"},
        ),
        (
            {f"C{i}": level(18.0 * (3.2 if i == 5 else i)) for i in range(1, 8)},
            {"levels_follow_each_other"},
        ),
        (
            {f"C{i}": level(18.0 * i, volume_ml=70.0) for i in range(1, 8)},
            {"volumes_are_plausible"},
        ),
    ],
    ids=["good", "cut", "ends", "gap", "order", "volume"],
)
def test_checks_of_masks_fail_for_what_contradicts_anatomy(
    tmp_path: Path, levels: dict, failing: set[str]
) -> None:
    typed = {name: LevelNote.model_validate(one) for name, one in levels.items()}
    note = PredictedMaskNote.model_construct(levels=typed, flags=("look",))
    results = check_masks(Stores(Location(tmp_path)), {UIDS[0]: note})
    assert {str(r.check_name) for r in results if not r.passed} == failing
    assert {spec.name for spec in mask_check_specs("vertebra_masks")} == {
        r.check_name for r in results
    }


def test_resource_overrides_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SegmentationResource().settings()
    assert SegmentationResource(epochs=3, seed=5).settings().training.epochs == 3
    assert plain.training.profile == "demo"
    small = SegmentationResource().crops()
    monkeypatch.setenv("CSFD_PROFILE", "full")
    full = SegmentationResource()
    assert full.settings().model.segmenter.shape_zyx == (128, 128, 128)
    assert full.crops().side_px > small.side_px


def test_stores_know_where_masks_and_crops_go(tmp_path: Path) -> None:
    stores = Stores(Location(tmp_path))
    assert stores.predicted_masks.path("1.2") == "predicted_masks/1.2.parquet"
    assert stores.crops.path("1.2") == "crops/1.2.parquet"
