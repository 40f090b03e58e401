"""Dagster's code server, whose runs need not import what they are made of.

By itself it starts a new Python for each run, which imports Dagster and the definitions
for seconds, while somebody waits for their study. Here one process imports them, and
runs are forked from it: it has no threads, no connections and no TensorFlow. Dagster
1.13.27 has no setting for it; in a later version that makes its processes in another
way, runs start as they do by themselves.

Called as ``dagster api grpc`` is.
"""

import multiprocessing
from multiprocessing import forkserver
from typing import Any, Final

_PRELOAD: Final = "csfd_dagster.preload"


def fork_runs() -> None:
    """Let runs be forked from a process that has imported the definitions."""
    from dagster._grpc.server import DagsterApiServer

    forkserver.set_forkserver_preload([_PRELOAD])
    forkserver.ensure_running()
    begin = DagsterApiServer.__init__

    def begin_forking(self: Any, *given: Any, **named: Any) -> None:  # noqa: ANN401
        begin(self, *given, **named)
        self._mp_ctx = multiprocessing.get_context("forkserver")

    DagsterApiServer.__init__ = begin_forking  # type: ignore[method-assign]


def main() -> None:
    """Serve until interrupted."""
    from dagster._cli import main as dagster

    fork_runs()
    dagster()  # type: ignore[no-untyped-call]  # Dagster's own


if __name__ == "__main__":
    main()
