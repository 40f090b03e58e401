"""What fsspec opens, and how patient it is on the way to S3."""

import os
from typing import Any, Final

import fsspec

# Waits of up to 1, 2, 4 and 8 s: a server that restarts is waited for, one that is away
# is reported soon. On a cluster nobody waits for the report: AWS's variable says how
# often else (the longest wait is 20 s).
_ATTEMPTS: Final = "5"
# s3fs tries again around botocore, for answers that break off while they are read:
# enough for three breaks of one answer. Each more multiplies the waits of botocore.
_S3FS_ATTEMPTS: Final = 4


def open_filesystem(url: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """Open what a path or URL lies on.

    Raises:
        ValueError: If there is nothing of that name.
        ImportError: If it needs a package that is not there.
    """
    protocol = url.split("://", 1)[0] if "://" in url else "file"
    options = _s3_options() if protocol == "s3" else {}
    filesystem = fsspec.filesystem(protocol, **options)
    filesystem.retries = _S3FS_ATTEMPTS  # others do not read it
    return filesystem


def _s3_options() -> dict[str, Any]:
    wanted = os.environ.get("AWS_MAX_ATTEMPTS", "")
    attempts = int(wanted if wanted.isdecimal() and int(wanted) else _ATTEMPTS)
    return {
        "config_kwargs": {
            "retries": {"total_max_attempts": attempts, "mode": "standard"},
            "connect_timeout": 10,
            "read_timeout": 60,
        },
        # Another process may have written since this one listed.
        "use_listings_cache": False,
    }
