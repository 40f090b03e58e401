"""``python -m csfd_core.web.server``: the reader's page in a process of its own.

``csfd serve`` starts it. SIGTERM lets it finish the requests that it has.
"""

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Final

from csfd_core.errors import CsfdError, SettingsError
from csfd_core.settings import WebSettings
from csfd_core.web.addresses import is_loopback

if TYPE_CHECKING:
    from types import TracebackType

    _Raised = tuple[type[BaseException], BaseException, TracebackType | None]
    _ExcInfo = _Raised | tuple[None, None, None]

GRACE_S: Final = 8  # for requests that are under way when it is told to stop
_IDLE_S: Final = 30  # a connection without a request
_HEADERS_BYTES: Final = 32 * 2**10  # of one request
_CONNECTIONS: Final = 512
_BACKLOG: Final = 256
_PLACES: Final = 5  # of an error, the innermost ones


def require_safe_host(web: WebSettings) -> None:
    """Require that nobody can read along with what is sent.

    Raises:
        SettingsError: If other machines can reach the page, and no TLS is in front.
    """
    if is_loopback(web.host) or web.behind_tls:
        return
    raise SettingsError(
        f"Other machines reach the page at {web.host}, and passwords and images would "
        "go to them unencrypted. Put a proxy that speaks TLS in front and set "
        "CSFD_WEB_BEHIND_TLS=1, or listen at 127.0.0.1."
    )


def url_of(web: WebSettings) -> str:
    """Return where the page is on this machine."""
    host = f"[{web.host}]" if ":" in web.host else web.host
    return f"http://{host}:{web.port}/"


class PlainFormatter(logging.Formatter):
    """Tells of an error its kind and where it happened, never what it says.

    What it says may hold a file's name or a header's value.
    """

    def formatException(self, ei: "_ExcInfo") -> str:  # noqa: N802 - logging's name
        """Return the kind of an error and the places that it came through."""
        kind, _, trace = ei
        frames = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(trace)]
        name = "error" if kind is None else kind.__name__
        return f"{name} at {' > '.join(frames[-_PLACES:])}"


def main() -> int:
    """Serve until told to stop; return the exit status."""
    try:
        web = WebSettings.read()
        require_safe_host(web)
        _serve(web)
    except CsfdError as error:
        sys.stderr.write(f"csfd: {error}\n")
        return 1
    return 0


def _serve(web: WebSettings) -> None:
    import uvicorn

    from csfd_core.web.app import build_app
    from csfd_core.web.services import Services

    log_plainly()
    config = uvicorn.Config(
        build_app(Services.open()),
        host=web.host,
        port=web.port,
        http="h11",
        ws="none",
        h11_max_incomplete_event_size=_HEADERS_BYTES,
        proxy_headers=True,
        forwarded_allow_ips=web.trusted_proxies,
        server_header=False,
        access_log=False,
        log_config=None,
        backlog=_BACKLOG,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    uvicorn.Server(config).run()


def log_plainly() -> None:
    """Let what this process logs repeat nothing that came from outside."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


if __name__ == "__main__":
    sys.exit(main())
