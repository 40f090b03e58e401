"""Work that is done in another process, and killed in the middle."""

import multiprocessing
import os
import time
from collections.abc import Callable

# A hundred of each were tried; CSFD_TEST_MOMENTS=100 does it again, in six minutes.
MOMENTS = int(os.environ.get("CSFD_TEST_MOMENTS", "20"))
CONTEXT = multiprocessing.get_context("fork")  # starts at once


def done_in(work: Callable[[], object]) -> float:
    """Do the work in another process; return how many seconds it took."""
    begun = time.monotonic()
    process = CONTEXT.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def was_killed(work: Callable[[], object], delay_s: float) -> bool:
    """Do the work in another process; kill it, and say whether it still worked."""
    process = CONTEXT.Process(target=work)
    process.start()
    # Its first moments are those of a new process, which has written nothing.
    time.sleep(delay_s)
    was_working = process.is_alive()
    process.kill()
    process.join()
    return was_working
