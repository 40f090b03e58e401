"""How well does the basic CNN tell fractures of phantoms, trained three times?

Phantoms of the default difficulty; crops from masks that the general model predicts.
The model never sees the locked test set. Studies, masks and crops stay in ``data``, so
that measuring again trains only.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Result
from csfd_core.classification.config import NONE, settings_of
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.manifest import write_manifest
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

FOLDER = Path("data/benchmarks/basic_cnn")
STUDIES = 800
# The demo's 10 epochs of 80 steps, made for 60 studies, end before the loss does.
EPOCHS, STEPS_PER_EPOCH = 16, 150
SEEDS = (0, 1, 2)
FOLD = 0
LEAST_AUC_VERTEBRA, LEAST_AUC_OVERALL = 0.90, 0.85
_NAME = "basic_cnn"
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
    """Train with each seed; score each on the locked test set."""
    phantoms = PhantomConfig(studies=STUDIES)
    stores, _ = prepare(FOLDER, phantoms)
    crop = CROP_PROFILES["demo"].to_note()
    manifest = write_manifest(stores, crop)
    seeds: dict[str, dict[str, Any]] = {}
    counts: dict[str, Any] = {}
    for seed in SEEDS:
        settings = settings_of(
            "demo",
            seed=seed,
            epochs=EPOCHS,
            steps_per_epoch=STEPS_PER_EPOCH,
            initial=NONE,
        )
        fit = plan_classifier(_NAME, FOLD, settings, manifest)
        results = {_NAME: [fit_classifier(stores, fit, _tell(seed))]}
        row = models_table(results).iloc[0]
        prior = reference_table(results).set_index("reference")
        seeds[str(seed)] = {
            **{name: round(float(row[name]), 3) for name in _COLUMNS},
            "prevalence_log_loss": round(
                float(prior.loc[PREVALENCE, "competition_log_loss"]), 3
            ),
            "train_s": float(row["train_s"]),
        }
        counts = {
            "training_vertebrae": len(fit.training),
            "training_fractures": int(fit.training["label"].sum()),
            "test_studies": int(row["test_studies"]),
            "test_fractured_vertebrae": int(row["test_fractures"]),
        }
    difficulty = {
        name: value
        for name, value in asdict(phantoms).items()
        if name.startswith("fracture_")
    }
    return Result(
        question="AUC and competition log loss of the basic CNN on unseen phantoms",
        target=f"each seed: AUC per vertebra at least {LEAST_AUC_VERTEBRA}, overall at "
        f"least {LEAST_AUC_OVERALL}, log loss below that of the prevalences",
        met=all(map(_is_good, seeds.values())),
        data=f"{STUDIES} demo phantoms, masks predicted by the general model",
        measured={"seeds": seeds, **counts, **difficulty},
    )


def _tell(seed: int) -> OnEpoch:
    def tell(row: Mapping[str, float]) -> None:
        scores = f"loss {row['loss']:.3f}, validation AUC {row['val_auc']:.3f}"
        print(f"seed {seed}, epoch {row['epoch']:.0f}: {scores}", file=sys.stderr)

    return tell


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
        and scores["competition_log_loss"] < scores["prevalence_log_loss"]
    )
