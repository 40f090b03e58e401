"""Files that are written once: of several who write one at once, one alone succeeds.

On a disk the whole file gets its name by a link, which fails where the name is taken.
S3 takes a PUT on the condition that there is no such object (``If-None-Match: *``); AWS
does so since 2024, and SeaweedFS 4.48 was tried. A server that ignores the condition
would let all of them win.
"""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from csfd_core.store.atomic import writing

_NO_LINKS: Final = frozenset(
    (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
)
_EXISTS: Final = "PreconditionFailed"  # HTTP 412
_UNDECIDED: Final = "ConditionalRequestConflict"  # HTTP 409: another PUT is under way
_ATTEMPTS: Final = 8
_WAIT_S: Final = 0.05


def create_local(target: Path, content: bytes) -> bool:
    """Write a file on a disk unless it is there; say whether this has written it.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        with writing(target, _link) as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def create_remote(filesystem: Any, target: str, content: bytes) -> bool:  # noqa: ANN401 - fsspec has no types
    """Write an object unless it is there; say whether it has this content now.

    Where an answer is lost on its way, botocore asks again and is told that the object
    is there: so its content decides, which has to be that of one writer alone.

    Raises:
        OSError: If it cannot be written.
    """
    for attempt in range(_ATTEMPTS):
        try:
            filesystem.pipe_file(target, content, mode="create")
            return True
        except OSError as error:
            code = _code_of(error)
            is_there = code == _EXISTS or isinstance(error, FileExistsError)
            if not is_there and (code != _UNDECIDED or attempt == _ATTEMPTS - 1):
                raise
        if is_there:
            with suppress(FileNotFoundError):  # it is gone again
                return bool(filesystem.cat_file(target) == content)
        time.sleep(_WAIT_S * 2**attempt)
    return False


def _link(temporary: Path, target: Path) -> None:
    """Give a file its name, unless the name is taken."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A disk without links: the name is taken first, and then filled.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        temporary.replace(target)


def _code_of(error: OSError) -> str:
    """Return what S3 has answered; s3fs keeps it as the cause."""
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
