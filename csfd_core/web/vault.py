"""How a study was called by its sender, kept sealed: results must find their patient.

Everything that csfd stores is de-identified. What goes back to an archive has to name
the patient and the study again, or it would be a second patient there. So the patient
and study attributes of studies that came over the network, and the UIDs of their
images, are kept apart: encrypted (AES-256-GCM, NIST SP 800-38D) with a key that lies
outside of the database, opened in memory alone and by the outbox alone, and forgotten
after some days or with the study.
"""

import base64
import io
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian

from csfd_core.deid.deidentify import Deidentified, quiet
from csfd_core.deid.writing import Encoder
from csfd_core.dicom import tags
from csfd_core.errors import StoreError
from csfd_core.settings import DicomSettings
from csfd_core.web.database import vault as table

_CHARACTER_SET: Final = 0x0008_0005
_FRAME_OF_REFERENCE: Final = 0x0020_0052
# What is kept of patient and study, with the VR of each (PS3.3 C.7.1.1, C.7.2.1).
_KEPT: Final = {
    _CHARACTER_SET: b"CS",
    0x0008_0020: b"DA",  # StudyDate
    0x0008_0030: b"TM",  # StudyTime
    0x0008_0050: b"SH",  # AccessionNumber
    0x0008_0090: b"PN",  # ReferringPhysicianName
    0x0008_1030: b"LO",  # StudyDescription
    0x0010_0010: b"PN",  # PatientName
    tags.PATIENT_ID: b"LO",
    tags.ISSUER_OF_PATIENT_ID: b"LO",
    0x0010_0030: b"DA",  # PatientBirthDate
    0x0010_0040: b"CS",  # PatientSex
    0x0020_0010: b"SH",  # StudyID
}
_UIDS: Final = (
    tags.STUDY_INSTANCE_UID,
    tags.SERIES_INSTANCE_UID,
    tags.SOP_INSTANCE_UID,
    _FRAME_OF_REFERENCE,
)
# What the de-identification says of itself; not true of what names its patient.
_SAID_OF_REMOVAL: Final = (0x0012_0062, 0x0012_0063, 0x0012_0064, 0x0028_0303)
_WITHOUT_NUMBER: Final = (0x0010_0010, 0x0010_0030)  # PatientName, PatientBirthDate
_LONGEST: Final = 1024  # bytes: 64 characters of three groups, of several bytes each
_LONGEST_UID: Final = 128  # bytes; more than the standard allows, as some devices do
_NONCE_BYTES: Final = 12  # NIST SP 800-38D section 8.2.2, at random
_DAY_S: Final = 86400


class Original(BaseModel):
    """How one image, its study and its patient were called by the sender.

    Attributes:
        study_uid: Keyed StudyInstanceUID, by which csfd knows the study.
        elements: Raw values of patient and study by tag, in base 64.
        uids: The sender's UIDs of study, series, image and frame of reference by the
            keyed ones.
        sop_uid: Keyed SOPInstanceUID.
    """

    model_config = ConfigDict(frozen=True)

    study_uid: str
    elements: dict[int, str]
    uids: dict[str, str]
    sop_uid: str = ""


class _Record(BaseModel):
    """What is kept of a study."""

    elements: dict[int, str] = Field(default_factory=dict)
    uids: dict[str, str] = Field(default_factory=dict)
    patients: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # by image
    is_certain: bool = True  # all images name one patient, as they came last


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """How a study is called by its sender. Only ever in memory.

    Attributes:
        patient_and_study: The sender's attributes, with their character set.
        uids: The sender's UIDs by the keyed ones.
        is_certain: Whether all of its images name the same patient.
    """

    patient_and_study: Dataset
    uids: dict[str, str]
    is_certain: bool

    def __repr__(self) -> str:
        """Say nothing of it, as a traceback might show it."""
        return "StudyIdentity(...)"


