"""What stands for a patient in a store: a digest that cannot be guessed.

A PatientID is short, and whoever knows its form can compute the digests of all there
are. So what is stored is keyed (HMAC, RFC 2104) with a secret that lies outside of the
store. Folds do not depend on the secret: a few digits are appended so that the keyed
digest falls into the fold, and into or out of the locked test set, where the plain one
falls. They are the same on every machine, and the same as before csfd had a secret.
What ``csfd_core.deid`` has written holds such a digest as its PatientID.
"""

import functools
import hmac
import itertools
import os
import secrets
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

from csfd_core.dicom.headers import (
    KEYED_PATIENT,
    PATIENT_KEY_LENGTH,
    SliceHeader,
)
from csfd_core.errors import SettingsError
from csfd_core.evaluation.folds import fold_of, is_test
from csfd_core.settings import Settings

_SECRET_BYTES: Final = 32


def private_headers(headers: tuple[SliceHeader, ...]) -> tuple[SliceHeader, ...]:
    """Return headers whose patients are told by keyed digests.

    Raises:
        SettingsError: If the secret can neither be read nor made.
    """
    if not any(header.patient_key for header in headers):
        return headers
    secret = own_secret()
    return tuple(
        replace(header, patient_key=keyed(header.patient_key, secret))
        if header.patient_key
        else header
        for header in headers
    )


def own_secret() -> bytes:
    """Return the secret of this installation; make it at first use.

    Raises:
        SettingsError: If it can neither be read nor made.
    """
    return read_secret(Settings.read().key_file)


@functools.lru_cache(maxsize=1024)  # all slices of a study have the same
def keyed(plain: str, secret: bytes) -> str:
    """Return the keyed digest of a patient.

    Args:
        plain: Digest of the PatientID, and behind it that of who has issued it; or the
            PatientID of a de-identified file, which holds what is returned.
        secret: From ``read_secret``.
    """
    if plain.startswith(KEYED_PATIENT):
        return plain.removeprefix(KEYED_PATIENT)
    # Patients without an issuer were folded by this before there was a secret.
    return keyed_as(plain[:PATIENT_KEY_LENGTH], plain, secret)


@functools.lru_cache(maxsize=1024)
def keyed_as(before: str, text: str, secret: bytes) -> str:
    """Return a keyed digest of a text in the fold where something else falls.

    Args:
        before: What falls into that fold, and into or out of the locked test set.
        text: What is digested.
        secret: From ``read_secret``.
    """
    digest = hmac.digest(secret, text.encode(), "sha256").hex()[:PATIENT_KEY_LENGTH]
    wanted = fold_of(before), is_test(before)
    candidates = (f"{digest}{number:02x}" for number in itertools.count())
    return next(key for key in candidates if (fold_of(key), is_test(key)) == wanted)


@functools.cache
def read_secret(path: Path) -> bytes:
    """Return the secret of this installation; make it at first use.

    Raises:
        SettingsError: If it can neither be read nor made, or is none.
    """
    try:
        if not path.exists():
            _make_secret(path)
        secret = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"The secret for the digests of patients cannot be read or made in {path}: "
            f"{error.strerror}. Name another file with CSFD_KEY_FILE."
        ) from error
    if len(secret) < _SECRET_BYTES:
        raise SettingsError(
            f"{path} holds {len(secret)} bytes and is no secret of csfd, which has "
            f"{_SECRET_BYTES}. Restore it, or name another file with CSFD_KEY_FILE."
        )
    return secret


def _make_secret(path: Path) -> None:
    """Write a new secret whole; of several processes at once, the first one counts."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
