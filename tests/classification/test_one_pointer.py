"""Files of two trainings never mix: killed, at once, or read while they are written."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cards import classifier_card, segmentation_card
from support.kills import CONTEXT

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.errors import SourceError
from csfd_core.learning import training_files
from csfd_core.pretraining.classifier import bring_along
from csfd_core.registry.frozen import damages, freeze
from csfd_core.segmentation.bundle import ModelBundle
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

FOLD = "models/classification/basic_cnn/fold_0"
OLD_NAMES = {"card.json", "weights.npz", "predictions.parquet"}


def train(root: Location, number: int) -> ClassifierCard:
    """Keep a training whose every file says its number."""
    row = {
        "study_uid": "1.2", "patient": "1.2", "level": "C1", "label": 0,
        "group": "test", "logit": float(number), "probability": 0.5,
    }  # fmt: skip
    card = classifier_card(model_id=f"m{number}", inputs=str(number))
    return ClassifierStore(root).write(card, [np.full(3, float(number))], [row])


def read(root: Location, card: ClassifierCard | None = None) -> set[float]:
    """Numbers that a reader finds; more than one is a mix."""
    store = ClassifierStore(root)
    card = card or store.require_card("basic_cnn", 0)
    logits = store.result("basic_cnn", 0, card).predictions["logit"]
    (weights,) = store.read_weights("basic_cnn", 0, card)
    return {float(card.model_id[1:]), *logits.tolist(), *weights.tolist()}


def segment(root: Location, number: int) -> None:
    card = segmentation_card(model_id=f"m{number}")
    weights = [np.full(3, float(number))]
    ModelStore(root).write(0, ModelBundle(card=card, weights=weights))


def read_segmentation(root: Location) -> set[float]:
    bundle = ModelStore(root).read(0)
    return {float(bundle.name[1:]), *bundle.weights[0].tolist()}


def names(root: Location) -> set[str]:
    return {entry.name for entry in root.entries(FOLD)}


def killed_before_change(number: int, work: Callable[[], object]) -> int | None:
    """Do the work in another process, which dies before its n-th change of a store."""

    def run() -> None:
        done = [0]

        def counted(change: Any) -> Any:
            def call(*arguments: Any) -> Any:
                if done[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                done[0] += 1
                return change(*arguments)

            return call

        for name in ("write", "remove"):
            setattr(Location, name, counted(getattr(Location, name)))
        work()

    process = CONTEXT.Process(target=run)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize(
    ("keep", "look"), [(train, read), (segment, read_segmentation)]
)
def test_training_that_is_killed_between_its_files_leaves_one_that_is_whole(
    keep: Callable[[Location, int], object],
    look: Callable[[Location], set[float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        training_files, "_GRACE_S", 0.0
    )  # each training removes older ones
    seen, moment, code = [], 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        root = Location(tmp_path / str(moment))
        for number in (1, 2, 3):
            keep(root, number)
        code = killed_before_change(moment, partial(keep, root, 4)) or 0
        (found,) = look(root)
        seen.append(found)
        keep(root, 5)
        assert look(root) == {5.0}
        moment += 1
    assert code == 0
    assert set(seen) == {3.0, 4.0}
    assert seen == sorted(seen)  # from one moment on it is the new one
    assert seen.count(4.0) > 1  # it was also killed while it removed older files


def test_what_was_opened_stays_whole_while_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_files, "_GRACE_S", 0.0)
    root = Location(tmp_path)
    first = train(root, 1)
    train(root, 2)
    assert read(root, first) == {1.0}
    assert read(root) == {2.0}


def test_files_that_are_named_by_no_card_go_once_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Location(tmp_path)
    first, second = train(root, 1), train(root, 2)
    train(root, 3)
    assert read(root, first) == {1.0}  # it may be that of another who writes now
    monkeypatch.setattr(training_files, "_GRACE_S", 0.0)
    root.write(f"{FOLD}/notes.txt", b"of a person")
    train(root, 4)
    assert len(names(root)) == 6  # the card, two files of two trainings, the notes
    for card in (first, second):
        with pytest.raises(SourceError, match="No such file"):
            read(root, card)


def test_store_of_an_older_csfd_is_read_and_its_files_go_with_the_next_but_one(
    tmp_path: Path,
) -> None:
    root = Location(tmp_path)
    card = train(root, 1)
    for kind in ("weights.npz", "predictions.parquet"):
        path = f"{FOLD}/{card.file_name(kind)}"
        root.write(f"{FOLD}/{kind}", root.read(path))
        root.remove(path)
    old = json.loads(card.to_json()) | {"schema_version": 4}
    del old["files_mark"]
    root.write(f"{FOLD}/card.json", json.dumps(old).encode())
    assert names(root) == OLD_NAMES
    assert read(root) == {1.0}
    frozen = freeze(Stores(root), "basic_cnn")
    assert {Path(path).name for path in frozen.files} == OLD_NAMES
    train(root, 2)
    assert names(root) > OLD_NAMES
    assert read(root) == {2.0}
    train(root, 3)
    assert names(root) & OLD_NAMES == {"card.json"}
    assert damages(Stores(root), frozen.digest) == []


def test_a_network_that_comes_with_csfd_has_the_names_that_it_had(
    tmp_path: Path,
) -> None:
    root = Location(tmp_path / "work")
    train(root, 1)
    general = ClassifierStore(Location(tmp_path / "out"), "")
    bring_along(Stores(root), "basic_cnn", general)
    files = [e.name for e in general.of_fold("basic_cnn", 0).entries()]
    assert set(files) == OLD_NAMES
    assert general.read_weights("basic_cnn", 0)[0].tolist() == [1.0] * 3
    assert general.result("basic_cnn", 0).predictions["logit"].tolist() == [1.0]


def train_often(root: Location, numbers: range) -> None:
    for number in numbers:
        train(root, number)


def test_two_who_train_the_same_fold_at_once_and_a_reader_see_no_mix(
    tmp_path: Path,
) -> None:
    root = Location(tmp_path)
    train(root, 0)
    writers = [
        CONTEXT.Process(target=train_often, args=(root, range(start, start + 25)))
        for start in (1000, 2000)
    ]
    for writer in writers:
        writer.start()
    found, until = set(), time.monotonic() + 60
    while any(writer.is_alive() for writer in writers) and time.monotonic() < until:
        (number,) = read(root)
        found.add(number // 1000)
        (number,) = {
            float(model_id[1:])
            for model_id in freeze(Stores(root), "basic_cnn").model_ids
        }
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert found >= {1, 2}
    assert read(root) <= {1024.0, 2024.0}
    digest = root.folders("models/champion")[0]
    assert damages(Stores(root), digest) == []


@pytest.mark.parametrize("mark", ["../../x", "1/2", "20260101T000000-0123456", "x"])
def test_card_cannot_name_files_elsewhere(mark: str) -> None:
    with pytest.raises(ValueError, match="files_mark"):
        classifier_card(files_mark=mark)
