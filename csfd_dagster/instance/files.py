"""The files that Dagster is started with, as they come with csfd.

Those at the root of a clone are copies of them, for whoever starts Dagster there by
hand (``tests/test_install.py`` compares them).
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

INSTANCE: Final = "dagster.yaml"
WORKSPACE: Final = "workspace.yaml"


def lay_instance(home: Path) -> None:
    """Make a folder the home of a Dagster instance; what is there stays as it is."""
    home.mkdir(parents=True, exist_ok=True)
    target = home / INSTANCE
    if not target.exists():
        target.write_bytes(files(__package__).joinpath(INSTANCE).read_bytes())


def workspace_file() -> Path:
    """Return the workspace: the definitions of csfd."""
    return Path(__file__).with_name(WORKSPACE)
