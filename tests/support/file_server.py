"""The server of files on a free port, and a client that tidies no path."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse

import uvicorn

from csfd_core.store.locations import Location
from csfd_core.web.addresses import HOST
from csfd_core.web.files import build_app


@contextmanager
def served(store: Location) -> Iterator[int]:
    """Serve a store on a free port."""
    server = uvicorn.Server(
        uvicorn.Config(build_app(store), host=HOST, port=0, log_level="error")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def ask(
    port: int, path: str, method: str = "GET", host: str | None = None
) -> tuple[HTTPResponse, bytes]:
    """Ask for a path as it stands; no client tidies it up on the way."""
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    headers = {"Host": host} if host else {}
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()