def original_of(raw: bytes, keyed: Deidentified) -> Original:
    """Return how a file that was de-identified is called by its sender.

    Args:
        raw: The whole file as it came.
        keyed: What ``deidentify`` has made of it.
    """
    raw_values, keyed_values = _values(raw), _values(keyed.content)
    uids = {
        _text(keyed_values[tag]): _text(raw_values[tag])
        for tag in _UIDS
        if _text(raw_values.get(tag, b"")) and _text(keyed_values.get(tag, b""))
    }
    return Original(
        study_uid=keyed.study_uid,
        elements={
            tag: base64.b64encode(raw_values[tag]).decode()
            for tag in _KEPT
            if 0 < len(raw_values.get(tag, b"")) <= _LONGEST
        },
        uids=uids,
        sop_uid=keyed.sop_uid,
    )


class Vault:
    """Seals, keeps and opens what senders call their studies."""

    def __init__(self, key: bytes, days: int) -> None:
        """Take the key.

        Args:
            key: 32 bytes.
            days: After which a study is forgotten.
        """
        self._cipher = AESGCM(key)
        self._days = days

    @classmethod
    def open(cls, settings: DicomSettings) -> "Vault | None":
        """Return the vault; ``None`` where no key is set."""
        if not settings.vault_key:
            return None
        return cls(bytes.fromhex(settings.vault_key), settings.vault_days)

    def seal(self, original: Original) -> bytes:
        """Return an original that only this vault can read."""
        return self._seal(original, original.study_uid)

    def unseal(self, sealed: bytes, study_uid: str) -> Original | None:
        """Return a sealed original; ``None`` where it is damaged or of another key.

        Args:
            sealed: By ``seal``.
            study_uid: Keyed; what was sealed for another study is not opened.
        """
        content = self._unseal(sealed, study_uid)
        if content is None:
            return None
        try:
            return Original.model_validate_json(content)
        except ValidationError:
            return None

    def keep(
        self, connection: sa.Connection, study_uid: str, sealed: Sequence[bytes]
    ) -> None:
        """Add to what is kept of a study; what was said last counts.

        Args:
            connection: Of the transaction that accepts the study.
            study_uid: Keyed.
            sealed: Of the images that have come. What cannot be opened is left out.
        """
        opened = [self.unseal(one, study_uid) for one in sealed]
        originals = [one for one in opened if one is not None]
        if not originals:
            return
        earlier = self._record(connection, study_uid) or _Record()
        patients = {
            **earlier.patients,
            **{one.sop_uid: _patient(one.elements) for one in originals},
        }
        record = _Record(
            elements=originals[-1].elements,
            uids=dict(earlier.uids),
            patients=patients,
            is_certain=len(set(patients.values())) == 1,
        )
        for one in originals:
            record.uids.update(one.uids)
        values = {
            "sealed": self._seal(record, study_uid),
            "expires_at": time.time() + self._days * _DAY_S,
        }
        same = table.c.study_uid == study_uid
        changed = connection.execute(table.update().where(same).values(**values))
        if not changed.rowcount:
            connection.execute(table.insert().values(study_uid=study_uid, **values))

    def read(self, connection: sa.Connection, study_uid: str) -> StudyIdentity | None:
        """Return how a study is called by its sender; ``None`` where it is not kept.

        Raises:
            StoreError: If it was sealed with another key.
        """
        record = self._record(connection, study_uid)
        if record is None:
            if has_identity(connection, study_uid):
                raise StoreError(
                    "The vault cannot be opened with this CSFD_VAULT_KEY: set the key "
                    "that was set when the study came, or let it be sent again."
                )
            return None
        return StudyIdentity(
            patient_and_study=_dataset(record.elements),
            uids=record.uids,
            is_certain=record.is_certain,
        )

    @staticmethod
    def forget_expired(connection: sa.Connection) -> int:
        """Forget what was kept long enough; return of how many studies."""
        old = table.c.expires_at <= time.time()
        return connection.execute(table.delete().where(old)).rowcount

    def _record(self, connection: sa.Connection, study_uid: str) -> _Record | None:
        sealed = connection.scalar(sa.select(table.c.sealed).where(_is_kept(study_uid)))
        content = None if sealed is None else self._unseal(sealed, study_uid)
        if content is None:
            return None
        try:
            return _Record.model_validate_json(content)
        except ValidationError:
            return None

    def _seal(self, model: BaseModel, study_uid: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        content = zlib.compress(model.model_dump_json().encode())
        return nonce + self._cipher.encrypt(nonce, content, study_uid.encode())

    def _unseal(self, sealed: bytes, study_uid: str) -> bytes | None:
        nonce, content = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return zlib.decompress(
                self._cipher.decrypt(nonce, content, study_uid.encode())
            )
        except (InvalidTag, ValueError, zlib.error):
            return None


def has_identity(connection: sa.Connection, study_uid: str) -> bool:
    """Say whether the vault keeps how a study is called; without opening it."""
    identity = sa.select(table.c.study_uid).where(_is_kept(study_uid))
    return connection.scalar(identity) is not None


def forget_identities(connection: sa.Connection, study_uids: Iterable[str]) -> int:
    """Forget studies, as when they are withdrawn; return how many there were."""
    uids = list(study_uids)
    gone = table.delete().where(table.c.study_uid.in_(uids))
    return connection.execute(gone).rowcount


def with_identity(headers: Sequence[Dataset], identity: StudyIdentity) -> list[Dataset]:
    """Return de-identified headers as the sender had them.

    Args:
        headers: Of files that csfd has de-identified, without pixels.
        identity: Of their study.

    Raises:
        StoreError: If the sender's UID of one of them is not known.
    """
    return [_renamed(header, identity) for header in headers]


def _renamed(header: Dataset, identity: StudyIdentity) -> Dataset:
    renamed = Dataset()
    renamed.update(header)
    for tag in (*_SAID_OF_REMOVAL, *_KEPT):
        if tag in renamed and tag != tags.PATIENT_ID:
            del renamed[tag]
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(renamed, keyword, "")  # type 2: there, and empty where not known
    for keyword in ("ReferringPhysicianName", "PatientName", "PatientID"):
        setattr(renamed, keyword, "")
    renamed.PatientBirthDate = renamed.PatientSex = ""
    renamed.update(identity.patient_and_study)
    for tag in _UIDS:
        keyed = str(renamed[tag].value) if tag in renamed else ""
        if keyed in identity.uids:
            renamed[tag] = DataElement(
                tag, "UI", identity.uids[keyed], validation_mode=IGNORE
            )
        elif tag in (tags.STUDY_INSTANCE_UID, tags.SOP_INSTANCE_UID):
            raise StoreError(
                "The vault does not know every image of this study: let its sender "
                "send it again."
            )
    return renamed


def _patient(elements: dict[int, str]) -> tuple[str, ...]:
    """Return what tells patients apart, without padding: name and birth, if need be."""

    def texts(*wanted: int) -> tuple[str, ...]:
        raw = [base64.b64decode(elements.get(tag, "")) for tag in wanted]
        return tuple(value.strip(b" \0").decode("latin-1") for value in raw)

    number, issuer = texts(tags.PATIENT_ID, tags.ISSUER_OF_PATIENT_ID)
    return (number, issuer) if number else texts(*_WITHOUT_NUMBER)


def _is_kept(study_uid: str) -> sa.ColumnElement[bool]:
    return (table.c.study_uid == study_uid) & (table.c.expires_at > time.time())


def _values(raw: bytes) -> dict[int, bytes]:
    """Return the raw values of patient, study and identity of a file."""
    wanted = [*_KEPT, *_UIDS]
    with quiet():
        dataset = dcmread(
            io.BytesIO(raw), force=True, stop_before_pixels=True, specific_tags=wanted
        )
        values: dict[int, bytes] = {}
        for tag in wanted:
            value = dataset.get_item(tag).value if tag in dataset else None
            if isinstance(value, bytes):
                values[tag] = value
            elif tag == _CHARACTER_SET and value:  # pydicom decodes it at once
                words = [value] if isinstance(value, str) else map(str, value)
                values[tag] = "\\".join(words).encode("ascii", "replace")
    return values


def _dataset(elements: dict[int, str]) -> Dataset:
    """Return raw values as elements that nobody has decoded: no name is harmed."""
    raw = {
        tag: (_KEPT[tag], base64.b64decode(value))
        for tag, value in elements.items()
        if tag in _KEPT
    }
    content = io.BytesIO(Encoder(ExplicitVRLittleEndian).elements(raw))
    with quiet():
        return read_dataset(content, is_implicit_VR=False, is_little_endian=True)


def _text(value: bytes) -> str:
    is_uid = len(value) <= _LONGEST_UID
    return value.decode("ascii", "replace").strip(" \0") if is_uid else ""
