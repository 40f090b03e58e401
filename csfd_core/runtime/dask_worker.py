"""What a Dask worker does for csfd: it looks whether it fits, then it works.

A worker has its own environment. What would make it give other results, or put them
where nobody looks, is looked at before its first call; a worker may join at any time,
so every call brings what is expected along.
"""

import functools
import hashlib
import pickle
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from csfd_core.errors import SettingsError, UnfitWorkerError
from csfd_core.settings import Settings, take_over

CSFD: Final = "csfd"
CODE: Final = "code of csfd"
# What decides over bytes or numbers: decoders, encoders, arithmetic.
_PACKAGES: Final = (
    CSFD,
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pillow",
    "pydicom",
    "imagecodecs",
    "keras",
    "tensorflow",
    "distributed",
)
_met: set["Terms"] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a client expects of every worker that works for it.

    Attributes:
        version: Of csfd.
        secret: SHA-256 of the secret for the digests of patients; "" where none is
            needed.
        mark: A file in the store that a worker must see; "" where the store is no
            folder.
        limits: Values of the settings that say what is refused unread, by variable;
            ``None``: the default.
    """

    version: str
    secret: str = ""
    mark: str = ""
    limits: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What a worker says of itself."""

    versions: dict[str, str]
    refusal: str  # why it cannot work for the client; "" if it can


@functools.cache
def own_versions() -> dict[str, str]:
    """Return what this process runs with: Python, packages and the code of csfd."""
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return {**versions, CODE: _code_digest()}


def report(terms: Terms) -> WorkerReport:
    """Say what this worker runs with, and whether it fits."""
    return WorkerReport(versions=dict(own_versions()), refusal=_refusal(terms))


def run_call(terms: Terms, payload: bytes) -> Any:  # noqa: ANN401 - of any function
    """Make a call that was pickled: neither scheduler nor an unfit worker opens it.

    Raises:
        UnfitWorkerError: If this worker does not fit.
    """
    if told := _refusal(terms):
        raise UnfitWorkerError(told)
    take_over(terms.limits)
    call, args, kwargs = pickle.loads(payload)  # noqa: S301 - from the client
    return call(*args, **kwargs)


def pack(call: Callable[..., Any], *args: Any, **kwargs: Any) -> bytes:  # noqa: ANN401
    """Return a call as ``run_call`` takes it."""
    return pickle.dumps((call, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)


def is_in_a_task() -> bool:
    """Say whether a Dask worker is making the call that this is part of.

    What it would hand on would wait for a worker, and perhaps for itself.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def _refusal(terms: Terms) -> str:
    """Say why this worker does not fit; one that has once fitted is not asked again."""
    if terms in _met:
        return ""
    told = _look(terms)
    if not told:
        _met.clear()  # of clients that are gone; the others ask once more
        _met.add(terms)
    return told


def _look(terms: Terms) -> str:
    installed = own_versions()[CSFD]
    if installed != terms.version:
        return (
            f"it has csfd {installed} instead of {terms.version}. Install the same "
            "csfd there, and start it again."
        )
    if terms.secret and terms.secret != _secret_digest():
        return (
            "it has another secret for the digests of patients, so that one patient "
            "would be two. Give it the same file, and name it with CSFD_KEY_FILE."
        )
    if terms.mark and not Path(terms.mark).exists():
        return (
            f"it does not see the store {Path(terms.mark).parent}. Workers on other "
            "machines need a shared folder under the same name, or a store on s3://."
        )
    return ""


def _secret_digest() -> str:
    try:
        return hashlib.sha256(Settings.read().key_file.read_bytes()).hexdigest()
    except (OSError, SettingsError):
        return "none"


def _code_digest() -> str:
    """Identify the modules of this package: two clones may have one version."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
