"""The ``csfd`` command as users start it."""

import os
import subprocess
import sys
from pathlib import Path

CSFD = Path(sys.executable).with_name("csfd")


def csfd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, on a wide terminal."""
    return subprocess.run(
        [str(CSFD), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=280,  # less than a test may take
    )
