"""The process of the DICOM node: receives, accepts what has come in, sends results.

``csfd receive`` runs it. SIGINT and SIGTERM let who is sending finish for some seconds.
"""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Final

from csfd_core.errors import CsfdError, SettingsError
from csfd_core.network.callers import require_known_callers
from csfd_core.network.commitment import take_report
from csfd_core.network.receiver import Receiver, Say, TakeReport
from csfd_core.settings import DicomSettings
from csfd_core.web.delivery.peers import configured_endpoints
from csfd_core.web.reception.reception import Reception
from csfd_core.web.reception.watcher import watcher_of
from csfd_core.web.server import log_plainly
from csfd_core.web.services import Services

_TICK_S: Final = 1.0
_PAUSE_S: Final = 30.0  # of the outbox, after something went wrong
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger(__name__)


def run(settings: DicomSettings, say: Say, stop: threading.Event | None = None) -> None:
    """Receive until SIGINT or SIGTERM.

    Args:
        settings: Who may send, and where.
        say: Takes lines to show.
        stop: Ends it as well.

    Raises:
        SettingsError: If a setting cannot be used, or the port is taken.
    """
    require_known_callers(settings)
    configured_endpoints(settings.peers)
    ended = stop or threading.Event()
    services = Services.open()
    reception = Reception(services)
    receiver = _listen(reception, settings, say, partial(take_report, services))
    watcher = watcher_of(reception)
    outbox = threading.Thread(
        target=_work_outbox, args=(services, ended, say), daemon=True
    )
    for number in _SIGNALS:
        signal.signal(number, lambda *_: ended.set())
    receiver.start()
    watcher.start()
    outbox.start()
    say(
        f"The DICOM node {settings.ae_title} listens at {settings.host}, port "
        f"{receiver.port} (stop it with Ctrl+C)."
    )
    while not ended.wait(_TICK_S):
        receiver.tidy()
    receiver.stop()
    watcher.stop()
    outbox.join(timeout=1)
    say("The DICOM node has ended.")


def _listen(
    reception: Reception, settings: DicomSettings, say: Say, on_report: TakeReport
) -> Receiver:
    try:
        return Receiver(reception, settings, say, on_report)
    except OSError as error:
        raise SettingsError(
            f"The DICOM node cannot listen at port {settings.port} of {settings.host}: "
            f"{error.strerror}. Set CSFD_DICOM_PORT and CSFD_DICOM_HOST."
        ) from error


def _work_outbox(services: Services, ended: threading.Event, say: Say) -> None:
    """Send what is due until the end; nothing that fails here stops the receiver."""
    pause_s = _TICK_S
    work: Callable[[], object] | None = None
    while not ended.wait(pause_s):
        try:
            if work is None:
                from csfd_core.network.outbox import Outbox

                work = Outbox(services).work_once
            work()
            pause_s = _TICK_S
        except Exception as error:  # noqa: BLE001 - the receiver goes on, whatever it is
            say(f"The outbox goes on in {_PAUSE_S:.0f} s: {type(error).__name__}.")
            pause_s = _PAUSE_S


def be_discreet() -> None:
    """Let nothing that this process says repeat what came from outside."""
    log_plainly()
    warnings.simplefilter("ignore")  # those of pydicom repeat values
    threading.excepthook = _say_kind


def _say_kind(raised: threading.ExceptHookArgs) -> None:
    _log.error("a thread has ended: %s", raised.exc_type.__name__)


def main() -> int:
    """Run the node as the environment says; return the exit status."""
    be_discreet()
    try:
        run(DicomSettings.read(), _say)
    except CsfdError as error:
        sys.stderr.write(f"csfd: {error}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def leave(status: int) -> None:
    """End the process; a connection that hangs does not keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
