"""Classifiers of known skill challenge the champion of a store, without networks."""

from typing import Any

import pandas as pd

from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.contest import Contest, hold_contest
from csfd_core.registry.decision import PromotionConfig
from csfd_core.registry.frozen import read_frozen
from csfd_core.runtime.tracking import RunIdentity, tracked_run
from csfd_core.store.stores import Stores
from support.contenders import make_labels, write_classifier

LABELS = make_labels(60)
QUICK = PromotionConfig(repeats=200)
IDENTITY = RunIdentity(asset="champion_model", code_version="1")


def kept_predictions(
    registry: ChampionRegistry, version: Version, rows: Any, studies: list[str]
) -> pd.DataFrame:
    results = read_frozen(registry.stores, version.digest).results(registry.stores)
    kept = results[0].predictions
    return kept[kept["study_uid"].isin(studies)]


def train(stores: Stores, skill: float, **facts: Any) -> None:
    write_classifier(stores, LABELS, skill, seed=int(skill * 10), **facts)


def challenge(registry: ChampionRegistry) -> Contest:
    with tracked_run(registry.tracking_uri, "classification", IDENTITY) as run:
        return hold_contest(registry, "basic_cnn", run, QUICK, by="a test")


def train_and_challenge(registry: ChampionRegistry, skill: float) -> Contest:
    train(registry.stores, skill)
    return challenge(registry)


def number_of(registry: ChampionRegistry, alias: str) -> int | None:
    found = registry.holder(alias)
    return None if found is None else found.number
