"""Settings of one deployment, from environment variables, read on use.

Nothing is read when this module is imported.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent
_DATA: Final = PROJECT_ROOT / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where data come from and go to; each a folder or an ``s3://`` URL."""

    source: str  # CSFD_SOURCE: studies in the RSNA layout
    inbox: str  # CSFD_INBOX: newly read studies, in the same layout
    store: str  # CSFD_STORE: everything that csfd writes
    dagster_home: str  # DAGSTER_HOME: Dagster's own state
    mlflow_tracking_uri: str  # MLFLOW_TRACKING_URI: sqlite:///file or a server's URL
    files_port: int  # CSFD_FILES_PORT: where `csfd ui` serves reports and pictures

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read the settings; each has a default below the project's folder."""
        values = os.environ if environment is None else environment
        return cls(
            source=values.get("CSFD_SOURCE") or str(_DATA / "source"),
            inbox=values.get("CSFD_INBOX") or str(_DATA / "inbox"),
            store=values.get("CSFD_STORE") or str(_DATA / "store"),
            dagster_home=values.get("DAGSTER_HOME") or str(PROJECT_ROOT / ".dagster"),
            mlflow_tracking_uri=values.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{_DATA / 'mlflow.db'}",
            files_port=int(values.get("CSFD_FILES_PORT") or 3001),
        )


def lock_file() -> Path:
    """Return where the versions of everything that csfd uses are pinned."""
    return PROJECT_ROOT / "requirements.lock"


def lock_digest() -> str | None:
    """Return the SHA-256 of the lock file; ``None`` where csfd runs without one."""
    lock = lock_file()
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None
