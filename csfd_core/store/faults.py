"""What goes wrong with files and on the way to them, as one error of our own."""

import errno
import os

from csfd_core.errors import SourceError


class as_source_error:  # noqa: N801 - used like a function
    """Turn operating-system and network errors into ``SourceError``."""

    def __init__(self, where: str) -> None:
        """Take the place as it may be shown."""
        self._where = where

    def __enter__(self) -> None:
        """Do nothing."""
        return

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """Raise what was seen in a sentence."""
        if isinstance(error, OSError) or _is_botocore(error):
            raise SourceError(
                f"Cannot access {self._where}: {_reason(error)}. Check that it exists, "
                "that you may access it and, for s3://, the AWS_* variables."
            ) from error


def _reason(error: BaseException | None) -> str:
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)  # s3fs says a path only
    text = getattr(error, "strerror", None) or str(error).rstrip(".")
    return text or type(error).__name__


def _is_botocore(error: BaseException | None) -> bool:
    return error is not None and type(error).__module__.startswith(
        ("botocore", "aiobotocore", "aiohttp")
    )
