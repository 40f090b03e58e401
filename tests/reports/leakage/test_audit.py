"""From a store to numbers and a report: repeatable, complete, made once."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.leakage_store import SLICES, STUDIES, slices_of, uid_of, write_store

from csfd_core.errors import StoreError
from csfd_core.evaluation.metrics import auroc
from csfd_core.reports.leakage.audit import is_current, run_audit, summarize
from csfd_core.reports.leakage.config import AuditConfig
from csfd_core.reports.leakage.data import (
    AuditData,
    audit_inputs,
    cap_studies,
    choose_studies,
    evenly_spaced,
    read_slices,
)
from csfd_core.reports.leakage.network import Scored, draw_batches
from csfd_core.reports.leakage.protocols import build_splits
from csfd_core.reports.leakage.report import report_location, write_report
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

TINY = AuditConfig(steps=3, batch_size=8, side=16, slices_per_study=4)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return write_store(tmp_path_factory.mktemp("leakage"))


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="`steps` must be at least 1. Received: .*=0"):
        AuditConfig(steps=0)
    with pytest.raises(ValueError, match="`learning_rate` must be above 0"):
        AuditConfig(learning_rate=0)


@pytest.mark.parametrize(
    ("count", "wanted", "places"),
    [(9, 3, [1, 4, 7]), (2, 5, [0, 1]), (100, 4, [12, 37, 62, 87]), (5, 5, range(5))],
)
def test_slices_are_evenly_spaced(count: int, wanted: int, places: list[int]) -> None:
    assert evenly_spaced(count, wanted).tolist() == list(places)


def test_slices_come_in_the_order_of_the_stream(stores: Stores) -> None:
    studies = choose_studies(stores, TINY)
    data = read_slices(stores, studies, TINY)
    assert data.images.shape == (STUDIES * 4, 16, 16)
    assert data.slices["study_uid"].is_monotonic_increasing
    own = data.slices[data.slices["study_uid"] == uid_of(0)]
    assert own["slice_index"].tolist() == evenly_spaced(SLICES, 4).tolist()
    assert own["label"].nunique() == 1
    volume = stores.slices.read_volume(uid_of(0))[own["slice_index"]].astype(float)
    halved = volume.reshape(4, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.abs(data.images[own.index] - halved).max() < 24  # the fast DCT's error
    assert np.corrcoef(data.images[own.index].ravel(), halved.ravel())[0, 1] > 0.98


def test_the_cap_keeps_locked_studies_and_whole_patients() -> None:
    slices = slices_of([f"patient {number // 2}" for number in range(200)], 1)
    kept = cap_studies(slices, 30)
    assert len(kept) == 30
    assert kept["is_test"].sum() == 10
    assert (kept["patient"].value_counts() == 2).all()
    shuffled = cap_studies(slices.sample(frac=1, random_state=1), 30)
    assert shuffled["study_uid"].tolist() == kept["study_uid"].tolist()
    assert len(cap_studies(slices, 1000)) == 200


def test_every_slice_is_learnt_from_once_before_any_again() -> None:
    config = replace(TINY, steps=6, batch_size=5)
    drawn = np.concatenate(list(draw_batches(np.arange(10), config)))
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:20].tolist()


def scored_by_heart(data: AuditData) -> list[Scored | None]:
    """What networks would score that know their training slices and nothing else."""
    found: list[Scored | None] = []
    for split in build_splits(data.slices, seed=0):
        known = np.full(len(data.slices), 0.5)
        known[split.training] = data.labels[split.training]
        parts = {name: known[rows] for name, rows in split.parts().items()}
        found.append(Scored(**parts))
    return found


def test_a_network_that_knows_slices_by_heart_is_found_out() -> None:
    slices = slices_of([f"patient {number}" for number in range(60)])
    data = AuditData(slices=slices, images=np.empty((len(slices), 16, 16), np.uint8))
    first, dealt, honest = summarize(
        data, build_splits(slices, seed=0), scored_by_heart(data)
    )
    assert first.auc.estimate == 1
    assert dealt.auc.estimate == honest.auc.estimate == 0.5
    assert first.pretended.estimate == first.pretended.low == 0.5
    assert dealt.pretended.estimate == 0
    assert math.isnan(honest.pretended.estimate)
    assert first.slices_seen_in_training == first.f1 == 1


def test_a_protocol_without_test_slices_is_undefined() -> None:
    slices = slices_of([f"patient {number}" for number in range(20)])
    slices["is_test"] = False
    data = AuditData(slices=slices, images=np.empty((len(slices), 16, 16), np.uint8))
    scored = [*scored_by_heart(data)[:2], None]
    first, _, honest = summarize(data, build_splits(slices, seed=0), scored)
    assert first.auc.estimate == 1
    assert math.isnan(first.pretended.estimate)
    assert math.isnan(honest.auc.estimate)
    assert math.isnan(honest.loss)


@pytest.mark.slow
def test_audit_is_repeatable_reported_and_made_once(stores: Stores) -> None:
    told: list[tuple[str, int, int]] = []
    audit = run_audit(stores, TINY, lambda *step: told.append(step))
    again = run_audit(stores, TINY)
    assert [title for title, step, steps in told if step == steps == 3] == [
        "First attempt",
        "Slices at random",
        "By patient",
    ]
    pd.testing.assert_frame_equal(audit.to_frame(), again.to_frame())
    assert audit.inputs == again.inputs
    honest = audit.honest
    assert honest.test_patients > 1
    assert not math.isnan(honest.auc.estimate)

    place = report_location(stores)
    assert not is_current(stores, TINY)
    write_report(place, audit)
    assert is_current(stores, TINY)
    assert not is_current(stores, replace(TINY, seed=1))
    table = pd.read_csv(place.url + "/protocols.csv")
    assert table.columns[:4].tolist() == ["protocol", "auc", "f1", "loss"]
    assert table["protocol"].tolist() == [
        "first_attempt",
        "random_slices",
        "by_patient",
    ]
    assert table["slices_seen_in_training"].tolist() == [1, 0, 0]
    assert table["patients_seen_in_training"].iloc[2] == 0
    assert table["auc"].between(0, 1).all()
    page = place.read("index.html").decode()
    assert "all of its test slices are training slices" in page
    assert place.exists("figures/auc.png")
    assert place.exists("figures/protocols.png")
    note = json.loads(place.read("audit.json"))
    assert note["protocols"][2]["auc_pretended"] is None
    place.remove("index.html")
    assert not is_current(stores, TINY)


def test_notes_of_another_origin_are_no_report(stores: Stores, tmp_path: Path) -> None:
    place = Location(tmp_path)
    for name in ("index.html", "protocols.csv"):
        place.write(name, b"")
    for content in (b"not JSON", b"[]", b"{}"):
        place.write("audit.json", content)
        assert not is_current(stores, TINY, place)


def test_another_label_is_another_audit(tmp_path: Path) -> None:
    studies = choose_studies(write_store(tmp_path), TINY)
    relabelled = choose_studies(write_store(tmp_path, uid_of(3)), TINY)
    changed = studies["label"] != relabelled["label"]
    assert studies["study_uid"][changed].tolist() == [uid_of(3)]
    assert identity(studies) != identity(relabelled)


def identity(studies: pd.DataFrame, config: AuditConfig = TINY) -> str:
    return audit_inputs(studies, config, "phantom")


def test_content_settings_and_kind_of_data_make_the_identity(stores: Stores) -> None:
    studies = choose_studies(stores, TINY)
    assert identity(studies) == identity(choose_studies(stores, TINY))
    others = [
        identity(studies.assign(content_hash="another")),
        identity(studies.iloc[1:]),
        identity(studies, replace(TINY, steps=4)),
        audit_inputs(studies, TINY, "real"),
    ]
    assert len({identity(studies), *others}) == 5


@pytest.mark.slow
def test_nothing_heavy_is_imported_with_the_package() -> None:
    code = (
        "import sys, csfd_core.reports.leakage.report\n"
        "sys.exit(bool({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_store_without_labels_says_what_to_do(tmp_path: Path) -> None:
    stores = write_store(tmp_path)
    shutil.rmtree(tmp_path / "store" / "slices")
    with pytest.raises(StoreError, match="no labelled study with slices"):
        choose_studies(stores, TINY)


def test_rank_auc_of_the_audit_is_the_projects_auc() -> None:
    rng = np.random.default_rng(0)
    slices = slices_of([f"patient {number}" for number in range(60)])
    data = AuditData(slices=slices, images=np.empty((len(slices), 16, 16), np.uint8))
    splits = build_splits(slices, seed=0)
    chance = rng.random(len(slices)).round(2)
    scored: list[Scored | None] = [
        Scored(**{name: chance[rows] for name, rows in split.parts().items()})
        for split in splits
    ]
    for split, result in zip(splits, summarize(data, splits, scored), strict=True):
        expected = auroc(data.labels[split.test], chance[split.test])
        assert result.auc.estimate == pytest.approx(expected)
        assert result.auc.low < result.auc.estimate < result.auc.high
