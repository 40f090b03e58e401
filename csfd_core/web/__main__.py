"""``python -m csfd_core.web``: serve the reports and pictures of CSFD_STORE."""

import sys

from csfd_core.errors import CsfdError
from csfd_core.settings import Settings
from csfd_core.store.locations import Location
from csfd_core.web.addresses import file_url, require_free_port
from csfd_core.web.files import serve_files


def main() -> int:
    """Serve until interrupted; return the exit status."""
    try:
        settings = Settings.read()
        require_free_port(settings.files_port, "Give another with CSFD_FILES_PORT.")
    except CsfdError as error:
        sys.stderr.write(f"csfd: {error}\n")
        return 1
    address = file_url(settings.files_port)
    sys.stdout.write(f"Reports of {settings.store}: {address} (stop with Ctrl+C)\n")
    sys.stdout.flush()
    serve_files(Location(settings.store), settings.files_port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
