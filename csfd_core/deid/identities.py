"""What stands for a study, a slice and a patient: digests with the secret of csfd.

The same study sent twice is the same study, and nothing can be guessed back: a plain
digest of a PatientID could be found by trying all there are.
"""

import hmac
from collections.abc import Mapping
from typing import Final

from csfd_core.dicom import tags
from csfd_core.dicom.headers import KEYED_PATIENT, patient_digest
from csfd_core.ingest.patients import keyed, keyed_as
from csfd_core.vocabulary import OWN_ROOT, is_uid, own_uid

_UID: Final = b"uid\0"
_REFERENCE: Final = b"reference\0"
_UID_BYTES: Final = 16


def keyed_uid(text: str, secret: bytes) -> str:
    """Return the UID that stands for another one (PS3.5 section B.2)."""
    digest = hmac.digest(secret, _UID + text.encode(), "sha256")[:_UID_BYTES]
    return f"{OWN_ROOT}{int.from_bytes(digest, 'big')}"


def reference_digest(text: str, secret: bytes) -> str:
    """Return what a study is searched by: of its UID, accession number or PatientID.

    Capitals and the spaces around it do not count.
    """
    plain = text.strip(" \0\t\n").upper().encode(errors="replace")
    return hmac.digest(secret, _REFERENCE + plain, "sha256").hex()


def keyed_patient(values: Mapping[int, bytes], study_uid: str, secret: bytes) -> str:
    """Return the PatientID to write: it holds what csfd stores for the patient.

    A study that names no patient stands for its own, as it does in ``key_of``, in the
    fold where its own UID falls.

    Args:
        values: Of the file, raw.
        study_uid: Of the file, valid.
        secret: Of this installation.
    """
    plain = patient_digest(values)
    if plain is None:
        return KEYED_PATIENT + keyed_as(study_uid, f"study {study_uid}", secret)
    return KEYED_PATIENT + keyed(plain, secret)


def uid_of(values: Mapping[int, bytes], tag: int) -> str | None:
    """Return a UID of a file, ``None`` where it is absent or none at all."""
    text = own_uid(values.get(tag, b"").decode("ascii", "replace").strip(" \0"))
    return text if is_uid(text) else None


def study_uid_of(values: Mapping[int, bytes]) -> str | None:
    """Return the StudyInstanceUID; ``None`` where there is none that is valid."""
    return uid_of(values, tags.STUDY_INSTANCE_UID)
