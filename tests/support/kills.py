"""Work that is done in another process, and killed in the middle."""

import multiprocessing
import os
import time
from collections.abc import Callable

# A hundred of each were tried; CSFD_TEST_MOMENTS=100 does it again.
MOMENTS = int(os.environ.get("CSFD_TEST_MOMENTS", "10"))
CONTEXT = multiprocessing.get_context("fork")  # starts at once


def done_in(work: Callable[[], object]) -> float:
    """Do the work in another process; return how many seconds it took."""
    begun = time.monotonic()
    process = CONTEXT.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def killed_after(work: Callable[[], object], delay_s: float) -> float | None:
    """Do the work in another process, and kill it.

    Returns:
        How many seconds it took where it was done before; ``None``: it still worked.
    """
    begun = time.monotonic()
    process = CONTEXT.Process(target=work)
    process.start()
    # Its first moments are those of a new process, which has written nothing.
    process.join(delay_s)
    took_s = None if process.is_alive() else time.monotonic() - begun
    process.kill()
    process.join()
    return took_s
