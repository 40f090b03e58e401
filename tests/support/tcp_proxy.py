"""A TCP proxy between client and server: counts bytes, cuts or stalls connections."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

_BLOCK = 16 * 1024


@dataclass(slots=True)
class Cuts:
    """Which connections to close, and when.

    The next ``count`` connections that pass ``after_bytes`` bytes in ``direction`` are
    closed at once, so that the client sees a broken answer ("down") or loses the
    connection while it still sends ("up").
    """

    direction: Literal["up", "down"] = "down"
    after_bytes: int = 0
    count: int = 0


@dataclass(slots=True)
class Proxy:
    """A running proxy; ``cuts`` may be replaced at any time."""

    url: str
    cuts: Cuts = field(default_factory=Cuts)
    made_cuts: int = 0
    bytes_down: int = 0  # from the server to the client
    stall_after_bytes: int | None = None  # on the way up: wait for ``lose``, then cut
    stalled: threading.Event = field(default_factory=threading.Event)
    lose: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, direction: str, size: int, passed: int) -> bool:
        """Count a block; say whether the connection is to be cut before it is sent."""
        with self._lock:
            if direction == "down":
                self.bytes_down += size
            cuts = self.cuts
            if cuts.count and direction == cuts.direction and passed > cuts.after_bytes:
                cuts.count -= 1
                self.made_cuts += 1
                return True
        return False

    def stall(self, direction: str, passed: int) -> bool:
        """Wait in the middle of an upload, if wanted; say whether it is lost then."""
        limit = self.stall_after_bytes
        if limit is None or direction == "down" or passed <= limit:
            return False
        self.stalled.set()
        return self.lose.wait()


@contextlib.contextmanager
def tcp_proxy(target_url: str) -> Iterator[Proxy]:
    """Run a proxy in front of a server until the block is left."""
    parts = urlsplit(target_url)
    target = (str(parts.hostname), int(parts.port or 80))
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    proxy = Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}")
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed: the block was left
                return
            server = socket.create_connection(target)
            open_sockets.extend((client, server))
            for source, sink, direction in (
                (client, server, "up"),
                (server, client, "down"),
            ):
                arguments = (proxy, source, sink, direction)
                thread = threading.Thread(target=_pump, args=arguments, daemon=True)
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield proxy
    finally:
        proxy.lose.set()
        # Closing alone does not wake a thread that waits in accept() or recv().
        for opened in (listener, *open_sockets):
            _shut(opened)
        for thread in (acceptor, *threads):
            thread.join(timeout=10)
        for opened in (listener, *open_sockets):
            opened.close()


def _pump(
    proxy: Proxy, source: socket.socket, sink: socket.socket, direction: str
) -> None:
    passed = 0
    with contextlib.suppress(OSError):  # one side is gone: so is the connection
        while block := source.recv(_BLOCK):
            passed += len(block)
            if proxy.count(direction, len(block), passed):
                break
            if proxy.stall(direction, passed):
                break
            sink.sendall(block)
    _shut(source)
    _shut(sink)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
