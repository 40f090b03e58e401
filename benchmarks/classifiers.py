"""How well do the networks for patches tell fractures of phantoms?

Each is trained three times from nothing and three times from the general weights, on
phantoms of version 1, so that figures of all versions of csfd stand on the same bytes;
crops are from masks that the general model predicts. No model sees the locked test set.
Studies, masks and crops stay in ``data``, so that measuring again trains only.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Result
from csfd_core.classification.config import GENERAL, NONE, settings_of
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.manifest import Manifest, write_manifest
from csfd_core.classification.score_tables import (
    PREVALENCE,
    models_table,
    reference_table,
)
from csfd_core.crops.cutting import CROP_PROFILES
from csfd_core.crops.maker import CropMaker
from csfd_core.ingest.convert import convert_studies, study_tasks
from csfd_core.ingest.outcomes import make_all
from csfd_core.ingest.studies_table import write_studies_table
from csfd_core.learning.loop import OnEpoch
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import PhantomStudy, write_phantom_source
from csfd_core.runtime.executors import open_executor
from csfd_core.segmentation.bundle import builtin_location, read_bundle, write_bundle
from csfd_core.segmentation.masks import MaskMaker
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store.locations import Location
from csfd_core.store.source import Source, Sources
from csfd_core.store.stores import Stores

FOLDER = Path("data/benchmarks/classifiers")
STUDIES = 800
# The demo's 10 epochs of 80 steps, made for 60 studies, end before the loss does.
EPOCHS, STEPS_PER_EPOCH = 16, 150
SEEDS = (0, 1, 2)
FOLD = 0
NETWORKS = ("basic_cnn", "triplanar_cnn")
STARTS = (NONE, GENERAL)
LEAST_AUC_VERTEBRA, LEAST_AUC_OVERALL, MOST_LOG_LOSS = 0.97, 0.94, 0.25
_COLUMNS = (
    "auc_vertebra",
    "auc_vertebra_low",
    "auc_vertebra_high",
    "auc_overall",
    "auc_overall_low",
    "auc_overall_high",
    "competition_log_loss",
    "sensitivity",
    "specificity",
)


def run() -> Result:
    """Train each network from each start with each seed; score the locked test set."""
    phantoms = PhantomConfig(studies=STUDIES, version=1)
    stores, _ = prepare(FOLDER, phantoms)
    manifest = write_manifest(stores, CROP_PROFILES["demo"].to_note())
    trainings = {
        f"{name} from {start}": {
            str(seed): _train(stores, name, start, seed, manifest) for seed in SEEDS
        }
        for name in NETWORKS
        for start in STARTS
    }
    best = min(trainings.values(), key=_mean_loss)
    held_out = manifest.usable[manifest.usable["is_test"]]
    return Result(
        question="AUC and competition log loss of the networks for patches on unseen "
        "phantoms, from nothing and from the general weights",
        target=f"the best, each seed: AUC per vertebra at least {LEAST_AUC_VERTEBRA}, "
        f"overall at least {LEAST_AUC_OVERALL}, log loss at most {MOST_LOG_LOSS}",
        met=all(map(_is_good, best.values())),
        data=f"{STUDIES} demo phantoms of version {phantoms.version}, masks predicted "
        "by the general model",
        measured={
            "trainings": trainings,
            "test_studies": int(held_out["study_uid"].nunique()),
            "test_fractured_vertebrae": int((held_out["label"] == 1).sum()),
        },
    )


def _train(
    stores: Stores, name: str, start: str, seed: int, manifest: Manifest
) -> dict[str, Any]:
    from_nothing = start == NONE
    settings = settings_of(
        "demo",
        seed=seed,
        epochs=EPOCHS if from_nothing else 0,
        steps_per_epoch=STEPS_PER_EPOCH if from_nothing else 0,
        initial=start,
    )
    fit = plan_classifier(name, FOLD, settings, manifest)
    results = {name: [fit_classifier(stores, fit, _tell(f"{name} {start} {seed}"))]}
    row = models_table(results).iloc[0]
    prior = reference_table(results).set_index("reference")
    return {
        **{column: round(float(row[column]), 3) for column in _COLUMNS},
        "prevalence_log_loss": round(
            float(prior["competition_log_loss"][PREVALENCE]), 3
        ),
        "train_s": float(row["train_s"]),
    }


def _tell(training: str) -> OnEpoch:
    def tell(row: Mapping[str, float]) -> None:
        scores = f"loss {row['loss']:.3f}, validation AUC {row['val_auc']:.3f}"
        print(f"{training}, epoch {row['epoch']:.0f}: {scores}", file=sys.stderr)

    return tell


def _mean_loss(seeds: Mapping[str, dict[str, Any]]) -> float:
    return float(sum(scores["competition_log_loss"] for scores in seeds.values()))


def prepare(folder: Path, phantoms: PhantomConfig) -> tuple[Stores, list[PhantomStudy]]:
    """Write phantoms, convert them, predict their masks and cut their crops."""
    source = folder / "source"
    stores = Stores(Location(folder / "store"))
    with open_executor(2) as executor:
        studies = write_phantom_source(source, phantoms, executor=executor)
        tasks = study_tasks(Source(source).studies(), stores)
        assert not [o for o in convert_studies(tasks, executor) if o.message]
    sources = Sources([Source(source)])
    write_studies_table(stores, sources)
    model = read_bundle(builtin_location())
    card = model.card.model_copy(update={"fold": FOLD, "inputs": "general model"})
    write_bundle(ModelStore(stores.root).of_fold(FOLD), replace(model, card=card))
    uids = stores.metadata.study_uids()
    for make in (
        MaskMaker(stores).make,
        CropMaker.of_sources(stores, CROP_PROFILES["demo"], sources).make,
    ):
        assert not [o for o in make_all(make, uids) if o.message]
    return stores, studies


def _is_good(scores: dict[str, Any]) -> bool:
    return bool(
        scores["auc_vertebra"] >= LEAST_AUC_VERTEBRA
        and scores["auc_overall"] >= LEAST_AUC_OVERALL
        and scores["competition_log_loss"] <= MOST_LOG_LOSS
    )
