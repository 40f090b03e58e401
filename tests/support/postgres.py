"""A PostgreSQL server for tests, in a folder of its own."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from deploy.demo.ports import free_ports
from deploy.demo.postgres import programs_for, server_user

_PATIENCE_S = 30.0


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server; give the URL of an empty database."""
    user = server_user()
    with tempfile.TemporaryDirectory(prefix="csfd-postgres-") as place:
        folder = Path(place)
        if user:
            shutil.chown(folder, user)
        programs = programs_for(user, folder)
        (port,) = free_ports(1)
        data = str(folder / "data")
        given: dict[str, object] = {"user": user, "cwd": folder}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "csfd", "-A", "trust", "-N"],
            check=True,
            **given,  # type: ignore[call-overload]
            **quiet,
        )
        process = subprocess.Popen(
            [
                programs / "postgres", "-D", data, "-p", str(port), "-k", place,
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
            ],
            **given,  # type: ignore[call-overload]
            **quiet,
        )  # fmt: skip
        try:
            place_of = f"csfd@127.0.0.1:{port}/postgres"
            _wait_for(f"postgresql://{place_of}")
            yield f"postgresql+psycopg://{place_of}"
        finally:
            process.send_signal(signal.SIGINT)  # without waiting for its clients
            process.wait(_PATIENCE_S)


def _wait_for(url: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.1)
        else:
            return
