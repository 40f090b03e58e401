"""The process that keeps the models in memory: what it answers and declines."""

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csfd_core.errors import StoreError
from csfd_core.inference import warm
from csfd_core.inference.evidence import LevelHeat
from csfd_core.inference.stored_heat import heat_path, read_heats, write_heats
from csfd_core.inference.warm import MASKS, PREDICTIONS, ask_predictor, serve
from csfd_core.ingest.outcomes import Outcome, StudyOutcome
from csfd_core.lineage.forward import files_of
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

UID = "1.2.826.0.1.3680043.11"
MADE = StudyOutcome(
    study_uid=UID,
    action=Outcome.WRITTEN,
    content_hash="content",
    model_id="model",
    levels=("C1", "C2"),
    flags=("C7 is missing.",),
    seconds=1.5,
)


class Known:
    """In place of the predictor: answers at once, or as it is told."""

    def __init__(self, answer: Callable[[], StudyOutcome | None]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def make(self, step: str, study_uid: str) -> StudyOutcome | None:
        self.asked.append((step, study_uid))
        return self.answer()


@contextmanager
def serving(
    folder: Path, stores: Stores, predictor: Any, patch: pytest.MonkeyPatch
) -> Iterator[Path]:
    path = folder / "predictor.sock"
    patch.setenv("CSFD_PREDICTOR_SOCKET", str(path))
    threading.Thread(target=serve, args=(predictor, stores, path), daemon=True).start()
    end = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    yield path


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(Location(tmp_path / "store"))


def say(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def test_outcome_comes_back_as_it_was_made(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Known(lambda: MADE)
    with serving(tmp_path, stores, known, monkeypatch) as path:
        assert ask_predictor(stores, MASKS, UID) == MADE
        assert ask_predictor(stores, PREDICTIONS, UID) == MADE
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert known.asked == [(MASKS, UID), (PREDICTIONS, UID)]


def test_another_store_or_csfd_or_step_is_declined_and_asks_no_model(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Known(lambda: MADE)
    good = {
        "step": MASKS,
        "study_uid": UID,
        "store": stores.root.url,
        "version": version("csfd"),
    }
    with serving(tmp_path, stores, known, monkeypatch) as path:
        other = Stores(Location(tmp_path / "other"))
        assert ask_predictor(other, MASKS, UID) is None
        for change in (
            {"version": "0"},
            {"step": "remove"},
            {"study_uid": "../x"},
            {"study_uid": 7},
        ):
            request = json.dumps(good | change).encode() + b"\n"
            assert json.loads(say(path, request)) == {}
        for junk in (b"[]\n", b"\xff\n", b"{}\n"):
            assert json.loads(say(path, junk)) == {}
        assert say(path, b"no end of line") == b""
        assert say(path, b"x" * 2**17) == b""
        assert known.asked == []
        assert json.loads(say(path, json.dumps(good).encode() + b"\n"))


def test_where_nobody_answers_the_models_are_loaded_by_who_asks(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CSFD_PREDICTOR_SOCKET", raising=False)
    assert ask_predictor(stores, MASKS, UID) is None
    monkeypatch.setenv("CSFD_PREDICTOR_SOCKET", str(tmp_path / "nobody.sock"))
    assert ask_predictor(stores, MASKS, UID) is None
    with serving(tmp_path, stores, Known(lambda: None), monkeypatch):
        assert ask_predictor(stores, MASKS, UID) is None


def test_one_that_dies_or_hangs_in_the_middle_costs_only_time(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_ANSWER_S", 0.3)
    place = tmp_path / "dead.sock"
    monkeypatch.setenv("CSFD_PREDICTOR_SOCKET", str(place))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()

        def die() -> None:
            connection, _ = server.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=die)
        thread.start()
        assert ask_predictor(stores, MASKS, UID) is None
        thread.join()
        begun = time.monotonic()
        assert ask_predictor(stores, MASKS, UID) is None  # it never accepts
        assert time.monotonic() - begun < 5


def test_one_who_asks_slowly_holds_up_nobody_for_long(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_REQUEST_S", 0.3)
    with (
        serving(tmp_path, stores, Known(lambda: MADE), monkeypatch) as path,
        socket.socket(socket.AF_UNIX) as slow,
    ):
        slow.connect(str(path))
        slow.sendall(b"{")
        time.sleep(0.1)  # until it is listened to
        monkeypatch.setattr(warm, "_REQUEST_S", 5.0)
        assert ask_predictor(stores, MASKS, UID) == MADE


def test_heats_come_back_as_they_were_and_go_with_the_study(stores: Stores) -> None:
    rng = np.random.default_rng(0)
    heats = [
        LevelHeat(
            level=level,
            heat=rng.random((4, 8, 8), dtype=np.float32),
            masks=rng.integers(0, 2, (4, 8, 8), dtype=np.uint8) * np.uint8(255),
            affine_lps=rng.random((4, 4)),
        )
        for level in ("C2", "C7")
    ]
    assert read_heats(stores, UID) == []
    write_heats(stores, UID, heats)
    found = read_heats(stores, UID)
    assert [one.level for one in found] == ["C2", "C7"]
    for kept, given in zip(found, heats, strict=True):
        np.testing.assert_allclose(kept.heat, given.heat, atol=0.5 / 255 + 1e-6)
        np.testing.assert_array_equal(kept.masks, given.masks)
        np.testing.assert_array_equal(kept.affine_lps, given.affine_lps)
    assert heat_path(UID) in files_of(stores, UID)
    write_heats(stores, UID, [replace(heats[0], heat=np.ones((4, 8, 8), np.float32))])
    (only,) = read_heats(stores, UID)
    assert only.heat.max() == 1


def test_damaged_heats_are_told_of(stores: Stores) -> None:
    stores.root.write(heat_path(UID), b"PK\x03\x04 cut")
    with pytest.raises(StoreError, match="heats of study"):
        read_heats(stores, UID)


def test_socket_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CSFD_PREDICTOR_SOCKET", raising=False)
    assert warm.main() == 1
    assert "CSFD_PREDICTOR_SOCKET" in capsys.readouterr().err
    assert "CSFD_PREDICTOR_SOCKET" not in os.environ
