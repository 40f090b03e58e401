"""The process of the DICOM node: how it begins, ends, and what a kill does to it."""

import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from support.dicom_studies import STUDY_UID
from support.kills import MOMENTS
from support.ports import free_port
from support.receiving import (
    Place,
    all_bytes_below,
    answer_to,
    associate,
)
from support.uploading import study_files

from csfd_core.deid.identities import keyed_uid
from csfd_core.ingest.patients import read_secret
from csfd_core.network import node as node_module

_PATIENCE_S = 90


class Node:
    """``csfd receive`` in a process of its own."""

    def __init__(self, log: Path, port: int) -> None:
        self.port = port
        self.log = log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "csfd_core.network.node"],
                env={**os.environ, "CSFD_DICOM_PORT": str(port)},
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def node_process(folder: Path, port: int) -> Iterator[Node]:
    node = Node(folder / "node.log", port)
    try:
        node.wait()
        yield node
    finally:
        node.kill()


def send_until_it_breaks(port: int, files: list[bytes]) -> list[str]:
    """Send files; return the SOPInstanceUIDs of which success was told."""
    done: list[str] = []
    association = associate(port, ExplicitVRLittleEndian)
    for content in files:
        if not association.is_established:
            break
        try:
            answer = answer_to(association, content)
        except (AttributeError, OSError, RuntimeError):
            break
        if answer.get("Status") == 0:
            done.append(str(dcmread(io.BytesIO(content)).SOPInstanceUID))
    if association.is_established:
        association.release()
    association.dul.socket._shutdown_socket()
    return done


@pytest.mark.slow
def test_the_node_receives_accepts_and_ends_when_it_is_told_to(place, tmp_path):
    files = study_files(tmp_path)
    with node_process(tmp_path, free_port()) as node:
        assert len(send_until_it_breaks(node.port, files)) == len(files)
        until = time.monotonic() + 20
        while not place.rows():
            assert time.monotonic() < until, node.log.read_text()
            time.sleep(0.1)
        node.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert node.process.wait(20) == 0
        assert time.monotonic() - begun < 8
        said = node.log.read_text()
    assert "The DICOM node CSFD listens at 127.0.0.1" in said
    assert f'"kept": {len(files)}' in said
    assert said.endswith("The DICOM node has ended.\n")
    for planted in ("Sensitive", "patient-of", STUDY_UID):
        assert planted not in said
    assert [(row.version, row.slices) for row in place.rows()] == [(1, len(files))]


def test_a_node_that_may_not_start_says_why(place, tmp_path):
    for variables, told in (
        ({"CSFD_DICOM_HOST": "0.0.0.0"}, "CSFD_DICOM_CALLERS"),
        ({"CSFD_DICOM_CALLERS": "CT1@nowhere"}, "Received: CT1@nowhere"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "csfd_core.network.node"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_an_outbox_that_fails_stops_nothing(place, monkeypatch, capsys):
    ended, said = threading.Event(), []

    class Failing:
        def __init__(self, _services: object) -> None:
            pass

        def work_once(self) -> None:
            raise ValueError("PLANTEDNAME^HANS")

    monkeypatch.setattr("csfd_core.network.outbox.Outbox", Failing)
    monkeypatch.setattr(node_module, "_TICK_S", 0.01)
    monkeypatch.setattr(node_module, "_PAUSE_S", 0.01)

    def say(text: str) -> None:
        said.append(text)
        if len(said) > 2:
            ended.set()

    node_module._work_outbox(place.services, ended, say)
    assert said == ["The outbox goes on in 0 s: ValueError."] * 3


def test_neither_the_commands_nor_the_page_load_the_network():
    probe = (
        "import sys, csfd_core.cli.main, csfd_core.web.app, csfd_dagster.serving\n"
        "heavy = {'pynetdicom', 'tensorflow', 'highdicom'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_success_was_told_of_is_there_whenever_the_node_is_killed(place, tmp_path):
    files = study_files(tmp_path)
    secret = read_secret(place.services.settings.key_file)
    rng = random.Random(0)
    port = free_port()
    log = tmp_path / "node.log"
    told: set[str] = set()
    kills = 0
    sent = [[_of_study(content, number) for content in files] for number in range(4)]

    def send_all() -> list[list[str]]:
        with ThreadPoolExecutor(len(sent)) as senders:
            return list(senders.map(send_until_it_breaks, [port] * len(sent), sent))

    for _ in range(MOMENTS // 2):
        node = Node(log, port)
        node.wait()
        delay_s = rng.uniform(0.02, 2.5)  # some fall into the acceptance of a study
        timer = threading.Timer(delay_s, node.process.kill)
        timer.start()
        for done in send_all():
            told.update(done)
            kills += len(done) < len(files)
        timer.join()
        node.process.wait()
        assert _lost(place, told, secret) == set()
    with node_process(tmp_path, port):
        assert [len(done) for done in send_all()] == [len(files)] * len(sent)
        until = time.monotonic() + 60
        while place.waiting():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
    assert [row.slices for row in place.rows()] == [len(files)] * len(sent)
    assert len(place.in_inbox()) == len(sent) * len(files)
    for path in place.in_inbox():
        assert dcmread(path).pixel_array.shape == (64, 64)  # whole
    everything = all_bytes_below(place.home) + log.read_bytes()
    assert b"Sensitive" not in everything
    assert not list(place.home.rglob(".partial-*"))
    assert kills > 0


def _of_study(content: bytes, number: int) -> bytes:
    """Return a slice as one of another study: its UIDs end in another digit."""
    old, new = STUDY_UID.encode(), f"{STUDY_UID[:-1]}{number + 3}".encode()
    return content.replace(old, new)


def _lost(place: Place, told: set[str], secret: bytes) -> set[str]:
    found = {path.stem for path in (*place.waiting(), *place.in_inbox())}
    return {uid for uid in told if keyed_uid(uid, secret) not in found}
