"""How many newly labelled studies count for a retraining."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cards import classifier_card

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.config import CLASSIFIER_PROFILES
from csfd_core.classification.manifest import (
    BARELY_VISIBLE,
    NOT_FOUND,
    NOT_LABELLED,
)
from csfd_core.classification.trained_labels import label_words
from csfd_core.evaluation.folds import is_test
from csfd_core.registry.new_labels import Arrivals, new_studies, redrawn_since
from csfd_core.store.labels import Labels
from csfd_core.store.locations import Location
from csfd_core.store.notes import CropNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES

UIDS = [uid for uid in (f"1.2.{i}" for i in range(1, 200)) if not is_test(uid)]
LOCKED = next(uid for uid in (f"1.2.{i}" for i in range(1, 200)) if is_test(uid))


def table_of(*uids: str, label: int | None = 0, status: str = "good") -> pd.DataFrame:
    rows = [
        {"study_uid": uid, "status": status, "patient_key": None,
         **dict.fromkeys(LEVEL_NAMES, label)}
        for uid in uids
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(LEVEL_NAMES, "Int8"))


def manifest_of(uid: str, left_out: str | None, label: int | None = 0) -> pd.DataFrame:
    rows = [{"study_uid": uid, "label": label, "left_out": left_out}] * 7
    return pd.DataFrame(rows).astype({"label": "Int8"})


def card(
    *training: str, validation: tuple[str, ...] = (), **facts: Any
) -> ClassifierCard:
    return classifier_card(
        model_id=f"m{len(training)}",
        config=CLASSIFIER_PROFILES["full"],
        training_studies=dict.fromkeys(training, "a"),
        validation_studies=dict.fromkeys(validation, "b"),
        **facts,
    )


def labels_of(**words: str) -> pd.DataFrame:
    """Labels of studies from words such as 0010?00."""
    rows = [[None if c == "?" else int(c) for c in word] for word in words.values()]
    frame = pd.DataFrame(rows, index=list(words), columns=list(LEVEL_NAMES))
    return frame.astype("Int8")


def count(table: pd.DataFrame | None, **given: Any) -> Arrivals:
    facts = {"manifest": None, "offered": set(), "labels": labels_of(), "cards": []}
    return new_studies(table=table, **{**facts, **given})


def test_studies_that_no_candidate_has_seen_count() -> None:
    own = card(UIDS[0], validation=(UIDS[1],))
    found = count(table_of(*UIDS[:4]), cards=[own])
    assert found.in_store == tuple(sorted(UIDS[2:4]))
    assert (found.count, found.trained_on, found.profile) == (2, 2, "full")
    assert found.model_id == "m1"


def test_candidate_that_has_seen_most_is_the_newest() -> None:
    cards = [card(*UIDS[:3]), card(*UIDS[:5]), card(*UIDS[:2])]
    found = count(table_of(*UIDS[:6]), cards=cards)
    assert (found.model_id, found.count) == ("m5", 1)


@pytest.mark.parametrize(
    "table",
    [
        table_of(LOCKED),
        table_of(UIDS[0], status="quarantined"),
        table_of(UIDS[0], label=None),
    ],
    ids=["locked test set", "quarantined", "unlabelled"],
)
def test_studies_that_train_nothing_do_not_count(table: pd.DataFrame) -> None:
    assert count(table, cards=[card("9.9")]).count == 0


def test_study_that_the_manifest_leaves_out_does_not_count_every_night() -> None:
    table = table_of(UIDS[0])
    left_out = manifest_of(UIDS[0], "not found by the segmentation")
    assert count(table, manifest=left_out).count == 0
    assert count(table, manifest=manifest_of(UIDS[0], None)).count == 1


def test_study_that_was_labelled_after_the_manifest_counts() -> None:
    unlabelled = manifest_of(UIDS[0], "no label", label=None)
    assert count(table_of(UIDS[0]), manifest=unlabelled).count == 1
    before = table_of(UIDS[0], label=None)  # the table of studies is older, too
    labels = labels_of(**{UIDS[0]: "0000000"})
    assert count(before, manifest=unlabelled, labels=labels).count == 1


def test_labelled_studies_that_wait_for_ingestion_count() -> None:
    found = count(table_of(UIDS[0]), offered={UIDS[0], UIDS[1]}, cards=[card(UIDS[0])])
    assert (found.in_store, found.waiting) == ((), (UIDS[1],))
    assert count(None, offered={UIDS[1]}).count == 1


def test_without_a_training_everything_is_new() -> None:
    found = count(table_of(*UIDS[:3]))
    assert (found.model_id, found.trained_on, found.count) == (None, 0, 3)


words = st.text("01?-", min_size=7, max_size=7)


@given(word=words, labels=st.text("01?", min_size=7, max_size=7))
def test_study_is_corrected_where_a_level_that_was_used_has_changed(
    word: str, labels: str
) -> None:
    own = card(UIDS[0], label_digests={UIDS[0]: word})
    found = count(
        table_of(UIDS[0]),
        labels=labels_of(**{UIDS[0]: labels}),
        cards=[own],
    )
    pairs = zip(word, labels, strict=True)
    changed = any(then != "-" and then != now for then, now in pairs)
    assert found.corrected == ((UIDS[0],) if changed else ())
    assert found.count == int(changed)


@pytest.mark.parametrize(
    "table",
    [table_of(LOCKED), table_of(UIDS[0], status="quarantined"), None],
    ids=["locked test set", "quarantined", "not in the table"],
)
def test_corrections_that_train_nothing_do_not_count(
    table: pd.DataFrame | None,
) -> None:
    both = dict.fromkeys((LOCKED, UIDS[0]), "0000000")
    labels = labels_of(**dict.fromkeys(both, "0000001"))
    own = card(*both, label_digests=both)
    assert count(table, labels=labels, cards=[own]).corrected == ()


def test_labels_that_are_gone_altogether_are_no_correction() -> None:
    own = card(UIDS[0], label_digests={UIDS[0]: "0000000"})
    assert count(table_of(UIDS[0]), cards=[own]).count == 0


def test_card_that_says_nothing_of_labels_counts_none_as_corrected() -> None:
    labels = labels_of(**{UIDS[0]: "1111111"})
    assert count(table_of(UIDS[0]), labels=labels, cards=[card(UIDS[0])]).count == 0


def test_newest_card_counts_also_where_an_older_one_has_seen_more() -> None:
    old = card(*UIDS[:3], label_digests={UIDS[0]: "0000000"})
    new = card(*UIDS[:2], label_digests={UIDS[0]: "1000000"})
    labels = labels_of(**{UIDS[0]: "1000000"})
    dated = [
        old.model_copy(update={"trained_at": "2026-01-05T02:00:00+00:00"}),
        new.model_copy(update={"trained_at": "2026-01-12T02:00:00+00:00"}),
    ]
    for cards in (dated, dated[::-1], [old, dated[1]]):
        found = count(table_of(*UIDS[:2]), labels=labels, cards=cards)
        assert (found.model_id, found.count) == ("m2", 0)


TRAINED_AT = "2026-01-05T02:00:00+00:00"


@pytest.mark.parametrize(
    ("signed_at", "crops", "is_redrawn"),
    [
        ("2026-01-06T09:00:00+00:00", "others", True),
        ("2026-01-06T09:00:00+00:00", "a", False),  # said the same again
        ("2026-01-04T09:00:00+00:00", "others", False),  # as by another segmentation
        ("2026-01-06T09:00:00+00:00", None, False),
    ],
)
def test_study_whose_boxes_alone_were_drawn_anew_is_corrected(
    tmp_path: Path, signed_at: str, crops: str | None, is_redrawn: bool
) -> None:
    stores, uid = Stores(Location(tmp_path)), UIDS[0]
    if crops is not None:
        note = CropNote(
            study_uid=uid, inputs=crops, crop={}, model_id="m", standing="unseen",
            levels=(), spacing_zyx_mm=(1.0, 1.0, 1.0),
        )  # fmt: skip
        stores.crops.write(uid, [], note)
    moment = datetime.fromisoformat(signed_at)
    dated = {uid: Labels({}, moment.date(), "ann", moment)}
    own = card(uid, label_digests={uid: "0000000"}, trained_at=TRAINED_AT)
    redrawn = redrawn_since(stores, dated, own)
    assert redrawn == ({uid} if is_redrawn else set())
    labels = labels_of(**{uid: "0000000"})
    found = count(table_of(uid), labels=labels, cards=[own], redrawn=redrawn)
    assert found.corrected == ((uid,) if is_redrawn else ())
    undated = card(uid, label_digests={uid: "0000000"})
    assert redrawn_since(stores, dated, undated) == frozenset()
    assert redrawn_since(stores, dated, None) == frozenset()


def test_word_of_a_study_says_what_was_used() -> None:
    rows = [
        ("C1", 1, None), ("C2", 0, None), ("C3", None, NOT_LABELLED),
        ("C4", 1, NOT_FOUND), ("C5", None, NOT_FOUND), ("C6", 0, BARELY_VISIBLE),
        ("C7", 0, None),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["level", "label", "left_out"])
    table = table.assign(study_uid="1.2").astype({"label": "Int8"})
    assert label_words(table) == {"1.2": "10?---0"}
