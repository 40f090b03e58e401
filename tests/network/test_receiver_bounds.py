"""How much of the receiver anybody may take, and how it ends."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from support.receiving import (
    associate,
    edited,
    listening,
    send,
    status_of,
    told,
)


def test_more_associations_than_allowed_are_told_to_come_later(place, files):
    with listening(place, max_associations=3) as node:
        held = [associate(node.port, ExplicitVRLittleEndian) for _ in range(3)]
        assert all(one.is_established for one in held)
        more = associate(node.port)
        assert more.is_rejected
        assert more.acceptor.primitive.result == 2  # for now
        assert [status_of(one, files[0]) for one in held] == [0, 0, 0]
        for one in held:
            one.release()
        told(node, 4)
        assert send(node.port, files[:1]) == [0]


def test_a_flood_of_silent_connections_is_bounded_and_passes(place, files, monkeypatch):
    monkeypatch.setattr("csfd_core.network.listening._BEGINNING_S", 1.0)
    with listening(place, max_associations=4) as node, flood_of(80, node.port) as more:
        assert more < 40
        association = patiently(node.port)
        assert status_of(association, files[0]) == 0
        association.release()


def test_who_stops_in_a_flood_of_silent_connections_stops(place, files):
    with listening(place) as node, flood_of(8, node.port):
        time.sleep(0.2)  # for the threads to listen
        begun = time.monotonic()
        node.receiver.stop()
        assert time.monotonic() - begun < 8


@contextmanager
def flood_of(number: int, port: int) -> Iterator[int]:
    """Connect and say nothing; yield how many threads have come of it."""
    before = threading.active_count()
    with ExitStack() as clients:
        for _ in range(number):
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            clients.enter_context(client)
        yield threading.active_count() - before


def patiently(port: int) -> Association:
    """Ask for an association until there is room; who was cut off keeps no place."""
    association = associate(port, ExplicitVRLittleEndian)
    until = time.monotonic() + 20
    while not association.is_established and time.monotonic() < until:
        time.sleep(0.2)
        association = associate(port, ExplicitVRLittleEndian)
    return association


@pytest.mark.parametrize("length", [2**31, 2**20 + 1])
def test_who_promises_a_huge_message_is_closed(place, node, length):
    with socket.create_connection(("127.0.0.1", node.port), timeout=10) as client:
        client.sendall(struct.pack(">BBL", 1, 0, length))
        until = time.monotonic() + 5
        while client.recv(4096):  # an abort may be said
            assert time.monotonic() < until


def test_who_sends_without_an_end_is_closed(place, files, monkeypatch):
    monkeypatch.setattr("csfd_core.network.listening._MARGIN_BYTES", -(255 * 2**20))
    with listening(place) as node:  # one megabyte is left
        assert send(node.port, files[:3]) == [0, 0, 0]  # each counts for itself

        def endless(dataset: Dataset) -> None:
            dataset.add_new(0x00091001, "OB", bytes(3 * 2**20))

        association = associate(node.port, ExplicitVRLittleEndian)
        assert status_of(association, edited(files[3], endless)) == -1
        assert len(place.waiting()) == 3


def test_who_sends_when_everything_stops_may_finish(place, files):
    with listening(place) as node:
        association = associate(node.port, ExplicitVRLittleEndian)
        found: list[int] = []

        def go_on() -> None:
            found.extend(status_of(association, content) for content in files)

        sender = threading.Thread(target=go_on)
        sender.start()
        while not place.waiting():
            time.sleep(0.01)
        begun = time.monotonic()
        node.receiver.stop()
        assert time.monotonic() - begun < 8
        sender.join()
    assert found == [0] * len(files)
    assert len(place.waiting()) == len(files)
    assert told(node)[0]["kept"] == len(files)


def test_nobody_new_is_let_in_when_everything_stops(place, files):
    with listening(place) as node:
        node.receiver.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), timeout=5)


def test_a_random_stream_does_no_harm(place, node, files):
    rng = np.random.default_rng(seed=0)
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", node.port), timeout=5) as client:
            content = rng.bytes(int(rng.integers(1, 3000)))
            client.sendall(bytes([int(rng.integers(1, 8)), 0]) + content)
    association = patiently(node.port)
    assert status_of(association, files[0]) == 0
    association.release()
